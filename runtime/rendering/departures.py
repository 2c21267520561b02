"""How far a density's logit may be from what interpolation between the middles of cells says, read off the planes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..array_types import Array
from ..geometry.triplane import PLANE_AXES

# Share of the sensitivity that is assumed: a texel's difference from its cell's middle seldom points along the steepest
# direction in all planes at once. At this share noise in every texel stays within 1/255 (docs/decisions.md).
_ALIGNED = 0.5


def unforeseen_changes(
    triplane: Array, sensitivity: Sequence[float], run: Callable[..., Iterable[tuple[Array, Array]]] = map
) -> tuple[Array, Array]:
    """Bounds how far the logit may be from what the middles of cells say.

    Args:
        triplane: (3, C, 2N, 2N), N even.
        sensitivity: as in `OccupancyGrid.of`.
        run: as `map`.

    Returns:
        (N^3,) in the middle of each cell, from interpolation between the middles of cells twice as wide; (N^3,)
        anywhere in the cell, from interpolation between the cells' middles.
    """
    changes = run(lambda plane: _unforeseen(triplane[plane], sensitivity[plane]), range(3))
    shift, rise = (_over_cells(maps) for maps in zip(*changes, strict=True))
    return shift, rise


def _over_cells(maps: Sequence[Array]) -> Array:
    """(N^3,) the sum of three planes' maps (N, N), each the same along the axis that its plane lacks."""
    total = np.zeros((len(maps[0]),) * 3, np.float32)
    for change, (column, row, sign) in zip(maps, PLANE_AXES, strict=True):
        # The plane's (row, column) to (x, y, z), with the axis that it lacks of length 1.
        rows = change[::sign]
        total += np.expand_dims(rows if row < column else rows.T, 3 - row - column)
    return total.reshape(-1)


def _unforeseen(plane: Array, sensitivity: float) -> tuple[Array, Array]:
    """Bounds how far a plane may move the logit from what the middles of cells say.

    Args:
        plane: (C, 2N, 2N), N even.
        sensitivity: as in `OccupancyGrid.of`.

    Returns:
        (N, N), in the middle of each cell from what interpolation of the middles of cells twice as wide makes of it;
        (N, N), anywhere in the cell from what interpolation of the cells' middles makes of it.
    """
    share, middles = np.float32(_ALIGNED * sensitivity), _middles(plane, 2)
    cells = middles.shape[-1]
    shift = _departure(middles, _middles(plane, 4)).transpose(2, 0, 3, 1).reshape(cells, cells)
    texels = _departure(plane, middles).reshape(4, cells, cells).max(axis=0)
    return share * shift, share * dilated(texels)


def _middles(plane: Array, width: int) -> Array:
    """Features (C, n, n) in the middle of cells of `width` texels, an even number, of a plane (C, H, H)."""
    first = width // 2 - 1
    pairs = plane[:, first::width] + plane[:, first + 1 :: width]
    middles: Array = pairs[:, :, first::width] + pairs[:, :, first + 1 :: width]
    middles *= np.float32(0.25)
    return middles


def _departure(plane: Array, middles: Array) -> Array:
    """Euclidean norm of what a plane (C, 2n, 2n) has beyond linear interpolation of middles (C, n, n).

    Returns:
        (2, 2, n, n): of the upper and lower, left and right value in each cell, apart so that all runs are whole.
    """
    count = middles.shape[-1]
    wide = np.pad(middles, ((0, 0), (1, 1), (1, 1)), mode="edge")
    found = np.empty((2, 2, count, count), np.float32)
    # A value is a quarter of the way from its cell's middle to the next.
    most, least = wide[:, 1:-1] * np.float32(0.75), wide * np.float32(0.25)
    for down in (0, 1):
        rows = most + least[:, 2 * down : 2 * down + count]
        own, beside = rows[:, :, 1:-1] * np.float32(0.75), rows * np.float32(0.25)
        for right in (0, 1):
            error = own - plane[:, down::2, right::2]
            error += beside[:, :, 2 * right : 2 * right + count]
            # Squared in place, where a norm would take arrays of its own.
            np.multiply(error, error, out=error)
            error.sum(axis=0, out=found[down, right])
    return np.sqrt(found, out=found)


def dilated(values: NDArray[Any]) -> NDArray[Any]:
    """The largest of each value and its neighbours along every axis, diagonal ones included."""
    for axis in range(values.ndim):
        values = _largest_along(axis, values)
    return values


def _largest_along(axis: int, values: NDArray[Any]) -> NDArray[Any]:
    """The largest of each value and its two neighbours along one axis."""
    moved, largest = np.moveaxis(values, axis, 0), values.copy()
    into = np.moveaxis(largest, axis, 0)
    np.maximum(into[1:], moved[:-1], out=into[1:])
    np.maximum(into[:-1], moved[1:], out=into[:-1])
    return largest
