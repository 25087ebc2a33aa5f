"""The lower bound: one network is trained on every task in turn, without masks.

The network forgets, because each task changes the weights that all earlier tasks need. A useful
method for many tasks has a higher accuracy. The state of a task has neither bits nor floats, so its
row has only padding. All tasks share the weights, which take 4 bytes each.

Source: the lower bound of Wortsman et al. 2020.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from supsup_core.methods.protocol import Method, Scores, Shared
from supsup_core.methods.trained_weights import as_shared, first_weights, weights_in
from supsup_core.networks.protocol import FloatSpec, MaskedTensor, Network
from supsup_core.states.layout import PlaneSpec, TaskState


class LowerBound(Method):
    """The baseline that trains the weights of one network on all tasks, one task after another.

    The scores are the weights themselves, and all gains are 1. The first task starts from the
    network's fixed random weights. Each later task starts from the weights that the training of the
    previous task has given.
    """

    order = "sequence"

    def planes(self, tensor: MaskedTensor) -> Sequence[PlaneSpec]:
        """Return no plane, because all gains are 1."""
        return ()

    def float_specs(self, network: Network) -> Sequence[FloatSpec]:
        """Return no floats.

        Raises:
            ValueError: the network normalises over a batch. Its running statistics would belong to
                one task, but the weights belong to all tasks.
        """
        if network.normalises:
            raise ValueError(f"the network must not normalise over a batch, got {network.name}")
        return ()

    def shared_shapes(self, network: Network) -> Mapping[str, tuple[int, ...]]:
        """Return the shapes of the trained weights."""
        return {tensor.source: tensor.shape for tensor in network.tensors}

    def begin(
        self, network: Network, task_id: int, seed: int, shared: Shared | None = None
    ) -> dict[str, np.ndarray]:
        """Return the weights after the previous task, or the fixed weights for the first task."""
        names = self.shared_shapes(network)
        if not shared:
            return first_weights(network, names, seed)
        return {name: shared[name].copy() for name in names}

    def gains(self, network: Network, scores: Scores) -> dict[str, Tensor]:
        """Return gains of 1."""
        return {
            tensor.name: torch.ones_like(scores[tensor.source], requires_grad=False)
            for tensor in network.tensors
        }

    def trained_weights(self, network: Network, scores: Scores) -> dict[str, Tensor]:
        """Return the weights in training; see Method.trained_weights.

        Raises:
            ValueError: the scores are those of several tasks.
        """
        return weights_in(scores, self.shared_shapes(network))

    def pass_on(self, network: Network, scores: Scores, shared: Shared | None) -> Shared:
        """Return the weights after the task, in float32."""
        return as_shared(self.trained_weights(network, scores))

    def end(self, network: Network, scores: Scores) -> list[TaskState]:
        """Return states without planes and without floats."""
        return [TaskState(()) for _ in next(iter(scores.values()))]
