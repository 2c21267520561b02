"""Files that are written whole or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to, which takes the place of `path` at the end and is removed after an error.

    Args:
        path: of the file; its folder is made.

    Raises:
        OSError: naming `path`, whatever file the system complained of.
    """
    partial = path.with_name(temporary_name(path.name))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        if error.filename is None or str(error.filename) == str(partial):
            error.filename = str(path)
        raise


def temporary_name(name: str) -> str:
    """A hidden name of this process for a file's unfinished content, no longer than the file's own name."""
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]
    return f".{digest}{os.getpid():x}~"[: max(2, len(os.fsencode(name)))]


def temporary_names(name: str) -> str:
    """A pattern for `Path.glob` of what any process's `temporary_name` may be."""
    return f"{temporary_name(name)[:9]}*~"
