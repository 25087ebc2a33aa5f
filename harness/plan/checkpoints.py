"""Which checkpoints of a run are ready, and which tasks are evaluated at a checkpoint."""

from collections.abc import Collection, Container, Iterator
from itertools import count


def num_leading(committed: Container[int]) -> int:
    """Return the largest k for which the masks of tasks 0 to k - 1 are all committed."""
    return next(k for k in count() if k not in committed)


class Checkpoints:
    """The checkpoints that are not ready yet.

    A checkpoint k is ready when the tasks 0 to k - 1 are seen: their masks are committed, or a
    learner on a stream has passed them. Other tasks do not matter.

    Args:
        sizes: the number k of each checkpoint, in any order.
    """

    def __init__(self, sizes: Collection[int]) -> None:
        self._waiting = sorted(sizes)
        self._prefix = 0

    def ready(self, seen: Container[int]) -> Iterator[int]:
        """Yield each checkpoint that has become ready since the last call, smallest first."""
        while self._prefix in seen:
            self._prefix += 1
        while self._waiting and self._waiting[0] <= self._prefix:
            yield self._waiting.pop(0)


def evaluated_tasks(num_tasks: int, at_most: int | None) -> list[int]:
    """Choose the tasks to evaluate among the first k tasks.

    The tasks are evenly spaced, and include the first and the last task.

    Args:
        num_tasks: k.
        at_most: largest number of tasks. If it is 1, only the last task is chosen. If it is None,
            all tasks are chosen.
    """
    if at_most is None or at_most >= num_tasks:
        return list(range(num_tasks))
    if at_most == 1:
        return [num_tasks - 1]
    return [i * (num_tasks - 1) // (at_most - 1) for i in range(at_most)]
