"""Task inference with torch, for any network, any states and any device."""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from supsup_core.inference.algorithms import BY_GRADIENT, AlphaGradient, Inference, Options
from supsup_core.inference.forward import BY_FORWARD
from supsup_core.inference.objectives import Objective
from supsup_core.inference.slopes import GainSlopes
from supsup_core.names import FORWARD_ALGORITHMS, GRADIENT_ALGORITHMS
from supsup_core.networks.protocol import Network, Weights, num_gains
from supsup_core.states.bits import BitStates
from supsup_core.states.layout import StateLayout


class PlainEngine:
    """An engine that computes gradients of the whole superposition by autograd; see Engine."""

    supports: ClassVar[frozenset[str]] = frozenset((*GRADIENT_ALGORITHMS, *FORWARD_ALGORITHMS))
    _slopes: ClassVar[type[GainSlopes]] = GainSlopes

    def __init__(
        self, network: Network, weights: Weights, states: BitStates, num_real: int
    ) -> None:
        self._network, self._weights, self._states = network, weights, states
        self._num_real = num_real

    @classmethod
    def fits(cls, network: Network, layout: StateLayout) -> bool:
        """Return True: every network and every layout is supported."""
        return True

    def grown(self, states: BitStates) -> "PlainEngine":
        """Make an engine for a later checkpoint; see Engine.grown."""
        return type(self)(self._network, self._weights, states, self._num_real)

    def numbers_per_query(self, num_inputs: int) -> int:
        """Return the number of gains, or the number of activations if this number is larger."""
        return max(num_gains(self._network), num_inputs * self._network.num_activations)

    def gradient(self, inputs: Float[Tensor, "Q K ..."], objective: Objective) -> AlphaGradient:
        """Make a function that computes the slopes d objective / d alpha; see Engine.gradient."""
        return self._slopes(
            self._network, self._weights, self._states, inputs, objective, self._num_real
        )

    def infer(
        self,
        inputs: Float[Tensor, "Q K ..."],
        algorithm: str,
        objective: Objective | None,
        options: Options,
    ) -> Inference:
        """Infer the task of each query; see Engine.infer."""
        if algorithm in FORWARD_ALGORITHMS:
            forward = BY_FORWARD[algorithm]
            return forward(self._network, self._weights, self._states, inputs, self._num_real)
        assert objective is not None
        return BY_GRADIENT[algorithm](self.gradient(inputs, objective), options)
