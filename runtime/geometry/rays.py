"""Ray geometry: pixels to rays, rays to intervals inside the cube. The PyTorch reference shares it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..array_types import Array
from .cameras import Camera


@dataclass(frozen=True)
class Rays:
    """Rays in the world.

    Attributes:
        origin: (3,) float32, shared by all rays.
        directions: (R, 3) float32 unit vectors.
        near: (R,) float32 distance at which the ray enters the cube [-1, 1]^3; 0 if it misses.
        far: (R,) float32 distance at which it leaves the cube; 0 if it misses.
        cosine: (R,) float32, viewing-axis distance per unit of ray length.
    """

    origin: Array
    directions: Array
    near: Array
    far: Array
    cosine: Array

    @property
    def hits(self) -> NDArray[np.bool_]:
        """(R,) True where the ray passes through the cube."""
        return self.far > self.near

    def take(self, index: NDArray[np.integer]) -> Rays:
        """The chosen rays, in the given order."""
        return Rays(self.origin, self.directions[index], self.near[index], self.far[index], self.cosine[index])


def camera_rays(camera: Camera, height: int, width: int, pixels: range | None = None) -> Rays:
    """Rays through the centres of square pixels, row by row from the top left.

    Args:
        camera: where they start.
        height: of the image in pixels.
        width: of the image in pixels.
        pixels: which ones, counted from the top left; None for all.
    """
    chosen = range(height * width) if pixels is None else pixels
    rows, columns = np.divmod(np.arange(chosen.start, chosen.stop, chosen.step), width)
    scale = math.tan(math.radians(camera.fov) / 2)
    x = ((columns + 0.5) * 2 - width) / height * scale
    y = (1 - (rows + 0.5) * 2 / height) * scale
    cosine = 1 / np.sqrt(x * x + y * y + 1)
    # Axes before rays until the end: every operation runs along neighbouring rays.
    directions = (camera.pose[:3, :3] @ (np.stack([x, y, np.full_like(x, -1.0)]) * cosine)).T
    near, far = clip_to_cube(camera.position, directions)
    return Rays(*(np.ascontiguousarray(a, np.float32) for a in (camera.position, directions, near, far, cosine)))


def clip_to_cube(
    origin: NDArray[np.float64], directions: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where rays enter and leave the cube [-1, 1]^3 (slab method, Kay and Kajiya 1986).

    Args:
        origin: (..., 3) world positions, inside the cube or outside.
        directions: (..., R, 3) unit vectors.

    Returns:
        near, far: (..., R) distances, 0 <= near <= far; both 0 for a ray that misses.
    """
    # A direction of exactly 0 would give 0/0 on the face of the cube; 1e-12 keeps the sign of the slab's sides.
    safe = np.where(np.abs(directions) < 1e-12, 1e-12, directions)
    start = origin[..., None, :]
    lower, upper = (-1 - start) / safe, (1 - start) / safe
    near = np.maximum(np.minimum(lower, upper).max(axis=-1), 0.0)
    far = np.maximum(lower, upper).min(axis=-1)
    hit = far > near
    return np.where(hit, near, 0.0), np.where(hit, far, 0.0)
