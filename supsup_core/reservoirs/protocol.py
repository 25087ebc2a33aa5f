"""What a reservoir has to say: a memory of constant size for patterns of -1 and +1.

Shape letters: D units, B states, U chosen units.
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Float32, Int64
from torch import Tensor


@runtime_checkable  # so that the tests can check annotations
class Reservoir(Protocol):
    """A memory that patterns are stored in one by one, and recalled from by descent.

    Attributes:
        dim: D.
        num_stored: patterns so far.
    """

    dim: int
    num_stored: int

    @property
    def num_bytes(self) -> int:
        """What the memory takes, however many patterns are in it."""
        ...

    def store(self, pattern: Float32[Tensor, " D"]) -> None:
        """Take one pattern in."""
        ...

    def field(
        self, states: Float32[Tensor, "B D"], units: Int64[Tensor, " U"] | None = None
    ) -> Float32[Tensor, "B _"]:
        """What pulls at some units, or at all: downhill in energy.

        Args:
            states: -1 or +1; 0 for a unit that is not known.
            units: which; None for all.
        """
        ...

    def energy(self, states: Float32[Tensor, "B D"]) -> Float32[Tensor, " B"]:
        """Low at what is stored."""
        ...
