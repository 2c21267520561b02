"""Parity: how closely exported graphs, and the runtime that drives them, follow PyTorch; row by row."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray

import runtime
from model import WaveletTriplaneDiffusion

from .graphs import GraphDefinition

# Least PSNR in dB, for every row of every check.
TOLERANCE = {"float32": 60.0}
BATCHES = (1, 2, 3)
STEPS = (1, 4, 20)
SAMPLER = "ddim"
_IDENTICAL = 200.0


@dataclass(frozen=True)
class Check:
    """One comparison: what was compared, the worst row's PSNR in dB (200 where identical), the largest difference."""

    what: str
    psnr: float
    largest: float

    def passes(self, precision: str) -> bool:
        """Whether it keeps to the precision's tolerance."""
        return self.psnr >= TOLERANCE[precision]


def psnr(actual: NDArray[np.floating], expected: NDArray[np.floating], peak: float | None = None) -> float:
    """Peak signal-to-noise ratio in dB; the peak is the range of `expected` unless given. NaN counts as -infinity."""
    error = float(np.mean((actual.astype(np.float64) - expected) ** 2))
    if not np.isfinite(error):
        return -np.inf
    span = float(np.ptp(expected)) if peak is None else peak
    return (
        min(_IDENTICAL, 10 * np.log10(span**2 / error))
        if error > 0 and span > 0
        else (_IDENTICAL if error == 0 else -np.inf)
    )


def compare(
    what: str, actual: NDArray[np.floating], expected: NDArray[np.floating], peak: float | None = None
) -> Check:
    """The worst row of a batch, so that one wrong row cannot hide among right ones."""
    rows = [psnr(a, e, peak) for a, e in zip(actual, expected, strict=True)]
    return Check(what, min(rows), float(np.abs(actual.astype(np.float64) - expected).max()))


def check_graph(definition: GraphDefinition, proto: onnx.ModelProto) -> Iterator[Check]:
    """Compares one graph in plain ONNX Runtime with the module it came from, at every batch size."""
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in BATCHES:
        example = definition.example({"batch": batch, "points": 100 * batch + 1}, seed=batch)
        actual = session.run(None, {s.name: t.numpy() for s, t in zip(definition.inputs, example, strict=True)})
        with torch.no_grad():
            expected = definition.module(*example)
        for spec, a, e in zip(definition.outputs, actual, expected, strict=True):
            yield compare(f"{definition.name}.{spec.name}, batch {batch}", a, e.numpy())


def check_path(model: WaveletTriplaneDiffusion, bundle: Path, precision: str) -> Iterator[Check]:
    """Compares the runtime on a bundle with PyTorch, from the picture to the triplane and to the drawn view."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", runtime.BackgroundWarning)
        warnings.simplefilter("ignore", runtime.UntrainedWarning)
        yield from _check_path(model, bundle, precision)


def _check_path(model: WaveletTriplaneDiffusion, bundle: Path, precision: str) -> Iterator[Check]:
    size = model.config.image_size
    pictures = example_pictures(max(BATCHES), size)
    seeds = list(range(max(BATCHES)))
    camera = runtime.Camera.orbit(azimuth=50, elevation=10)
    with runtime.load(bundle, backend="cpu", precision=precision) as rt:
        for steps in sorted({min(steps, model.config.num_diffusion_steps) for steps in STEPS}):
            for batch in BATCHES:
                images = torch.from_numpy(np.stack(pictures[:batch])).permute(0, 3, 1, 2).float() / 127.5 - 1
                with torch.no_grad():
                    expected = model(images, True, steps=steps, seed=seeds[:batch], sampler=SAMPLER, camera=camera)
                scenes = rt.reconstruct(pictures[:batch], steps=steps, seed=seeds[:batch], sampler=SAMPLER)
                triplanes = np.stack([scene.triplane for scene in scenes])
                yield compare(
                    f"triplane, batch {batch}, {steps} steps", triplanes, expected["triplane_highres"].numpy()
                )
                views = np.stack([scene.render(camera, image_size=64).rgb for scene in scenes])
                reference = expected["rendered_image"].permute(0, 2, 3, 1).numpy()
                yield compare(f"picture, batch {batch}, {steps} steps", views, reference, peak=1.0)


def example_pictures(count: int, size: int) -> list[NDArray[np.uint8]]:
    """Pictures that differ from one another: white, with a shaded disc of another size, place and colour each."""
    y, x = np.mgrid[0:size, 0:size] / size * 2 - 1
    pictures = []
    for index in range(count):
        distance = np.hypot(x - 0.1 * index, y + 0.15 * index) / (0.6 - 0.1 * index)
        shade = np.clip(1 - 0.5 * distance**2, 0, 1)[..., None] * np.roll([0.9, 0.5, 0.2], index)
        pictures.append(np.where(distance[..., None] < 1, 255 * shade, 255).astype(np.uint8))
    return pictures
