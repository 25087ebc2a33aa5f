import threading
import time

import pytest

from patience import PATIENCE
from supsup_core.bits.threads import Threads


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("length", [0, 1, 2, 7])
def test_parts_cover_a_range_once(count, length):
    seen = []
    Threads(count).split(lambda start, end: seen.extend(range(start, end)), length)
    assert sorted(seen) == list(range(length))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("num_items", [0, 1, 2, 3, 10])
def test_map_keeps_the_order(count, num_items):
    doubled = Threads(count).map(lambda i: 2 * i, range(num_items))
    assert doubled == [2 * i for i in range(num_items)]


def test_parts_run_at_once():
    barrier = threading.Barrier(2, timeout=PATIENCE)
    Threads(2).split(lambda start, end: start < end and barrier.wait(), 2)
    assert not barrier.broken


def test_a_part_of_a_part_stays_on_its_thread():
    threads, found = Threads(2), []

    def inner(start, end):
        found.append((threading.get_ident(), start, end))

    def outer(start, end):
        if start < end:
            assert threads.count == 1
            threads.split(inner, 8)

    threads.split(outer, 2)
    assert [part[1:] for part in found] == [(0, 8), (0, 8)]
    assert len({ident for ident, _, _ in found}) == 2
    assert threads.count == 2


@pytest.mark.parametrize("at", [0, 3])
def test_a_part_that_fails_raises_and_leaves_the_threads_usable(at):
    threads = Threads(2)

    def fail(start, end):
        if start <= at < end:
            raise KeyError(at)

    with pytest.raises(KeyError):
        threads.split(fail, 4)
    assert threads.count == 2
    assert threads.map(str, [1, 2]) == ["1", "2"]


def test_a_part_that_fails_waits_for_the_others():
    ended = []

    def slow_or_broken(start, end):
        if start < end and start == 0:
            raise KeyError(start)
        if start < end:
            time.sleep(0.2)
            ended.append(start)

    with pytest.raises(KeyError):
        Threads(2).split(slow_or_broken, 2)
    assert ended == [1]


def test_threads_are_one_at_least():
    with pytest.raises(ValueError, match="threads must be >= 1, got 0"):
        Threads(0)
