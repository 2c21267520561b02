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
network as a regressor); the diffusion at several numbers of steps; and, for the first twenty of procedural objects,
planes fitted to the object itself for the same decoder: the ceiling of what a triplane of this size shows.
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
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

import runtime
from benchmarks.figures import (
    Array,
    Figures,
    mean_figures,
    over_white,
    summary,
    surface_figures,
    surface_points,
    view_figures,
)
from model import WaveletTriplaneDiffusion
from model.checkpoint import CheckpointError
from model.renderer import TriplaneRenderer
from model.training.config import StageConfig
from model.training.fitting import fit_triplanes
from model.training.objects import make_objects
from model.training.posed import DataError, object_folders, read_views
from model.training.supervision import SolidTruth
from model.training.views import render_views
from model.wavelet import WaveletTransform
from runtime.errors import WaveletTriplaneError
from runtime.images import prepare_image
from runtime.noise import draw
from runtime.sampler import sampler_table, trailing_timesteps
from runtime.scene import Scene
from runtime.wavelet import idwt2d

# Far from the seeds of training (from 1,000,000 on) and of the examples.
HELD_OUT = 900_000_000
STEPS = (1, 2, 4, 8, 20, 50)
_VIEWS = 8
# Fitting takes minutes for each ten objects.
_FITTED, _FITTED_TOGETHER, _FITTED_SMOOTHNESS = 20, 10, 30.0
_FITTING = StageConfig(steps=120, batch=_FITTED_TOGETHER, lr=0.02, points=3072, rays=96, samples=40)
_CHECKPOINT = Path(__file__).resolve().parent.parent / "model" / "checkpoints" / "small.safetensors"


@dataclass(frozen=True)
class Subject:
    """A held-out object: input (S, S, 3) over white, true views (V, S, S, 4) and cameras; a procedural one's seed."""

    name: str
    picture: Array
    truth: Array
    cameras: tuple[runtime.Camera, ...]
    seed: int | None


def procedural_subjects(count: int, seed: int, size: int, input_size: int) -> Iterator[Subject]:
    """Objects from held-out seeds."""
    around = tuple(runtime.Camera.orbit(360 * (index + 0.5) / _VIEWS) for index in range(_VIEWS))
    for index in range(seed, seed + count):
        solids = make_objects([HELD_OUT + index])
        rgba = render_views(solids, [runtime.Camera.orbit()], input_size)[0, 0].permute(1, 2, 0).numpy()
        truth = render_views(solids, around, size)[0].permute(0, 2, 3, 1).numpy()
        yield Subject(f"seed {HELD_OUT + index}", over_white(rgba), truth, around, HELD_OUT + index)


def posed_subjects(root: Path, limit: int, size: int) -> Iterator[Subject]:
    """Other people's objects: posed views, the input first."""
    for folder in object_folders(root)[:limit]:
        views = read_views(folder)
        if len(views.cameras) < 2:
            raise DataError(f"{folder} has no view beside the input.")
        resized = [np.asarray(Image.fromarray(p).resize((size, size)), np.float32) / 255 for p in views.rgba[1:]]
        picture = over_white(views.rgba[0].astype(np.float32) / 255)
        yield Subject(folder.name, picture, np.stack(resized), views.cameras[1:], None)


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
        return self.rt.scene(idwt2d(ll, *np.split(standard * std + mean, 3, axis=1)))

    def zero_details(self, picture: Array) -> Scene:
        """The coarse stage alone."""
        ll, _ = self._bands(picture, draw(0, self._shape)[None])
        return self.rt.scene(idwt2d(ll, *(np.zeros_like(ll),) * 3))

    def bilinear(self, picture: Array) -> Scene:
        """The coarse stage alone, upsampled smoothly."""
        ll, _ = self._bands(picture, draw(0, self._shape)[None])
        details = WaveletTransform().bilinear_details(torch.from_numpy(ll)).numpy()
        return self.rt.scene(idwt2d(ll, *np.split(details, 3, axis=1)))

    def _bands(self, picture: Array, noise: Array) -> tuple[Array, Array]:
        prepared = prepare_image(picture, self.rt.bundle.image_size, self.rt.bundle.framing)
        ll, standard = self.rt.backend.generate(prepared[None], noise.reshape(1, 1, *self._shape), self._one_step)
        return ll[0], standard[0]


def fitted_scenes(maker: Reconstructor, subjects: Sequence[Subject], renderer: TriplaneRenderer) -> dict[str, Scene]:
    """Scenes of planes fitted to the objects themselves, from the coarse stage's on, by the subjects' names."""
    scenes: dict[str, Scene] = {}
    known = [subject for subject in subjects if subject.seed is not None]
    groups = [known[start : start + _FITTED_TOGETHER] for start in range(0, len(known), _FITTED_TOGETHER)]
    for index, group in enumerate(track(groups, "fitting", console=Console(stderr=True), transient=True)):
        start = torch.from_numpy(np.stack([maker.bilinear(subject.picture).triplane for subject in group]))
        truth = SolidTruth(make_objects([subject.seed for subject in group if subject.seed is not None]))
        planes = fit_triplanes(start, truth, renderer, _FITTING, index, smoothness=_FITTED_SMOOTHNESS)
        scenes |= {s.name: maker.rt.scene(p.numpy()) for s, p in zip(group, planes, strict=True)}
    return scenes


def scene_figures(scene: Scene, subject: Subject, samples: int) -> Figures:
    """Mean figures of a scene over a subject's views."""
    size = subject.truth.shape[1]
    frames = [scene.render(camera, size, samples) for camera in subject.cameras]
    return mean_figures([view_figures(f.rgb, f.alpha, t) for f, t in zip(frames, subject.truth, strict=True)])


def evaluate(
    rt: runtime.Runtime,
    subjects: Sequence[Subject],
    steps: Sequence[int],
    samples: int,
    baselines: bool,
    renderer: TriplaneRenderer | None = None,
) -> dict[str, list[Figures]]:
    """Figures of every row of the table, one dict per object; "default" is the runtime as users call it.

    With the bundle's decoder as PyTorch has it there is the row "fitted triplane" too.
    """
    maker = Reconstructor(rt)
    rows: dict[str, Callable[[Subject], Scene | None]] = {"default": lambda s: rt.reconstruct(s.picture)}
    if baselines:
        rows |= {
            "zero details": lambda s: maker.zero_details(s.picture),
            "bilinear details": lambda s: maker.bilinear(s.picture),
            "one-shot regression": lambda s: maker.one_shot(s.picture),
            **{f"diffusion, {n} steps": lambda s, n=n: maker.diffusion(s.picture, n) for n in steps},  # type: ignore[misc]
        }
        if renderer is not None:
            fitted = fitted_scenes(maker, subjects[:_FITTED], renderer)
            rows["fitted triplane"] = lambda s: fitted.get(s.name)
    results: dict[str, list[Figures]] = {name: [] for name in rows}
    if baselines:
        results |= {"white picture": [], "input view": []}
    for subject in track(subjects, "evaluating", console=Console(stderr=True), transient=True):
        for name, make in rows.items():
            scene = make(subject)
            if scene is None:
                continue
            figures = scene_figures(scene, subject, samples)
            if name in ("default", "fitted triplane") and subject.seed is not None:
                figures |= surface_figures(scene, surface_points(make_objects([subject.seed])))
            results[name].append(figures)
        if baselines:
            size = subject.truth.shape[1]
            white, nothing = np.ones((size, size, 3), np.float32), np.zeros((size, size), np.float32)
            pixels = Image.fromarray(np.round(subject.picture * 255).astype(np.uint8)).resize((size, size))
            same = np.asarray(pixels, np.float32) / 255
            mask = (same.min(-1) < 0.98).astype(np.float32)
            results["white picture"].append(mean_figures([view_figures(white, nothing, t) for t in subject.truth]))
            results["input view"].append(mean_figures([view_figures(same, mask, t) for t in subject.truth]))
    return results


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


def main(
    bundle: Annotated[Path | None, typer.Option(help="Folder of a bundle; the shipped one by default.")] = None,
    objects: Annotated[int, typer.Option(help="Held-out objects.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="First held-out object.", min=0)] = 0,
    data: Annotated[Path | None, typer.Option(help="Posed views of other objects instead, a folder each.")] = None,
    size: Annotated[int, typer.Option(help="Side of the compared pictures.", min=16)] = 128,
    samples: Annotated[int, typer.Option(help="Samples per ray.", min=1)] = 64,
    baselines: Annotated[bool, typer.Option(help="Also the baselines and other numbers of steps.")] = True,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="What the bundle was exported from, for fitted planes; the shipped one by default."),
    ] = None,
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
            if checkpoint is None and bundle is None:
                checkpoint = _CHECKPOINT
            renderer = WaveletTriplaneDiffusion.load(checkpoint).renderer if checkpoint and baselines else None
            results = evaluate(rt, subjects, steps, samples, baselines, renderer)
            summaries = {name: summary(figures) for name, figures in results.items()}
            report(summaries, rt, len(subjects))
            if json_file is not None:
                write_json(summaries, rt, subjects, json_file)
            if sheet is not None:
                contact_sheet(rt, subjects, sheet)
    except (WaveletTriplaneError, CheckpointError, DataError) as error:
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
