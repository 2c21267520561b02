"""Nothing to a checkpoint to a bundle: `python -m model.training.train [--config FILE] [--out DIR]`.

A run that was stopped goes on from its last checkpoint when the same command is given again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console

from runtime.cameras import Camera

from ..checkpoint import CheckpointError
from ..config import PRESETS, ModelConfig
from ..pipeline import WaveletTriplaneDiffusion
from .config import ConfigError, TrainConfig, load_config
from .data import ObjectPool, Pool, PosedPool
from .loop import StageLoop, TrainingError
from .optimizer import weight_matrices
from .posed import DataError
from .stages import Stages

STAGES = ("fit", "coarse", "detail", "joint")
_SHOWN = 4
_console = Console()


def train(config: TrainConfig, folder: Path, device: torch.device) -> Path:
    """Runs all stages, or what is left of them.

    Args:
        config: of the run; must be the one that the folder was begun with.
        folder: keeps pictures, states, logs, samples and checkpoints.
        device: cpu or cuda.

    Returns:
        Path of the final checkpoint, `folder / "model.safetensors"`.

    Raises:
        DataError: the configured data set cannot be read.
        ConfigError: the folder holds a run with another configuration, or `init` is of other sizes.
        CheckpointError: `init` cannot be read.
        TrainingError: a loss became NaN or infinite.
    """
    _claim(config, folder)
    torch.manual_seed(config.seed)
    sizes = PRESETS[config.preset]
    sizes = replace(sizes, density_bias=config.density_bias, resolution=config.resolution or sizes.resolution)
    model = (_initial(config.init, sizes) if config.init else WaveletTriplaneDiffusion.from_config(sizes)).to(device)
    pool: Pool
    if config.data:
        pool = PosedPool(Path(config.data), sizes.image_size, config.data_scale, device)
    else:
        pool = ObjectPool(folder / "pictures", config.first_seed, config.objects, sizes.image_size, device)
    stages = Stages(config, model, pool, folder)
    for name in STAGES:
        if getattr(config, name).steps == 0:
            continue
        if name == "detail":
            stages.fit_details()
        done = folder / f"{name}.safetensors"
        if done.exists():
            finished = WaveletTriplaneDiffusion.load(done)
            model.load_state_dict(finished.state_dict())
            model.notes = finished.notes
            continue
        loop = StageLoop(
            name,
            config,
            getattr(config, name),
            folder,
            stages.parameters(name),
            getattr(stages, name),
            # The planes' learning rate in the first stage is far too high for Muon.
            () if name == "fit" else weight_matrices(model),
            lambda step, name=name: _sample(stages, folder / "samples" / f"{name}_{step:06d}.png", name),  # type: ignore[misc]
        )
        figures = loop.run()
        model.notes.setdefault("speed", {})[name] = figures
        if name == "fit":
            stages.set_statistics_from_fit()
        _sample(stages, folder / "samples" / f"{name}.png", name)
        model.save(done)
        line = "  ".join(f"{key} {value:.4g}" for key, value in figures.items())
        _console.print(f"{name}: {line}", soft_wrap=True, highlight=False)
    final = folder / "model.safetensors"
    model.notes["training"] = asdict(config)
    model.notes["silent_units"] = stages.silence()
    model.save(final, trained=True)
    return final


def _initial(path: str, sizes: ModelConfig) -> WaveletTriplaneDiffusion:
    model = WaveletTriplaneDiffusion.load(path)
    if replace(model.config, density_bias=sizes.density_bias) != sizes:
        raise ConfigError(f"{path} has {model.config}, the configuration asks for {sizes}: change preset or init.")
    model.notes = {"trained": False, "init": {"file": Path(path).name, "notes": model.notes}}
    return model


def _claim(config: TrainConfig, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    text = json.dumps(asdict(config), indent=1)
    if path.exists() and path.read_text() != text:
        raise ConfigError(f"{folder} holds a run with another configuration: name another folder, or remove it.")
    path.write_text(text)


def _sample(stages: Stages, path: Path, stage: str) -> None:
    """A contact sheet of some training objects: the input, and the reconstruction from the front and from behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = min(_SHOWN, len(stages.pool))
    if stage == "fit":
        triplanes = stages.fitted.detach()[:count]
    else:
        triplanes = stages.reconstructions(range(count), details=stage in ("detail", "joint"))
    images, _ = stages.pool.batch(np.arange(count))
    size = 64
    rows = [torch.nn.functional.interpolate((images + 1) / 2, size=(size, size), mode="area")]
    with torch.no_grad():
        rows += [
            stages.model.renderer.render_volume(triplanes, 32, size, Camera.orbit(azimuth)) for azimuth in (0, 60, 180)
        ]
    sheet = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1).clamp(0, 1)
    Image.fromarray((sheet.permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8)).save(path)


def main(
    config: Annotated[Path | None, typer.Option(help="TOML file; the small preset's defaults if left out.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/small"),
    device: Annotated[str, typer.Option(help="cpu or cuda; cuda where there is one by default.")] = "",
) -> None:
    """Trains a model, or goes on with a run that was stopped."""
    try:
        settings = TrainConfig() if config is None else load_config(config)
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        final = train(settings, out, chosen)
    except (CheckpointError, ConfigError, DataError, TrainingError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(
        f"Wrote {final}. Make it a bundle with: python export/to_onnx.py --checkpoint {final} --out {out}/bundle"
    )


if __name__ == "__main__":
    typer.run(main)
