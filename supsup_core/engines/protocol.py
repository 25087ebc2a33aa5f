"""What infers the task of a query among stored states.

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


@runtime_checkable  # so that the tests can check annotations
class Engine(Protocol):
    """Infers tasks among states.

    Args:
        network: the fixed network.
        weights: its weights, on the device of the states.
        states: the stored states.
        num_real: number of outputs that have a label.

    Attributes:
        supports: the algorithms that it has, of names.ALGORITHMS.
    """

    supports: ClassVar[frozenset[str]]

    def __init__(
        self, network: Network, weights: Weights, states: BitStates, num_real: int
    ) -> None: ...

    @classmethod
    def fits(cls, network: Network, layout: StateLayout) -> bool:
        """Whether it infers among states of this layout, of this network."""
        ...

    def grown(self, states: BitStates) -> "Engine":
        """Make the engine of a later checkpoint, whose states begin with those of this one."""
        ...

    def numbers_per_query(self, num_inputs: int) -> int:
        """How many numbers the gradient of one query of K inputs takes."""
        ...

    def gradient(self, inputs: Float[Tensor, "Q K ..."], objective: Objective) -> AlphaGradient:
        """Make the gradient of an objective in the coefficients, for whoever needs slopes."""
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
            inputs: normalised, on the device of the states; a query is K inputs of one task.
            algorithm: one of `supports`.
            objective: what is minimised; None for algorithms that minimise nothing.
            options: what the algorithms are told.

        Raises:
            FloatingPointError: evidence that is not finite.
        """
        ...
