"""The protocol of an engine, which infers the task of a query among stored states.

Shape letters: T states, Q queries, K inputs of a query.
"""

from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from supsup_core.inference.algorithms import AlphaGradient, Inference, Options
from supsup_core.inference.objectives import Objective
from supsup_core.networks.protocol import Network, Weights
from supsup_core.states.bits import BitStates
from supsup_core.states.layout import StateLayout


@runtime_checkable  # lets tests check annotations at run time
class Engine(Protocol):
    """An engine: it infers the task of each query among stored states.

    Args:
        network: the fixed network.
        weights: the network's weights by source, on the device of the states.
        states: the stored states.
        num_real: number of outputs that have a label.

    Attributes:
        supports: names of the supported algorithms, a subset of names.ALGORITHMS.
    """

    supports: ClassVar[frozenset[str]]

    def __init__(
        self, network: Network, weights: Weights, states: BitStates, num_real: int
    ) -> None: ...

    @classmethod
    def fits(cls, network: Network, layout: StateLayout) -> bool:
        """Return whether the engine supports this network with states of this layout."""
        ...

    def grown(self, states: BitStates) -> "Engine":
        """Make the engine of a later checkpoint.

        Args:
            states: all states of the later checkpoint. The states of this engine come first, in
                the same order.
        """
        ...

    def numbers_per_query(self, num_inputs: int) -> int:
        """Return how many float32 numbers the gradient of one query needs in memory.

        Args:
            num_inputs: K, the number of inputs of the query.
        """
        ...

    def gradient(self, inputs: Float[Tensor, "Q K ..."], objective: Objective) -> AlphaGradient:
        """Make the function that computes d objective / d alpha, for callers that need slopes.

        Args:
            inputs: normalised inputs, on the device of the states.
            objective: the objective whose slopes are computed.
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
            inputs: normalised inputs, on the device of the states; the K inputs of a query
                belong to one task.
            algorithm: the algorithm's name, one of `supports`.
            objective: the objective to minimise; None for an algorithm without an objective.
            options: the options of the algorithms.

        Raises:
            FloatingPointError: the evidence is not finite.
        """
        ...
