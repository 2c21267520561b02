"""Whatever a caller has to (4, H, W) float32: files, bytes, streams, PIL images, arrays."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..array_types import Array
from ..errors import ImageError
from ..file_kinds import format_name
from .sources import FORMATS, read_bytes, without_side_information

ImageInput = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any]

MAX_PIXELS = 64_000_000
MIN_SIDE, MAX_OBLONG = 16, 32
_LARGE = 2048
_READ = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
# Rounding, and what bicubic and Lanczos filters overshoot beside an edge.
_OVERSHOOT = 0.2
# Grey of 2 and 4 bits is spread over 0 to 255 when it is decoded; the transparent value of its file is not.
_SPREAD = {"L;2": 85, "L;4": 17}


def to_rgba(image: ImageInput) -> Array:
    """Decodes an image.

    Args:
        image: a path ("-" for standard input), a binary file object, an encoded file's bytes, a PIL image of any mode,
            or an array with channels last: uint8, uint16, bool, or floating in [0, 1]; grey, grey with alpha, RGB or
            RGBA.

    Returns:
        (4, H, W) float32 in [0, 1], sRGB, alpha not premultiplied, Exif rotation applied. Files and PIL images with
        more than 2048 pixels on a side come back smaller.

    Raises:
        ImageError: it cannot be read; the message says what it is and what is allowed.
    """
    if isinstance(image, np.ndarray):
        return _array_to_rgba(np.asarray(image))
    if isinstance(image, Image.Image):
        with _reading("The PIL image", b""):
            return _pil_to_rgba(image)
    if not isinstance(image, str | os.PathLike | bytes | bytearray | memoryview) and not hasattr(image, "read"):
        raise ImageError(f"A {type(image).__name__} is no image.", FORMATS)
    data, name = read_bytes(image)
    try:
        return _decoded(data, name)
    except ImageError:
        # Text and thumbnails beside the pixels must not stop them; a damaged pixel does.
        cleaned = without_side_information(data)
        if cleaned is None or cleaned == data:
            raise
        try:
            return _decoded(cleaned, name)
        except ImageError:
            pass
        raise


def _decoded(data: bytes, name: str) -> Array:
    with _reading(name, data), warnings.catch_warnings():
        # What Pillow finds odd beside the pixels is no concern of the caller.
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data), formats=_formats(data)) as opened:
            return _pil_to_rgba(opened)


def _formats(data: bytes) -> tuple[str, ...]:
    """The formats to try; Pillow reads AVIF only where it was built so."""
    if format_name(data) != "AVIF":
        return _READ
    from PIL import features

    return ("AVIF",) if features.check("avif") else _READ


@contextmanager
def _reading(name: str, data: bytes) -> Iterator[None]:
    """Turns whatever a decoder raises into an `ImageError` that names the image and what it is."""
    try:
        yield
    except ImageError:
        raise
    except MemoryError:
        raise
    except Image.DecompressionBombError:
        raise _too_large("more than Pillow opens") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name} cannot be read as an image: {_what_it_is(data)}.", FORMATS) from None
    except Exception as error:  # Pillow's decoders raise whatever a broken file makes them stumble over.
        said = str(error) or type(error).__name__
        raise ImageError(f"{name} cannot be read as an image: it is damaged or cut off ({said}).", FORMATS) from error


def _what_it_is(data: bytes) -> str:
    if not data:
        return "it is empty"
    known = format_name(data)
    if known is not None:
        way_out = ", which this Pillow does not read; convert it to PNG or JPEG" if known == "AVIF" else ""
        return f"it is {known}{way_out}"
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return f"it is {_kind_of_tiff(data)}; save it with 8 or 16 bits a channel"
    return "no known format"


def _kind_of_tiff(data: bytes) -> str:
    """A TIFF's samples in words, from its first directory."""
    from PIL import TiffImagePlugin

    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
        file = io.BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        bits, samples = tags.get(258, (1,)), tags.get(277, 1)
        kind = {1: "unsigned integers", 2: "signed integers", 3: "floats"}.get(tags.get(339, (1,))[0], "samples")
        return f"a TIFF of {samples} channels of {bits[0]}-bit {kind}"
    except Exception:  # A damaged directory raises kinds of its own.
        return "a TIFF of an unusual kind"


def _pil_to_rgba(picture: Image.Image) -> Array:
    check_sides(*picture.size)
    profile = picture.info.get("icc_profile")
    raw_mode = _raw_mode(picture)
    picture = _upright(picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        return _deep_grey(picture)
    picture = _with_spread_transparency(picture, raw_mode)
    if picture.mode in ("La", "RGBa"):  # associated alpha: the colours are premultiplied
        picture = picture.convert({"La": "LA", "RGBa": "RGBA"}[picture.mode])
    clear = picture.has_transparency_data
    alpha = picture.convert("RGBA").getchannel("A") if clear else None
    if profile:
        picture = _to_srgb(picture, profile)
    if picture.mode != "RGB":
        picture = picture.convert("RGBA").convert("RGB") if clear and picture.mode != "RGBA" else picture
        picture = _without_alpha(picture)
    if alpha is not None:
        picture.putalpha(alpha)
    # What is far larger than the model's image is shrunk while it is still 8 bits a channel.
    picture.thumbnail((_LARGE, _LARGE), Image.Resampling.BOX)
    # Band by band takes half the time of NumPy's own way to an image's bytes.
    return _planes_to_rgba(np.stack([np.asarray(band) for band in picture.split()]))


def _deep_grey(picture: Image.Image) -> Array:
    """16-bit grey, which Pillow would clip to 255 in a conversion; 32-bit integers are taken to hold the same range."""
    most = np.float32(1 if picture.mode == "F" else 65535)
    clear = picture.info.get("transparency")
    every = max(1, -(-max(picture.size) // _LARGE))
    planes = [picture] if clear is None else [picture, Image.fromarray(np.asarray(picture) != clear)]
    # A factor that is whole: Pillow reduces these modes by no other.
    shrunk = [plane.convert("F").reduce(every) for plane in planes]
    grey, *mask = (np.asarray(plane, np.float32) for plane in shrunk)
    return _planes_to_rgba(np.stack([grey / most, *(opaque / np.float32(255) for opaque in mask)]))


def _without_alpha(picture: Image.Image) -> Image.Image:
    """RGB of any mode, with the colours under transparent pixels as they are."""
    if picture.mode == "RGBA":
        return Image.merge("RGB", picture.split()[:3])
    return picture.convert("RGB")


def _upright(picture: Image.Image) -> Image.Image:
    """Turned as its Exif says; as it is where the Exif is broken."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # Broken Exif raises whatever it makes the parser stumble over.
        picture.load()
        return picture


def _raw_mode(picture: Image.Image) -> str:
    """How a file's pixels are stored, "" where that is not known."""
    tile = getattr(picture, "tile", None)
    if not tile:
        return ""
    arguments = tile[0][3]
    mode = arguments if isinstance(arguments, str) else (arguments[0] if arguments else "")
    return mode if isinstance(mode, str) else ""


def _with_spread_transparency(picture: Image.Image, raw_mode: str) -> Image.Image:
    """An image whose transparent colour is in the units of its decoded pixels."""
    clear = picture.info.get("transparency")
    if isinstance(clear, int) and raw_mode in _SPREAD and picture.mode == "L":
        picture.info["transparency"] = clear * _SPREAD[raw_mode]
    elif clear == 1 and picture.mode == "1":  # Pillow does so itself in its later versions.
        picture.info["transparency"] = 255
    elif isinstance(clear, tuple) and raw_mode == "RGB;16B":
        picture.info["transparency"] = tuple(value >> 8 for value in clear)
    return picture


def _to_srgb(picture: Image.Image, profile: bytes) -> Image.Image:
    """The colours in sRGB, without alpha; as they are where the profile is broken or of another kind of colours."""
    from PIL import ImageCms

    if picture.mode == "P":
        picture = picture.convert("RGB")
    elif picture.mode in ("LA", "PA", "RGBA"):
        picture = _without_alpha(picture) if picture.mode != "LA" else picture.getchannel("L")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return picture
    return picture if converted is None else converted


def _array_to_rgba(array: NDArray[Any]) -> Array:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4) or 0 in array.shape:
        raise ImageError(f"An array of shape {array.shape} is no image: channels come last, 1 to 4 of them.", FORMATS)
    check_sides(array.shape[1], array.shape[0])
    return _planes_to_rgba(np.ascontiguousarray(array.transpose(2, 0, 1)))


def _planes_to_rgba(planes: NDArray[Any]) -> Array:
    """(1 to 4, H, W) of whatever numbers an image may have to (4, H, W), in memory of its own."""
    kind, bits = planes.dtype.kind, 8 * planes.dtype.itemsize
    if kind == "u" and bits in (8, 16):
        values: Array = np.divide(planes, np.float32(np.iinfo(planes.dtype).max), dtype=np.float32)
    elif kind == "b" or (kind == "f" and bits <= 64):
        values = planes.astype(np.float32)
        if not np.isfinite(values).all():
            raise ImageError("The image holds NaN or infinity.", "Replace them before the call.")
        least, most = float(planes.min()), float(planes.max())
        if least < -_OVERSHOOT or most > 1 + _OVERSHOOT:
            raise ImageError(
                f"A floating image must lie in [0, 1], but goes from {least:.7g} to {most:.7g}.",
                _scale_remedy(least, most),
            )
        np.clip(values, 0, 1, out=values)
    else:
        raise ImageError(f"Arrays of {planes.dtype} are no images: uint8, uint16, bool or floating are.", FORMATS)
    channels = len(values)
    if channels == 4:
        return values
    colour = values[:3] if channels >= 3 else np.repeat(values[:1], 3, axis=0)
    alpha = values[-1:] if channels == 2 else np.ones_like(values[:1])
    return np.concatenate([colour, alpha])


def _scale_remedy(least: float, most: float) -> str:
    if least >= 0 and most <= 255:
        return "It looks like 0 to 255: divide by 255, or give uint8."
    if -1.3 <= least < 0 and most <= 1.3:
        return "It looks like -1 to 1: give (image + 1) / 2."
    return "Scale it to [0, 1], or give uint8."


def check_sides(width: int, height: int) -> None:
    """Raises an `ImageError` for an image that is too large, too small or too oblong."""
    if width * height > MAX_PIXELS:
        raise _too_large(f"{width}x{height}")
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_OBLONG * min(width, height):
        raise ImageError(
            f"The image is {width}x{height} pixels; at least {MIN_SIDE} on each side are needed, and "
            f"no side more than {MAX_OBLONG} times the other.",
            "Give a larger one, or crop it to the object.",
        )


def _too_large(what: str) -> ImageError:
    return ImageError(
        f"The image is too large: {what}, where {MAX_PIXELS // 1_000_000} million pixels are allowed.",
        "Shrink it first.",
    )
