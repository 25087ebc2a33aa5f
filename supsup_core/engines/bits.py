"""Task inference on packed bits on the CPU, for an MLP whose masks keep or drop weights."""

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
    """Infers on bits where that is sooner, and by the MLP's own form otherwise; see Engine.

    States on another device than the CPU are inferred there, except by the ranked scan, which
    that device lacks.

    Its scans take masks whose bits differ like independent coins, which the planes of other
    finders do not: nested coats, negative planes.
    """

    supports: ClassVar[frozenset[str]] = MLPEngine.supports | {RANKED}

    def __init__(
        self, network: Network, weights: Weights, states: BitStates, num_real: int
    ) -> None:
        super().__init__(network, weights, states, num_real)
        self._bits: BitInference | None = None

    @classmethod
    def fits(cls, network: Network, layout: StateLayout) -> bool:
        """An MLP of signed constants, and one plane of bits for each of its layers."""
        return type(network) is MLP and keeps_alone(layout)

    @property
    def bits(self) -> BitInference:
        """The masks prepared for inference on bits; made when it is first asked for."""
        if self._bits is None:
            weights = [self._weights[t.source].cpu() for t in self._network.tensors]
            layout, rows = self._states.layout, self._states.rows
            self._bits = BitInference(weights, layout, rows, self._num_real)
        return self._bits

    def grown(self, states: BitStates) -> "BitsEngine":
        """Take the prepared masks over, and prepare the new ones alone."""
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
    """Whether a state is one plane of keep bits for each tensor, and nothing else."""
    return (
        not layout.floats
        and len(layout.planes) == len(layout.tensors)
        and all(plane.spec.coefficient == 1 for plane in layout.planes)
    )
