"""Where the object is in an image, and the square that is cut out around it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..array_types import Array
from ..errors import ImageError
from .regions import components, dilated, touching_border

# Left, top and side of a square in pixels; it may reach beyond the image.
Window = tuple[float, float, float]

# Alpha below this share of the object's own, within these bounds, is haze or a shadow.
_FAINT, _FAINTEST, _PLAIN = 0.5, 0.1, 0.5
# Islands of less of the weight than this are dropped.
_ISLAND = 0.01
_VISIBLE, _MIN_OBJECT = 0.05, 8
# Side of the grid that islands are told apart on.
_GRID = 96
# The frame would have been larger by this share: worth a word.
_NOTICEABLE = 0.05


def object_window(alpha: Array, ratio: float) -> tuple[Window, Array, str | None]:
    """Frames what carries the mask's weight.

    Faint alpha (haze, soft shadows) and islands far smaller than the object are left out.

    Args:
        alpha: (H, W) in [0, 1].
        ratio: share of the window's side that the object's bounding square takes.

    Returns:
        The window; alpha with what is left out at 0; and a note where that changes the frame, else None.

    Raises:
        ImageError: nothing is visible, or what is visible is too small.
    """
    visible = alpha > _VISIBLE
    if not visible.any():
        raise ImageError("The image is fully transparent: there is no object in it.", "Check its alpha channel.")
    # The mean of alpha, weighted by its square: what is faint counts little, however much there is of it.
    squared = alpha * alpha
    typical = float((squared * alpha).sum() / squared.sum())
    solid = alpha > min(max(_FAINT * typical, _FAINTEST), _PLAIN)
    kept = _without_islands(solid, alpha)
    top, bottom, left, right = _box(kept)
    longest = max(bottom - top, right - left)
    if longest < _MIN_OBJECT:
        raise ImageError(
            f"The visible part of the image is only {right - left}x{bottom - top} pixels.",
            f"Give an image whose object spans at least {_MIN_OBJECT}.",
        )
    note = None
    outer_top, outer_bottom, outer_left, outer_right = _box(visible)
    if max(outer_bottom - outer_top, outer_right - outer_left) > (1 + _NOTICEABLE) * longest:
        note = "Faint or small parts of the image away from the object were left out of the frame."
    side = longest / ratio
    # Soft edges belong to the object as far as they reach from it, and so do panes that it encloses.
    far = ~dilated(kept, max(2, round(0.02 * longest)))
    if (alpha[far] > 0).any():
        alpha = np.where(touching_border(far), 0, alpha)
    return ((left + right - side) / 2, (top + bottom - side) / 2, side), alpha, note


def resample(image: Array, window: Window, size: int) -> Array:
    """Cuts a square window out of an image (C, H, W), or beyond it, and resamples it with an antialiasing filter."""
    left, top, side = window
    height, width = image.shape[1:]
    if (left, top, side) == (0, 0, size) and (height, width) == (size, size):
        return image
    # Only what the window sees is resampled, first to about twice the size: so padding is small whatever comes in.
    x, y = max(0, int(np.floor(left))), max(0, int(np.floor(top)))
    seen = image[:, y : int(np.ceil(top + side)), x : int(np.ceil(left + side))]
    rows, columns = seen.shape[1:]
    shrink = min(1.0, 2 * size / side)
    new_rows, new_columns = max(1, round(rows * shrink)), max(1, round(columns * shrink))
    if shrink < 1:
        seen = _resize(seen, (new_columns, new_rows), (0, 0, columns, rows))
    across, down = new_columns / columns, new_rows / rows
    box = ((left - x) * across, (top - y) * down, (left - x + side) * across, (top - y + side) * down)
    before_x, before_y = max(0, int(np.ceil(-box[0]))), max(0, int(np.ceil(-box[1])))
    after_x, after_y = max(0, int(np.ceil(box[2])) - new_columns), max(0, int(np.ceil(box[3])) - new_rows)
    padded = np.pad(seen, ((0, 0), (before_y, after_y), (before_x, after_x)))
    box = (box[0] + before_x, box[1] + before_y, box[2] + before_x, box[3] + before_y)
    return np.clip(_resize(padded, (size, size), box), 0, 1)


def _without_islands(solid: NDArray[np.bool_], alpha: Array) -> NDArray[np.bool_]:
    """`solid` without components that carry little of the weight, told apart on a coarse grid."""
    height, width = solid.shape
    cell = max(1, -(-max(height, width) // _GRID))
    pad = ((0, -height % cell), (0, -width % cell))
    blocks = np.pad(solid, pad).reshape(-(-height // cell), cell, -(-width // cell), cell)
    coarse: NDArray[np.bool_] = np.asarray(blocks.any((1, 3)))
    weights = np.pad(alpha * solid, pad).reshape(blocks.shape).sum((1, 3))
    labels = components(coarse)
    inside = labels >= 0
    totals = np.bincount(labels[inside], weights[inside], labels.size)
    large = totals >= _ISLAND * totals.max()
    kept = np.zeros(coarse.shape, bool)
    kept[inside] = large[labels[inside]]
    return solid & kept.repeat(cell, 0).repeat(cell, 1)[:height, :width]


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of what is True."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return 0, 0, 0, 0
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _resize(image: Array, size: tuple[int, int], box: tuple[float, float, float, float]) -> Array:
    """Bicubic with antialiasing, every channel in float32; size and box in Pillow's order."""
    planes = [
        Image.fromarray(np.ascontiguousarray(channel)).resize(size, Image.Resampling.BICUBIC, box) for channel in image
    ]
    return np.stack([np.asarray(plane) for plane in planes])
