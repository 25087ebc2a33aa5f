"""The gradient of an objective in the coefficients of a superposition.

`DenseGradient` makes it by autograd over a stack of float masks and is the
reference. `PackedGradient` uses

    d objective / d alpha_i = sum over layers <(d objective / d W_eff) * W, M_i>

so that one backward pass and T dot products of one real vector with bit rows do. An
objective may count the first layer alone; then the sum has that one term.

Shape letters as in algorithms.py.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from supsup_core.inference.objectives import Objective
from supsup_core.networks.mlp import forward
from supsup_core.states.bits import PackedMasks, superpose_dense


class DenseGradient:
    """The gradient by autograd through masks held as floats: plain, slow, the reference.

    Args:
        weights: (O, I) of each layer.
        masks: (T, O, I) of each layer.
        images: (Q, K, P), normalised; a query is K images of one task.
        objective: to minimise; averaged over a query's images.
        num_real: outputs that have a label.
    """

    def __init__(
        self,
        weights: Sequence[Float[Tensor, "_ _"]],
        masks: Sequence[Float[Tensor, "T _ _"]],
        images: Float[Tensor, "Q K P"],
        objective: Objective,
        num_real: int,
    ) -> None:
        self._weights, self._masks, self._images = weights, masks, images
        self._objective, self._num_real = objective, num_real
        self.num_queries, self.num_tasks = len(images), len(masks[0])
        self.device = images.device

    def __call__(self, alphas: Float[Tensor, "A T"]) -> Float[Tensor, "Q T"]:
        """One backward pass through the whole stack for each query."""
        gradients = []
        for query, alpha in zip(self._images, alphas.expand(len(self._images), -1), strict=True):
            leaf = alpha.clone().requires_grad_()
            later = alpha if self._objective.first_layer_only else leaf
            effective = superpose_dense(self._weights[:1], self._masks[:1], leaf)
            effective += superpose_dense(self._weights[1:], self._masks[1:], later)
            value = self._objective(forward(effective, query), self._num_real).mean()
            gradients.append(torch.autograd.grad(value, leaf)[0])
        return torch.stack(gradients)


class PackedGradient:
    """The same gradient from packed rows, by the identity at the head of this module.

    Args:
        weights: (O, I) of each layer.
        masks: the stored masks.
        images: (Q, K, P), normalised; a query is K images of one task.
        objective: to minimise; averaged over a query's images.
        num_real: outputs that have a label.
    """

    def __init__(
        self,
        weights: Sequence[Float[Tensor, "_ _"]],
        masks: PackedMasks,
        images: Float[Tensor, "Q K P"],
        objective: Objective,
        num_real: int,
    ) -> None:
        self._weights, self._masks, self._images = weights, masks, images
        self._objective, self._num_real = objective, num_real
        self.num_queries, self.num_tasks = len(images), len(masks)
        self.device = masks.device

    def __call__(self, alphas: Float[Tensor, "A T"]) -> Float[Tensor, "Q T"]:
        """One backward pass through the superposition, then one pass over the bits."""
        effective = self._masks.effective_weights(self._weights, alphas)
        gradients = self._weight_gradients(effective)
        evidence = [g.mul_(weight) for g, weight in zip(gradients, self._weights, strict=True)]
        if self._objective.first_layer_only:
            for later in evidence[1:]:
                later.zero_()
        return self._masks.dot(self._masks.layout.flatten(evidence))

    def _weight_gradients(
        self, effective: Sequence[Float[Tensor, "A _ _"]]
    ) -> list[Float[Tensor, "Q _ _"]]:
        """D objective_q / d W_eff of each layer.

        Autograd stops at the pre-activations, which are small; the gradient of a
        weight is the outer product of what it receives and what it sends.
        """
        received, sent = [self._images], []
        for i, weight in enumerate(effective):
            z = received[-1] @ weight.transpose(1, 2)
            sent.append(z.requires_grad_() if i == 0 else z)
            if i < len(effective) - 1:
                received.append(torch.relu(z))
        value = self._objective(sent[-1], self._num_real).mean(dim=1).sum()
        deltas = torch.autograd.grad(value, sent)
        return [
            delta.transpose(1, 2) @ x.detach() for delta, x in zip(deltas, received, strict=True)
        ]
