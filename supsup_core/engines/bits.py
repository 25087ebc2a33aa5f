"""Task inference on packed bits on the CPU, for an MLP with one plane of bits per layer."""

from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from supsup_core.bits.infer import BIT_ALGORITHMS, BitInference
from supsup_core.engines.mlp import MLPEngine
from supsup_core.inference.algorithms import Options
from supsup_core.inference.answers import Inference
from supsup_core.inference.objectives import Objective
from supsup_core.names import RANKED
from supsup_core.networks.mlp import MLP
from supsup_core.networks.protocol import Network, Weights
from supsup_core.states.bits import BitStates
from supsup_core.states.layout import StateLayout


class BitsEngine(MLPEngine):
    """An engine that reads packed bits on the CPU. For the arguments, see Engine.

    An algorithm that has no form on packed bits runs as in MLPEngine.
    """

    # Only states with one keep plane per layer are supported, because the ranked scan assumes
    # independent bits. Coat planes and negative planes are correlated with the planes before them.

    supports: ClassVar[frozenset[str]] = MLPEngine.supports | {RANKED}
    needs_drawn_weights: ClassVar[bool] = True  # signed constants

    def __init__(
        self, network: Network, weights: Weights, states: BitStates, num_real: int
    ) -> None:
        super().__init__(network, weights, states, num_real)
        self._bits: BitInference | None = None

    @classmethod
    def fits(cls, network: Network, layout: StateLayout, device: torch.device) -> bool:
        """Return whether this engine supports a network, a layout and a device.

        The network must be an MLP whose weights are signed constants, a state must have one keep
        plane per layer, and the device must be the CPU.
        """
        fits_network = type(network) is MLP and network.has_constants
        return fits_network and keeps_alone(layout) and device.type == "cpu"

    @property
    def bits(self) -> BitInference:
        """The masks in the form that inference on bits needs. The first access computes it."""
        if self._bits is None:
            assert isinstance(self._states, BitStates)
            weights = [self._weights[t.source] for t in self._network.tensors]
            layout, rows = self._states.layout, self._states.rows
            self._bits = BitInference(weights, layout, rows, self._num_real)
        return self._bits

    def grown(self, rows: UInt8[np.ndarray, "T R"]) -> "BitsEngine":
        """Make an engine for a later checkpoint; see Engine.grown.

        The new engine takes the prepared masks from this engine, and prepares only the new masks.
        """
        states = self._states.grown(rows)
        assert isinstance(states, BitStates)
        more = type(self)(self._network, self._weights, states, self._num_real)
        if self._bits is not None:
            more._bits, self._bits = self._bits, None
            more._bits.grow(rows)
        return more

    def infer(
        self,
        inputs: Float[Tensor, "Q K ..."],
        algorithm: str,
        objective: Objective | None,
        options: Options,
    ) -> Inference:
        """Infer the task of each query; see Engine.infer."""
        if algorithm not in BIT_ALGORITHMS:
            return super().infer(inputs, algorithm, objective, options)
        assert objective is not None
        return BIT_ALGORITHMS[algorithm](self.bits, inputs.flatten(2), objective, options)


def keeps_alone(layout: StateLayout) -> bool:
    """Return whether a state has one plane of bits per masked tensor, and no floats.

    The coefficient of each plane must be 1, so that the bits are the gains.
    """
    return (
        not layout.floats
        and len(layout.planes) == len(layout.tensors)
        and all(plane.spec.coefficient == 1 for plane in layout.planes)
    )
