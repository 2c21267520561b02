"""Times per stage, for whoever asks: `with record_times() as times: ...`."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_recorder: ContextVar[dict[str, list[float]] | None] = ContextVar("stage_times", default=None)


@contextmanager
def record_times() -> Iterator[dict[str, list[float]]]:
    """Collects seconds per stage of everything that this thread runs inside the block.

    Yields:
        A dict from the stage's name (image, coarse, step, idwt, render) to one entry per run.
    """
    times: dict[str, list[float]] = defaultdict(list)
    token = _recorder.set(times)
    try:
        yield times
    finally:
        _recorder.reset(token)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Marks a stage; costs next to nothing where nobody records."""
    times = _recorder.get()
    if times is None:
        yield
        return
    start = time.perf_counter()
    yield
    times[name].append(time.perf_counter() - start)
