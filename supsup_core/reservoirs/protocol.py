"""The protocol of a reservoir: a memory of constant size for patterns of -1 and +1.

Shape letters: D units, B states, P patterns, U chosen units.
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Float32, Int64
from torch import Tensor


@runtime_checkable  # so that the tests can check annotations
class Reservoir(Protocol):
    """A memory for patterns, which are stored one by one.

    A stored pattern is recalled from a cue: the units change so that the energy falls.

    Attributes:
        dim: D, the number of units.
        num_stored: number of patterns stored so far.
    """

    dim: int
    num_stored: int

    @property
    def num_bytes(self) -> int:
        """Memory of the reservoir in bytes. It does not depend on the number of patterns."""
        ...

    def store(self, pattern: Float32[Tensor, " D"]) -> None:
        """Store one pattern of -1 and +1."""
        ...

    def store_all(self, patterns: Float32[Tensor, "P D"]) -> None:
        """Store P patterns of -1 and +1, in their order."""
        ...

    def field(
        self, states: Float32[Tensor, "B D"], units: Int64[Tensor, " U"] | None = None
    ) -> Float32[Tensor, "B _"]:
        """Compute the field of some or all units, for B states.

        The sign of a unit's field is the unit's next value in recall. If only one unit takes its
        next value, the energy does not rise.

        Args:
            states: (B, D) the value of each unit: -1 or +1, or 0 if the value is unknown.
            units: (U,) indices of the units to compute. If None, all units are computed.

        Returns:
            (B, U) fields of the chosen units, or (B, D) fields of all units.
        """
        ...

    def energy(self, states: Float32[Tensor, "B D"]) -> Float32[Tensor, " B"]:
        """Compute the energy of each of B states. Stored patterns have low energy."""
        ...
