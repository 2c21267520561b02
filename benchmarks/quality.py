"""Reconstruction quality on objects that training never saw, through the runtime: `python benchmarks/quality.py`.

Protocol. Each object is reconstructed from its input view alone and drawn from the other cameras; procedural objects
from eight cameras evenly around at elevation 20, none of them the input's. A figure is the mean over an object's views,
then over objects, with a 95 % bootstrap interval over objects.

    psnr         over the picture, colours in [0, 1] over white
    psnr_object  over the union of the true and the drawn silhouette
    ssim         Wang et al. 2004 as scikit-image has it: Gaussian window, sigma 1.5, per channel
    iou          of the silhouettes, alpha above 0.5
    chamfer      mean distance to the nearest point of the other surface, both ways added, in scene units
    fscore       at 0.05 scene units, both from 10,000 points of each surface; procedural objects only

Baselines, same objects and cameras: a white picture; the input view for every camera; the triplane with zero details,
and with the details that bilinear upsampling of LL implies; one pass of the denoiser over zeros instead of noise (the
network as a regressor); and the diffusion at several numbers of steps.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

if __package__ in (None, ""):  # run as a script: the packages lie beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.spatial import cKDTree
from skimage.metrics import structural_similarity

import runtime
from model.training.objects import make_objects
from model.training.posed import DataError, object_folders, read_views
from model.training.solids import Solids, first_hits
from model.training.views import render_views
from runtime.errors import OptionError, WaveletTriplaneError
from runtime.images import prepare_image
from runtime.noise import draw
from runtime.sampler import sampler_table, trailing_timesteps
from runtime.scene import Scene
from runtime.wavelet import idwt2d

# Far from the seeds of training (from 1,000,000 on) and of the examples.
HELD_OUT = 900_000_000
STEPS = (1, 2, 4, 8, 20, 50)
_VIEWS, _SURFACE_POINTS, _NEAR = 8, 10_000, 0.05
Array = NDArray[np.float32]
Figures = dict[str, float]


@dataclass(frozen=True)
class Subject:
    """A held-out object: its input (S, S, 3) over white, its true views (V, S, S, 4), their cameras, its surface."""

    name: str
    picture: Array
    truth: Array
    cameras: tuple[runtime.Camera, ...]
    surface: Array | None


def procedural_subjects(count: int, seed: int, size: int, input_size: int) -> Iterator[Subject]:
    """Objects from held-out seeds."""
    around = tuple(runtime.Camera.orbit(360 * (index + 0.5) / _VIEWS) for index in range(_VIEWS))
    for index in range(seed, seed + count):
        solids = make_objects([HELD_OUT + index])
        rgba = render_views(solids, [runtime.Camera.orbit()], input_size)[0, 0].permute(1, 2, 0).numpy()
        truth = render_views(solids, around, size)[0].permute(0, 2, 3, 1).numpy()
        yield Subject(f"seed {HELD_OUT + index}", over_white(rgba), truth, around, surface_points(solids))


def posed_subjects(root: Path, limit: int, size: int) -> Iterator[Subject]:
    """Other people's objects: posed views, the input first."""
    for folder in object_folders(root)[:limit]:
        views = read_views(folder)
        if len(views.cameras) < 2:
            raise DataError(f"{folder} has no view beside the input.")
        resized = [np.asarray(Image.fromarray(p).resize((size, size)), np.float32) / 255 for p in views.rgba[1:]]
        picture = over_white(views.rgba[0].astype(np.float32) / 255)
        yield Subject(folder.name, picture, np.stack(resized), views.cameras[1:], None)


def over_white(rgba: Array) -> Array:
    """(..., 4) not premultiplied to (..., 3) over white."""
    return rgba[..., :3] * rgba[..., 3:] + (1 - rgba[..., 3:])


def surface_points(solids: Solids) -> Array:
    """Points where random rays from all around first meet the object: its visible surface, (N, 3)."""
    rng = np.random.default_rng(0)
    origins = rng.standard_normal((1, 8 * _SURFACE_POINTS, 3))
    origins = 2 * origins / np.linalg.norm(origins, axis=-1, keepdims=True)
    toward = rng.uniform(-0.8, 0.8, origins.shape) - origins
    toward /= np.linalg.norm(toward, axis=-1, keepdims=True)
    start, along = torch.from_numpy(origins).float(), torch.from_numpy(toward).float()
    distance, _ = first_hits(solids, start, along)
    points = (start + distance[..., None] * along)[0, distance[0] < 4]
    return points[:_SURFACE_POINTS].numpy()


class Reconstructor:
    """The runtime, and what can be made of its bands instead of what it makes of them."""

    def __init__(self, rt: runtime.Runtime) -> None:
        self.rt = rt
        alpha, sigma = rt.bundle.schedule
        self._one_step = sampler_table("ddim", alpha, sigma, trailing_timesteps(len(alpha), 1))
        channels, side = rt.bundle.channels, rt.bundle.resolution
        self._shape = (3, 3 * channels, side, side)

    def diffusion(self, picture: Array, steps: int) -> Scene:
        """The runtime itself."""
        return self.rt.reconstruct(picture, steps=steps)

    def one_shot(self, picture: Array) -> Scene:
        """One pass of the denoiser over zeros at the noisiest timestep."""
        ll, standard = self._bands(picture, np.zeros((1, 1, *self._shape), np.float32))
        mean, std = (a[..., None, None] for a in self.rt.bundle.detail_statistics)
        return self._scene(idwt2d(ll, *np.split(standard * std + mean, 3, axis=1)))

    def zero_details(self, picture: Array) -> Scene:
        """The coarse stage alone."""
        ll, _ = self._bands(picture, draw(0, self._shape)[None])
        return self._scene(idwt2d(ll, *(np.zeros_like(ll),) * 3))

    def bilinear(self, picture: Array) -> Scene:
        """The coarse stage alone, upsampled smoothly."""
        ll, _ = self._bands(picture, draw(0, self._shape)[None])
        planes = torch.nn.functional.interpolate(torch.from_numpy(ll / 2), scale_factor=2.0, mode="bilinear")
        return self._scene(planes.numpy())

    def _bands(self, picture: Array, noise: Array) -> tuple[Array, Array]:
        prepared = prepare_image(picture, self.rt.bundle.image_size, self.rt.bundle.framing)
        ll, standard = self.rt.backend.generate(prepared[None], noise.reshape(1, 1, *self._shape), self._one_step)
        return ll[0], standard[0]

    def _scene(self, triplane: Array) -> Scene:
        return self.rt.scene(triplane)


def view_figures(drawn: Array, alpha: Array, truth: Array) -> Figures:
    """Figures of one view: drawn (S, S, 3) and alpha (S, S) against the truth (S, S, 4)."""
    target, solid, true_solid = over_white(truth), alpha > 0.5, truth[..., 3] > 0.5
    squared = np.square(drawn - target).mean(-1)
    union = solid | true_solid
    return {
        "psnr": decibel(float(squared.mean())),
        "psnr_object": decibel(float(squared[union].mean())) if union.any() else decibel(0),
        "ssim": float(
            structural_similarity(
                drawn, target, channel_axis=2, data_range=1.0, gaussian_weights=True, sigma=1.5,
                use_sample_covariance=False,
            )
        ),
        "iou": float((solid & true_solid).sum() / max(1, union.sum())),
    }  # fmt: skip


def decibel(error: float) -> float:
    """Mean squared error to PSNR with peak 1, at most 60 dB."""
    return float(min(60.0, -10 * np.log10(max(error, 1e-12))))


def scene_figures(scene: Scene, subject: Subject, samples: int) -> Figures:
    """Mean figures of a scene over a subject's views."""
    size = subject.truth.shape[1]
    frames = [scene.render(camera, size, samples) for camera in subject.cameras]
    return _mean([view_figures(f.rgb, f.alpha, t) for f, t in zip(frames, subject.truth, strict=True)])


def surface_figures(scene: Scene, surface: Array, resolution: int = 64) -> Figures:
    """Chamfer distance and F-score of the extracted surface; the worst possible where there is none."""
    try:
        mesh = scene.mesh(resolution)
    except OptionError:
        return {"chamfer": 4.0, "fscore": 0.0}
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(areas), _SURFACE_POINTS, p=areas / areas.sum())
    weights = rng.dirichlet((1, 1, 1), _SURFACE_POINTS)
    points = np.einsum("nk,nkd->nd", weights, corners[chosen])
    forth, back = cKDTree(surface).query(points)[0], cKDTree(points).query(surface)[0]
    precision, recall = (forth < _NEAR).mean(), (back < _NEAR).mean()
    fscore = 2 * precision * recall / max(precision + recall, 1e-9)
    return {"chamfer": float(forth.mean() + back.mean()), "fscore": float(fscore)}


def evaluate(
    rt: runtime.Runtime, subjects: Sequence[Subject], steps: Sequence[int], samples: int, baselines: bool
) -> dict[str, list[Figures]]:
    """Figures of every row of the table, one dict per object; "default" is the runtime as users call it."""
    maker = Reconstructor(rt)
    rows: dict[str, Callable[[Array], Scene]] = {"default": lambda p: rt.reconstruct(p)}
    if baselines:
        rows |= {
            "zero details": maker.zero_details,
            "bilinear details": maker.bilinear,
            "one-shot regression": maker.one_shot,
            **{f"diffusion, {n} steps": lambda p, n=n: maker.diffusion(p, n) for n in steps},  # type: ignore[misc]
        }
    results: dict[str, list[Figures]] = {name: [] for name in rows}
    if baselines:
        results |= {"white picture": [], "input view": []}
    for subject in track(subjects, "evaluating", console=Console(stderr=True), transient=True):
        for name, make in rows.items():
            scene = make(subject.picture)
            figures = scene_figures(scene, subject, samples)
            if name == "default" and subject.surface is not None:
                figures |= surface_figures(scene, subject.surface)
            results[name].append(figures)
        if baselines:
            size = subject.truth.shape[1]
            white, nothing = np.ones((size, size, 3), np.float32), np.zeros((size, size), np.float32)
            pixels = Image.fromarray(np.round(subject.picture * 255).astype(np.uint8)).resize((size, size))
            same = np.asarray(pixels, np.float32) / 255
            mask = (same.min(-1) < 0.98).astype(np.float32)
            results["white picture"].append(_mean([view_figures(white, nothing, t) for t in subject.truth]))
            results["input view"].append(_mean([view_figures(same, mask, t) for t in subject.truth]))
    return results


def summary(figures: Sequence[Figures]) -> dict[str, dict[str, float]]:
    """Mean and 95 % bootstrap interval (2,000 resamples of the objects) of every figure."""
    rng = np.random.default_rng(0)
    result = {}
    for key in figures[0]:
        values = np.array([f[key] for f in figures])
        means = values[rng.integers(0, len(values), (2000, len(values)))].mean(1)
        low, high = np.quantile(means, (0.025, 0.975))
        result[key] = {"mean": float(values.mean()), "low": float(low), "high": float(high)}
    return result


def contact_sheet(rt: runtime.Runtime, subjects: Sequence[Subject], path: Path, rows: int = 10) -> None:
    """The input, then true and drawn views in turn, one object a row."""
    lines = []
    for subject in subjects[:rows]:
        scene, size = rt.reconstruct(subject.picture), subject.truth.shape[1]
        shown = range(0, len(subject.cameras), max(1, len(subject.cameras) // 4))
        pixels = Image.fromarray(np.round(subject.picture * 255).astype(np.uint8)).resize((size, size))
        tiles = [np.asarray(pixels, np.float32) / 255]
        for view in shown:
            tiles += [over_white(subject.truth[view]), scene.render(subject.cameras[view], size).rgb]
        lines.append(np.concatenate(tiles, axis=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.round(np.concatenate(lines) * 255).astype(np.uint8)).save(path)


def _mean(figures: Sequence[Figures]) -> Figures:
    return {key: float(np.mean([f[key] for f in figures])) for key in figures[0]}


def main(
    bundle: Annotated[Path | None, typer.Option(help="Folder of a bundle; the shipped one by default.")] = None,
    objects: Annotated[int, typer.Option(help="Held-out objects.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="First held-out object.", min=0)] = 0,
    data: Annotated[Path | None, typer.Option(help="Posed views of other objects instead, a folder each.")] = None,
    size: Annotated[int, typer.Option(help="Side of the compared pictures.", min=16)] = 128,
    samples: Annotated[int, typer.Option(help="Samples per ray.", min=1)] = 64,
    baselines: Annotated[bool, typer.Option(help="Also the baselines and other numbers of steps.")] = True,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every figure here.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet here.")] = None,
) -> None:
    """Measures reconstruction quality on held-out objects."""
    try:
        with warnings.catch_warnings(), runtime.load(bundle) as rt:
            warnings.simplefilter("ignore", runtime.BackgroundWarning)
            if data is None:
                subjects = list(procedural_subjects(objects, seed, size, rt.bundle.image_size))
            else:
                subjects = list(posed_subjects(data, objects, size))
            steps = [n for n in STEPS if n <= len(rt.bundle.schedule[0])]
            summaries = {k: summary(v) for k, v in evaluate(rt, subjects, steps, samples, baselines).items()}
            report(summaries, rt, len(subjects))
            if json_file is not None:
                write_json(summaries, rt, subjects, json_file)
            if sheet is not None:
                contact_sheet(rt, subjects, sheet)
    except (WaveletTriplaneError, DataError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def report(summaries: dict[str, Any], rt: runtime.Runtime, count: int) -> None:
    """Prints the table."""
    keys = {"psnr": "PSNR", "psnr_object": "object", "ssim": "SSIM", "iou": "IoU", "chamfer": "Chamfer", "fscore": "F"}
    table = Table(title=f"{rt.bundle.name} on {count} held-out objects, mean and half its 95 % interval", box=None)
    table.add_column("", no_wrap=True)
    for header in keys.values():
        table.add_column(header, no_wrap=True, justify="right")
    for name, figures in summaries.items():
        cells = []
        for key in keys:
            digits = 2 if key.startswith("psnr") else 3
            f = figures.get(key)
            cells.append(f"{f['mean']:.{digits}f} ±{(f['high'] - f['low']) / 2:.{digits}f}" if f else "")
        table.add_row(name, *cells)
    Console(width=110).print(table)


def write_json(summaries: dict[str, Any], rt: runtime.Runtime, subjects: Sequence[Subject], path: Path) -> None:
    """Top-level psnr, ssim and iou of the default, the baselines' under `baselines`, and all intervals."""
    headline = {k: {m: v[m]["mean"] for m in ("psnr", "ssim", "iou")} for k, v in summaries.items()}
    default = headline.pop("default")
    content = {
        **default,
        "baselines": headline,
        "bundle": rt.bundle.name,
        "trained": rt.bundle.trained,
        "objects": len(subjects),
        "intervals": summaries,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    typer.run(main)
