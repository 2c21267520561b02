"""Figures of a run on a small fixed set of objects that it never trains on, as CSV and as a plot."""

from __future__ import annotations

import csv
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from torch import Tensor

from .data.pools import Pool
from .stages import Stages
from .validation import validation_sets

_OBJECTS = 6
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
        self._sets = validation_sets(stages.model.config, folder / "pictures", validation, _OBJECTS)
        if "real" in self._sets and stages.config.teacher.steps:
            # Half an hour later would be too late to say that a teacher cannot see these objects.
            self._sets["real"].pool.orthographic(np.arange(1))
        self._hours, self._started = self._spent(), time.perf_counter()

    def measure(self, stage: str, step: int) -> None:
        """Adds lines for what `stage` has reached at `step`, and draws the plot again."""
        hours = self._hours + (time.perf_counter() - self._started) / 3600
        lines = []
        stages = self._stages
        renderer = stages.teacher_network.renderer if stage == "teacher" else stages.model.renderer
        for name, objects in self._sets.items():
            for planes, triplanes in self._planes(stage, objects.pool, np.arange(len(objects))):
                psnr = objects.psnr(renderer, triplanes)
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
