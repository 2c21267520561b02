"""How every command of the project ends: printing never fails it, and an error is one sentence."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from .errors import ProjectError


def say(text: str, stream: TextIO | None = None) -> None:
    """Prints a line; characters that the stream cannot show are escaped, a stream that is closed or absent is none.

    Args:
        text: the line.
        stream: None for standard output.
    """
    target = sys.stdout if stream is None else stream
    if target is None:
        return
    encoding = getattr(target, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=target, flush=True)
    except (OSError, ValueError):
        _abandon(target)


def say_error(text: str) -> None:
    """Prints a line to standard error, as `say` does."""
    if sys.stderr is not None:
        say(text, sys.stderr)


@contextmanager
def one_sentence_errors() -> Iterator[None]:
    """Turns what a user or a machine can cause into a sentence on standard error and exit status 1."""
    try:
        yield
    except ProjectError as error:
        said = str(error)
    except MemoryError as error:
        said = f"Out of memory{f' ({error})' if str(error) else ''}. Use smaller images or batches, or free memory."
    except OSError as error:
        said = os_error_sentence(error)
    except RuntimeError as error:
        if "can't start new thread" not in str(error):
            raise
        said = "The system starts no more threads for this user. Raise `ulimit -u`, or use fewer threads."
    else:
        return
    say_error(f"error: {said}")
    raise SystemExit(1) from None


def os_error_sentence(error: OSError) -> str:
    """An operating system's error as cause and target."""
    target = error.filename if error.filename is not None else "input or output"
    return f"{os.fsdecode(target) if isinstance(target, bytes) else target}: {error.strerror or error}."


def leave_without_flushing() -> None:
    """Stops Python from failing at exit over output that nobody reads any more."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except (OSError, ValueError):
            _abandon(stream)


def _abandon(stream: TextIO) -> None:
    """Lets what a stream could not write, and all that follows, go nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
