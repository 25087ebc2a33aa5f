"""The mean of values that arrive one by one."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass
class Mean:
    """The mean of all values that were passed to `add`.

    Attributes:
        total: sum of the values.
        count: number of values.
    """

    total: float = 0.0
    count: int = 0

    def add(self, values: Iterable[float]) -> None:
        """Include more values in the mean."""
        for value in values:
            self.total += value
            self.count += 1

    @property
    def value(self) -> float | None:
        """The mean of all values so far; None before the first value."""
        return self.total / self.count if self.count else None
