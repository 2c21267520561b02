"""Work for one device, one piece after another: a bounded queue, deadlines, and nothing done that nobody waits for."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from .problems import Problem

Result = TypeVar("Result")
Stopped = Callable[[], bool]
# Seconds between two looks at whether the client is still there.
_LOOK = 0.1
# Weight of the last piece of work in the mean time of one.
_LAST = 0.2


class Scheduler:
    """One thread that works, since the runtime uses all cores for one image.

    Attributes:
        waiting: pieces of work that may wait beside the one that is under way.
        pending: accepted and not finished.
        seconds: mean time of one.
    """

    def __init__(self, waiting: int) -> None:
        self.waiting, self.pending, self.seconds = waiting, 0, 1.0
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="reconstruct")

    def check_room(self) -> None:
        """Raises a `Problem`, 503, where the queue is full."""
        if self.pending > self.waiting:
            raise Problem(
                503, "The queue is full.", "Try again later.", {"Retry-After": str(math.ceil(self._until_free()))}
            )

    async def run(
        self, work: Callable[[Stopped], Result], seconds: float, gone: Callable[[], Awaitable[bool]] | None = None
    ) -> Result:
        """Does a piece of work when its turn comes.

        Args:
            work: to be done, in another thread. What it is given tells whether the result is wanted no more.
            seconds: until when, from now on.
            gone: tells whether nobody waits any more.

        Returns:
            What `work` returns.

        Raises:
            Problem: 503 where the queue is full, 504 where it was not done in time, 499 where nobody waits. Work that
                has not begun by then never does; what has is told.
        """
        if seconds <= 0:
            raise Problem(504, "No time was left for it when it had arrived.", "Send it faster.")
        self.check_room()
        self.pending += 1
        begun: list[float] = []
        stop = threading.Event()

        # The executor keeps what was cancelled until its turn: it must not keep the upload with it.
        kept = [work]

        def timed() -> Result:
            begun.append(time.monotonic())
            return kept.pop()(stop.is_set)

        future = self._executor.submit(timed)
        del work
        waited = asyncio.wrap_future(future)
        waited.add_done_callback(lambda done: self._finish(begun, done))
        end = time.monotonic() + seconds
        try:
            while not waited.done():
                await asyncio.wait({waited}, timeout=min(_LOOK, max(0.0, end - time.monotonic())))
                if waited.done():
                    break
                if time.monotonic() >= end:
                    raise Problem(
                        504,
                        f"This took longer than the {seconds:.1f} s that were left for it.",
                        "Ask for less, or when less is going on.",
                    )
                if gone is not None and await gone():
                    raise Problem(499, "The client went away.", "")
            return waited.result()
        finally:
            # Also where the task itself is cancelled, as servers do with a request whose client went away.
            if not waited.done():
                self._cancel(future, kept, stop)

    async def close(self) -> None:
        """Finishes what was accepted."""
        await asyncio.to_thread(self._executor.shutdown)

    def _until_free(self) -> float:
        return max(1.0, (self.pending - self.waiting) * self.seconds)

    @staticmethod
    def _cancel(future: Future[Result], kept: list[Callable[[Stopped], Result]], stop: threading.Event) -> None:
        stop.set()
        if future.cancel():
            kept.clear()

    def _finish(self, begun: list[float], done: asyncio.Future[Result]) -> None:
        self.pending -= 1
        if begun:
            self.seconds += _LAST * (time.monotonic() - begun[0] - self.seconds)
        if not done.cancelled():
            done.exception()  # Looked at, so that asyncio does not complain where nobody waits.
