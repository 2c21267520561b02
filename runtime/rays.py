"""Ray geometry: pixels to rays, rays to intervals inside the cube, intervals to samples, samples to a picture.

Small pure functions on float32 arrays; one row a ray, or one column where each ray has samples. The PyTorch reference
shares the first two (they hold the conventions) and does its own compositing, of every sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .cameras import Camera
from .grid import EMPTY, SOLID, DensityGrid, Field

Array = NDArray[np.float32]

# Samples of each ray that are looked at together: fewer would stop sooner behind a surface, more would make larger
# arrays.
SAMPLES_AT_ONCE = 8
# Each of fewer samples stands for so much of the ray that what the grid knows of haze is not enough.
_FEW_SAMPLES = 16
# A ray ends when less than this share of the light behind it would pass.
_OPAQUE = 1e-3


@dataclass(frozen=True)
class Rays:
    """Rays in the world.

    Attributes:
        origin: (3,) float32, shared by all rays.
        directions: (R, 3) float32 unit vectors.
        near, far: (R,) float32 distances between which the ray is in the cube [-1, 1]^3; near = far = 0 if it misses.
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
        height, width: of the picture in pixels.
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


def midpoints(rays: Rays, num_samples: int, samples: range | None = None) -> Array:
    """Splits each ray's stay in the cube into equal intervals and samples them in the middle.

    Args:
        rays: R of them.
        num_samples: intervals of each ray.
        samples: which of them; None for all.

    Returns:
        (S, R) distances from the origin of the ray.
    """
    step = (rays.far - rays.near) / np.float32(num_samples)
    middle = np.asarray(range(num_samples) if samples is None else samples, np.float32) + np.float32(0.5)
    distances: Array = middle[:, None] * step
    distances += rays.near
    return distances


def march(field: Field, grid: DensityGrid, rays: Rays, num_samples: int) -> tuple[Array, Array, Array]:
    """Draws rays front to back, asking the field only where the grid says that there is something.

    Samples are the midpoints of `num_samples` equal intervals of each ray's stay in the cube, whether asked for or not,
    so that the result is that of the plain method, to the grid's tolerance.

    Returns:
        colour (R, 3) premultiplied, alpha (R,) and depth (R,), as `composite` has them.
    """
    count = len(rays.near)
    step = (rays.far - rays.near) / np.float32(num_samples)
    colour, passing = np.zeros((3, count), np.float32), np.ones(count, np.float32)
    along = np.zeros(count, np.float32)
    blocks = range(0, num_samples, SAMPLES_AT_ONCE)
    crossed = _crossed(grid, rays, step, blocks)
    worth_asking = SOLID if num_samples >= _FEW_SAMPLES else EMPTY + 1
    for index, start in enumerate(blocks):
        live = np.flatnonzero(crossed[index] & (passing > _OPAQUE))
        some = rays.take(live)
        distances = midpoints(some, num_samples, range(start, min(start + SAMPLES_AT_ONCE, num_samples)))
        places = grid.parts_at(some.origin, some.directions, distances)
        parts = grid.parts[places]
        with_any = np.flatnonzero(np.bitwise_or.reduce(parts, axis=0))
        if not with_any.size:
            continue
        some, here = some.take(with_any), live[with_any]
        distances, places = np.take(distances, with_any, axis=1), np.take(places, with_any, axis=1)
        parts = np.take(parts, with_any, axis=1)
        rgb, density = np.zeros((3, parts.size), np.float32), grid.densities[parts]
        haze = np.flatnonzero((parts != EMPTY) & (parts < worth_asking))
        _put(rgb, haze, grid.colors_at(places.reshape(-1)[haze]))
        asked = np.flatnonzero(parts >= worth_asking)
        if asked.size:
            points = some.directions[asked % len(here)]
            points *= distances.reshape(-1)[asked, None]
            points += some.origin
            found, density.reshape(-1)[asked] = field(points)
            _put(rgb, asked, found)
        part = composite(rgb.reshape(3, *parts.shape), density, distances, step[here], some.cosine)
        before = passing[here]
        colour[:, here] += before * part[0]
        along[here] += before * part[1] * part[2]
        passing[here] = before * (1 - part[1])
    alpha = 1 - passing
    return colour.T, alpha, np.divide(along, alpha, out=np.zeros_like(along), where=alpha > 1e-6)


def _put(rgb: Array, at: NDArray[np.intp], colours: Array) -> None:
    """Colours (K, 3) into (3, N) at K places: a channel at a time, which takes two thirds of the time."""
    for channel in range(3):
        rgb[channel, at] = colours[:, channel]


def _crossed(grid: DensityGrid, rays: Rays, step: Array, blocks: range) -> NDArray[np.bool_]:
    """(blocks, R) False where all samples of a block are in cells that are empty, by one look at the block's middle."""
    middle = np.asarray(blocks, np.float32) + np.float32(blocks.step / 2)
    cells = grid.cells_at(rays.origin, rays.directions, middle[:, None] * step + rays.near)
    reach = step * np.float32(blocks.step / 4 * grid.resolution)
    crossed: NDArray[np.bool_] = grid.clearance[cells] <= reach + 1
    return crossed


def composite(rgb: Array, density: Array, distances: Array, step: Array, cosine: Array) -> tuple[Array, Array, Array]:
    """Emission-absorption compositing, front to back (Max 1995, equation 9, as used by NeRF).

    Samples come before rays, so that every operation runs along neighbouring rays.

    Args:
        rgb: (3, S, R) in [0, 1]; density: (S, R) per scene unit, >= 0.
        distances: (S, R) of the samples along the ray; step: (R,) interval length; cosine: (R,) as in `Rays`.

    Returns:
        colour: (3, R), premultiplied by alpha; alpha: (R,) in [0, 1]; depth: (R,) mean depth of what was hit along
        the viewing axis, 0 where nothing was.
    """
    optical = density * step
    passed = optical.copy()
    for before, now in pairwise(passed):
        now += before
    weights = np.exp(optical - passed) * -np.expm1(-optical)
    alpha = -np.expm1(-passed[-1])
    colour = (weights * rgb).sum(axis=1)
    along = (weights * distances).sum(axis=0) * cosine
    depth = np.divide(along, alpha, out=np.zeros_like(along), where=alpha > 1e-6)
    return colour, alpha, depth
