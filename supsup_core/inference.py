"""Infer which stored task a batch belongs to, without being told.

Two algorithms read the gradient of an objective in the coefficients of the
superposition: one-shot takes its minimum, binary halves the candidates until one
is left. Two more run every mask forward and serve as comparison.

The algorithms know no network: they call a gradient, which maps coefficients
(A, T), A = Q or 1 where all queries share them, to d objective / d alpha (Q, T).
`DenseGradient` makes it by autograd over a stack of float masks and is the
reference. `PackedGradient` uses

    d objective / d alpha_i = sum over layers <(d objective / d W_eff) * W, M_i>

so that one backward pass and T dot products of one real vector with bit rows do.

Shape letters: Q queries, T stored tasks, K images of a query, P pixels, O and I
as in a layer, F bits of a packed row.
Source: Wortsman et al. 2020, arXiv:2006.14769, sections 3.3 and B. Unlike the
authors' code, only stored tasks are candidates, and ties do not stall binary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from supsup_core.networks import forward
from supsup_core.objectives import Objective, entropy
from supsup_core.superposition import PackedMasks, superpose_dense


@runtime_checkable  # so that the tests can check annotations
class AlphaGradient(Protocol):
    """The gradient of an objective in the coefficients, for a batch of queries."""

    num_queries: int
    num_tasks: int
    device: torch.device

    def __call__(self, alphas: Float[Tensor, "A T"]) -> Float[Tensor, "Q T"]:
        """Objective units (nats, for the entropy) per unit of coefficient."""
        ...


@dataclass(frozen=True)
class Inference:
    """What an algorithm found.

    Attributes:
        tasks: the inferred task of each query, in [0, T).
        num_gradients: gradients taken for each query.
    """

    tasks: Int64[Tensor, " Q"]
    num_gradients: int


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
            logits = forward(superpose_dense(self._weights, self._masks, leaf), query)
            value = self._objective(logits, self._num_real).mean()
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


def _check_finite(evidence: Tensor, num_candidates: int) -> None:
    if not torch.isfinite(evidence).all():
        raise FloatingPointError(f"evidence not finite with {num_candidates} candidates left")


def one_shot(gradient: AlphaGradient) -> Inference:
    """Take the task whose growth would lower the objective fastest, from one gradient.

    Raises:
        FloatingPointError: a slope that is not finite.
    """
    num_tasks = gradient.num_tasks
    slopes = gradient(torch.full((1, num_tasks), 1 / num_tasks, device=gradient.device))
    _check_finite(slopes, num_tasks)
    return Inference(slopes.argmin(dim=1), num_gradients=1)


def binary(gradient: AlphaGradient) -> Inference:
    """Halve the candidates until one is left.

    Each round shares the coefficients among the candidates and keeps the half,
    rounded up, with the lowest slopes; equal slopes favour the candidate that
    ranked higher before, at first the lower task.

    Raises:
        FloatingPointError: a candidate's slope that is not finite.

    Cost: ceil(log2 T) gradients.
    """
    num_queries, device = gradient.num_queries, gradient.device
    candidates = torch.arange(gradient.num_tasks, device=device).expand(num_queries, -1)
    num_gradients = 0
    while (num_left := candidates.shape[1]) > 1:
        # In the first round all queries have the same candidates, and share one superposition.
        shared = candidates[:1] if num_gradients == 0 else candidates
        alphas = torch.zeros((len(shared), gradient.num_tasks), device=device)
        alphas.scatter_(1, shared, 1 / num_left)
        slopes = gradient(alphas).gather(1, candidates)
        _check_finite(slopes, num_left)
        ranking = torch.argsort(slopes, dim=1, stable=True)
        candidates = candidates.gather(1, ranking[:, : (num_left + 1) // 2])
        num_gradients += 1
    return Inference(candidates[:, 0].clone(), num_gradients)


def min_entropy(
    weights: Sequence[Float[Tensor, "_ _"]],
    masks: PackedMasks,
    images: Float[Tensor, "Q K P"],
    num_real: int,
) -> Inference:
    """Run every mask forward; take the one with the lowest mean entropy.

    Raises:
        FloatingPointError: logits that are not finite.

    Cost: T forwards, no gradient.
    """
    parts = [entropy(z, num_real).mean(dim=2) for z in _logits_by_mask(weights, masks, images)]
    entropies = torch.cat(parts)
    _check_finite(entropies, len(masks))
    return Inference(entropies.argmin(dim=0), num_gradients=0)


def max_logit(
    weights: Sequence[Float[Tensor, "_ _"]],
    masks: PackedMasks,
    images: Float[Tensor, "Q K P"],
    num_real: int,
) -> Inference:
    """Run every mask forward; take the one with the highest mean of the largest real logit.

    Raises:
        FloatingPointError: logits that are not finite.

    Cost: T forwards, no gradient.
    """
    parts = [
        z[..., :num_real].amax(dim=3).mean(dim=2) for z in _logits_by_mask(weights, masks, images)
    ]
    largest = torch.cat(parts)
    _check_finite(largest, len(masks))
    return Inference(largest.argmax(dim=0), num_gradients=0)


def _logits_by_mask(
    weights: Sequence[Float[Tensor, "_ _"]], masks: PackedMasks, images: Float[Tensor, "Q K P"]
) -> Iterator[Float[Tensor, "C Q K S"]]:
    """Yield logits (C, Q, K, S) of C masks at a time."""
    num_queries, num_images = images.shape[:2]
    for _, unpacked in masks.unpacked():
        effective = [
            weight * mask
            for weight, mask in zip(weights, masks.layout.unflatten(unpacked), strict=True)
        ]
        yield forward(effective, images.flatten(0, 1)).unflatten(1, (num_queries, num_images))


# By the names that configurations and tables use. The first two need an objective.
GRADIENT_ALGORITHMS = {"one_shot": one_shot, "binary": binary}
FORWARD_ALGORITHMS = {"min_entropy": min_entropy, "max_logit": max_logit}
ALGORITHMS = (*GRADIENT_ALGORITHMS, *FORWARD_ALGORITHMS)
