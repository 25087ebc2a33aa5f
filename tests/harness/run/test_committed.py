"""The set of a run's committed tasks and their checksums. Tasks are committed in any order."""

import sys

import numpy as np

from harness.run.committed import Committed


def test_tasks_are_there_once_they_are_noted():
    committed = Committed(10)
    assert len(committed) == 0
    committed.add(np.array([7, 2]), np.array([70, 2**32 - 1]))
    committed.add(np.array([0]), np.array([5]))
    committed.add(np.array([0]), np.array([5]))
    assert len(committed) == 3
    assert [i for i in range(12) if i in committed] == [0, 2, 7]
    assert committed.crcs([2, 0, 7]).tolist() == [2**32 - 1, 5, 70]
    assert "2" not in committed


def test_nothing_is_held_for_a_task_but_a_flag_and_a_checksum():
    committed = Committed(100_000)
    committed.add(np.arange(100_000), np.arange(100_000))
    assert sum(sys.getsizeof(value) for value in vars(committed).values()) < 100_000 * 5 + 1000
