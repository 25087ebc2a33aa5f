"""Infer the task by running every mask forward: a comparison for the gradient's algorithms.

Shape letters as in algorithms.py, and C masks at a time.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from supsup_core.inference.algorithms import Inference, check_finite
from supsup_core.inference.objectives import entropy
from supsup_core.networks.mlp import forward
from supsup_core.states.bits import PackedMasks


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
    check_finite(entropies, len(masks))
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
    check_finite(largest, len(masks))
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


FORWARD_ALGORITHMS = {"min_entropy": min_entropy, "max_logit": max_logit}
