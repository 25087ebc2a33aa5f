"""Task inference on packed bits on the CPU, for an MLP with one keep plane per layer."""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from supsup_core.bits.infer import BIT_ALGORITHMS, BitInference
from supsup_core.engines.mlp import MLPEngine
from supsup_core.inference.algorithms import Inference, Options
from supsup_core.inference.objectives import Objective
from supsup_core.names import RANKED
from supsup_core.networks.mlp import MLP
from supsup_core.networks.protocol import Network, Weights
from supsup_core.states.bits import BitStates
from supsup_core.states.layout import StateLayout


class BitsEngine(MLPEngine):
    """An engine that reads packed bits on the CPU. For the arguments, see Engine.

    Some algorithms have no form on packed bits, and run as in MLPEngine. If the states are not on
    the CPU, all algorithms run as in MLPEngine on the device of the states. The algorithm
    one_shot_ranked is an exception: it always runs on the CPU, because it has no other form.
    """

    # Only states with one keep plane per layer are supported, because the ranked scan assumes
    # independent bits. Nested coats and negative planes are correlated with the planes before them.

    supports: ClassVar[frozenset[str]] = MLPEngine.supports | {RANKED}

    def __init__(
        self, network: Network, weights: Weights, states: BitStates, num_real: int
    ) -> None:
        super().__init__(network, weights, states, num_real)
        self._bits: BitInference | None = None

    @classmethod
    def fits(cls, network: Network, layout: StateLayout) -> bool:
        """Return whether the network is an MLP and a state is just one keep plane per layer."""
        return type(network) is MLP and keeps_alone(layout)

    @property
    def bits(self) -> BitInference:
        """The masks in the form that inference on bits needs. The first access computes it."""
        if self._bits is None:
            weights = [self._weights[t.source].cpu() for t in self._network.tensors]
            layout, rows = self._states.layout, self._states.rows
            self._bits = BitInference(weights, layout, rows, self._num_real)
        return self._bits

    def grown(self, states: BitStates) -> "BitsEngine":
        """Make an engine for a later checkpoint; see Engine.grown.

        The new engine takes the prepared masks from this engine, and prepares only the new masks.
        """
        more = type(self)(self._network, self._weights, states, self._num_real)
        if self._bits is not None:
            more._bits, self._bits = self._bits, None
            more._bits.grow(states.rows)
        return more

    def infer(
        self,
        inputs: Float[Tensor, "Q K ..."],
        algorithm: str,
        objective: Objective | None,
        options: Options,
    ) -> Inference:
        """Infer the task of each query; see Engine.infer."""
        on_cpu = self._states.device.type == "cpu"
        if algorithm not in BIT_ALGORITHMS or not (on_cpu or algorithm == RANKED):
            return super().infer(inputs, algorithm, objective, options)
        assert objective is not None
        images = inputs.cpu().flatten(2)
        return BIT_ALGORITHMS[algorithm](self.bits, images, objective, options)


def keeps_alone(layout: StateLayout) -> bool:
    """Return whether a state has exactly one keep plane per masked tensor, and no floats."""
    return (
        not layout.floats
        and len(layout.planes) == len(layout.tensors)
        and all(plane.spec.coefficient == 1 for plane in layout.planes)
    )
