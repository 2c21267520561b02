"""Many points in small parts, side by side where that helps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from .errors import ClosedError

# Samples along rays, few of which are asked: enough of them to hide a task's overhead.
_POINTS_AT_ONCE = 32_768
_POINTS_ALONE = 1 << 18


@dataclass(frozen=True)
class Tasks:
    """How the work on many points is split.

    Attributes:
        points: the most in one part.
        workers: threads for the parts; None does one after another.
    """

    points: int
    workers: Executor | None = None

    @classmethod
    def within(cls, memory_limit: int, bytes_per_point: int, workers: Executor | None, threads: int) -> Tasks:
        """Parts that keep to a memory limit, all threads together."""
        most = _POINTS_ALONE if workers is None else _POINTS_AT_ONCE
        return cls(max(1, min(most, memory_limit // (bytes_per_point * threads))), workers)

    def run(self, work: Callable[[slice], None], count: int, points_each: int = 1) -> None:
        """Calls `work` with slices that cover `range(count)`.

        Args:
            work: safe to be called from several threads at once.
            count: items.
            points_each: points that an item stands for.
        """
        size = max(1, self.points // points_each)
        parts = [slice(start, min(start + size, count)) for start in range(0, count, size)]
        self.map(work, parts)

    def map(self, work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """`work` of each item, in order; it has to be safe to be called from several threads at once."""
        items = list(items)
        if self.workers is None or len(items) == 1:
            return [work(item) for item in items]
        try:
            results = self.workers.map(work, items)
        except RuntimeError:  # Of an executor that was shut down; what `work` raises comes later.
            raise ClosedError("The runtime of this scene is closed.", "Draw inside the runtime's lifetime.") from None
        return list(results)
