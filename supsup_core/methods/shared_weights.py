"""The base class of finders that train masks and weights, one task after another.

All tasks share one tensor of weights W per layer. A task chooses its mask by the rule of
edge-popup, and computes with W * mask. A weight is taken if the mask of an earlier task keeps it.
A task trains only weights that are not taken. So a later task changes no weight that an earlier
mask keeps, and the logits of earlier tasks stay the same, bit for bit.

W takes 4 bytes per weight once, and the taken weights 1 bit per weight. A state has one plane of
bits per masked tensor, as with edge-popup. The weights start from the network's fixed weights.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from supsup_core.methods.edge_popup import EdgePopup
from supsup_core.methods.protocol import Progress, Scores, Shared, of_one_task
from supsup_core.methods.trained_weights import WEIGHTS, as_shared, first_weights
from supsup_core.networks.protocol import MaskedTensor, Network
from supsup_core.states.layout import PlaneSpec

# Prefix of the names of shared arrays: True for each weight that the mask of an earlier task keeps.
# The source of a masked tensor follows.
_TAKEN = "taken "


class SharedWeights(EdgePopup):
    """A finder with the masks of edge-popup, which also trains the weights that masks keep.

    The scores have an entry for each masked tensor, and an entry for the weights of each layer.

    Attributes:
        exclusive: whether weights that are taken never change. A subclass may make it an option.
    """

    order = "sequence"
    exclusive: bool = True

    def planes(self, tensor: MaskedTensor) -> Sequence[PlaneSpec]:
        """Return one plane. Its bits are the gains.

        Raises:
            ValueError: the tensor has gains over units.
        """
        if tensor.over != "weights":
            raise ValueError(
                "network must have gains over weights for a method that trains weights, got gains "
                f"over units of {tensor.name}"
            )
        return super().planes(tensor)

    def shared_shapes(self, network: Network) -> Mapping[str, tuple[int, ...]]:
        """Return the shapes of the weights of each layer, and of the bits of taken weights."""
        shapes = {tensor.source: tensor.shape for tensor in network.tensors}
        return shapes | {_TAKEN + source: shape for source, shape in shapes.items()}

    def shared_bits(self, network: Network) -> frozenset[str]:
        """Return the names of the arrays of taken weights."""
        return frozenset(_TAKEN + tensor.source for tensor in network.tensors)

    def begin(
        self, network: Network, task_id: int, seed: int, shared: Shared | None = None
    ) -> dict[str, np.ndarray]:
        """Draw the first scores of one task, and add the weights after the previous task."""
        scores, earlier = super().begin(network, task_id, seed, shared), shared or {}
        first = first_weights(network, dict.fromkeys(t.source for t in network.tensors), seed)
        weights = {WEIGHTS + n: earlier.get(n, drawn).copy() for n, drawn in first.items()}
        return scores | weights

    def trained_weights(self, network: Network, scores: Scores) -> dict[str, Tensor]:
        """Return the weights in training; see Method.trained_weights.

        Raises:
            ValueError: the scores are those of several tasks.
        """
        return {t.source: of_one_task(scores[WEIGHTS + t.source]) for t in network.tensors}

    def after_step(
        self, network: Network, scores: Scores, shared: Shared | None, progress: Progress
    ) -> None:
        """Undo the change of taken weights.

        Gradients of 0 would not be enough, because weight decay changes weights too.
        """
        if not self.exclusive:
            return
        earlier = shared or {}
        for name, weight in scores.items():
            source = name.removeprefix(WEIGHTS)
            if source != name and source in earlier:
                taken = torch.tensor(earlier[_TAKEN + source], device=weight.device)
                before = torch.tensor(earlier[source], device=weight.device, dtype=weight.dtype)
                weight.copy_(torch.where(taken, before, weight))

    def pass_on(self, network: Network, scores: Scores, shared: Shared | None) -> Shared:
        """Return the weights after the task, in float32, and the weights that are taken now."""
        data = dict(as_shared(self.trained_weights(network, scores)))
        for tensor in network.tensors:
            name = _TAKEN + tensor.source
            kept = of_one_task(self.mask(tensor, scores[tensor.name].detach())).cpu().numpy()
            earlier = data.get(name, (shared or {}).get(name))  # tensors may share their weights
            data[name] = kept if earlier is None else kept | earlier
        return data

    def free_share(self, shared: Shared) -> float:
        """Return the fraction of the weights that are not taken."""
        taken = [bits for name, bits in shared.items() if name.startswith(_TAKEN)]
        return 1 - sum(int(np.count_nonzero(b)) for b in taken) / sum(b.size for b in taken)
