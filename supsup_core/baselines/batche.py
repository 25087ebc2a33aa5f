"""BatchEnsemble (BatchE): each task scales the inputs and the outputs of every layer.

    y = a * (W (b * x)), so the gain of the weight from input i to output o is a_o b_i

The fixed weights W are shared by all tasks. A task trains and stores one factor per output (a) and
one per input (b) of each layer. For a convolution, inputs and outputs are channels. The factors
start as random signs.

Source: Wen et al. 2020, arXiv:2002.06715, as a baseline of Wortsman et al. 2020. In this form, W is
random and never trained. (Wortsman et al. also have a form in which W is trained on the first task,
for SplitImageNet and SplitCIFAR100.) They draw W from a Kaiming normal distribution, as
network_options.init=kaiming_normal does.

Shape letters: B tasks of a block, O outputs and I inputs of a tensor.
"""

from typing import Any

import numpy as np
from torch import Tensor

from supsup_core.baselines.gains_of_floats import FloatMethod
from supsup_core.methods.protocol import Scores
from supsup_core.networks.protocol import FloatSpec, Network
from supsup_core.streams import Role, stream


class BatchE(FloatMethod):
    """The baseline that stores two factors per layer and task."""

    def float_specs(self, network: Network) -> list[FloatSpec]:
        """Describe the factors of the outputs and of the inputs of each masked tensor."""
        return [
            FloatSpec(f"{tensor.name}.{side}", "factor", tensor.shape[i : i + 1], 1.0, tensor.name)
            for tensor in network.tensors
            for i, side in enumerate(("outputs", "inputs"))
        ]

    def begin(
        self, network: Network, task_id: int, seed: int, shared: Any = None
    ) -> dict[str, np.ndarray]:
        """Draw random signs; see Method.begin."""
        return {
            spec.name: stream(seed, Role.SCORES, task_id, i)
            .choice([-1.0, 1.0], spec.shape)
            .astype(np.float32)
            for i, spec in enumerate(self.float_specs(network))
        }

    def gains(self, network: Network, scores: Scores) -> dict[str, Tensor]:
        """Compute the outer product of the factors of each tensor, (B, O, I, ...)."""
        found = {}
        for tensor in network.tensors:
            outputs, inputs = scores[f"{tensor.name}.outputs"], scores[f"{tensor.name}.inputs"]
            further = [1 for _ in tensor.shape[2:]]
            gain = (outputs[:, :, None] * inputs[:, None, :]).unflatten(2, (-1, *further))
            found[tensor.name] = gain.expand(-1, *tensor.shape)
        return found
