"""Divide the tasks of a run into blocks, and the blocks into training units."""

from collections.abc import Container, Iterator
from itertools import chain, islice

from harness.plan.units import TrainUnit


def blocks_of(num_tasks: int, block: int, start: int = 0) -> Iterator[tuple[int, ...]]:
    """Yield the tasks of each block; see train_units for the arguments."""
    for first in range(start, num_tasks, block):
        yield tuple(range(first, min(first + block, num_tasks)))


def train_units(
    num_tasks: int, block: int, committed: Container[int], side_by_side: int = 1, start: int = 0
) -> Iterator[TrainUnit]:
    """Group the blocks in which a task has no committed mask into units, and yield the units.

    During the iteration, the caller may add tasks to `committed` if their blocks were already
    yielded.

    Args:
        num_tasks: number of tasks of the run.
        block: number of tasks per block; the last block may be smaller.
        committed: numbers of the tasks that have a committed mask.
        side_by_side: number of blocks per unit; the last unit may have fewer.
        start: the first task of the first block.
    """
    blocks = blocks_of(num_tasks, block, start)
    lacking = (ids for ids in blocks if any(i not in committed for i in ids))
    while some := list(islice(lacking, side_by_side)):
        ids = tuple(chain.from_iterable(some))
        missing = tuple(i for i in ids if i not in committed)
        yield TrainUnit(f"unit-{ids[0]:06d}", ids, missing, tuple(map(len, some)))
