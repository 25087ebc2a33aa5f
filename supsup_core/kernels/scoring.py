"""Count the images whose largest logit has the right label, and sum their cross-entropies."""

from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from supsup_core.kernels.compiled import compiled
from supsup_core.kernels.cross_entropy import exp_not_positive


def score_plain(logits: Float32[Tensor, "S N"], labels: Int64[Tensor, " N"]) -> tuple[int, float]:
    """Count the images that get the right label, and sum the cross-entropies of all images.

    This form uses torch, on any device.

    Args:
        logits: (S, N) logits of S outputs for N images.
        labels: (N,) class index of each image.

    Returns:
        Two numbers. The first is the number of images whose largest logit belongs to their label.
        (If several logits are the largest, the first of them counts.) The second is the sum of the
        cross-entropies of all images, in nats.
    """
    right = int((logits.argmax(dim=0) == labels).sum())
    return right, float(torch.nn.functional.cross_entropy(logits.t(), labels, reduction="sum"))


@compiled()
@no_type_check
def _fused(logits, labels):  # pragma: no cover
    num_outputs, num_images = logits.shape
    largest = np.full(num_images, -np.inf, np.float32)
    chosen = np.zeros(num_images, np.int32)
    total = np.zeros(num_images, np.float32)
    for s in range(num_outputs):
        for n in range(num_images):
            more = logits[s, n] > largest[n]
            largest[n] = logits[s, n] if more else largest[n]
            chosen[n] = np.int32(s) if more else chosen[n]
    for s in range(num_outputs):
        for n in range(num_images):
            total[n] += exp_not_positive(max(logits[s, n] - largest[n], np.float32(-87)))
    right, loss = 0, 0.0
    for n in range(num_images):
        right += chosen[n] == labels[n]
        loss += np.log(total[n]) + largest[n] - logits[labels[n], n]
    return right, loss


def score_fused(logits: Float32[Tensor, "S N"], labels: Int64[Tensor, " N"]) -> tuple[int, float]:
    """Compute the two numbers of `score_plain` on the CPU, in two passes over memory.

    Raises:
        ValueError: a label is not the index of an output.
    """
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < len(logits):
        raise ValueError(
            f"labels must be in [0, {len(logits)}), got {labels.unique().tolist()}: "
            "check the labels, or add outputs to the network"
        )
    right, loss = _fused(logits.numpy(), labels.numpy())
    return int(right), float(loss)
