"""Compute, for each task of a block, the gradient of the mean cross-entropy for the logits.

    delta = (softmax(C z) - onehot(label)) C / N

The logits z (B, S, N) have the images as the last axis. Training computes z with masked signs, not
with masked weights. C corrects this: it is the product of the layers' constants c (the magnitudes
of the weights) and of the scales of the task's masks, divided by the temperature of the recipe.
Shape letters: B tasks, S outputs, N images.
"""

from collections.abc import Callable
from typing import Any, no_type_check

import numba
import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from supsup_core.kernels.bfloat16 import as_stored, power_of_two, real, stored
from supsup_core.kernels.compiled import compiled

LogitGradient = Callable[[Tensor, Tensor, Tensor], Tensor]


def logit_gradient_plain(
    logits: Float[Tensor, "B S N"],
    labels: Int64[Tensor, "B N"],
    scales: float | Float64[Tensor, " B"],
) -> Float[Tensor, "B S N"]:
    """Compute d loss / d logits with torch, on any device and in any float type.

    The loss of a task is the mean cross-entropy of softmax(scale * logits) over N images.

    Args:
        logits: (B, S, N) logits of B tasks, S outputs and N images, not yet multiplied by `scales`.
        labels: (B, N) class index of each image.
        scales: (B,) the factor of each task's logits, or one number for all tasks.

    Returns:
        (B, S, N) gradient in the logits' type. It is computed in float32 or a more precise type.
    """
    accurate = torch.promote_types(logits.dtype, torch.float32)
    share = scales / labels.shape[1]
    if isinstance(scales, Tensor) and isinstance(share, Tensor):
        scales, share = (one.to(accurate)[:, None, None] for one in (scales, share))
    delta = torch.softmax(logits.to(accurate) * scales, dim=1)
    delta.scatter_add_(1, labels[:, None, :], delta.new_full((), -1).expand(labels[:, None].shape))
    return delta.mul_(share).to(logits.dtype)


@numba.njit(inline="always")
@no_type_check
def exp_not_positive(x: Any) -> Any:
    """Compute exp of a float32 in [-87, 0], with an error of at most 2 units in the last place.

    With x = k ln 2 + r and |r| <= ln 2 / 2, exp(x) is 2^k exp(r). The minimax polynomial of degree
    7 from the library Cephes (Moshier) approximates exp(r). LLVM can vectorise a loop that calls
    this function, but not a loop that calls NumPy's exp.
    """
    k = np.floor(x * np.float32(1.44269504088896341) + np.float32(0.5))
    r = x - k * np.float32(0.693359375) + k * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    return (p * r * r + r + np.float32(1)) * power_of_two(np.int32(k))


@compiled()
@no_type_check
def _fused(logits, labels, delta, zero, scales, shares, exponentials):  # pragma: no cover
    num_outputs, num_images = exponentials.shape
    largest = np.empty(num_images, np.float32)
    total = np.empty(num_images, np.float32)
    for b in range(len(logits)):
        scale, share = scales[b], shares[b]
        largest[:] = -np.inf
        total[:] = 0
        for s in range(num_outputs):
            for n in range(num_images):
                largest[n] = max(largest[n], real(logits[b, s, n]))
        for s in range(num_outputs):
            for n in range(num_images):
                x = (real(logits[b, s, n]) - largest[n]) * scale
                # For x below -87, exp(x) is not a normal float32.
                exponentials[s, n] = exp_not_positive(max(x, np.float32(-87)))
                total[n] += exponentials[s, n]
        for n in range(num_images):
            total[n] = share / total[n]
        for s in range(num_outputs):
            for n in range(num_images):
                delta[b, s, n] = stored(exponentials[s, n] * total[n], zero)
        for n in range(num_images):
            label = labels[b, n]
            delta[b, label, n] = stored(exponentials[label, n] * total[n] - share, zero)


def logit_gradient_fused(
    logits: Float[Tensor, "B S N"], labels: Int64[Tensor, "B N"], scales: Float64[Tensor, " B"]
) -> Float[Tensor, "B S N"]:
    """Compute the same gradient as `logit_gradient_plain`, on the CPU, in one pass over memory.

    The logits must be contiguous, and float32 or bfloat16.

    Raises:
        ValueError: a label is not the index of an output.
        RuntimeError: the logits are not contiguous.
    """
    _, num_outputs, num_images = logits.shape
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < num_outputs:
        raise ValueError(
            f"labels must be in [0, {num_outputs}), got {labels.unique().tolist()}: "
            "check the labels, or add outputs to the network"
        )
    delta = torch.empty_like(logits)
    values = as_stored(delta)
    _fused(
        as_stored(logits),
        # Numba compiles a kernel for each memory layout, and tasks that share images have labels of
        # another layout. A copy keeps one form, which compiles before the run.
        labels.contiguous().numpy(),
        values,
        values.dtype.type(0),
        scales.float().numpy(),
        (scales / num_images).float().numpy(),
        np.empty((num_outputs, num_images), np.float32),
    )
    return delta


def logit_gradient_for(dtype: torch.dtype, device: torch.device) -> LogitGradient:
    """Return the function that computes d loss / d logits for a dtype and a device.

    For float32 and bfloat16 on the CPU, this is logit_gradient_fused. Otherwise it is
    logit_gradient_plain.
    """
    if device.type == "cpu" and dtype in (torch.float32, torch.bfloat16):
        return logit_gradient_fused
    return logit_gradient_plain
