"""Input images: whatever the caller has, to the square float32 image that the model was trained on.

reading.py     file, bytes, stream, PIL image or array -> (4, H, W); `sources.py` gets the bytes
background.py  cuts the object out from an even background; `matting.py` by rembg's networks
framing.py     finds the object and cuts a square around it
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..array_types import Array
from ..errors import BackgroundWarning, FramingWarning, ImageError, OptionError, warn_caller
from .framing import Window, object_window, resample
from .matting import Matting
from .reading import MAX_PIXELS, ImageInput, to_rgba

__all__ = [
    "BACKGROUNDS",
    "MAX_PIXELS",
    "ImageBatch",
    "ImageInput",
    "PreparedImage",
    "prepare",
    "prepare_image",
    "to_rgba",
]

ImageBatch = list[Any] | tuple[Any, ...]

BACKGROUNDS = ("auto", "keep", "plain", "rembg")
# From this confidence on `auto` takes the cut from an even background.
SURE = 0.5
# Side in pixels up to which an image's own resolution is kept.
DETAIL = 1024
# Above this share of visible pixels there is no mask to speak of.
_FULL = 0.995
_REMEDY = (
    "Give an image with transparency or a mask=, photograph the object before an even background, or install the extra "
    "[background] for background='rembg'."
)


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """What the model is given, and how it was made.

    Attributes:
        pixels: (3, S, S) float32 RGB in [-1, 1], over white.
        alpha: (S, S) float32 in [0, 1]; 1 everywhere where the background was kept.
        background: "alpha", "mask", "plain", "rembg" or "keep": where the mask comes from.
        confidence: 0 to 1, how sure the cut is; 1 where the mask was given, 0 where there is none.
        crop: (4, h, w) uint8, what the window sees of the image, colours premultiplied by alpha.
        window: the square that became `pixels`, in pixels of the crop.
        notes: what a user should know, with the category of the warning.
    """

    pixels: Array
    alpha: Array
    background: str
    confidence: float
    crop: NDArray[np.uint8]
    window: Window
    notes: tuple[tuple[str, type[Warning]], ...] = ()

    @property
    def has_silhouette(self) -> bool:
        """Whether `alpha` says where the object ends: it is not opaque nearly everywhere."""
        return not _is_full(self.alpha)

    def detail(self) -> Array:
        """Returns `pixels` in the image's own resolution, 1024 at the most: (D, D, 3) float32 in [0, 1], over white."""
        size = int(np.clip(round(self.window[2]), self.pixels.shape[1], DETAIL))
        framed = resample(self.crop.astype(np.float32) / np.float32(255), self.window, size)
        return np.clip(framed[:3] + (1 - framed[3]), 0, 1).transpose(1, 2, 0).copy()

    def to_uint8(self) -> NDArray[np.uint8]:
        """(S, S, 3) uint8, for looking at."""
        return np.round((self.pixels.transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8)


def prepare(
    image: ImageInput,
    size: int,
    ratio: float,
    background: str = "auto",
    mask: ImageInput | None = None,
    matting: Matting | None = None,
) -> PreparedImage:
    """Brings one image into the model's form.

    Args:
        image: as in `to_rgba`.
        size: side of the result in pixels.
        ratio: share of the side that the object's bounding square shall take.
        background: "keep" takes an opaque image as it is; "plain" cuts the object out from an even background; "rembg"
            by a network; "auto" takes a mask or alpha that is there, else "plain" where it is sure, else "rembg" where
            that and its model are on this machine, else keeps the background and says so.
        mask: of the object, in the image's proportions: its alpha where it has some, else its brightness.
        matting: the network of "rembg"; None for its default model.

    Raises:
        ImageError: it cannot be read, or holds nothing to reconstruct; the message says what is allowed.
        OptionError: an unknown background, or "rembg" that is not installed.
    """
    if background not in BACKGROUNDS:
        raise OptionError(f"Unknown background {background!r}; there are {', '.join(BACKGROUNDS)}.", "'auto' chooses.")
    rgba = to_rgba(image)
    found, confidence = "alpha", 1.0
    if mask is not None:
        rgba[3], found = _mask_of(mask, rgba.shape[1:]), "mask"
    elif _is_full(rgba[3]):
        rgba, found, confidence = _cut(rgba, background, matting or Matting())
    notes: list[tuple[str, type[Warning]]] = []
    if found == "keep":
        height, width = rgba.shape[1:]
        side = max(height, width)
        window: Window = ((width - side) / 2, (height - side) / 2, side)
        if background == "auto":
            notes.append(
                (f"The background was not removed: it is not even, and there is no mask. {_REMEDY}", BackgroundWarning)
            )
    else:
        window, rgba[3], note = object_window(rgba[3], ratio)
        if note is not None:
            notes.append((note, FramingWarning))
        if found == "plain" and confidence < SURE:
            text = f"The background is hardly even: the cut may be wrong (confidence {confidence:.2f}). {_REMEDY}"
            notes.append((text, BackgroundWarning))
    rgba[:3] *= rgba[3]
    framed = resample(rgba, window, size)
    # Beside an edge the filter overshoots in colour and alpha, by different amounts.
    pixels = np.clip(framed[:3] + (1 - framed[3]), 0, 1) * np.float32(2) - np.float32(1)
    # What pads a kept background to a square is no mask.
    alpha = np.ones_like(framed[3]) if found == "keep" else framed[3]
    return PreparedImage(pixels, alpha, found, confidence, *_crop(rgba, window), tuple(notes))


def prepare_image(
    image: ImageInput, size: int, ratio: float, background: str = "auto", mask: ImageInput | None = None
) -> Array:
    """Brings one image into the model's form, and warns of what a user should know; arguments as in `prepare`.

    Returns:
        (3, size, size) float32 RGB in [-1, 1].
    """
    prepared = prepare(image, size, ratio, background, mask)
    for text, category in prepared.notes:
        warn_caller(text, category)
    return prepared.pixels


def _is_full(alpha: Array) -> bool:
    return bool((alpha > 0.5).mean() > _FULL)


def _crop(rgba: Array, window: Window) -> tuple[NDArray[np.uint8], Window]:
    """What a window sees of an image, no larger than is worth keeping, and the window in it."""
    left, top, side = window
    if side > 2 * DETAIL:
        return _to_bytes(resample(rgba, window, DETAIL)), (0, 0, DETAIL)
    x, y = max(0, int(left)), max(0, int(top))
    seen = rgba[:, y : int(np.ceil(top + side)), x : int(np.ceil(left + side))]
    return _to_bytes(seen), (left - x, top - y, side)


def _to_bytes(image: Array) -> NDArray[np.uint8]:
    return (image * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def _cut(rgba: Array, background: str, matting: Matting) -> tuple[Array, str, float]:
    """An opaque image with the alpha that `background` stands for, which that was, and how sure it is."""
    if background == "rembg":
        return _with_alpha(rgba, matting(rgba[:3])), "rembg", 1.0
    if background in ("auto", "plain"):
        from .background import cut_out

        cutout = cut_out(rgba[:3])
        if background == "plain" and cutout.rgba[3].max() < 0.5:
            raise ImageError("No object stands out from the background.", _REMEDY)
        if background == "plain" or cutout.confidence >= SURE:
            return cutout.rgba, "plain", cutout.confidence
        if matting.is_present():
            return _with_alpha(rgba, matting(rgba[:3])), "rembg", 1.0
    return rgba, "keep", 0.0


def _with_alpha(rgba: Array, alpha: Array) -> Array:
    return np.concatenate([rgba[:3], alpha[None]])


def _mask_of(mask: ImageInput, shape: tuple[int, ...]) -> Array:
    """A mask of any kind as alpha (H, W), in the size of its image."""
    try:
        rgba = to_rgba(mask)
    except ImageError as error:
        raise ImageError(f"The mask cannot be used. {error.cause}", error.remedy) from None
    height, width = shape
    rows, columns = rgba.shape[1:]
    if abs(rows * width - columns * height) > 0.02 * rows * width:
        raise ImageError(
            f"The mask is {columns}x{rows} pixels, the image {width}x{height}: their proportions differ.",
            "Give a mask of the image's own size.",
        )
    alpha = rgba[3] if rgba[3].min() < 1 else rgba[:3].mean(0)
    if (rows, columns) != (height, width):
        resized = Image.fromarray(np.ascontiguousarray(alpha)).resize((width, height), Image.Resampling.BILINEAR)
        alpha = np.array(resized)
    if alpha.max() <= 0.05:
        raise ImageError("The mask is empty: nothing in it is white.", "White is the object, black the background.")
    return np.clip(alpha, 0, 1).astype(np.float32)
