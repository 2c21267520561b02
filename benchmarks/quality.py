"""Reconstruction quality on objects that training never saw, through the runtime: `python benchmarks/quality.py`.

Protocol. Each object is reconstructed from its input view alone and drawn from the other cameras: eight evenly around
at elevation 20, none of them the input's. `--kind` takes plain procedural objects or textured ones of all families,
`--data` posed views of other people's. A figure is the mean over an object's views, then over objects, with a 95 %
bootstrap interval.

    psnr         over the image, colours in [0, 1] over white
    psnr_object  over the union of the true and the drawn silhouette
    ssim         Wang et al. 2004 as scikit-image has it: Gaussian window, sigma 1.5, per channel
    iou          of the silhouettes, alpha above 0.5
    sharpness    mean gradient inside the true silhouette over that of the truth; 1 is as sharp
    patches      sliced Wasserstein distance of drawn views' patches to those of true views, a row's objects; 0 is best
    diversity    deviation over three seeds in the views from behind, of colours in 0 to 255; first twenty objects
    chamfer      mean distance to the nearest point of the other surface, both ways added, in scene units
    fscore       at 0.05 scene units, both from 10,000 points of each surface; plain procedural objects only

The row "alpha" is the same with the input's alpha, by which it is framed anew; "silhouette" also holds objects to it.

Baselines, same objects and cameras: a white image; the input view for every camera; the triplane with zero details,
and with the details that bilinear upsampling of LL implies; one pass of the denoiser over zeros instead of noise (the
network as a regressor); the diffusion at several numbers of steps; and, with `--teacher`, for the first twenty objects
the planes that a teacher makes of the object itself, with its details, bilinear ones and none: the ceiling of what a
triplane of this size shows.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
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
from benchmarks.ceiling import Ceiling
from benchmarks.metrics import (
    Array,
    Figures,
    PatchDistance,
    mean_figures,
    summary,
    surface_figures,
    surface_points,
    view_figures,
)
from benchmarks.subjects import SETS, Subject, posed_subjects, procedural_subjects
from model.training.data.drawing import over_white, to_bytes
from model.training.procedural.objects import make_objects
from model.wavelet import WaveletTransform
from runtime.commands import one_sentence_errors
from runtime.diffusion.plan import SamplingPlan
from runtime.preprocessing import prepare_image
from runtime.scene import Scene
from runtime.wavelet import idwt2d

STEPS = (1, 2, 4, 8, 20, 50)
# What takes long is measured on the first objects alone.
_FIRST = 20
_SEEDS, _BEHIND = 3, 2
_WITH_INTERVAL = ("psnr", "ssim", "iou")


class _WithoutNoise(SamplingPlan):
    """A run that starts from zeros: regression by the denoiser."""

    def noise(self, seeds: Sequence[int]) -> Array:
        return np.zeros((self.draws, len(seeds), *self.noise_shape), np.float32)


class Reconstructor:
    """The runtime, and what can be made of its bands instead of what it makes of them."""

    def __init__(self, rt: runtime.Runtime) -> None:
        self.rt = rt
        self._one_step = rt.plan(1, "ddim")

    def diffusion(self, picture: Array, steps: int | None, seed: int = 0) -> Scene:
        """The runtime itself."""
        return self.rt.reconstruct(picture, steps=steps, seed=seed, background="keep")

    def one_shot(self, picture: Array) -> Scene:
        """One pass of the denoiser over zeros at the noisiest timestep."""
        ll, standard = self._bands(picture, _WithoutNoise(self._one_step.table, self._one_step.noise_shape))
        mean, std = (a[..., None, None] for a in self.rt.bundle.detail_statistics)
        return self.rt.scene(idwt2d(ll, *np.split(standard * std + mean, 3, axis=1)))

    def zero_details(self, picture: Array) -> Scene:
        """The coarse stage alone."""
        ll, _ = self._bands(picture, self._one_step)
        return self.rt.scene(idwt2d(ll, *(np.zeros_like(ll),) * 3))

    def bilinear(self, picture: Array) -> Scene:
        """The coarse stage alone, upsampled smoothly."""
        ll, _ = self._bands(picture, self._one_step)
        details = WaveletTransform().bilinear_details(torch.from_numpy(ll)).numpy()
        return self.rt.scene(idwt2d(ll, *np.split(details, 3, axis=1)))

    def _bands(self, picture: Array, plan: SamplingPlan) -> tuple[Array, Array]:
        prepared = prepare_image(picture, self.rt.bundle.image_size, self.rt.bundle.framing, "keep")
        ll, standard = self.rt.backend.generate(prepared[None], plan, [0])
        return ll[0], standard[0]


def scene_figures(scene: Any, subject: Subject, samples: int, patches: PatchDistance) -> Figures:
    """Mean figures of a scene over a subject's views; `patches` takes their patches."""
    size = subject.truth.shape[1]
    frames = [scene.render(camera, size, samples) for camera in subject.cameras]
    for frame, truth in zip(frames, subject.truth, strict=True):
        patches.add(frame.rgb, truth)
    return mean_figures([view_figures(f.rgb, f.alpha, t) for f, t in zip(frames, subject.truth, strict=True)])


def diversity(maker: Reconstructor, steps: int | None, subject: Subject, samples: int) -> float:
    """Deviation over seeds in views from behind, of colours in 0 to 255 where there is an object; 0 without such."""
    size, drawn, seen = subject.truth.shape[1], [], np.zeros(1, bool)
    front = runtime.Camera.orbit().position
    behind = [camera for camera in subject.cameras if camera.position @ front < 0][:_BEHIND]
    if not behind:
        return 0.0
    for seed in range(_SEEDS):
        scene = maker.diffusion(subject.image, steps, seed)
        frames = [scene.render(camera, size, samples) for camera in behind]
        drawn.append(np.stack([frame.rgb for frame in frames]))
        seen = seen | np.stack([frame.alpha > 0.5 for frame in frames])
    spread = 255 * np.std(drawn, axis=0).mean(-1)
    return float(spread[seen].mean()) if seen.any() else 0.0


def evaluate(
    rt: runtime.Runtime,
    subjects: Sequence[Subject],
    steps: Sequence[int],
    samples: int,
    baselines: bool,
    ceiling: Ceiling | None = None,
) -> tuple[dict[str, list[Figures]], dict[str, float]]:
    """Figures of every row of the table, one dict per object, and each row's patch distance.

    "default" is the runtime as the library has it, "silhouette" as the command line has it, but for projection.
    """
    maker = Reconstructor(rt)
    rows: dict[str, Callable[[Subject], Scene]] = {
        "default": lambda s: rt.reconstruct(s.image, background="keep"),
        "alpha": lambda s: rt.reconstruct(s.rgba),
        "silhouette": lambda s: rt.reconstruct(s.rgba, silhouette=True),
    }
    sampled: dict[str, int | None] = {"default": None}
    if baselines:
        rows |= {
            "zero details": lambda s: maker.zero_details(s.image),
            "bilinear details": lambda s: maker.bilinear(s.image),
            "one-shot regression": lambda s: maker.one_shot(s.image),
            **{f"diffusion, {n} steps": lambda s, n=n: maker.diffusion(s.image, n) for n in steps},  # type: ignore[misc]
        }
        sampled |= {f"diffusion, {n} steps": n for n in steps}
    results: dict[str, list[Figures]] = defaultdict(list)
    patches: dict[str, PatchDistance] = defaultdict(PatchDistance)
    for index, subject in enumerate(
        track(subjects, "evaluating", console=Console(stderr=True), transient=True, total=len(subjects))
    ):
        for name, make in rows.items():
            scene = make(subject)
            figures = scene_figures(scene, subject, samples, patches[name])
            if name in ("default", "alpha", "silhouette") and subject.seed is not None:
                figures |= surface_figures(scene, surface_points(make_objects([subject.seed])))
            if index < _FIRST and baselines and name in sampled:
                figures["diversity"] = diversity(maker, sampled[name], subject, samples)
            results[name].append(figures)
        if ceiling is not None and index < _FIRST:
            for kind, planes in ceiling.scenes(subject).items():
                name = f"teacher, {kind}"
                results[name].append(scene_figures(planes, subject, samples, patches[name]))
        if baselines:
            size = subject.truth.shape[1]
            white, nothing = np.ones((size, size, 3), np.float32), np.zeros((size, size), np.float32)
            pixels = Image.fromarray(to_bytes(subject.image)).resize((size, size))
            same = np.asarray(pixels, np.float32) / 255
            mask = (same.min(-1) < 0.98).astype(np.float32)
            results["white picture"].append(mean_figures([view_figures(white, nothing, t) for t in subject.truth]))
            results["input view"].append(mean_figures([view_figures(same, mask, t) for t in subject.truth]))
    return dict(results), {name: distance.value() for name, distance in patches.items()}


def contact_sheet(rt: runtime.Runtime, subjects: Sequence[Subject], path: Path, rows: int = 10) -> None:
    """The input, then true and drawn views in turn, one object a row."""
    lines = []
    for subject in subjects[:rows]:
        scene, size = rt.reconstruct(subject.image, background="keep"), subject.truth.shape[1]
        shown = range(0, len(subject.cameras), max(1, len(subject.cameras) // 4))
        pixels = Image.fromarray(to_bytes(subject.image)).resize((size, size))
        tiles = [np.asarray(pixels, np.float32) / 255]
        for view in shown:
            tiles += [over_white(subject.truth[view]), scene.render(subject.cameras[view], size).rgb]
        lines.append(np.concatenate(tiles, axis=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(to_bytes(np.concatenate(lines))).save(path)


@one_sentence_errors()
def main(
    bundle: Annotated[Path | None, typer.Option(help="Folder of a bundle; the shipped one by default.")] = None,
    objects: Annotated[int, typer.Option(help="Held-out objects.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="First held-out object.", min=0)] = 0,
    kind: Annotated[str, typer.Option(help=f"Procedural objects: {' or '.join(SETS)}.")] = SETS[0],
    data: Annotated[Path | None, typer.Option(help="Posed views of other objects instead, a folder each.")] = None,
    size: Annotated[int, typer.Option(help="Side of the compared pictures.", min=16)] = 128,
    samples: Annotated[int, typer.Option(help="Samples per ray.", min=1)] = 64,
    baselines: Annotated[bool, typer.Option(help="Also the baselines and other numbers of steps.")] = True,
    teacher: Annotated[Path | None, typer.Option(help="Checkpoint of a teacher, for the ceiling.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every figure here.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet here.")] = None,
) -> None:
    """Measures reconstruction quality on held-out objects."""
    if kind not in SETS:
        raise typer.BadParameter(f"there are {', '.join(SETS)}", param_hint="--kind")
    with warnings.catch_warnings(), runtime.load(bundle) as rt:
        for category in (runtime.BackgroundWarning, runtime.FramingWarning):
            warnings.simplefilter("ignore", category)
        if data is None:
            made = procedural_subjects(objects, seed, size, rt.bundle.image_size, 2 * rt.bundle.resolution, kind)
            subjects = list(made)
        else:
            subjects = list(posed_subjects(data, objects, size))
        steps = [n for n in STEPS if n <= len(rt.bundle.schedule[0])]
        ceiling = Ceiling(teacher) if teacher is not None else None
        results, patches = evaluate(rt, subjects, steps, samples, baselines, ceiling)
        summaries = {name: summary(figures) for name, figures in results.items()}
        for name, value in patches.items():
            summaries[name]["patches"] = {"mean": value}
        report(summaries, rt, len(subjects))
        if json_file is not None:
            write_json(summaries, rt, subjects, json_file)
        if sheet is not None:
            contact_sheet(rt, subjects, sheet)


def report(summaries: dict[str, Any], rt: runtime.Runtime, count: int) -> None:
    """Prints the table."""
    keys = {
        "psnr": "PSNR", "psnr_object": "object", "ssim": "SSIM", "iou": "IoU", "sharpness": "sharp",
        "patches": "patches", "diversity": "divers", "chamfer": "Chamfer", "fscore": "F",
    }  # fmt: skip
    table = Table(title=f"{rt.bundle.name} on {count} held-out objects, mean and half its 95 % interval", box=None)
    table.add_column("", no_wrap=True)
    for header in keys.values():
        table.add_column(header, no_wrap=True, justify="right")
    for name, figures in summaries.items():
        cells = []
        for key in keys:
            digits = 2 if key.startswith("psnr") else 1 if key == "patches" else 3
            f = figures.get(key)
            half = f" ±{(f['high'] - f['low']) / 2:.{digits}f}" if f and "high" in f and key in _WITH_INTERVAL else ""
            cells.append(f"{f['mean']:.{digits}f}{half}" if f else "")
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
