"""What the input image's own pixels are worth, camera by camera: `python benchmarks/projection.py`.

The objects and cameras of `benchmarks/quality.py`. Each is reconstructed once, from its input view with its background
cut out, and drawn twice: as the model sees it, and with `projected=True`. A figure is a mean over objects; cameras are
told apart by their angle to the input's, and the time is that of a 128x128 view of a scene that has been drawn before.
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path
from typing import Annotated

if __package__ in (None, ""):  # run as a script: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

import runtime
from benchmarks.metrics import view_figures
from benchmarks.subjects import SETS, Subject, posed_subjects, procedural_subjects
from runtime.commands import one_sentence_errors

_KEYS = ("psnr", "ssim")


def measured(rt: runtime.Runtime, subject: Subject) -> np.ndarray:
    """(cameras, 2 without and with projection, PSNR, SSIM and seconds)."""
    scene, size = rt.reconstruct(subject.image), subject.truth.shape[1]
    scene.render(image_size=size, projected=True)
    rows = []
    for camera, truth in zip(subject.cameras, subject.truth, strict=True):
        row = []
        for projected in (False, True):
            start = time.perf_counter()
            frame = scene.render(camera, size, projected=projected)
            took = time.perf_counter() - start
            figures = view_figures(frame.rgb, frame.alpha, truth)
            row.append([*(figures[key] for key in _KEYS), took])
        rows.append(row)
    return np.array(rows)


@one_sentence_errors()
def main(
    bundle: Annotated[Path | None, typer.Option(help="Folder of a bundle; the shipped one by default.")] = None,
    objects: Annotated[int, typer.Option(help="Held-out objects.", min=1)] = 100,
    kind: Annotated[str, typer.Option(help=f"Procedural objects: {' or '.join(SETS)}.")] = SETS[0],
    data: Annotated[Path | None, typer.Option(help="Posed views of other objects instead, a folder each.")] = None,
) -> None:
    """Measures each camera's gain by projection."""
    if kind not in SETS:
        raise typer.BadParameter(f"there are {', '.join(SETS)}", param_hint="--kind")
    with warnings.catch_warnings(), runtime.load(bundle) as rt:
        warnings.simplefilter("ignore")
        made = procedural_subjects(objects, 0, 128, rt.bundle.image_size, kind=kind)
        subjects = made if data is None else posed_subjects(data, objects, 128)
        all_figures, angles = [], []
        for subject in track(subjects, "drawing", objects, console=Console(stderr=True), transient=True):
            all_figures.append(measured(rt, subject))
            front = runtime.Camera.orbit().forward
            angles.append([np.degrees(np.arccos(np.clip(c.forward @ front, -1, 1))) for c in subject.cameras])
    # Posed views have cameras of their own for each object: by their order of nearness.
    order = np.argsort(angles, axis=1, kind="stable")
    figures = np.stack([f[o] for f, o in zip(all_figures, order, strict=True)])
    angle = np.take_along_axis(np.array(angles), order, 1).mean(0)
    table = Table(title=f"{rt.bundle.name} on {len(figures)} held-out objects, 128x128", box=None)
    for header in ("camera", "PSNR", "projected", "gain", "SSIM", "projected", "gain", "times as long"):
        table.add_column(header, justify="right")
    mean = figures.mean(0)
    for name, (plain, projected) in [
        *((f"{degrees:.0f}°", row) for degrees, row in zip(angle, mean, strict=True)),
        ("all", mean.mean(0)),
    ]:
        table.add_row(
            name, f"{plain[0]:.2f}", f"{projected[0]:.2f}", f"{projected[0] - plain[0]:+.2f}", f"{plain[1]:.3f}",
            f"{projected[1]:.3f}", f"{projected[1] - plain[1]:+.3f}", f"{projected[2] / plain[2]:.2f}",
        )  # fmt: skip
    Console(width=110).print(table)


if __name__ == "__main__":
    typer.run(main)
