"""Input pictures: whatever the caller has, to the square float32 picture that the model was trained on.

A picture with transparency is cropped to its object, which is centred and scaled to the framing used in training,
over white. An opaque one is taken as it is, padded to a square with white.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import BackgroundWarning, ImageError

ImageInput = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any]
ImageBatch = list[Any] | tuple[Any, ...]

MAX_PIXELS = 64_000_000
MIN_SIDE, MAX_OBLONG = 16, 32
_LARGE = 2048
# Above this share of visible pixels there is no mask to speak of.
_FULL = 0.995
_READ = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
_VISIBLE = 0.05
_MIN_OBJECT = 8
_FORMATS = (
    "Give a PNG, JPEG, WebP, BMP or TIFF file, its bytes, a PIL image, or an array (H, W), (H, W, 3) or (H, W, 4)."
)

Array = NDArray[np.float32]


def prepare_image(image: ImageInput, size: int, framing: float) -> Array:
    """Brings one picture into the model's form.

    Args:
        image: a path, an encoded file's bytes, a PIL image of any mode, or an array with channels last: uint8, uint16,
            bool, or floating in [0, 1]; grey, grey with alpha, RGB or RGBA.
        size: side of the result in pixels.
        framing: share of the side that a masked object's bounding square shall take.

    Returns:
        (3, size, size) float32 RGB in [-1, 1].

    Raises:
        ImageError: it cannot be read, or holds nothing to reconstruct; the message says what is allowed.
    """
    rgba = to_rgba(image)
    alpha = rgba[3]
    if (alpha > 0.5).mean() > _FULL:
        warnings.warn(
            "The picture has no transparency: its background was not removed, and it is taken as it is.",
            BackgroundWarning,
            stacklevel=3,
        )
        height, width = alpha.shape
        side = max(height, width)
        window = ((width - side) / 2, (height - side) / 2, side)
    else:
        window = _object_window(alpha, framing)
    rgba[:3] *= alpha
    framed = _resample(rgba, window, size)
    rgb = framed[:3] + (1 - framed[3])
    return rgb * np.float32(2) - np.float32(1)


def to_rgba(image: ImageInput) -> Array:
    """Decodes a picture to (4, H, W) float32 in [0, 1], alpha not premultiplied, EXIF rotation applied.

    Files and PIL images with more than 2048 pixels on a side come back smaller.
    """
    if isinstance(image, np.ndarray):
        return _array_to_rgba(image)
    if isinstance(image, Image.Image):
        with _reading("The PIL image"):
            return _pil_to_rgba(image)
    if isinstance(image, bytes | bytearray | memoryview):
        with _reading(f"The {len(image)} bytes given"), Image.open(io.BytesIO(image), formats=_READ) as picture:
            return _pil_to_rgba(picture)
    if isinstance(image, str | os.PathLike):
        path = Path(os.fsdecode(image))
        if not _is_file(path):
            raise ImageError(f"There is no picture file at {str(path)[:200]}.", "Check the path.")
        with _reading(str(path)), Image.open(path, formats=_READ) as picture:
            return _pil_to_rgba(picture)
    raise ImageError(f"A {type(image).__name__} is no picture.", _FORMATS)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or holds a null byte
        return False


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turns whatever a decoder raises into an `ImageError` that names the picture."""
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise _too_large("more than Pillow opens") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name} cannot be read as a picture: no known format.", _FORMATS) from None
    except Exception as error:  # Pillow's decoders raise whatever a broken file makes them stumble over.
        raise ImageError(
            f"{name} cannot be read as a picture: it is damaged or cut off ({error}).", _FORMATS
        ) from error


def _pil_to_rgba(picture: Image.Image) -> Array:
    _check_sides(*picture.size)
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        # 16-bit grey, which Pillow would clip to 255 in a conversion; 32-bit integers are taken to hold the same range.
        grey = np.asarray(picture).astype(np.float32) / np.float32(1 if picture.mode == "F" else 65535)
        clear = picture.info.get("transparency")
        mask = [] if clear is None else [np.asarray(picture) != clear]
        return _planes_to_rgba(np.stack([grey, *mask]).astype(np.float32))
    picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    # What is far larger than the model's picture is shrunk while it is still 8 bits a channel.
    picture.thumbnail((_LARGE, _LARGE), Image.Resampling.BOX)
    # Band by band takes half the time of NumPy's own way to a picture's bytes.
    return _planes_to_rgba(np.stack([np.asarray(band) for band in picture.split()]))


def _array_to_rgba(array: NDArray[Any]) -> Array:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4) or 0 in array.shape:
        raise ImageError(
            f"An array of shape {array.shape} is no picture: channels come last, 1 to 4 of them.", _FORMATS
        )
    _check_sides(array.shape[1], array.shape[0])
    return _planes_to_rgba(np.ascontiguousarray(array.transpose(2, 0, 1)))


def _planes_to_rgba(planes: NDArray[Any]) -> Array:
    """(1 to 4, H, W) of whatever numbers a picture may have to (4, H, W), in memory of its own."""
    kind, bits = planes.dtype.kind, 8 * planes.dtype.itemsize
    if kind == "u" and bits in (8, 16):
        values: Array = np.divide(planes, np.float32(np.iinfo(planes.dtype).max), dtype=np.float32)
    elif kind == "b" or (kind == "f" and bits <= 64):
        values = planes.astype(np.float32)
        if not np.isfinite(values).all():
            raise ImageError("The picture holds NaN or infinity.", "Replace them before the call.")
        if values.min() < 0 or values.max() > 1:
            raise ImageError(
                f"A floating picture must lie in [0, 1], not in [{values.min():.3g}, {values.max():.3g}].",
                "Scale it, or give uint8.",
            )
    else:
        raise ImageError(f"Arrays of {planes.dtype} are no pictures: uint8, uint16, bool or floating are.", _FORMATS)
    channels = len(values)
    if channels == 4:
        return values
    colour = values[:3] if channels >= 3 else np.repeat(values[:1], 3, axis=0)
    alpha = values[-1:] if channels == 2 else np.ones_like(values[:1])
    return np.concatenate([colour, alpha])


def _check_sides(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _too_large(f"{width}x{height}")
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_OBLONG * min(width, height):
        raise ImageError(
            f"The picture is {width}x{height} pixels; at least {MIN_SIDE} on each side are needed, and "
            f"no side more than {MAX_OBLONG} times the other.",
            "Give a larger one, or crop it to the object.",
        )


def _too_large(what: str) -> ImageError:
    return ImageError(
        f"The picture is too large: {what}, where {MAX_PIXELS // 1_000_000} million pixels are allowed.",
        "Shrink it first.",
    )


def _object_window(alpha: Array, framing: float) -> tuple[float, float, float]:
    """Left, top and side of the square that frames what is visible."""
    visible = alpha > _VISIBLE
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    if rows.size == 0:
        raise ImageError("The picture is fully transparent: there is no object in it.", "Check its alpha channel.")
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    longest = max(bottom - top, right - left)
    if longest < _MIN_OBJECT:
        raise ImageError(
            f"The visible part of the picture is only {right - left}x{bottom - top} pixels.",
            f"Give a picture whose object spans at least {_MIN_OBJECT}.",
        )
    side = longest / framing
    return (left + right - side) / 2, (top + bottom - side) / 2, side


def _resample(image: Array, window: tuple[float, float, float], size: int) -> Array:
    """Cuts a square window out of a picture (C, H, W), or beyond it, and resamples it with an antialiasing filter."""
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


def _resize(image: Array, size: tuple[int, int], box: tuple[float, float, float, float]) -> Array:
    """Bicubic with antialiasing, every channel in float32; size and box in Pillow's order."""
    planes = [
        Image.fromarray(np.ascontiguousarray(channel)).resize(size, Image.Resampling.BICUBIC, box) for channel in image
    ]
    return np.stack([np.asarray(plane) for plane in planes])
