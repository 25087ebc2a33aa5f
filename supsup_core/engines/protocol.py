"""The protocol of an engine. An engine infers to which of the stored tasks a query belongs.

Shape letters: T states, Q queries, K inputs of a query, R bytes of a packed row.
"""

from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from supsup_core.inference.algorithms import AlphaGradient, Options
from supsup_core.inference.answers import Inference
from supsup_core.inference.objectives import Objective
from supsup_core.networks.protocol import Network, Weights
from supsup_core.states.layout import StateLayout
from supsup_core.states.protocol import PackedStates


@runtime_checkable  # lets tests check annotations at run time
class Engine(Protocol):
    """An engine: it infers to which of T stored tasks each query belongs.

    Args:
        network: the fixed network.
        weights: a mapping from tensor name to the network's fixed weights, on the device of the
            states.
        states: the stored states of the T tasks, of the class `states`.
        num_real: number of outputs that belong to a class.

    Attributes:
        supports: names of the supported algorithms, a subset of names.INFERENCE_ALGORITHMS.
        states: the class of states that the engine needs. It implements PackedStates.
        needs_drawn_weights: whether the weights must be those that the network draws from a seed.
    """

    # type[Any]: at run time, Python cannot check a class against a protocol that has attributes.
    states: ClassVar[type[Any]]
    supports: ClassVar[frozenset[str]]
    needs_drawn_weights: ClassVar[bool]

    def __init__(
        self, network: Network, weights: Weights, states: PackedStates, num_real: int
    ) -> None: ...

    @property
    def stored(self) -> PackedStates:
        """The stored states."""
        ...

    @property
    def device(self) -> torch.device:
        """The device that computes the inference."""
        ...

    @classmethod
    def fits(cls, network: Network, layout: StateLayout, device: torch.device) -> bool:
        """Return whether the engine supports a network with states of this layout on a device."""
        ...

    def grown(self, rows: UInt8[np.ndarray, "T R"]) -> "Engine":
        """Make an engine for a later checkpoint, which has more states.

        Args:
            rows: (T, R) the packed rows of all states of the later checkpoint. They begin with the
                rows of this engine's states, in the same order.
        """
        ...

    def queries_together(self, num_inputs: int) -> int:
        """Return how many queries to infer in one call, at least 1. Memory limits this number.

        Args:
            num_inputs: K, the number of inputs of a query.
        """
        ...

    def gradient(self, inputs: Float[Tensor, "Q K ..."], objective: Objective) -> AlphaGradient:
        """Make a function from coefficients alpha to slopes d objective / d alpha.

        Args:
            inputs: (Q, K, *shape) normalised inputs of Q queries, on the device of the states.
            objective: the objective that the function differentiates.
        """
        ...

    def infer(
        self,
        inputs: Float[Tensor, "Q K ..."],
        algorithm: str,
        objective: Objective | None,
        options: Options,
    ) -> Inference:
        """Infer the task of each query.

        Args:
            inputs: (Q, K, *shape) normalised inputs of Q queries, on the device of the states. The
                K inputs of a query belong to one task.
            algorithm: the algorithm's name, one of `supports`.
            objective: the objective; None if the algorithm needs no objective.
            options: the options of the algorithms.

        Raises:
            FloatingPointError: a slope, an entropy or a logit is NaN or infinite.
        """
        ...
