"""A short comparison of a GPU backend with the CPU, before `auto` takes it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..array_types import Array
from ..bundle import PARITY_DB, Bundle
from ..diffusion.plan import SamplingPlan
from ..errors import BackendError
from ..geometry.cameras import Camera
from ..geometry.rays import camera_rays
from ..rendering.field import DrawingField, Field
from ..rendering.marching import march_dense
from .base import Backend

_IDENTICAL_DB = 200.0
_SIDE, _SAMPLES = 16, 16


def example_images(count: int, size: int) -> list[NDArray[np.uint8]]:
    """Returns (size, size, 3) images that differ: on white, a shaded disc of another size, place and colour each."""
    y, x = np.mgrid[0:size, 0:size] / size * 2 - 1
    images = []
    for index in range(count):
        distance = np.hypot(x - 0.1 * index, y + 0.15 * index) / (0.6 - 0.1 * index)
        shade = np.clip(1 - 0.5 * distance**2, 0, 1)[..., None] * np.roll([0.9, 0.5, 0.2], index)
        images.append(np.where(distance[..., None] < 1, 255 * shade, 255).astype(np.uint8))
    return images


def psnr(actual: NDArray[np.floating], expected: NDArray[np.floating], peak: float | None = None) -> float:
    """Returns the peak signal-to-noise ratio in dB, 200 where identical, -infinity for NaN.

    Args:
        actual: of any shape.
        expected: of the same shape.
        peak: largest possible value; None for the range of `expected`.
    """
    error = float(np.mean((actual.astype(np.float64) - expected) ** 2))
    span = float(np.ptp(expected)) if peak is None else peak
    if error == 0:
        return _IDENTICAL_DB
    if not np.isfinite(error) or span <= 0:
        return -np.inf
    return min(_IDENTICAL_DB, float(10 * np.log10(span**2 / error)))


def self_check(opened: Backend, open_cpu: Callable[[], Backend], bundle: Bundle, precision: str) -> str:
    """Reconstructs an example in one step and draws a small view of it, on both.

    Args:
        opened: the backend to check.
        open_cpu: opens the CPU backend of the same variant.
        bundle: verified.
        precision: the variant.

    Returns:
        How well they agree, in words.

    Raises:
        BackendError: they differ by more than the variant's tolerance.
    """
    image = np.stack(example_images(1, bundle.image_size)).transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
    plan = SamplingPlan.make("ddim", 1, bundle.schedule, bundle.channels, bundle.resolution)
    cpu = open_cpu()
    try:
        wanted, found = (backend.triplanes(image, plan, [0])[0] for backend in (cpu, opened))
        views = _view(opened.field(*found)), _view(cpu.field(wanted.values))
    finally:
        cpu.close()
    agreement = {"a small view": psnr(*views, peak=1.0)}
    if not precision.startswith("int8"):  # Rounding differs between int8 kernels; what is drawn has to agree.
        agreement["the triplane"] = psnr(found.values, wanted.values)
    what, worst = min(agreement.items(), key=lambda item: item[1])
    if worst < PARITY_DB[precision]:
        raise BackendError(
            f"On {opened.name} {what} is {worst:.1f} dB from the CPU's, where {PARITY_DB[precision]:g} dB are needed.",
            "Update the driver and the GPU's libraries; `wavelet-triplane doctor` says what is installed.",
        )
    return f"{worst:.0f} dB from the CPU in a self-check"


def _view(field: Field) -> Array:
    rays = camera_rays(Camera.orbit(), _SIDE, _SIDE)
    rays = rays.take(np.flatnonzero(rays.hits))
    if isinstance(field, DrawingField):
        return field.draw(rays, _SAMPLES)[0]
    return march_dense(field, rays, _SAMPLES)[0]
