"""Parity: how closely exported graphs, and the runtime that drives them, follow PyTorch; row by row."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray

import runtime
from model import WaveletTriplaneDiffusion
from runtime.backends.self_check import example_images, psnr
from runtime.bundle import PARITY_DB

from .graphs import GraphDefinition

BATCHES = (1, 2, 4)
STEPS = (1, 4, 20)
SAMPLER = "ddim"
_CAMERA = runtime.Camera.orbit(azimuth=50, elevation=10)


@dataclass(frozen=True)
class Check:
    """One comparison: what was compared, the worst row's PSNR in dB (200 where identical), the largest difference."""

    what: str
    psnr: float
    largest: float

    def passes(self, precision: str) -> bool:
        """Whether it keeps to the precision's tolerance, where that holds it to one."""
        bound = not precision.startswith("int8") or self.what.startswith("picture")
        return not bound or self.psnr >= PARITY_DB[precision]


def compare(
    what: str, actual: NDArray[np.floating], expected: NDArray[np.floating], peak: float | None = None
) -> Check:
    """The worst row of a batch, so that one wrong row cannot hide among right ones."""
    rows = [psnr(a, e, peak) for a, e in zip(actual, expected, strict=True)]
    return Check(what, min(rows), float(np.abs(actual.astype(np.float64) - expected).max()))


def check_graph(definition: GraphDefinition, proto: onnx.ModelProto) -> Iterator[Check]:
    """Compares one graph in plain ONNX Runtime with the module it came from, at every batch size and as many others."""
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for batch in BATCHES:
        sizes = {"batch": batch, "points": 100 * batch + 1, "rays": 20 * batch + 1, "samples": 4 * batch + 1}
        example = definition.example(sizes, seed=batch)
        actual = session.run(None, {s.name: t.numpy() for s, t in zip(definition.inputs, example, strict=True)})
        with torch.no_grad():
            expected = definition.module(*example)
        for spec, a, tensor in zip(definition.outputs, actual, expected, strict=True):
            e = tensor.numpy()
            if spec.name == "drawn":  # The mean depth of a ray that hits nothing is rounding: it counts by its alpha.
                *_, alpha, depth = e
                a, e = np.concatenate([a[:4], [a[4] * alpha]]), np.concatenate([e[:4], [depth * alpha]])
            yield compare(f"{definition.name}.{spec.name}, batch {batch}", a, e)


@dataclass(frozen=True)
class Reference:
    """What PyTorch makes of the first `batch` example images in `steps` steps: triplanes, and a view of each."""

    batch: int
    steps: int
    triplanes: NDArray[np.float32]
    pictures: NDArray[np.float32]


def references(model: WaveletTriplaneDiffusion) -> list[Reference]:
    """The whole path in PyTorch, at every batch size and number of steps.

    A row's reference is the same in every batch: it is computed once, in the largest.
    """
    pictures = example_images(max(BATCHES), model.config.image_size)
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    found = []
    for steps in sorted({min(steps, model.config.num_diffusion_steps) for steps in STEPS}):
        options: dict[str, Any] = {"seed": list(range(len(images))), "sampler": SAMPLER, "camera": _CAMERA}
        with torch.no_grad():
            made = model(images, True, steps=steps, **options)
        triplanes, drawn = made["triplane_highres"].numpy(), made["rendered_image"].permute(0, 2, 3, 1).numpy()
        found += [Reference(batch, steps, triplanes[:batch], drawn[:batch]) for batch in BATCHES]
    return found


def check_path(expected: Sequence[Reference], bundle: Path, precision: str) -> Iterator[Check]:
    """Compares the runtime on a bundle with PyTorch, from the image to the triplane and to the drawn view."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", runtime.UntrainedWarning)
        with runtime.load(bundle, backend="cpu", precision=precision) as rt:
            pictures = example_images(max(BATCHES), rt.bundle.image_size)
            for reference in expected:
                batch, steps = reference.batch, reference.steps
                options: dict[str, Any] = {"steps": steps, "seed": list(range(batch)), "sampler": SAMPLER}
                scenes = rt.reconstruct(pictures[:batch], background="keep", **options)
                what = f"batch {batch}, {steps} steps"
                yield compare(f"triplane, {what}", np.stack([s.triplane for s in scenes]), reference.triplanes)
                views = np.stack([scene.render(_CAMERA, image_size=64).rgb for scene in scenes])
                yield compare(f"picture, {what}", views, reference.pictures, peak=1.0)
