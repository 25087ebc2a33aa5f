"""Task inference for an MLP in torch operations, with weight gradients as outer products."""

from typing import ClassVar

from supsup_core.engines.plain import PlainEngine
from supsup_core.inference.slopes import GainSlopes, MLPSlopes
from supsup_core.networks.mlp import MLP
from supsup_core.networks.protocol import Network, num_gains
from supsup_core.states.layout import StateLayout


class MLPEngine(PlainEngine):
    """An engine that uses autograd for the pre-activations only; see Engine and MLPSlopes."""

    _slopes: ClassVar[type[GainSlopes]] = MLPSlopes

    @classmethod
    def fits(cls, network: Network, layout: StateLayout) -> bool:
        """Return whether the network is an MLP; all state layouts fit."""
        return type(network) is MLP

    def numbers_per_query(self, num_inputs: int) -> int:
        """Return the number of gains; see Engine.numbers_per_query.

        The slopes of all gains take far more memory than the activations, which are not counted.
        """
        return num_gains(self._network)
