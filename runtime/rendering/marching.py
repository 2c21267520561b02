"""Ray marching: intervals to samples, samples to pixels; the field is queried only where something may be.

    near  block 1  | block 2  | block 3 ...  far      a block of 8 samples is skipped if its cells are empty, or if
    |--x-x-x-x-----|-x-x-x----|----------|            less than 1/1000 of the light behind it would pass

Small functions on float32 arrays; one row a ray, or one column where each ray has samples. The PyTorch reference does
its own compositing, of every sample.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..array_types import Array
from ..geometry.cameras import Camera
from ..geometry.rays import Rays, camera_rays
from .field import Field
from .occupancy import EMPTY, SOLID, OccupancyGrid

# Samples of each ray in a block: smaller blocks stop sooner behind a surface, larger ones make larger arrays.
SAMPLES_AT_ONCE = 8
# With fewer samples each stands for so much of the ray that interpolated density is not exact enough.
_FEW_SAMPLES = 16
# Bands of rows, and blocks of samples, of the estimate of what drawing costs.
_BANDS = 16
# A ray ends when less than this share of the light behind it would pass.
_OPAQUE = 1e-3
# Of less alpha a depth is rounding.
_SEEN = 1e-6
# Samples that `march_dense` queries together.
_DENSE_POINTS = 1 << 15


def midpoints(rays: Rays, num_samples: int) -> Array:
    """Splits each ray's stay in the cube into equal intervals and samples them in the middle.

    Args:
        rays: R of them.
        num_samples: intervals of each ray.

    Returns:
        (num_samples, R) distances from the origin of the ray.
    """
    return _middles_of(range(num_samples), rays.near, (rays.far - rays.near) / np.float32(num_samples))


def _middles_of(intervals: range, near: Array, step: Array) -> Array:
    """(S, R) distances in the middle of some of the intervals of length `step` (R,) that begin at `near` (R,)."""
    distances: Array = (np.asarray(intervals, np.float32) + np.float32(0.5))[:, None] * step
    distances += near
    return distances


def march_dense(field: Field, rays: Rays, num_samples: int) -> tuple[Array, Array, Array]:
    """Draws rays by querying every sample: the definition that `march` keeps to within 1/255.

    A few rays at a time, so that a thread's arrays stay small.

    Args:
        field: points (N, 3) to colour (N, 3) and density (N,).
        rays: R of them.
        num_samples: equal intervals of each ray's stay in the cube, sampled in the middle.

    Returns:
        colour (R, 3) premultiplied, alpha (R,), and depth (R,): mean depth of what was hit along the viewing axis, 0
        where nothing was.
    """
    count = len(rays.near)
    colour, alpha, depth = np.zeros((count, 3), np.float32), np.zeros(count, np.float32), np.zeros(count, np.float32)
    at_once = max(1, _DENSE_POINTS // num_samples)
    for start in range(0, count, at_once):
        part = slice(start, min(start + at_once, count))
        some = rays.take(np.arange(part.start, part.stop))
        distances = midpoints(some, num_samples)
        points = some.origin + distances[..., None] * some.directions
        rgb, density = field(points.reshape(-1, 3))
        rgb, density = rgb.T.reshape(3, *distances.shape), density.reshape(distances.shape)
        step = (some.far - some.near) / np.float32(num_samples)
        shade, alpha[part], weighted = composite(rgb, density, distances, step, some.cosine)
        colour[part] = shade.T
        depth[part] = np.divide(weighted, alpha[part], out=np.zeros_like(weighted), where=alpha[part] > _SEEN)
    return colour, alpha, depth


def march(
    field: Field, grid: OccupancyGrid, rays: Rays, num_samples: int, optical: Array | None = None
) -> tuple[Array, Array, Array]:
    """Draws rays front to back and queries the field only where the grid says that there is something.

    Samples are the midpoints of `num_samples` equal intervals of each ray's stay in the cube, whether asked for or not,
    so that the result is that of the plain method, to the grid's tolerance.

    Args:
        field: points (N, 3) to colour (N, 3) and density (N,).
        grid: its occupancy grid.
        rays: R of them.
        num_samples: intervals of each ray.
        optical: (num_samples, R) zeros, where each interval's optical depth is written; None for nowhere.

    Returns:
        colour (R, 3) premultiplied, alpha (R,) and depth (R,), which is the mean depth of what was hit along the
        viewing axis, 0 where nothing was.
    """
    count = len(rays.near)
    table = ray_table(rays, num_samples)
    drawn, transmittance = np.zeros((4, count), np.float32), np.ones(count, np.float32)
    blocks = range(0, num_samples, SAMPLES_AT_ONCE)
    crossed = _crossed(grid, rays.origin, table, blocks)
    first_queried = SOLID if num_samples >= _FEW_SAMPLES else EMPTY + 1
    for index, start in enumerate(blocks):
        live = np.flatnonzero(crossed[index] & (transmittance > _OPAQUE))
        some = np.take(table, live, axis=1)
        distances = _middles_of(range(start, min(start + SAMPLES_AT_ONCE, num_samples)), *some[3:5])
        places = grid.octants_at(rays.origin, some[:3], distances)
        octants = grid.octants[places]
        occupied = np.flatnonzero(np.bitwise_or.reduce(octants, axis=0))
        if not occupied.size:
            continue
        here = live[occupied]
        some, distances = np.take(some, occupied, axis=1), np.take(distances, occupied, axis=1)
        places, octants = np.take(places, occupied, axis=1), np.take(octants, occupied, axis=1)
        rgb, density = np.zeros((3, octants.size), np.float32), grid.densities[octants]
        low_density = np.flatnonzero((octants != EMPTY) & (octants < first_queried))
        rgb[:, low_density] = grid.colors_at(places.reshape(-1)[low_density]).T
        asked = np.flatnonzero(octants >= first_queried)
        if asked.size:
            points = np.take(some[:3], asked % len(here), axis=1)
            points *= distances.reshape(-1)[asked]
            points += rays.origin[:, None]
            found, density.reshape(-1)[asked] = field(points.T)
            rgb[:, asked] = found.T
        if optical is not None:
            optical[start : start + len(density), here] = density * some[4]
        colour, alpha, depth = composite(rgb.reshape(3, *octants.shape), density, distances, *some[4:])
        before = transmittance[here]
        drawn[:3, here] += before * colour
        drawn[3, here] += before * depth
        transmittance[here] = before * (1 - alpha)
    alpha = 1 - transmittance
    return drawn[:3].T, alpha, np.divide(drawn[3], alpha, out=np.zeros_like(alpha), where=alpha > _SEEN)


def row_costs(grid: OccupancyGrid, camera: Camera, height: int, width: int, num_samples: int) -> Array:
    """Returns the relative cost of each of 16 bands of rows, (16,) above 0, for splitting work between threads."""
    # A panorama is judged by its middle.
    rays = camera_rays(camera, _BANDS, min(max(1, _BANDS * width // height), 4 * _BANDS))
    blocks = range(0, num_samples, max(SAMPLES_AT_ONCE, num_samples // _BANDS))
    crossed = _crossed(grid, rays.origin, ray_table(rays, num_samples), blocks)
    # A ray that meets nothing takes something, too.
    costs: Array = (crossed & rays.hits).sum(axis=0).reshape(_BANDS, -1).mean(axis=1) + np.float32(0.5)
    return costs


def ray_table(rays: Rays, num_samples: int) -> Array:
    """(6, R): a row each for x, y and z of the direction, where the first interval begins, their length, the cosine.

    Rows, so that rays are chosen in one operation: threads wait for one another at every one.
    """
    step = (rays.far - rays.near) / np.float32(num_samples)
    return np.concatenate([rays.directions.T, [rays.near, step, rays.cosine]])


def _crossed(grid: OccupancyGrid, origin: Array, table: Array, blocks: range) -> NDArray[np.bool_]:
    """(blocks, R) False where all samples of a block are in cells that are empty, by one look at the block's middle."""
    near, step = table[3:5]
    middle = np.asarray(blocks, np.float32) + np.float32(blocks.step / 2)
    cells = grid.cells_at(origin, table[:3], middle[:, None] * step + near)
    reach = step * np.float32(blocks.step / 4 * grid.resolution)
    crossed: NDArray[np.bool_] = grid.empty_distance[cells] <= reach + 1
    return crossed


def composite(rgb: Array, density: Array, distances: Array, step: Array, cosine: Array) -> tuple[Array, Array, Array]:
    """Emission-absorption compositing, front to back (Max 1995, equation 9, as used by NeRF).

    Samples come before rays, so that every operation runs along neighbouring rays.

    Args:
        rgb: (3, S, R) in [0, 1].
        density: (S, R) per scene unit, >= 0.
        distances: (S, R) of the samples along the ray.
        step: (R,) interval length.
        cosine: (R,) as in `Rays`.

    Returns:
        colour: (3, R); alpha: (R,) in [0, 1]; depth: (R,) along the viewing axis. Colour and depth are premultiplied by
        alpha.
    """
    optical = density * step
    passed = optical.copy()
    for before, now in pairwise(passed):
        now += before
    weights = np.exp(optical - passed) * -np.expm1(-optical)
    colour = (weights * rgb).sum(axis=1)
    return colour, -np.expm1(-passed[-1]), (weights * distances).sum(axis=0) * cosine
