"""A queue of work units in which the runs of a command take turns.

Without turns, the units of the first run would occupy all workers, and a run that submits one unit
at a time would wait until the first run has ended.
"""

from collections import deque
from typing import Generic, TypeVar

E = TypeVar("E")


class TurnQueue(Generic[E]):
    """A queue of entries of several runs. The entries of one run keep their order.

    `len(queue)` is the number of entries of all runs.
    """

    def __init__(self) -> None:
        # Run -> its entries. No deque is empty. The first run of the mapping has the next turn.
        self._of_run: dict[str, deque[E]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._of_run.values()))

    def append(self, run: str, entry: E) -> None:
        """Add an entry behind all entries of its run."""
        self._of_run.setdefault(run, deque()).append(entry)

    def appendleft(self, run: str, entry: E) -> None:
        """Add an entry that the next call of `popleft` returns."""
        entries = self._of_run.pop(run, deque())
        entries.appendleft(entry)
        self._of_run = {run: entries, **self._of_run}

    def popleft(self) -> E:
        """Remove and return the first entry of the run whose turn it is.

        Raises:
            StopIteration: the queue is empty.
        """
        run = next(iter(self._of_run))
        entries = self._of_run.pop(run)
        entry = entries.popleft()
        if entries:
            self._of_run[run] = entries
        return entry

    def waiting(self, run: str) -> int:
        """Return the number of entries of one run."""
        return len(self._of_run.get(run, ()))

    def drop(self, run: str) -> None:
        """Remove all entries of one run."""
        self._of_run.pop(run, None)
