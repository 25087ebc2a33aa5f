"""The base class of baselines whose gains are floats.

Shape letters: B tasks of a block.
"""

from collections.abc import Sequence

import torch

from supsup_core.methods.protocol import Method, Scores
from supsup_core.networks.protocol import MaskedTensor, Network
from supsup_core.states.layout import PlaneSpec, TaskState


class FloatMethod(Method):
    """A finder whose states have floats and no planes. Its scores are the stored floats."""

    def planes(self, tensor: MaskedTensor) -> Sequence[PlaneSpec]:
        """Return no planes.

        Raises:
            ValueError: the tensor has gains over units.
        """
        if tensor.over != "weights":
            raise ValueError(
                f"network must have gains over weights for this method, got gains over units of "
                f"{tensor.name}"
            )
        return ()

    def end(self, network: Network, scores: Scores) -> list[TaskState]:
        """Make the states of B tasks. The floats of a state are the task's scores, as float32.

        Only the scores that `float_specs` lists are stored.
        """
        stored = {
            spec.name: scores[spec.name].detach().to(torch.float32).cpu().numpy()
            for spec in self.float_specs(network)
        }
        num_tasks = len(next(iter(stored.values())))
        return [
            TaskState((), {name: values[b].copy() for name, values in stored.items()})
            for b in range(num_tasks)
        ]
