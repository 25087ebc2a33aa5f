"""Task inference for an MLP in torch operations: a weight's gradient is an outer product."""

from typing import ClassVar

from supsup_core.engines.plain import PlainEngine
from supsup_core.inference.slopes import GainSlopes, MLPSlopes
from supsup_core.networks.mlp import MLP
from supsup_core.networks.protocol import Network, num_gains
from supsup_core.states.layout import StateLayout


class MLPEngine(PlainEngine):
    """Infers by autograd as far as the pre-activations; see Engine."""

    _slopes: ClassVar[type[GainSlopes]] = MLPSlopes

    @classmethod
    def fits(cls, network: Network, layout: StateLayout) -> bool:
        """An MLP whose weights are masked, by any planes."""
        return type(network) is MLP

    def numbers_per_query(self, num_inputs: int) -> int:
        """The slopes of all gains; activations are few beside them."""
        return num_gains(self._network)
