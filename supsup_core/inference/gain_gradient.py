"""The gradient of an objective in the coefficients of a superposition, for any masking.

By autograd in the gains, which PackedGradient of inference.py does faster for masks over
weights. Shape letters as in inference.py.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from supsup_core.inference.objectives import Objective
from supsup_core.states.bits import PackedMasks
from supsup_core.states.masking import Masking


class GainGradient:
    """D objective / d alpha_i = sum over layers <d objective / d gain, M_i>.

    Args:
        masking: what the bits stand for.
        weights: (O, I) of each layer.
        masks: the stored masks.
        images: (Q, K, P), normalised; a query is K images of one task.
        objective: to minimise; averaged over a query's images.
        num_real: outputs that have a label.
    """

    def __init__(
        self,
        masking: Masking,
        weights: Sequence[Float[Tensor, "_ _"]],
        masks: PackedMasks,
        images: Float[Tensor, "Q K P"],
        objective: Objective,
        num_real: int,
    ) -> None:
        self._logits = masking.on(weights, images)
        self._masks, self._objective, self._num_real = masks, objective, num_real
        self.num_queries, self.num_tasks = len(images), len(masks)
        self.device = masks.device

    def __call__(self, alphas: Float[Tensor, "A T"]) -> Float[Tensor, "Q T"]:
        """One backward pass through the superposition, then one pass over the bits."""
        combined = self._masks.combine(alphas).expand(self.num_queries, -1).clone()
        gains = self._masks.layout.unflatten(combined.requires_grad_())
        value = self._objective(self._logits(gains), self._num_real).mean(dim=1).sum()
        (slopes,) = torch.autograd.grad(value, combined)
        if self._objective.first_layer_only:
            slopes[:, self._masks.layout.bit_slices[0].stop :] = 0
        return self._masks.dot(slopes)
