"""Work on several threads: every part once, errors told, and nothing that depends on how many threads there are."""

import threading
import time

import numpy as np
import pytest

from trajtools._kernels import _jit
from trajtools._kernels._jit import in_parts, is_abandoned
from trajtools.neighbors.search import sorted_along


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 5, 1000])
def test_every_part_of_the_work_is_done_once(threads, count, monkeypatch):
    monkeypatch.setattr(_jit, "get_num_threads", lambda: threads)
    done = np.zeros(count, dtype=np.int64)

    def work(first, last):
        done[first:last] += 1

    in_parts(work, count)
    assert (done == 1).all()


def test_what_a_part_raises_is_raised_and_stops_the_others(monkeypatch):
    monkeypatch.setattr(_jit, "get_num_threads", lambda: 3)
    seen = []

    def work(first, last):
        seen.append(first)
        raise IndexError(f"part {first}")

    with pytest.raises(IndexError, match="part"):
        in_parts(work, 1000)
    assert len(seen) <= 3


@pytest.mark.parametrize("where", ["in this thread", "in another"])
def test_an_interruption_is_seen_by_the_others(where, monkeypatch):
    monkeypatch.setattr(_jit, "get_num_threads", lambda: 3)
    here, begun, seen = threading.current_thread(), threading.Barrier(3, timeout=60), []
    raised = threading.Lock()

    def work(first, last):
        begun.wait()
        is_here = threading.current_thread() is here
        if is_here if where == "in this thread" else not is_here and raised.acquire(blocking=False):
            raise KeyboardInterrupt
        for _ in range(6000):
            if is_abandoned():
                seen.append(first)
                return
            time.sleep(0.01)

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        in_parts(work, 3)
    assert len(seen) == 2
    assert threading.active_count() == before
    assert not is_abandoned()


@pytest.mark.parametrize("length", [10, 2**15 - 1, 2**15, 50_000])
def test_sorting_in_parts_sorts_and_does_not_depend_on_the_threads(length, monkeypatch):
    values = np.random.default_rng(length).integers(0, 500, length) / 7.0  # many ties
    orders = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(_jit, "get_num_threads", lambda threads=threads: threads)
        orders.append(sorted_along(values))
    np.testing.assert_array_equal(values[orders[0]], np.sort(values))
    np.testing.assert_array_equal(np.sort(orders[0]), np.arange(length))
    assert all(np.array_equal(order, orders[0]) for order in orders)
    assert len(sorted_along(np.zeros(2**16))) == 2**16
