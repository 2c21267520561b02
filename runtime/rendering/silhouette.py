"""The input image's silhouette, which an object is held to.

Density is multiplied by a factor of the pixel of the input image that it is behind:

    outside the mask      0: nothing stands out
    on its edge           such that alpha becomes the mask's
    inside, translucent   above 1: what was too uncertain to be solid becomes so, along the whole ray
    inside, opaque        1: as it was

A ray's optical depth is multiplied by its pixel's factor. For meshes the factor is larger where hardly any density
along the ray reaches the surface's: every pixel inside then has a surface.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..array_types import Array
from ..geometry.cameras import Camera
from .departures import dilated
from .field import Field, LatticeIndex
from .occupancy import OccupancyGrid, on_lattice
from .parallel import WorkerPool
from .projection import bilinear, look_from

# Pixels of the mask that a pixel of the look from the input camera stands for, along each axis; samples of its rays.
_COARSER, _SAMPLES = 2, 48
# Optical depth that a ray inside the mask shall have: alpha 0.95. What has more keeps it.
_DEPTH = np.float32(3)
# Largest factors, in views and for meshes, and the share of a ray's largest density that becomes surface. More of any
# turns haze that is spread along a ray into a wall (docs/decisions.md).
_MOST, _MOST_CUT, _SURFACE = 4.0, 64.0, np.float32(0.6)
# Alpha of the mask above which a pixel is surely inside, and above which a mesh shall cover it.
_INSIDE, _COVERED = 0.95, 0.5
# Less alpha is none.
_SOME = 0.05
_LEAST = np.float32(1e-6)


@dataclass(frozen=True)
class Silhouette:
    """A factor of density for each pixel of the input image.

    Attributes:
        camera: from where the image was taken.
        factor: (F, F) float32, 0 or more.
    """

    camera: Camera
    factor: Array

    @cached_property
    def _rows(self) -> tuple[Array, Array]:
        """What gives a point's column and row times depth, and depth: a matrix (3, 3) and what is taken off (3,)."""
        side, half = len(self.factor), np.tan(np.radians(self.camera.fov) / 2)
        right, up, backward = self.camera.pose[:3, :3].T
        across = np.stack([(right / half - backward) * side / 2, (-up / half - backward) * side / 2, -backward])
        return across.astype(np.float32), (across @ self.camera.position).astype(np.float32)

    def at(self, points: Array) -> Array:
        """Returns the factors (N,) float32 at points (N, 3); beyond the image those of its border."""
        side, (x, y, z) = len(self.factor), points.T
        # Sums in place: a product of matrices takes a copy and, beside a second thread, three times as long.
        column, row, depth = (np.float32(a) * x for a in self._rows[0][:, 0])
        for values, (_, b, c), less in zip((column, row, depth), *self._rows, strict=True):
            values += b * y
            values += c * z
            values -= less
        for values in (column, row):
            values /= np.maximum(depth, _LEAST)
            np.clip(values, 0, side - 1, out=values)
        index = row.astype(np.int32)
        index *= np.int32(side)
        index += column.astype(np.int32)
        found: Array = self.factor.reshape(-1)[index]
        return found

    def held(self, field: Field) -> Field:
        """Returns a field whose density is multiplied by the factors."""
        return _HeldField(field, self)

    def held_grid(self, grid: OccupancyGrid) -> OccupancyGrid:
        """Returns the occupancy grid of the held field, from that of the field itself."""
        count, camera = grid.resolution, self.camera
        # Half a cell's diagonal in pixels at the cube's corner that is nearest to the camera, and one for rounding.
        away = max(float(np.linalg.norm(camera.position) - np.sqrt(3)), 0.5)
        pixel = 2 * np.tan(np.radians(camera.fov) / 2) * away / len(self.factor)
        most, least = self.factor, -self.factor
        for _ in range(int(np.ceil(np.sqrt(3) / count / pixel)) + 1):
            most, least = dilated(most), dilated(least)
        axis = (np.arange(count, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / count) - 1
        middles = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
        return grid.scaled(*(Silhouette(camera, values).at(middles) for values in (self.factor, -least, most)))


def find_silhouettes(
    field: Field, grid: OccupancyGrid, pool: WorkerPool, camera: Camera, mask: Array, surface_density: float
) -> tuple[Silhouette, Silhouette]:
    """Looks at a scene from the input camera and compares what is seen with the mask.

    Args:
        field: points (N, 3) to colour (N, 3) and density (N,).
        grid: its occupancy grid.
        pool: worker pool.
        camera: from where the image was taken, at the middle of a square image.
        mask: (S, S) in [0, 1], the image's alpha, S even.
        surface_density: where meshes are cut, per scene unit.

    Returns:
        Factors for views and factors for meshes.
    """
    side = len(mask) // _COARSER
    rays, optical, _, _ = look_from(field, grid, pool, camera, side, _SAMPLES)
    # An object that is translucent all over, as glass is, is there all the same.
    usual = np.median(mask[mask > _SOME]) if (mask > _SOME).any() else np.float32(1)
    covered = np.minimum(mask / usual, 1).reshape(side, _COARSER, side, _COARSER).mean((1, 3))
    wanted = -np.log1p(-np.minimum(covered, -np.expm1(-_DEPTH)))
    drawn = np.clip(wanted / np.maximum(optical.sum(axis=0).reshape(side, side), _LEAST), 0, _MOST)
    drawn = np.where(covered > _INSIDE, np.maximum(drawn, 1), drawn)
    step = np.maximum((rays.far - rays.near) / np.float32(_SAMPLES), _LEAST)
    peak = np.maximum(optical.max(axis=0) / step, _LEAST).reshape(side, side)
    cut = np.clip(np.float32(surface_density) / (_SURFACE * peak), 1, _MOST_CUT)
    cut = np.where(covered > _COVERED, np.maximum(drawn, cut), drawn)
    return Silhouette(camera, _twice_as_fine(drawn)), Silhouette(camera, _twice_as_fine(cut))


@dataclass(frozen=True)
class _HeldField:
    field: Field
    silhouette: Silhouette

    def __call__(self, points: Array) -> tuple[Array, Array]:
        rgb, density = self.field(points)
        return rgb, density * self.silhouette.at(points)

    def lattice(self, axis: Array) -> Callable[[LatticeIndex], tuple[Array, Array]]:
        ask = on_lattice(self.field, axis)

        def held(index: LatticeIndex) -> tuple[Array, Array]:
            rgb, density = ask(index)
            return rgb, density * self.silhouette.at(np.stack([axis[i] for i in index], axis=-1))

        return held


def _twice_as_fine(values: Array) -> Array:
    """(2H, 2W) float32 of an image (H, W), by bilinear interpolation."""
    height, width = values.shape
    x, y = ((np.arange(2 * n, dtype=np.float32) + np.float32(0.5)) / np.float32(n) - 1 for n in (width, height))
    places = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    return bilinear(values[..., None].astype(np.float32), places).reshape(2 * height, 2 * width)
