"""The protocol of stored states: read single states, and apply two linear maps to all states.

Shape letters: T states, Q queries, A coefficient vectors, C states of one part, R bytes of a packed
row.
"""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from supsup_core.networks.protocol import Gains
from supsup_core.states.layout import StateLayout


@runtime_checkable  # lets tests check annotations at run time
class States(Protocol):
    """The stored states of T tasks: read single states, or apply a linear map to all of them.

    Attributes:
        device: the device of all returned tensors.
    """

    device: torch.device

    def __len__(self) -> int: ...

    def gains(self, task: int) -> dict[str, Tensor]:
        """Return the gains of one state.

        Args:
            task: the task's number.

        Returns:
            A mapping from the name of each masked tensor to its gains.
        """
        ...

    def floats(self, task: int) -> dict[str, Tensor]:
        """Return the floats of one state.

        Args:
            task: the task's number.

        Returns:
            A mapping from the name of each array of floats to its values.
        """
        ...

    def unpacked(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Unpack the states in parts, in the order of the states.

        Yields:
            For each part of C states, two mappings. The first maps the name of each masked tensor
            to its gains, (C, *shape). The second maps the name of each array of floats to its
            values, (C, *shape).
        """
        ...

    def combine(self, alphas: Float[Tensor, "A T"]) -> dict[str, Tensor]:
        """Compute superpositions: weighted sums of the gains of all states.

        Args:
            alphas: (A, T) coefficients of the T states, for A superpositions.

        Returns:
            A mapping from the name of each masked tensor to its gains, (A, *shape).
        """
        ...

    def dot(self, slopes: Gains) -> Float[Tensor, "Q T"]:
        """Compute the product of each query's slopes and each state's gains.

        The product is summed over all masked tensors. This map is the transpose of `combine`.

        Args:
            slopes: a mapping from the name of each masked tensor to slopes (Q, *shape): for each of
                Q queries, the derivative of the query's objective with respect to each gain.

        Returns:
            (Q, T) products.
        """
        ...


@runtime_checkable  # lets tests check annotations at run time
class PackedStates(States, Protocol):
    """Stored states that are made from packed rows.

    Args:
        layout: the layout of the packed rows.
        rows: (T, R) the packed rows, at least one.
        device: the device of the computations and of all returned tensors.

    Attributes:
        layout: the layout of the packed rows.
    """

    layout: StateLayout

    def grown(self, rows: UInt8[np.ndarray, "T R"]) -> "PackedStates":
        """Make states with more rows.

        Args:
            rows: all packed rows. They begin with the rows of these states, in the same order.
        """
        ...
