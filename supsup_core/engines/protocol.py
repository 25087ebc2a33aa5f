"""The protocol of an engine. An engine infers to which of the stored tasks a query belongs.

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
    """An engine: it infers to which of T stored tasks each query belongs.

    Args:
        network: the fixed network.
        weights: a mapping from name to the network's weights, on the device of the states.
        states: the stored states of the T tasks.
        num_real: number of outputs that belong to a class.

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
        """Make an engine for a later checkpoint, which has more states.

        Args:
            states: all states of the later checkpoint. They begin with the states of this engine,
                in the same order.
        """
        ...

    def numbers_per_query(self, num_inputs: int) -> int:
        """Return how many float32 numbers must be in memory to compute the gradient of one query.

        Args:
            num_inputs: K, the number of inputs of the query.
        """
        ...

    def gradient(self, inputs: Float[Tensor, "Q K ..."], objective: Objective) -> AlphaGradient:
        """Make a function that computes the slopes d objective / d alpha from coefficients.

        Args:
            inputs: (Q, K, *shape) normalised inputs of Q queries, on the device of the states.
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
            inputs: (Q, K, *shape) normalised inputs of Q queries, on the device of the states. The
                K inputs of a query belong to one task.
            algorithm: the algorithm's name, one of `supports`.
            objective: the objective; None if the algorithm needs no objective.
            options: the options of the algorithms.

        Raises:
            FloatingPointError: a value that decides between tasks is NaN or infinite.
        """
        ...
