"""Splitting work: everything once, in parts that are small enough, and evenly."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import runtime
from runtime.rendering.parallel import WorkerPool


def parts_of(pool, *arguments):
    parts = []
    pool.run(parts.append, *arguments)
    return parts


@given(
    st.integers(0, 500),
    st.integers(1, 9),
    st.integers(1, 300),
    st.integers(1, 40),
    st.lists(st.floats(0.1, 100), min_size=1, max_size=20),
)
def test_parts_cover_all_items_once_and_keep_to_the_limit(count, threads, points, points_each, effort):
    parts = parts_of(WorkerPool(points, None, threads), count, points_each, effort)
    covered = [item for part in parts for item in range(count)[part]]
    assert covered == list(range(count))
    assert all(0 < part.stop - part.start <= max(1, points // points_each) for part in parts)


def test_each_thread_gets_as_much_to_do():
    assert parts_of(WorkerPool(1000, None, 2), 100) == [slice(0, 50), slice(50, 100)]
    # Three quarters of the effort are in the second half.
    assert parts_of(WorkerPool(1000, None, 2), 120, 1, [1, 3]) == [slice(0, 80), slice(80, 120)]
    effort = np.random.default_rng(0).uniform(0.1, 5, 16)
    of_items = np.repeat(effort, 100)
    shares = [of_items[part].sum() for part in parts_of(WorkerPool(10_000, None, 3), 1600, 1, effort)]
    np.testing.assert_allclose(shares, of_items.sum() / 3, atol=effort.max())


def test_what_a_part_raises_is_raised_and_closed_workers_are_named():
    def fail(part):
        raise ValueError("as it came")

    with ThreadPoolExecutor(2) as workers, pytest.raises(ValueError, match="as it came"):
        WorkerPool(10, workers, 2).run(fail, 30)
    with pytest.raises(runtime.ClosedError):
        WorkerPool(10, workers, 2).run(fail, 30)
