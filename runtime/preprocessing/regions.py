"""Connected regions, growing, shrinking and blurring of masks, in NumPy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..array_types import Array, Mask


def components(mask: Mask) -> NDArray[np.int64]:
    """Labels regions that hang together along rows and columns.

    Each run of pixels takes the smallest label in it, along rows and columns by turns, until nothing changes.

    Args:
        mask: (H, W).

    Returns:
        (H, W): the same number from 0 to H * W - 1 for every pixel of a region, -1 outside.
    """
    labels = np.where(mask, np.arange(mask.size).reshape(mask.shape), mask.size)
    while True:
        after = _smallest_of_runs(_smallest_of_runs(labels, mask).T, mask.T).T
        if np.array_equal(after, labels):
            return np.where(mask, labels, -1)
        labels = after


def touching_border(mask: Mask) -> Mask:
    """The regions of a mask (H, W) that reach the image's border."""
    labels = components(mask)
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return mask & np.isin(labels, edge[edge >= 0])


def dilated(mask: Mask, radius: int) -> Mask:
    """A mask grown by a square of this radius in pixels."""
    for axis in (0, 1):
        # Of a running count, a window holds something where the count differs between its ends.
        padded = np.pad(mask, [(radius + 1, radius) if a == axis else (0, 0) for a in (0, 1)])
        count = np.moveaxis(padded.cumsum(axis, dtype=np.int32), axis, 0)
        mask = np.moveaxis(count[2 * radius + 1 :] > count[: -2 * radius - 1], 0, axis)
    return mask


def eroded(mask: Mask, radius: int) -> Mask:
    """A mask shrunk by a square of this radius; what is outside the image counts as inside."""
    return ~dilated(~mask, radius)


def blurred(values: Array, radius: int, times: int = 1) -> Array:
    """Means over squares of this radius, `times` over; values (H, W) or (H, W, C), edges repeated."""
    result = values.astype(np.float64)
    for _ in range(times):
        for axis in (0, 1):
            pads = [(radius + 1, radius) if a == axis else (0, 0) for a in range(values.ndim)]
            total = np.moveaxis(np.pad(result, pads, mode="edge").cumsum(axis), axis, 0)
            result = np.moveaxis((total[2 * radius + 1 :] - total[: -2 * radius - 1]) / (2 * radius + 1), 0, axis)
    return result.astype(np.float32)


def _smallest_of_runs(labels: NDArray[np.int64], mask: Mask) -> NDArray[np.int64]:
    """Every run of True along a row with the smallest of its labels."""
    inside = np.flatnonzero(mask)
    if not inside.size:
        return labels
    before = np.zeros(mask.shape, bool)
    before[:, 1:] = mask[:, :-1]
    flat = labels.ravel()
    starts = np.flatnonzero((mask & ~before).ravel()[inside])
    result = flat.copy()
    lengths = np.diff(np.append(starts, inside.size))
    result[inside] = np.repeat(np.minimum.reduceat(flat[inside], starts), lengths)
    return result.reshape(labels.shape)
