"""The mean of values that come one after another."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass
class Mean:
    """A running mean."""

    total: float = 0.0
    count: int = 0

    def add(self, values: Iterable[float]) -> None:
        """Take in more values."""
        for value in values:
            self.total += value
            self.count += 1

    @property
    def value(self) -> float | None:
        """The mean of all values; None before the first."""
        return self.total / self.count if self.count else None
