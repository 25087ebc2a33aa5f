"""Task inference with torch among states whose gains are floats, on any device."""

from typing import Any, ClassVar

import torch

from supsup_core.engines.plain import PlainEngine
from supsup_core.networks.protocol import Network
from supsup_core.states.floats import FloatStates
from supsup_core.states.layout import StateLayout


class FloatEngine(PlainEngine):
    """An engine for states without planes of bits. For the arguments, see Engine."""

    states: ClassVar[type[Any]] = FloatStates

    @classmethod
    def fits(cls, network: Network, layout: StateLayout, device: torch.device) -> bool:
        """Return whether the states have no planes. Every network and device is supported."""
        return not layout.planes
