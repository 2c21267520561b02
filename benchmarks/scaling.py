"""How time and memory grow with batch, image size, samples, steps and channels: `python benchmarks/scaling.py`.

Each point is a process of its own, so that its peak of resident memory is its own too: one run that warms up, then
timed ones. A batch is also compared with one image by turns in its own process: between processes, times of the same
work differ by more than what is asked. The exponent is the slope of log(time) over log(size), fitted by least squares:
1 is proportional.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

if __package__ in (None, ""):  # run as a script: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.subprocess_runs import measured
from benchmarks.timing import machine
from export.to_onnx import export_bundle
from model import WaveletTriplaneDiffusion
from model.config import PRESETS
from runtime.commands import one_sentence_errors

# One axis grows, the others stay at a batch of 1, 128x128 pixels, 64 samples a ray and the bundle's steps.
AXES: dict[str, tuple[int, ...]] = {
    "batch": (1, 2, 4, 8, 16),
    "size": (64, 128, 256, 512),
    "samples": (16, 32, 64, 128, 256),
    "steps": (1, 2, 4, 8, 16),
}
CHANNELS = {"small": 16, "medium": 32, "large": 64}


def exponent(sizes: list[int], values: list[float]) -> float:
    """Slope of log(value) over log(size)."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def scaling(image: Path, axes: dict[str, tuple[int, ...]], presets: list[str], runs: int) -> dict[str, Any]:
    """Measures every point; pixels, not sides, are what the image's size counts."""
    report: dict[str, Any] = {"machine": machine(), "axes": {}}
    points = [(axis, value) for axis, values in axes.items() for value in values]
    for axis, value in track(points, "measuring", console=Console(stderr=True), transient=True):
        _keep(report, axis, value**2 if axis == "size" else value, measured(image, runs=runs, **{axis: value}))
    with tempfile.TemporaryDirectory() as scratch:
        for preset in presets:
            torch.manual_seed(0)
            model = WaveletTriplaneDiffusion.from_config(PRESETS[preset]).eval()
            export_bundle(model, Path(scratch) / preset, preset, trained=True)
            found = measured(image, Path(scratch) / preset, steps=1, runs=runs)
            _keep(report, "channels", CHANNELS[preset], found)
    for figures in report["axes"].values():
        seconds, sizes = figures["seconds"], figures["sizes"]
        if len(sizes) > 1:
            figures["exponent"] = exponent(sizes, seconds)
            figures["worst_doubling"] = max(
                (b / a) ** (math.log(2) / math.log(n / m))
                for a, b, m, n in zip(seconds, seconds[1:], sizes, sizes[1:], strict=False)
            )
    return report


def show(report: dict[str, Any], console: Console) -> None:
    """Prints a line for each point, and each axis's exponent."""
    table = Table("axis", "size", "seconds", "peak (MiB)", "exponent", "worst doubling", box=None)
    for axis, figures in report["axes"].items():
        name = "pixels" if axis == "size" else axis
        for index, size in enumerate(figures["sizes"]):
            last = index == len(figures["sizes"]) - 1 and "exponent" in figures
            fitted = (f"{figures['exponent']:.2f}", f"{figures['worst_doubling']:.2f} times") if last else ("", "")
            table.add_row(
                name, str(size), f"{figures['seconds'][index]:.3f}", f"{figures['peak_mb'][index]:.0f}", *fitted
            )
    console.print(table)
    batch = report["axes"].get("batch")
    if batch:
        rate = max(size / second for size, second in zip(batch["sizes"], batch["seconds"], strict=True))
        for size, times in zip(batch["sizes"][1:], batch["times_single"][1:], strict=True):
            console.print(f"A batch of {size} takes {times:.2f} times as long as one, by turns.", highlight=False)
        console.print(f"This machine serves {rate:.1f} pictures a second at the most.", highlight=False)


def plot(report: dict[str, Any], path: Path) -> None:
    """Time over each axis, both logarithmic, and peak memory."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    axes = report["axes"]
    figure, panels = plt.subplots(2, len(axes), figsize=(3 * len(axes), 5), squeeze=False, sharex="col")
    for column, (axis, figures) in enumerate(axes.items()):
        for row, (key, label) in enumerate((("seconds", "seconds"), ("peak_mb", "peak MiB"))):
            panel = panels[row, column]
            panel.plot(figures["sizes"], figures[key], "o-")
            panel.set_xscale("log", base=2)
            panel.set_xticks(figures["sizes"], [str(size) for size in figures["sizes"]], fontsize=7)
            panel.set_ylabel(label if column == 0 else "")
            if key == "seconds":
                panel.set_yscale("log", base=2)
                panel.set_yticks(figures[key], [f"{value:.2f}" for value in figures[key]], fontsize=7)
            else:
                panel.set_ylim(0, 1.1 * max(figures[key]))
            panel.minorticks_off()
        fitted = f", exponent {figures['exponent']:.2f}" if "exponent" in figures else ""
        panels[0, column].set_title(("pixels" if axis == "size" else axis) + fitted, fontsize=9)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _keep(report: dict[str, Any], axis: str, size: int, found: dict[str, Any]) -> None:
    figures = report["axes"].setdefault(axis, {"sizes": [], "seconds": [], "times_single": [], "peak_mb": []})
    figures["sizes"].append(size)
    figures["seconds"].append(float(np.median(found["seconds"])))
    figures["times_single"].append(float(np.median(found["seconds"]) / np.median(found["single"])))
    figures["peak_mb"].append(found["peak_mb"])


@one_sentence_errors()
def main(
    image: Annotated[Path, typer.Option(help="The picture.")] = Path("examples/chair.png"),
    axis: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(AXES)}, again for more.")] = None,
    preset: Annotated[list[str] | None, typer.Option(help="Presets whose channels are compared.")] = None,
    runs: Annotated[int, typer.Option(help="Timed runs of each point.", min=1)] = 5,
    json_file: Annotated[Path | None, typer.Option("--json", help="Writes all figures.")] = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Writes a picture of them.")] = None,
) -> None:
    """Measures how the runtime's time and memory grow."""
    unknown = set(axis or ()) - set(AXES)
    if unknown:
        raise typer.BadParameter(f"unknown axis {', '.join(sorted(unknown))}; there are {', '.join(AXES)}")
    chosen = {name: AXES[name] for name in (axis or AXES)}
    report = scaling(image, chosen, preset if preset is not None else list(CHANNELS)[:2], runs)
    show(report, Console())
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(report, indent=1))
    if plot_file is not None:
        plot(report, plot_file)


if __name__ == "__main__":
    typer.run(main)
