"""Run kernels on several threads. The kernels must release Python's global interpreter lock."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from types import CodeType
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Threads:
    """Threads that divide a range of work into parts, one part per thread.

    A part may itself call `split` or `map`. The work of that call then stays on the part's thread.

    Args:
        count: number of threads, including the thread that calls `split` or `map`.

    Raises:
        ValueError: `count` is less than 1.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"threads must be >= 1, got {count}: try threads=1")
        self._count = count
        self._pool = ThreadPoolExecutor(count - 1) if count > 1 else None
        self._compiled: set[CodeType] = set()
        self._here = threading.local()

    @property
    def count(self) -> int:
        """Number of threads that `split` can use now. It is 1 in code that runs within a part."""
        return 1 if getattr(self._here, "is_part", False) else self._count

    def split(self, part: Callable[[int, int], object], length: int) -> None:
        """Divide [0, length) into one part per thread, and call part(start, end) for each part.

        A range shorter than the number of threads becomes one part. If a part raises an
        exception, the other parts finish before `split` raises this exception.

        Args:
            part: a function or lambda. It must do nothing if `start` equals `end`.
            length: the length of the range.
        """
        count = self.count
        if self._pool is None or count == 1 or length < count:
            part(0, length)
            return
        if part.__code__ not in self._compiled:
            part(0, 0)  # compile the kernels that `part` calls directly, once and on one thread
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
        """Call a function with each item.

        If there are at least as many items as threads, each thread takes a part of the items.
        Otherwise the calling thread takes all items, and `function` can divide its own work between
        the threads.

        Returns:
            The results, in the order of the items.
        """
        found: dict[int, Result] = {}

        def fill(start: int, end: int) -> None:
            found.update({i: function(items[i]) for i in range(start, end)})

        if len(items) < self.count:
            fill(0, len(items))  # so that `function` can divide each item between the threads
        else:
            self.split(fill, len(items))
        return [found[i] for i in range(len(items))]

    def _run(self, part: Callable[[int, int], object], start: int, end: int) -> None:
        self._here.is_part = True
        try:
            part(start, end)
        finally:
            self._here.is_part = False
