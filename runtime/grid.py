"""A coarse look at a density field, paid once a scene, so that drawing it can leave out what is empty."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Field = Callable[[Array], tuple[Array, Array]]

# Below this optical depth per scene unit a field is haze: what the grid knows of it is enough. Above it, or beside a
# cell that is, the field itself is asked.
_HAZE = 0.04
_LEAST_RESOLUTION = 64


@dataclass(frozen=True)
class DensityGrid:
    """What a field is like in each of N^3 cells of the cube [-1, 1]^3.

    Attributes:
        density: (N^3,) float32 at the middle of each cell, x slowest, z fastest; 0 in solid cells.
        rgb: (N^3, 3) float32, colour there.
        solid: (N^3,) bool, True where the field has to be asked.
        resolution: N.
    """

    density: Array
    rgb: Array
    solid: NDArray[np.bool_]
    resolution: int

    @classmethod
    def of(cls, field: Field, plane_side: int, points_at_once: int) -> DensityGrid:
        """Looks at the field in the middle of every cell.

        Args:
            field: points (N, 3) to colour (N, 3) and density (N,) per scene unit.
            plane_side: texels along a side of the triplane. A cell is two texels wide at most: its middle, and those
                of its neighbours, then see at least half of what a single texel adds.
            points_at_once: how many points are asked for together.
        """
        resolution = max(_LEAST_RESOLUTION, plane_side // 2)
        axis = (np.arange(resolution, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / resolution) - 1
        density, rgb = np.empty(resolution**3, np.float32), np.empty((resolution**3, 3), np.float32)
        for start in range(0, resolution**3, points_at_once):
            part = slice(start, min(start + points_at_once, resolution**3))
            index = np.unravel_index(np.arange(part.start, part.stop), (resolution,) * 3)
            rgb[part], density[part] = field(np.stack([axis[i] for i in index], axis=-1))
        solid = _largest_near(density.reshape((resolution,) * 3)).reshape(-1) > _HAZE
        return cls(np.where(solid, 0, density), rgb, solid, resolution)

    def cells(self, points: Array) -> NDArray[np.int32]:
        """Index of the cell that each of the points (..., 3) is in."""
        half = np.float32(self.resolution / 2)
        index = np.clip((points + 1) * half, 0, self.resolution - 1).astype(np.int32)
        cells: NDArray[np.int32] = (index[..., 0] * self.resolution + index[..., 1]) * self.resolution + index[..., 2]
        return cells


def _largest_near(values: Array) -> Array:
    """The largest of each cell's 27 neighbours, itself included."""
    for axis in range(3):
        wide = np.pad(values, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        moved = np.moveaxis(wide, axis, 0)
        values = np.moveaxis(np.maximum(np.maximum(moved[:-2], moved[2:]), moved[1:-1]), 0, axis)
    return values
