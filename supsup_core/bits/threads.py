"""Share kernels that release Python's lock among threads."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from types import CodeType
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Threads:
    """Runs a function over parts of a range, each on a thread.

    What is shared out within such a part stays on its thread.

    Args:
        count: how many; 1 runs in the caller's.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"threads must be >= 1, got {count}")
        self._count = count
        self._pool = ThreadPoolExecutor(count - 1) if count > 1 else None
        self._compiled: set[CodeType] = set()
        self._here = threading.local()

    @property
    def count(self) -> int:
        """How many there are to share work now: one within a part."""
        return 1 if getattr(self._here, "is_part", False) else self._count

    def split(self, part: Callable[[int, int], object], length: int) -> None:
        """Call part(start, end) for as many parts of [0, length) as there are threads.

        A range shorter than that is one part. Where a part raises, the others end first.

        Args:
            part: a function or a lambda; of a part of no length it does nothing.
            length: of the range.
        """
        count = self.count
        if self._pool is None or count == 1 or length < count:
            part(0, length)
            return
        if part.__code__ not in self._compiled:
            part(0, 0)  # kernels that it calls directly are compiled once, and on one thread
            self._compiled.add(part.__code__)
        ends = [length * i // count for i in range(count + 1)]
        others = [self._pool.submit(self._run, part, *ends[i : i + 2]) for i in range(1, count)]
        try:
            self._run(part, *ends[:2])
        finally:
            wait(others)
        for other in others:
            other.result()

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Call a function of each item, on the threads where there are enough items for them."""
        found: dict[int, Result] = {}

        def fill(start: int, end: int) -> None:
            found.update({i: function(items[i]) for i in range(start, end)})

        if len(items) < self.count:
            fill(0, len(items))  # so that the threads may share each
        else:
            self.split(fill, len(items))
        return [found[i] for i in range(len(items))]

    def _run(self, part: Callable[[int, int], object], start: int, end: int) -> None:
        self._here.is_part = True
        try:
            part(start, end)
        finally:
            self._here.is_part = False
