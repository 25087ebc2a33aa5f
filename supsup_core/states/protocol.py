"""What stored states have to offer: one by one, and as two linear maps.

Shape letters: T states, Q queries, A coefficient vectors, C states at a time.
"""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from supsup_core.networks.protocol import Gains


@runtime_checkable  # so that the tests can check annotations
class States(Protocol):
    """The states of T tasks.

    Attributes:
        device: where the results are.
    """

    device: torch.device

    def __len__(self) -> int: ...

    def gains(self, task: int) -> dict[str, Tensor]:
        """The gains of one state, by masked tensor."""
        ...

    def floats(self, task: int) -> dict[str, Tensor]:
        """The floats of one state, by name."""
        ...

    def unpacked(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Gains and floats, (C, *shape), of some states at a time, in order."""
        ...

    def combine(self, alphas: Float[Tensor, "A T"]) -> dict[str, Tensor]:
        """sum_i alpha_i gain_i for each vector of coefficients: (A, *shape) by masked tensor."""
        ...

    def dot(self, slopes: Gains) -> Float[Tensor, "Q T"]:
        """<slopes_q, gain_i>, added up over the masked tensors: the transpose of `combine`."""
        ...
