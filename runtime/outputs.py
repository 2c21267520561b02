"""Writing what the command line makes: images with a mark of this program, and nothing over files of others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from .errors import OptionError
from .files import atomic_write

MARK = "wavelet-triplane-diffusion"
# Beginning and end of a file in which its mark is found.
_HEAD = 4096
# Animations by their endings.
ANIMATIONS = {".webp": "WEBP", ".gif": "GIF", ".png": "PNG"}


def is_ours(path: Path) -> bool:
    """Whether a file carries this program's mark."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            file.seek(max(0, path.stat().st_size - _HEAD))
            return MARK.encode() in head + file.read(_HEAD)
    except OSError:
        return False


def check_targets(targets: Iterable[Path], overwrite: bool) -> None:
    """Raises an error before the first file is written if one would replace what this program did not write.

    Args:
        targets: files to be written.
        overwrite: allows it.

    Raises:
        OptionError: naming the file.
    """
    for target in targets:
        if target.is_dir():
            raise OptionError(f"{target} is a folder, and a file is to be written there.", "Name another --out.")
        if target.exists() and not overwrite and not is_ours(target):
            raise OptionError(
                f"{target} exists, and was not written by this program.", "Name another --out, or add --overwrite."
            )


def save_png(pixels: NDArray[np.uint8], path: Path) -> None:
    """Writes (H, W, 3) or (H, W, 4) uint8 as a PNG with the mark, whole or not at all."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", MARK)
    with atomic_write(path) as partial:
        Image.fromarray(pixels).save(partial, "PNG", pnginfo=info)


def save_animation(frames: Sequence[NDArray[np.uint8]], path: Path) -> None:
    """Writes frames (H, W, 3) uint8 as an endless animation, 25 a second, whole or not at all.

    Args:
        frames: at least two.
        path: ends on one of `ANIMATIONS`.
    """
    kind = ANIMATIONS[path.suffix.lower()]
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", MARK)
    marks: dict[str, dict[str, Any]] = {
        "PNG": {"pnginfo": info},
        "GIF": {"comment": MARK.encode()},
        "WEBP": {"xmp": MARK.encode(), "quality": 90, "method": 4},
    }
    first, *rest = (Image.fromarray(frame) for frame in frames)
    with atomic_write(path) as partial:
        first.save(partial, kind, save_all=True, append_images=rest, duration=40, loop=0, **marks[kind])


def remove_stale(folder: Path, pattern: str, kept: Iterable[Path]) -> None:
    """Removes files of this program that match a pattern and are not among those just written."""
    current = set(kept)
    for path in folder.glob(pattern):
        if path not in current and is_ours(path):
            path.unlink(missing_ok=True)
