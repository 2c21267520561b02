"""Bytes of an image from wherever they come."""

from __future__ import annotations

import os
import re
import stat
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

from ..errors import ImageError

MAX_BYTES = 512 << 20
FORMATS = "Give a PNG, JPEG, WebP, BMP, TIFF, GIF or AVIF file, its bytes, a PIL image, or an array with channels last."
_URL = re.compile(r"^(https?|ftp|s3|gs|file|data|blob):", re.IGNORECASE)
_PNG = b"\x89PNG\r\n\x1a\n"
# Chunks of a PNG that hold its pixels, and those that say something about them; the rest is text, times, thumbnails.
_PIXELS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"})
_ABOUT_PIXELS = frozenset({b"iCCP", b"eXIf"})


def read_bytes(source: Any) -> tuple[bytes, str]:
    """Reads an encoded image.

    Args:
        source: bytes; a path, "-" for standard input; or a binary file object.

    Returns:
        Its bytes, and what to call it in messages.

    Raises:
        ImageError: there is nothing to read, in words.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source), f"The {len(source)} bytes given"
    if hasattr(source, "read"):
        return _checked(_read_stream(source), "The file object")
    name = os.fsdecode(source)
    shown = repr(name[:200]) if not name.isprintable() else name[:200]
    if _URL.match(name) and not Path(name[:4096].split("\0")[0]).exists():
        # A `Path` makes one slash of two.
        shown = re.sub(r"^(\w+):/(?!/)", r"\1://", shown)
        raise ImageError(
            f"{shown} is a URL, and nothing is downloaded.", "Download it first, and give its path or bytes."
        )
    if name == "-":
        if sys.stdin is None:
            raise ImageError("There is no standard input to read an image from.", FORMATS)
        return _checked(_read_stream(getattr(sys.stdin, "buffer", sys.stdin)), "Standard input")
    try:
        mode = os.stat(name).st_mode
    except PermissionError as error:
        raise ImageError(
            f"{shown} cannot be opened: {error.strerror}.", "Check who may read it and its folder."
        ) from None
    except (OSError, ValueError):  # absent, a name that is too long, or one that holds a null byte
        raise ImageError(f"There is no image file at {shown}.", "Check the path.") from None
    if stat.S_ISDIR(mode):
        raise ImageError(f"{shown} is a folder.", "Name an image file in it.")
    if stat.S_ISREG(mode) and os.path.getsize(name) > MAX_BYTES:
        raise _too_many(shown)
    try:
        # A pipe has no size, and is read as far as an image may reach.
        with open(name, "rb") as file:
            return _checked(file.read(MAX_BYTES + 1), shown)
    except OSError as error:
        raise ImageError(f"{shown} cannot be opened: {error.strerror}.", "Check who may read it.") from None


def without_side_information(data: bytes) -> bytes | None:
    """A PNG without text, and without any chunk beside its pixels that is damaged; None for other formats."""
    if not data.startswith(_PNG):
        return None
    kept, position = [_PNG], len(_PNG)
    while position + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        chunk = data[position : position + 12 + length]
        position += 12 + length
        whole = chunk[-4:] == struct.pack(">I", zlib.crc32(chunk[4:-4]))
        if kind in _PIXELS or (kind in _ABOUT_PIXELS and whole):
            kept.append(chunk)
    return b"".join(kept)


def _read_stream(stream: Any) -> bytes:
    try:
        data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ImageError(f"The file object cannot be read ({error}).", FORMATS) from None
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ImageError("The file object gives text, not bytes.", "Open the file in mode 'rb'.")
    return bytes(data)


def _checked(data: bytes, name: str) -> tuple[bytes, str]:
    if len(data) > MAX_BYTES:
        raise _too_many(name)
    return data, name


def _too_many(name: str) -> ImageError:
    return ImageError(f"{name} is larger than {MAX_BYTES >> 20} MiB.", "Give a smaller file.")
