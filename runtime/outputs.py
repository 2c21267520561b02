"""Writing what the command line makes: images with a mark of this program, and nothing over files of others."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from .errors import OptionError, install_hint
from .files import atomic_write

if TYPE_CHECKING:
    from .scene import Frame

MARK = "wavelet-triplane-diffusion"
# Beginning and end of a file in which its mark is found.
_HEAD = 4096
# Animations by their endings; MP4 is not Pillow's.
ANIMATIONS = {".webp": "WEBP", ".gif": "GIF", ".png": "PNG", ".mp4": "MP4"}
# Of these, those that may have alpha.
TRANSPARENT = (".webp", ".png")
_PER_SECOND = 25
# A depth image counts in ten thousandths of a scene unit.
DEPTH_STEPS = 10_000
# Less alpha than this has no depth and normal worth writing: both are means over haze.
_SOLID = 0.5


def is_ours(path: Path) -> bool:
    """Whether a file carries this program's mark."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            file.seek(max(0, path.stat().st_size - _HEAD))
            return MARK.encode() in head + file.read(_HEAD)
    except OSError:
        return False


def check_targets(targets: Iterable[Path], overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    """Raises an error before the first file is written if one would replace an input, or what others wrote.

    Args:
        targets: files to be written.
        overwrite: allows to replace what others wrote, but never an input.
        inputs: files that are read.

    Raises:
        OptionError: naming the file.
    """
    read = {_identity(path): path for path in inputs if path.is_file()}
    for target in targets:
        if target.exists() and _identity(target) in read:
            raise OptionError(
                f"The result would overwrite the input {read[_identity(target)]}.", "Name another place with --out."
            )
        if target.is_dir():
            raise OptionError(f"{target} is a folder, and a file is to be written there.", "Name another --out.")
        if target.exists() and not overwrite and not is_ours(target):
            raise OptionError(
                f"{target} exists, and was not written by this program.", "Name another --out, or add --overwrite."
            )


def _identity(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_dev, state.st_ino


def save_bytes(content: bytes, path: Path) -> None:
    """Writes a file, whole or not at all."""
    with atomic_write(path) as partial:
        partial.write_bytes(content)


def save_png(pixels: NDArray[np.uint8], path: Path) -> None:
    """Writes (H, W, 3) or (H, W, 4) uint8 as a PNG with the mark, whole or not at all."""
    save_bytes(png_bytes(pixels), path)


def png_bytes(pixels: NDArray[np.uint8] | NDArray[np.uint16], note: str = "") -> bytes:
    """Returns a PNG with the mark.

    Args:
        pixels: (H, W, 3) or (H, W, 4) uint8, or (H, W) uint16.
        note: what the values mean, for the file's metadata.
    """
    info, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
    info.add_text("Software", MARK)
    if note:
        info.add_text("Comment", note)
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def depth_bytes(frame: Frame) -> bytes:
    """Returns a frame's depths as a 16-bit PNG, in ten thousandths of a scene unit; its metadata say so."""
    steps = np.minimum(np.round(frame.depth * (frame.alpha >= _SOLID) * DEPTH_STEPS), 65535).astype(np.uint16)
    return png_bytes(
        steps, f"depth along the viewing axis in 1/{DEPTH_STEPS} scene units; 0 where alpha is below a half"
    )


def normals_bytes(frame: Frame) -> bytes:
    """Returns a frame's normals as a PNG: 0 to 255 for -1 to 1, 128 for 0; its metadata say so."""
    assert frame.normals is not None
    normals = frame.normals * (frame.alpha >= _SOLID)[..., None]
    note = "normals in the scene's axes (y up), -1 to 1 as 0 to 255; 128 where alpha is below a half"
    return png_bytes(np.round(normals * 127.5 + 127.5).astype(np.uint8), note)


def contact_sheet(frames: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Returns images (H, W, K) of one size in rows of a sheet about as wide as tall; free places are like the last."""
    columns = math.ceil(math.sqrt(len(frames)))
    empty = np.full_like(frames[0], 0 if frames[0].shape[2] == 4 else 255)
    filled = [*frames, *[empty] * (-len(frames) % columns)]
    return np.concatenate([np.concatenate(filled[i : i + columns], 1) for i in range(0, len(filled), columns)], 0)


def save_animation(frames: Sequence[NDArray[np.uint8]], path: Path) -> None:
    """Writes an animation, 25 frames a second, whole or not at all; endless where a file can be.

    Args:
        frames: at least two, (H, W, 3) uint8, or (H, W, 4) where `TRANSPARENT` has the ending.
        path: ends on one of `ANIMATIONS`.

    Raises:
        OptionError: PyAV, which writes MP4, is not installed.
    """
    kind = ANIMATIONS[path.suffix.lower()]
    if kind == "MP4":
        _save_mp4(frames, path)
        return
    save_bytes(animation_bytes(frames, kind), path)


def animation_bytes(frames: Sequence[NDArray[np.uint8]], kind: str) -> bytes:
    """Returns an endless animation as a file; `kind` is "WEBP", "GIF" or "PNG", the rest as in `save_animation`."""
    info, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
    info.add_text("Software", MARK)
    marks: dict[str, dict[str, Any]] = {
        "PNG": {"pnginfo": info},
        "GIF": {"comment": MARK.encode()},
        "WEBP": {"xmp": MARK.encode(), "quality": 90, "method": 4},
    }
    first, *rest = (Image.fromarray(frame) for frame in frames)
    first.save(buffer, kind, save_all=True, append_images=rest, duration=1000 // _PER_SECOND, loop=0, **marks[kind])
    return buffer.getvalue()


def check_animation(path: Path) -> None:
    """Raises an `OptionError` where an animation's library is not installed."""
    if path.suffix.lower() == ".mp4" and find_spec("av") is None:
        raise OptionError("Writing MP4 needs PyAV, which is not installed.", install_hint("video"))


def _save_mp4(frames: Sequence[NDArray[np.uint8]], path: Path) -> None:
    """H.264 with colours at half the resolution, which every player knows; an odd side loses its last pixels."""
    check_animation(path)
    import av

    height, width = (side // 2 * 2 for side in frames[0].shape[:2])
    options = {"movflags": "faststart"}
    with atomic_write(path) as partial, av.open(str(partial), "w", format="mp4", options=options) as container:
        container.metadata["comment"] = MARK
        stream = container.add_stream("libx264", rate=_PER_SECOND, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            even = np.ascontiguousarray(frame[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        container.mux(stream.encode())


def remove_stale(folder: Path, name: re.Pattern[str], kept: Iterable[Path]) -> None:
    """Removes files of this program whose names match and that are not among those to be kept."""
    current = set(kept)
    for path in folder.iterdir():
        if path not in current and name.fullmatch(path.name) and is_ours(path):
            path.unlink(missing_ok=True)
