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

from runtime.commands import one_sentence_errors
from runtime.files import atomic_write
from runtime.geometry.cameras import Camera

from ..config import PRESETS, ModelConfig, network_width
from ..layers import conv3x3
from ..pipeline import WaveletTriplaneDiffusion
from .config import ConfigError, StageConfig, TrainConfig, load_config
from .data.pools import make_pool
from .figures import RunFigures
from .loop import StageLoop
from .optimizer import weight_matrices
from .stages import STAGES, Stages
from .teacher import Teacher

_SHOWN = 4
TEACHER_FILE = "teacher_network.safetensors"
_console = Console()


# What may change between two starts of a run: it says how it is watched and kept, not what it learns.
_FREE = ("save_every", "sample_every", "figures_every", "keep_targets")


def train(config: TrainConfig, folder: Path, device: torch.device) -> Path:
    """Runs all stages, or what is left of them.

    Args:
        config: of the run; must be the one that the folder was begun with, but for more steps.
        folder: keeps images, states, logs, samples, figures and checkpoints.
        device: cpu or cuda.

    Returns:
        Path of the final checkpoint, `folder / "model.safetensors"`.

    Raises:
        DataError: the configured data set cannot be read.
        ConfigError: the folder holds a run with another configuration, or `init` is of other sizes.
        CheckpointError: `init` or `teacher_init` cannot be read.
        TrainingError: a loss became NaN or infinite.
    """
    _claim(config, folder)
    torch.manual_seed(config.seed)
    sizes = PRESETS[config.preset]
    sizes = replace(sizes, density_bias=config.density_bias, resolution=config.resolution or sizes.resolution)
    if config.init:
        model = _initial(config.init, sizes, fresh_planes=bool(config.teacher.steps and not config.teacher_init))
    else:
        model = WaveletTriplaneDiffusion.from_config(sizes)
    model.to(device)
    pool = make_pool(config.source, folder / "pictures", sizes.image_size, 2 * sizes.resolution)
    stages = Stages(config, model, _teacher(config, sizes, folder, device), pool, folder)
    figures = RunFigures(stages, folder, config.validation) if config.figures_every else None
    for name in STAGES:
        stage: StageConfig = getattr(config, name)
        done = folder / f"{name}.safetensors"
        if stage.steps == 0:
            continue
        if done.exists():
            finished = WaveletTriplaneDiffusion.load(done)
            if finished.notes["steps"][name] >= stage.steps:
                model.load_state_dict(finished.state_dict())
                model.notes = finished.notes
                continue
        # A stage that trains makes what came after it worthless, if anything did before it was lengthened.
        for later in STAGES[STAGES.index(name) + 1 :]:
            for ending in ("safetensors", "state"):
                (folder / f"{later}.{ending}").unlink(missing_ok=True)
        loop = StageLoop(
            name,
            config,
            stage,
            folder,
            stages.parameters(name),
            getattr(stages, name),
            weight_matrices(stages.teacher_network if name == "teacher" else model),
            lambda step, name=name: _sample(stages, folder / "samples" / f"{name}_{step:06d}.png", name),  # type: ignore[misc]
            None if figures is None else lambda step, name=name: _progress(stages, figures, folder, name, step),  # type: ignore[misc]
        )
        speed = loop.run()
        model.notes.setdefault("speed", {})[name] = speed
        model.notes.setdefault("steps", {})[name] = stage.steps
        if name == "teacher":
            # As the next stages read it, so that a run that is stopped after this goes on with the same teacher.
            stages.teacher_network.save(folder / TEACHER_FILE)
            stages.teacher_network.load_state_dict(Teacher.load(folder / TEACHER_FILE).state_dict())
            stages.learn_from_teacher()
        _sample(stages, folder / "samples" / f"{name}.png", name)
        if figures is not None:
            figures.measure(name, stage.steps)
        model.save(done)
        line = "  ".join(f"{key} {value:.4g}" for key, value in speed.items())
        _console.print(f"{name}: {line}", soft_wrap=True, highlight=False)
    final = folder / "model.safetensors"
    model.notes["training"] = asdict(config)
    model.notes["inactive_units"] = stages.prune_decoder()
    model.notes["surface_logit"] = stages.surface_logit()
    model.save(final, trained=True)
    return final


def _teacher(config: TrainConfig, sizes: ModelConfig, folder: Path, device: torch.device) -> Teacher | None:
    """The run's teacher: that of its folder, of `teacher_init`, or a fresh one; None where none is trained or given."""
    path = folder / TEACHER_FILE
    if not path.exists() and config.teacher_init:
        path = Path(config.teacher_init)
    if path.exists() or config.teacher_init:
        teacher = Teacher.load(path)
        if (teacher.sizes["channels"], teacher.sizes["resolution"]) != (sizes.triplane_channels, sizes.resolution):
            raise ConfigError(f"{path} is a teacher of other sizes: {teacher.sizes}.")
        return teacher.to(device)
    if not config.teacher.steps:
        return None
    return Teacher(sizes.triplane_channels, sizes.resolution, sizes.hidden_dim, sizes.density_bias).to(device)


def _progress(stages: Stages, figures: RunFigures, folder: Path, stage: str, step: int) -> None:
    """Measures, and keeps the averaged weights of the moment, which `init` and `teacher_init` take."""
    figures.measure(stage, step)
    if stage == "teacher":
        stages.learn_from_teacher()
    stages.model.save(folder / "latest.safetensors", half=True)
    if stage == "teacher":
        stages.teacher_network.save(folder / f"latest_{TEACHER_FILE}")


def _initial(path: str, sizes: ModelConfig, fresh_planes: bool) -> WaveletTriplaneDiffusion:
    model = WaveletTriplaneDiffusion.load(path)
    if replace(model.config, density_bias=sizes.density_bias) != sizes:
        raise ConfigError(f"{path} has {model.config}, the configuration asks for {sizes}: change preset or init.")
    model.notes = {"trained": False, "init": {"file": Path(path).name, "notes": model.notes}}
    if fresh_planes:
        # A new teacher brings planes of its own: what wrote the old ones is of no use.
        model.coarse_gen.out[-1] = conv3x3(network_width(sizes.triplane_channels), sizes.triplane_channels)
    return model


def _claim(config: TrainConfig, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    values = json.loads(json.dumps(asdict(config)))
    begun = any(folder.glob("*.state")) or any(folder.glob("*.safetensors"))
    if path.exists() and begun:
        before = json.loads(path.read_text())
        lengthened = all(before.get(s, {}).get("steps", 0) <= values[s]["steps"] for s in STAGES)
        # What a newer version asks for has its default in an older one's file.
        defaults = json.loads(json.dumps(asdict(TrainConfig())))
        free = {name: values[name] for name in _FREE}
        stages = {s: {**values[s], **before.get(s, {}), "steps": values[s]["steps"]} for s in STAGES}
        kept = {**defaults, **before, **free, **stages}
        if kept != values or not lengthened:
            raise ConfigError(
                f"{folder} holds a run with another configuration: name another folder, or remove it. Only more steps "
                "may be asked for."
            )
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(values, indent=1))


def _sample(stages: Stages, path: Path, stage: str) -> None:
    """A contact sheet of some training objects: the input, and the reconstruction from the front and from behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    chosen = np.linspace(0, len(stages.pool) - 1, min(_SHOWN, len(stages.pool))).astype(int)
    if stage == "teacher":
        renderer, triplanes = stages.teacher_network.renderer, stages.model.reconstruct_planes(*stages.targets(chosen))
    else:
        renderer = stages.model.renderer
        triplanes = stages.reconstructions(chosen, details=stage in ("detail", "joint"))
    images = stages.pool.images(chosen)
    size = 64
    rows = [torch.nn.functional.interpolate((images + 1) / 2, size=(size, size), mode="area")]
    with torch.no_grad():
        rows += [renderer.render_volume(triplanes, 32, size, Camera.orbit(azimuth)).cpu() for azimuth in (0, 60, 180)]
    sheet = torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1).clamp(0, 1)
    Image.fromarray((sheet.permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8)).save(path)


def _device(name: str) -> torch.device:
    """The device of that name; "" takes a GPU where there is one. Raises `ConfigError` where it cannot be used."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {name} cannot be used ({reason}): give cpu or cuda.") from None
    return device


@one_sentence_errors()
def main(
    config: Annotated[Path | None, typer.Option(help="TOML file; the small preset's defaults if left out.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/small"),
    device: Annotated[str, typer.Option(help="cpu or cuda; cuda where there is one by default.")] = "",
) -> None:
    """Trains a model, or goes on with a run that was stopped."""
    settings = TrainConfig() if config is None else load_config(config)
    chosen = _device(device)
    final = train(settings, out, chosen)
    typer.echo(
        f"Wrote {final}. Make it a bundle with: python export/to_onnx.py --checkpoint {final} --out {out}/bundle"
    )


if __name__ == "__main__":
    typer.run(main)
