"""How well `background="plain"` cuts objects out: `python benchmarks/backgrounds.py IMAGES [--objects 20]`.

Every RGBA image of a folder is put before backgrounds that photographs have, and the cut is compared with its alpha.
Then held-out procedural objects are reconstructed with their true alpha and from behind such backgrounds.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

if __package__ in (None, ""):  # run as a script: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy.ndimage import gaussian_filter

import runtime
from benchmarks.metrics import view_figures
from model.training.config import HELD_OUT_SEED
from model.training.data.drawing import SolidCaster, draw_view
from model.training.data.framing import cameras_around
from model.training.procedural.objects import make_objects
from runtime.array_types import Array
from runtime.commands import one_sentence_errors
from runtime.preprocessing import SURE
from runtime.preprocessing.background import cut_out


def _even(u: Array, v: Array, rng: np.random.Generator) -> Array:
    return np.broadcast_to([0.62, 0.65, 0.7], (*u.shape, 3))


def _white(u: Array, v: Array, rng: np.random.Generator) -> Array:
    return np.full((*u.shape, 3), 0.97)


def _gradient(u: Array, v: Array, rng: np.random.Generator) -> Array:
    return np.array([0.85, 0.85, 0.88]) * (1 - v[..., None]) + np.array([0.5, 0.55, 0.6]) * v[..., None]


def _vignette(u: Array, v: Array, rng: np.random.Generator) -> Array:
    return np.array([0.8, 0.78, 0.75]) * (1 - 0.7 * ((u - 0.5) ** 2 + (v - 0.5) ** 2)[..., None])


def _noise(u: Array, v: Array, rng: np.random.Generator) -> Array:
    return np.array([0.55, 0.6, 0.55]) + rng.normal(0, 0.04, (*u.shape, 3))


BACKGROUNDS: dict[str, Callable[[Array, Array, np.random.Generator], Array]] = {
    "even": _even,
    "white": _white,
    "gradient": _gradient,
    "vignette": _vignette,
    "camera noise": _noise,
    "soft shadow": _gradient,
}


def before_background(rgba: Array, name: str, seed: int = 0) -> Array:
    """An image (H, W, 4) in [0, 1] before one of `BACKGROUNDS`, in steps of 8 bits."""
    height, width = rgba.shape[:2]
    v, u = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    behind = BACKGROUNDS[name](u, v, np.random.default_rng(seed))
    alpha = rgba[..., 3:]
    if name == "soft shadow":
        behind = behind * (1 - 0.45 * _shadow(rgba[..., 3])[..., None])
    return np.clip(np.round((rgba[..., :3] * alpha + behind * (1 - alpha)) * 255) / 255, 0, 1).astype(np.float32)


def _shadow(alpha: Array) -> Array:
    """A soft ellipse under the object, 0 to 1."""
    rows, columns = np.flatnonzero(alpha.max(1) > 0.5), np.flatnonzero(alpha.max(0) > 0.5)
    y, x = np.mgrid[0 : alpha.shape[0], 0 : alpha.shape[1]]
    down = (y - rows[-1] + 0.02 * alpha.shape[0]) / (0.09 * alpha.shape[0])
    across = (x - columns.mean()) / max(1.0, 0.6 * np.ptp(columns))
    return gaussian_filter(np.clip(1.25 - np.hypot(down, across), 0, 1), 0.02 * alpha.shape[0])


def overlap(found: Array, truth: Array) -> float:
    """Intersection over union of two masks (H, W) in [0, 1]."""
    a, b = found > 0.5, truth > 0.5
    return float((a & b).sum() / max(1, (a | b).sum()))


def masks(folder: Path) -> dict[str, list[tuple[str, float, float, float]]]:
    """By background, for each RGBA image: its name, overlap of the cut, confidence, seconds."""
    found: dict[str, list[tuple[str, float, float, float]]] = defaultdict(list)
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as opened:
            if opened.mode != "RGBA":
                continue
            rgba = np.asarray(opened, np.float32) / 255
        for name in BACKGROUNDS:
            image = before_background(rgba, name).transpose(2, 0, 1)
            started = time.perf_counter()
            cutout = cut_out(np.ascontiguousarray(image))
            seconds = time.perf_counter() - started
            found[name].append((path.stem, overlap(cutout.rgba[3], rgba[..., 3]), cutout.confidence, seconds))
    return found


def reconstructions(rt: runtime.Runtime, objects: int) -> dict[str, float]:
    """Mean PSNR of views of held-out objects: with the true alpha, and from behind each background."""
    found: dict[str, list[float]] = defaultdict(list)
    for seed in range(HELD_OUT_SEED, HELD_OUT_SEED + objects):
        caster = SolidCaster(make_objects([seed]))
        rgba = draw_view(caster, runtime.Camera.orbit(), 384, 2)[0]
        views = [(camera, draw_view(caster, camera, 128, 2)[0]) for camera in cameras_around()]
        inputs = {"true alpha": np.round(rgba * 255).astype(np.uint8)}
        inputs |= {name: before_background(rgba, name, seed) for name in BACKGROUNDS}
        for name, image in inputs.items():
            scene = rt.reconstruct(image, background="auto" if name == "true alpha" else "plain")
            frames = [scene.render(camera, 128, 64) for camera, _ in views]
            figures = [view_figures(f.rgb, f.alpha, truth) for f, (_, truth) in zip(frames, views, strict=True)]
            found[name].append(float(np.mean([figure["psnr"] for figure in figures])))
    return {name: float(np.mean(values)) for name, values in found.items()}


@one_sentence_errors()
def main(
    images: Annotated[Path, typer.Argument(help="Folder of RGBA images.")] = Path("examples"),
    objects: Annotated[int, typer.Option(help="Held-out objects to reconstruct; 0 for none.", min=0)] = 20,
) -> None:
    """Measures the cut from even backgrounds."""
    found = masks(images)
    table = Table("background", "mean IoU", "least", "below 0.8 and sure", "seconds", box=None)
    for name, rows in found.items():
        overlaps = [row[1] for row in rows]
        wrong = sum(row[1] < 0.8 and row[2] >= SURE for row in rows)
        worst = min(rows, key=lambda row: row[1])
        seconds = float(np.median([row[3] for row in rows]))
        table.add_row(
            name, f"{np.mean(overlaps):.3f}", f"{worst[1]:.3f} {worst[0]}", f"{wrong} of {len(rows)}", f"{seconds:.2f}"
        )
    Console().print(table)
    if objects:
        with runtime.load() as rt:
            for name, psnr in reconstructions(rt, objects).items():
                Console().print(f"{name}: {psnr:.2f} dB", highlight=False)


if __name__ == "__main__":
    typer.run(main)
