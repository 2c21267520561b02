"""Where an object has to be for the canonical camera to see it as every input image is framed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtime.geometry.cameras import FOREGROUND_RATIO, Camera


def framing_of(outline: NDArray[np.floating]) -> tuple[float, NDArray[np.float64]]:
    """The scale and the shift that centre an object and make its bounding square `FOREGROUND_RATIO` of the image.

    Args:
        outline: (K, 3) points whose convex hull is the object's, in any units.

    Returns:
        scale and shift (3,): a point p of the object goes to scale * p + shift.
    """
    camera = Camera.orbit()
    right, up = camera.pose[:3, 0], camera.pose[:3, 1]
    half_picture = np.tan(np.radians(camera.fov) / 2) * np.linalg.norm(camera.position)
    middle = (outline.min(0) + outline.max(0)) / 2
    scale = float(1 / np.linalg.norm(outline - middle, axis=1).max())
    shift = -scale * middle
    for _ in range(12):
        seen = camera.project(outline * scale + shift)
        low, high = seen.min(0), seen.max(0)
        centre, longest = (low + high) / 2, (high - low).max()
        shift = shift - half_picture * (centre[0] * right - centre[1] * up)
        factor = float(2 * FOREGROUND_RATIO / longest)
        scale, shift = scale * factor, shift * factor
    return scale, shift


def random_camera(rng: np.random.Generator) -> Camera:
    """Anywhere on the upper part of the sphere, at about the canonical distance."""
    elevation = np.degrees(np.arcsin(rng.uniform(np.sin(np.radians(-10)), np.sin(np.radians(65)))))
    return Camera.orbit(rng.uniform(0, 360), elevation, rng.uniform(2.7, 3.3))


def cameras_around(count: int = 8) -> tuple[Camera, ...]:
    """Cameras evenly around at the canonical height, none of them the canonical one: those of the quality benchmark."""
    return tuple(Camera.orbit(360 * (index + 0.5) / count) for index in range(count))
