"""Many points in small parts, side by side where that helps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ClosedError

# Points whose features and hidden layers stay in a core's cache.
DECODED_AT_ONCE = 3072
# Samples along rays, few of which are asked. Larger parts than these gain nothing; in smaller ones threads wait for one
# another at every operation.
_POINTS_AT_ONCE = 1 << 18
# What one sample along a ray takes while it is drawn, with all that is found there, measured and rounded up.
_BYTES_PER_POINT = 192
# What is added while it is decoded: three planes' terms and features, and two hidden layers, with 16 channels; wider
# models add their features.
_BYTES_PER_DECODED = 3072
_BYTES_PER_DECODED_AND_CHANNEL = 48


@dataclass(frozen=True)
class WorkerPool:
    """How the work on many points is split.

    Attributes:
        points: the most in one part.
        workers: threads for the parts; None does one after another.
        threads: how many of them; there are as many parts at the least.
    """

    points: int
    workers: Executor | None = None
    threads: int = 1

    @classmethod
    def within(cls, memory_limit: int, channels: int, workers: Executor | None, threads: int) -> WorkerPool:
        """Parts that keep to a memory limit, all threads together.

        Args:
            memory_limit: bytes.
            channels: of each plane.
            workers: threads for the parts, or None.
            threads: how many of them.
        """
        share = memory_limit // threads
        decoded = _BYTES_PER_DECODED + _BYTES_PER_DECODED_AND_CHANNEL * channels
        # Either all of a part's points are decoded at once, or as many as are decoded at once are the smaller cost.
        few = min(share // (_BYTES_PER_POINT + decoded), DECODED_AT_ONCE)
        many = (share - DECODED_AT_ONCE * decoded) // _BYTES_PER_POINT
        return cls(max(1, min(_POINTS_AT_ONCE, max(few, many))), workers, threads)

    def run(
        self,
        work: Callable[[slice], None],
        count: int,
        points_each: int = 1,
        costs: Sequence[float] | NDArray[Any] = (1.0,),
    ) -> None:
        """Calls `work` with slices that cover `range(count)`.

        Args:
            work: safe to be called from several threads at once.
            count: items.
            points_each: points that an item stands for.
            costs: relative cost of each of so many equal shares of the items, above 0; threads get equal costs.
        """
        total = np.concatenate([[0.0], np.cumsum(costs)])
        even = np.linspace(0, total[-1], self.threads + 1)
        shares = np.interp(even, total, np.linspace(0, count, len(total)))
        largest, parts = max(1, self.points // points_each), []
        for start, end in pairwise(np.rint(shares).astype(int).tolist()):
            ends = np.linspace(start, end, 1 - (start - end) // largest).astype(int).tolist()
            parts += [slice(*part) for part in pairwise(ends)]
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
