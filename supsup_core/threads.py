"""Share a kernel that releases Python's lock among threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import CodeType


class Threads:
    """Runs a function over parts of a range, each on a thread.

    Args:
        count: how many; 1 runs in the caller's.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"threads must be >= 1, got {count}")
        self.count = count
        self._pool = ThreadPoolExecutor(count - 1) if count > 1 else None
        self._compiled: set[CodeType] = set()

    def split(self, part: Callable[[int, int], object], length: int) -> None:
        """Call part(start, end) for as many parts of [0, length) as there are threads.

        Args:
            part: a function or a lambda; of a part of no length it does nothing.
            length: of the range.
        """
        if self._pool is None or length < self.count:
            part(0, length)
            return
        if part.__code__ not in self._compiled:
            part(0, 0)  # so that Numba compiles its kernels once, and on one thread
            self._compiled.add(part.__code__)
        ends = [length * i // self.count for i in range(self.count + 1)]
        others = [self._pool.submit(part, *ends[i : i + 2]) for i in range(1, self.count)]
        part(*ends[:2])
        for other in others:
            other.result()
