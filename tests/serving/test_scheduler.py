"""The queue: its bounds, deadlines, and nothing done that nobody waits for."""

import asyncio
import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from runtime.serving.problems import Problem
from runtime.serving.scheduler import Scheduler


def in_a_loop(coroutine):
    """Runs a coroutine in a thread: beside a browser, Playwright has a loop running in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def test_a_full_queue_turns_away_and_a_late_answer_is_not_begun():
    done = []

    class Upload:
        """What waiting work holds."""

    held = Upload()
    upload = weakref.ref(held)

    async def scenario(held):
        scheduler, block = Scheduler(waiting=1), threading.Event()

        def work(name):
            block.wait(5)
            done.append(name)
            return name

        first = asyncio.create_task(scheduler.run(lambda _: work("first"), 5))
        await asyncio.sleep(0.05)
        late = asyncio.create_task(scheduler.run(lambda _, held=held: work(f"late {held}"), 0.1))
        del held
        await asyncio.sleep(0.02)
        with pytest.raises(Problem) as full:
            await scheduler.run(lambda _: work("third"), 5)
        assert full.value.status == 503
        assert int(full.value.headers["Retry-After"]) >= 1
        with pytest.raises(Problem) as too_late:
            await late
        assert too_late.value.status == 504
        del late, too_late
        gc.collect()
        assert upload() is None, "what was cancelled holds its upload until its turn"
        gone = asyncio.create_task(scheduler.run(lambda _: work("gone"), 5, lambda: asyncio.sleep(0, True)))
        with pytest.raises(Problem) as left:
            await gone
        assert left.value.status == 499
        block.set()
        assert await first == "first"
        await scheduler.close()
        assert scheduler.pending == 0

    running = scenario(held)
    del held
    in_a_loop(running)
    assert done == ["first"]


def test_a_cancelled_request_stops_its_work_and_frees_its_place():
    told = []

    async def scenario():
        scheduler, begun = Scheduler(waiting=1), threading.Event()

        def work(stopped):
            begun.set()
            end = time.monotonic() + 5
            while not stopped() and time.monotonic() < end:
                time.sleep(0.01)
            told.append(stopped())

        running = asyncio.create_task(scheduler.run(work, 60))
        await asyncio.to_thread(begun.wait, 5)
        waiting = asyncio.create_task(scheduler.run(lambda _: told.append("never"), 60))
        await asyncio.sleep(0.05)
        for task in (running, waiting):
            task.cancel()
        await asyncio.gather(running, waiting, return_exceptions=True)
        assert await scheduler.run(lambda _: "next", 60) == "next"
        await scheduler.close()
        assert scheduler.pending == 0

    in_a_loop(scenario())
    assert told == [True]


def test_a_fault_of_the_work_is_the_callers():
    async def scenario():
        scheduler = Scheduler(1)
        with pytest.raises(ZeroDivisionError):
            await scheduler.run(lambda _: 1 / 0, 5)
        assert await scheduler.run(lambda _: 3, 5) == 3
        await scheduler.close()

    in_a_loop(scenario())
