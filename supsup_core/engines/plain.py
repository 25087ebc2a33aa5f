"""Task inference with torch, for any network, any states and any device."""

from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from supsup_core.inference.algorithms import BY_GRADIENT, AlphaGradient, Options
from supsup_core.inference.answers import Inference
from supsup_core.inference.forward import infer_by_forward
from supsup_core.inference.objectives import Objective
from supsup_core.inference.slopes import GainSlopes
from supsup_core.names import FORWARD_ALGORITHMS, GRADIENT_ALGORITHMS
from supsup_core.networks.protocol import Network, Weights, num_gains
from supsup_core.states.bits import BitStates
from supsup_core.states.layout import StateLayout
from supsup_core.states.protocol import PackedStates

# Memory for the float32 gradients of queries that are inferred together: 32 queries for LeNet
# 300-100. Binary needs the same amount again for the superpositions of these queries.
GRADIENT_BYTES = 41_000_000


class PlainEngine:
    """An engine that computes gradients of the whole superposition by autograd; see Engine."""

    supports: ClassVar[frozenset[str]] = frozenset((*GRADIENT_ALGORITHMS, *FORWARD_ALGORITHMS))
    states: ClassVar[type[Any]] = BitStates
    needs_drawn_weights: ClassVar[bool] = False
    _slopes: ClassVar[type[GainSlopes]] = GainSlopes

    def __init__(
        self, network: Network, weights: Weights, states: PackedStates, num_real: int
    ) -> None:
        self._network, self._weights, self._states = network, weights, states
        self._num_real = num_real

    @property
    def stored(self) -> PackedStates:
        """The stored states."""
        return self._states

    @property
    def device(self) -> torch.device:
        """The device that computes the inference."""
        return self._states.device

    @classmethod
    def fits(cls, network: Network, layout: StateLayout, device: torch.device) -> bool:
        """Return True: every network, every layout and every device is supported."""
        return True

    def grown(self, rows: UInt8[np.ndarray, "T R"]) -> "PlainEngine":
        """Make an engine for a later checkpoint; see Engine.grown."""
        states = self._states.grown(rows)
        return type(self)(self._network, self._weights, states, self._num_real)

    def queries_together(self, num_inputs: int) -> int:
        """Return how many queries have gradients that fit into GRADIENT_BYTES; see Engine."""
        return max(1, GRADIENT_BYTES // (4 * self._numbers_per_query(num_inputs)))

    def _numbers_per_query(self, num_inputs: int) -> int:
        """Return how many float32 numbers the gradient of one query takes.

        This is the number of gains or the number of activations, whichever is larger.
        """
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
            given = self._network, self._weights, self._states, inputs
            return infer_by_forward(algorithm, *given, self._num_real)
        assert objective is not None
        return BY_GRADIENT[algorithm](self.gradient(inputs, objective), options)
