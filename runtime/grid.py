"""A coarse look at a density field, paid once a scene, so that drawing it can leave out what is empty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .planes import PLANE_AXES
from .tasks import Tasks

Array = NDArray[np.float32]
Field = Callable[[Array], tuple[Array, Array]]

# Below this optical depth per scene unit a field is haze: what the grid knows of it is enough. Where it may be above,
# in a cell or beside it, the field itself is asked.
_HAZE = 0.25
# Share of the sensitivity that counts: what a texel has beyond its cell's middle seldom lies along the steepest
# direction in all planes at once. At this share a step of noise in every texel stays within 1/255 (docs/decisions.md).
_ALIGNED = 0.5
# A softplus of less is as good as 0: what is outside is bounded, so that a surface is interpolated well.
_FARTHEST = -15.0


@dataclass(frozen=True)
class DensityGrid:
    """What a field is like in each of N^3 cells of the cube [-1, 1]^3; a cell is two texels wide.

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
    def of(
        cls, field: Field, triplane: Array, density_scale: float, sensitivity: Sequence[float], tasks: Tasks
    ) -> DensityGrid:
        """Looks at the field in the middle of every cell, and at the planes for what the middles do not show.

        Args:
            field: points (N, 3) to colour (N, 3) and density (N,) = density_scale * softplus(logit).
            triplane: (3, C, H, W), what the field reads; H = W, even.
            density_scale: from the bundle.
            sensitivity: for each plane, how much the logit changes at most with the plane's features (Euclidean norm).
            tasks: where the field is asked.
        """
        resolution = triplane.shape[-1] // 2
        axis = (np.arange(resolution, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / resolution) - 1
        density, rgb = np.empty(resolution**3, np.float32), np.empty((resolution**3, 3), np.float32)

        def look(part: slice) -> None:
            index = np.unravel_index(np.arange(part.start, part.stop), (resolution,) * 3)
            rgb[part], density[part] = field(np.stack([axis[i] for i in index], axis=-1))

        tasks.run(look, resolution**3)
        highest = to_logit(density, density_scale).reshape((resolution,) * 3)
        for plane, (column, row, sign) in enumerate(PLANE_AXES):
            rise = np.float32(_ALIGNED * sensitivity[plane]) * _unseen(triplane[plane])[::sign]
            # The plane's (row, column) to (x, y, z), with the axis that it lacks of length 1.
            rise = rise if row < column else rise.T
            highest = highest + np.expand_dims(rise, 3 - row - column)
        limit = to_logit(np.array(_HAZE, np.float32), density_scale)
        solid = _largest_near(highest, (0, 1, 2)).reshape(-1) > limit
        return cls(np.where(solid, 0, density), rgb, solid, resolution)

    def cells(self, points: Array) -> NDArray[np.int32]:
        """Index of the cell that each of the points (..., 3) is in."""
        half = np.float32(self.resolution / 2)
        index = np.clip((points + 1) * half, 0, self.resolution - 1).astype(np.int32)
        cells: NDArray[np.int32] = (index[..., 0] * self.resolution + index[..., 1]) * self.resolution + index[..., 2]
        return cells


def to_logit(density: Array, density_scale: float) -> Array:
    """The inverse of density_scale * softplus(logit), at least -15."""
    value = density / np.float32(density_scale)
    # log(exp(v) - 1); a large v is its own inverse.
    small = np.log(np.expm1(np.clip(value, np.exp(_FARTHEST), 20)))
    return np.where(value > 20, value, small).astype(np.float32)


def _unseen(plane: Array) -> Array:
    """How far the texels in and beside each cell are from what interpolation of the cells' middles makes of them.

    Args:
        plane: (C, 2N, 2N).

    Returns:
        (N, N), the largest Euclidean norm over the channels.
    """
    side = plane.shape[-1] // 2
    middles = plane.reshape(-1, side, 2, side, 2).mean((2, 4))
    error = np.linalg.norm(plane - _doubled(_doubled(middles, 1), 2), axis=0)
    within = error.reshape(side, 2, side, 2).max((1, 3))
    return _largest_near(within, (0, 1))


def _doubled(values: Array, axis: int) -> Array:
    """Twice as many values along an axis, interpolated linearly between the middles of pairs."""
    moved = np.moveaxis(values, axis, 0)
    before, after = np.concatenate([moved[:1], moved[:-1]]), np.concatenate([moved[1:], moved[-1:]])
    pairs = np.stack([0.75 * moved + 0.25 * before, 0.75 * moved + 0.25 * after], axis=1, dtype=np.float32)
    return np.moveaxis(pairs.reshape(-1, *moved.shape[1:]), 0, axis)


def _largest_near(values: Array, axes: Sequence[int]) -> Array:
    """The largest of each cell and its neighbours along the axes, diagonal ones included."""
    for axis in axes:
        wide = np.pad(values, [(1, 1) if a == axis else (0, 0) for a in range(values.ndim)], mode="edge")
        moved = np.moveaxis(wide, axis, 0)
        values = np.moveaxis(np.maximum(np.maximum(moved[:-2], moved[2:]), moved[1:-1]), 0, axis)
    return values
