"""BatchEnsemble (BatchE): each task scales the inputs and the outputs of every layer.

    y = a * (W (b * x)), so the gain of the weight from input i to output o is a_o b_i

The weights W are shared by all tasks. They are fixed, or task 0 trains them; see trunk.py. A task
trains and stores one factor per output (a) and one per input (b) of each layer. For a convolution,
inputs and outputs are channels. The factors start as random signs.

Source: Wen et al. 2020, arXiv:2002.06715, as a baseline of Wortsman et al. 2020. They draw W from a
Kaiming normal distribution: network_options.init=kaiming_normal.

Shape letters: B tasks of a block, O outputs and I inputs of a tensor.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from supsup_core.baselines.trunk import TrunkMethod
from supsup_core.methods.protocol import Scores, Shared
from supsup_core.networks.protocol import FloatSpec, MaskedTensor, Network
from supsup_core.streams import Role, stream


@dataclass(frozen=True)
class BatchE(TrunkMethod):
    """The baseline that stores two factors per layer and task."""

    def trunk_tensors(self, network: Network) -> Sequence[MaskedTensor]:
        """Return all masked tensors."""
        return network.tensors

    def float_specs(self, network: Network) -> list[FloatSpec]:
        """Describe the factors of the outputs and of the inputs of each masked tensor."""
        return [
            FloatSpec(f"{tensor.name}.{side}", "factor", tensor.shape[i : i + 1], 1.0, tensor.name)
            for tensor in network.tensors
            for i, side in enumerate(("outputs", "inputs"))
        ]

    def begin(
        self, network: Network, task_id: int, seed: int, shared: Shared | None = None
    ) -> dict[str, np.ndarray]:
        """Draw random signs, and add the trunk if this task trains it; see Method.begin."""
        factors = {
            spec.name: stream(seed, Role.SCORES, task_id, i)
            .choice([-1.0, 1.0], spec.shape)
            .astype(np.float32)
            for i, spec in enumerate(self.float_specs(network))
        }
        return factors | self.trunk_scores(network, seed, shared)

    def gains(self, network: Network, scores: Scores) -> dict[str, Tensor]:
        """Compute the outer product of the factors of each tensor, (B, O, I, ...)."""
        found = {}
        for tensor in network.tensors:
            outputs, inputs = scores[f"{tensor.name}.outputs"], scores[f"{tensor.name}.inputs"]
            further = [1 for _ in tensor.shape[2:]]
            gain = (outputs[:, :, None] * inputs[:, None, :]).unflatten(2, (-1, *further))
            found[tensor.name] = gain.expand(-1, *tensor.shape)
        return found
