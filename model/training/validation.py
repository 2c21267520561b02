"""PSNR on objects that training never sees, to choose among checkpoints: `python -m model.training.validation FILE`.

Results that are reported come from `benchmarks/quality.py`, on other objects again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from torch import Tensor

from runtime.commands import one_sentence_errors
from runtime.geometry.cameras import Camera

from ..config import ModelConfig
from ..pipeline import WaveletTriplaneDiffusion
from ..renderer import TriplaneRenderer
from .config import VALIDATION_SEED, ConfigError
from .data.drawing import SolidCaster, draw_view, over_white
from .data.framing import cameras_around
from .data.pools import ObjectPool, Pool, PosedPool
from .data.posed import DataError, find_views, object_folders
from .procedural.objects import make_objects

_VIEWS, _SIZE, _SAMPLES = 2, 128, 64


@dataclass(frozen=True)
class ValidationSet:
    """N objects and two views of each that the input image does not show.

    Attributes:
        pool: of the objects.
        cameras: N times two.
        truth: (N, 2, 128, 128, 3) in [0, 1], over white.
    """

    pool: Pool
    cameras: list[list[Camera]]
    truth: Tensor

    def __len__(self) -> int:
        return len(self.cameras)

    def psnr(self, renderer: TriplaneRenderer, triplanes: Tensor) -> float:
        """The mean over views, in dB, of what the renderer draws of triplanes (N, 3, C, 2R, 2R) of these objects."""
        values = []
        with torch.no_grad():
            for planes, where, pictures in zip(triplanes, self.cameras, self.truth, strict=True):
                drawn = renderer.render_volume(planes.expand(len(where), -1, -1, -1, -1), _SAMPLES, _SIZE, where)
                errors = (drawn.permute(0, 2, 3, 1).cpu() - pictures).square().mean((1, 2, 3))
                values += (-10 * errors.log10()).tolist()
        return float(np.mean(values))


def validation_sets(config: ModelConfig, folder: Path, posed: str, objects: int) -> dict[str, ValidationSet]:
    """Validation objects by kind: "plain" and "textured" procedural ones, and "real" ones.

    Args:
        config: of the model, for the sizes of its input and its planes.
        folder: where the images of procedural objects are kept.
        posed: folder of posed views, evenly chosen from; "" for no real objects.
        objects: how many of each kind, at most.

    Raises:
        DataError: `posed` cannot be read, or holds too few views.
    """
    sizes = (config.image_size, 2 * config.resolution)
    sets = {}
    cameras = list(cameras_around())[:: 8 // _VIEWS]
    for kind in ("plain", "textured"):
        seeds = range(VALIDATION_SEED, VALIDATION_SEED + objects)
        solids = make_objects(list(seeds), textured=kind == "textured")
        casters = [SolidCaster(solids[i : i + 1]) for i in range(objects)]
        truth = [[over_white(draw_view(c, camera, _SIZE, 2)[0]) for camera in cameras] for c in casters]
        pool = ObjectPool(folder, kind, seeds, *sizes)
        sets[kind] = ValidationSet(pool, [cameras] * objects, torch.from_numpy(np.array(truth, np.float32)))
    if posed:
        sets["real"] = _posed_set(Path(posed), *sizes, objects)
    return sets


def _posed_set(root: Path, size: int, planes: int, objects: int) -> ValidationSet:
    pool = PosedPool(root, size, planes)
    folders = object_folders(root)
    # Evenly among all: neighbours in the alphabet are alike.
    step = max(1, len(folders) // objects)
    chosen = [find_views(folder) for folder in folders[::step][:objects]]
    short = next((files for files in chosen if len(files.cameras) <= _VIEWS), None)
    if short is not None:
        raise DataError(f"{short.pictures[0].parent} has too few views: {_VIEWS} beside the input are needed.")
    truth = []
    for files in chosen:
        pixels = torch.from_numpy(np.stack([files.rgba(view) for view in range(1, 1 + _VIEWS)])).float() / 255
        premultiplied = torch.cat([pixels[..., :3] * pixels[..., 3:], pixels[..., 3:]], -1).permute(0, 3, 1, 2)
        small = F.interpolate(premultiplied, size=(_SIZE, _SIZE), mode="area").permute(0, 2, 3, 1)
        truth.append(small[..., :3] + 1 - small[..., 3:])
    cameras = [list(files.cameras[1 : 1 + _VIEWS]) for files in chosen]
    return ValidationSet(pool.some(range(0, step * len(chosen), step)), cameras, torch.stack(truth))


def _planes(model: WaveletTriplaneDiffusion, images: Tensor) -> Tensor:
    with torch.no_grad():
        ll, condition = model.predict_ll(images)
        return model.reconstruct_planes(ll, model.sample_details(condition, 1))


@one_sentence_errors()
def main(
    checkpoints: Annotated[list[Path], typer.Argument(help="Checkpoints of one preset.")],
    data: Annotated[str, typer.Option(help="Folder of posed views to validate on as well.")] = "",
    objects: Annotated[int, typer.Option(min=1, help="Objects of each kind, at most.")] = 24,
    folder: Annotated[Path, typer.Option(help="Where images are kept for the next time.")] = Path("runs/validation"),
) -> None:
    """Prints the PSNR of new views for each checkpoint and kind of object."""
    sets: dict[str, ValidationSet] = {}
    sizes = None
    for path in checkpoints:
        model = WaveletTriplaneDiffusion.load(path)
        if sizes not in (None, model.config.resolution):
            raise ConfigError(f"{path} has planes of another size than {checkpoints[0]}: give checkpoints of one size.")
        sets, sizes = sets or validation_sets(model.config, folder, data, objects), model.config.resolution
        shown = []
        for kind, each in sets.items():
            planes = torch.cat([_planes(model, each.pool.images(np.array([index]))) for index in range(len(each))])
            shown.append(f"{kind} {each.psnr(model.renderer, planes):.2f} dB ({len(each)} objects)")
        typer.echo(f"{path}: {', '.join(shown)}")


if __name__ == "__main__":
    typer.run(main)
