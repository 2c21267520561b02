"""Figures of a run on a small fixed set of objects that it never trains on, as CSV and as a plot."""

from __future__ import annotations

import csv
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from runtime.geometry.cameras import Camera

from ..renderer import TriplaneRenderer
from .config import VALIDATION_SEED
from .data.drawing import SolidCaster, draw_view, over_white
from .data.framing import cameras_around
from .data.pools import ObjectPool, Pool, PosedPool
from .data.posed import DataError, find_views, object_folders
from .procedural.objects import make_objects
from .stages import Stages

_OBJECTS, _VIEWS, _SIZE, _SAMPLES = 6, 2, 128, 64
COLUMNS = ("hours", "stage", "step", "objects", "planes", "psnr")


class RunFigures:
    """Measures PSNR of views that the input does not show, and keeps it beside the run.

    Args:
        stages: what is measured.
        folder: of the run; figures go to `figures.csv`, the plot to `figures.png`.
        validation: folder of posed views, or "".
    """

    def __init__(self, stages: Stages, folder: Path, validation: str) -> None:
        self._stages, self._path = stages, folder / "figures.csv"
        config = stages.model.config
        sizes = (config.image_size, 2 * config.resolution)
        self._sets: dict[str, tuple[Pool, list[list[Camera]], Tensor]] = {}
        cameras = list(cameras_around())[:: 8 // _VIEWS]
        for kind in ("plain", "textured"):
            seeds = range(VALIDATION_SEED, VALIDATION_SEED + _OBJECTS)
            solids = make_objects(list(seeds), textured=kind == "textured")
            casters = [SolidCaster(solids[i : i + 1]) for i in range(_OBJECTS)]
            truth = [[over_white(draw_view(c, camera, _SIZE, 2)[0]) for camera in cameras] for c in casters]
            pool = ObjectPool(folder / "pictures", kind, seeds, *sizes)
            self._sets[kind] = (pool, [cameras] * _OBJECTS, torch.from_numpy(np.array(truth, np.float32)))
        if validation:
            self._sets["real"] = _posed_set(Path(validation), *sizes)
            if stages.config.teacher.steps:
                # Half an hour later would be too late to say that a teacher cannot see these objects.
                self._sets["real"][0].orthographic(np.arange(1))
        self._hours, self._started = self._spent(), time.perf_counter()

    def measure(self, stage: str, step: int) -> None:
        """Adds lines for what `stage` has reached at `step`, and draws the plot again."""
        hours = self._hours + (time.perf_counter() - self._started) / 3600
        lines = []
        stages = self._stages
        renderer = stages.teacher_network.renderer if stage == "teacher" else stages.model.renderer
        for name, (pool, cameras, truth) in self._sets.items():
            for planes, triplanes in self._planes(stage, pool, np.arange(len(truth))):
                psnr = self._psnr(renderer, triplanes, cameras, truth)
                lines.append((f"{hours:.3f}", stage, step, name, planes, f"{psnr:.3f}"))
        fresh = not self._path.exists()
        with self._path.open("a", newline="") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(COLUMNS)
            writer.writerows(lines)
        plot(self._path)

    def _planes(self, stage: str, pool: Pool, chosen: np.ndarray) -> list[tuple[str, Tensor]]:
        stages = self._stages
        if stage == "teacher":
            ll, details = stages.teacher_bands(pool.orthographic(chosen))
            model = stages.model
            return [
                ("teacher", model.reconstruct_planes(ll, details)),
                ("teacher, bilinear details", model.reconstruct_planes(ll, stages.implied(ll))),
            ]
        images = pool.images(chosen)
        shown = [("model, bilinear details", stages.reconstructed(images, details=False))]
        return shown if stage == "coarse" else [("model", stages.reconstructed(images)), *shown]

    def _psnr(self, renderer: TriplaneRenderer, triplanes: Tensor, cameras: list[list[Camera]], truth: Tensor) -> float:
        values = []
        with torch.no_grad():
            for planes, where, pictures in zip(triplanes, cameras, truth, strict=True):
                drawn = renderer.render_volume(planes.expand(len(where), -1, -1, -1, -1), _SAMPLES, _SIZE, where)
                errors = (drawn.permute(0, 2, 3, 1).cpu() - pictures).square().mean((1, 2, 3))
                values += (-10 * errors.log10()).tolist()
        return float(np.mean(values))

    def _spent(self) -> float:
        """Hours that the run had taken when it was stopped, as far as its figures tell."""
        if not self._path.exists():
            return 0.0
        with self._path.open(newline="") as file:
            return max((float(row["hours"]) for row in csv.DictReader(file)), default=0.0)


def plot(path: Path) -> None:
    """Draws the figures of a CSV file as a PNG beside it: PSNR over hours, a panel for each set of objects."""
    from matplotlib.figure import Figure

    series: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            series[row["objects"]][row["planes"]].append((float(row["hours"]), float(row["psnr"])))
    figure = Figure(figsize=(4.5 * len(series), 3.5), layout="constrained")
    for axes, (name, lines) in zip(figure.subplots(1, len(series), squeeze=False)[0], series.items(), strict=True):
        for label, points in lines.items():
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
        axes.set_title(f"{name} objects")
        axes.set_xlabel("hours")
        axes.set_ylabel("PSNR of new views, dB")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(path.with_suffix(".png"), dpi=110)


def _posed_set(root: Path, size: int, planes: int) -> tuple[Pool, list[list[Camera]], Tensor]:
    pool = PosedPool(root, size, planes)
    folders = object_folders(root)
    # Evenly among all: neighbours in the alphabet are alike.
    step = max(1, len(folders) // _OBJECTS)
    chosen = [find_views(folder) for folder in folders[::step][:_OBJECTS]]
    short = next((files for files in chosen if len(files.cameras) <= _VIEWS), None)
    if short is not None:
        raise DataError(f"{short.pictures[0].parent} has too few views: {_VIEWS} beside the input are needed.")
    truth = []
    for files in chosen:
        pixels = torch.from_numpy(np.stack([files.rgba(view) for view in range(1, 1 + _VIEWS)])).float() / 255
        premultiplied = torch.cat([pixels[..., :3] * pixels[..., 3:], pixels[..., 3:]], -1).permute(0, 3, 1, 2)
        small = F.interpolate(premultiplied, size=(_SIZE, _SIZE), mode="area").permute(0, 2, 3, 1)
        truth.append(small[..., :3] + 1 - small[..., 3:])
    return (
        pool.some(range(0, step * len(chosen), step)),
        [list(f.cameras[1 : 1 + _VIEWS]) for f in chosen],
        torch.stack(truth),
    )
