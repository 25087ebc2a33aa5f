"""Task inference for an MLP with torch.

Outer products give the derivatives with respect to the weights.
"""

from typing import ClassVar

import torch

from supsup_core.engines.plain import PlainEngine
from supsup_core.inference.slopes import GainSlopes, MLPSlopes
from supsup_core.networks.mlp import MLP
from supsup_core.networks.protocol import Network, num_gains
from supsup_core.states.layout import StateLayout


class MLPEngine(PlainEngine):
    """An engine for MLPs. It uses autograd only for the pre-activations; see MLPSlopes."""

    _slopes: ClassVar[type[GainSlopes]] = MLPSlopes

    @classmethod
    def fits(cls, network: Network, layout: StateLayout, device: torch.device) -> bool:
        """Return whether the network is an MLP. Every layout and device is supported."""
        return type(network) is MLP

    def _numbers_per_query(self, num_inputs: int) -> int:
        """Return the number of gains.

        Activations are not counted, because the derivatives with respect to all gains take far more
        memory.
        """
        return num_gains(self._network)
