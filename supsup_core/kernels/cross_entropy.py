"""What the mean cross-entropy sends back to the logits of a block, in one pass.

    delta = (softmax(C z) - onehot(label)) C / N

for feature-major logits z (B, S, N), where C is what the weights' constants come to.
Shape letters: B tasks, S outputs, N images.
"""

from collections.abc import Callable
from typing import Any, no_type_check

import numba
import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from supsup_core.kernels.bfloat16 import as_stored, power_of_two, real, stored

LogitGradient = Callable[[Tensor, Tensor, float], Tensor]


def logit_gradient_plain(
    logits: Float[Tensor, "B S N"], labels: Int64[Tensor, "B N"], scale: float
) -> Float[Tensor, "B S N"]:
    """Compute it in torch operations, on any device and in any type.

    Args:
        logits: z, without the constants.
        labels: the class of each image.
        scale: C.

    Returns:
        delta, in the logits' type; computed in float32 at least.
    """
    accurate = torch.promote_types(logits.dtype, torch.float32)
    delta = torch.softmax(logits.to(accurate) * scale, dim=1)
    delta.scatter_add_(1, labels[:, None, :], delta.new_full((), -1).expand(labels[:, None].shape))
    return delta.mul_(scale / labels.shape[1]).to(logits.dtype)


@numba.njit(inline="always")
@no_type_check
def exp_not_positive(x: Any) -> Any:
    """Compute exp of a float32 in [-87, 0], to 2 units in the last place.

    x = k ln 2 + r with |r| <= ln 2 / 2, and the minimax polynomial of degree 7 that
    Cephes (Moshier) gives for exp(r): NumPy's exp would not vectorise here.
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


@numba.njit(error_model="numpy", cache=True)
@no_type_check
def _fused(logits, labels, delta, zero, scale, share, exponentials):  # pragma: no cover
    num_outputs, num_images = exponentials.shape
    largest = np.empty(num_images, np.float32)
    total = np.empty(num_images, np.float32)
    for b in range(len(logits)):
        largest[:] = -np.inf
        total[:] = 0
        for s in range(num_outputs):
            for n in range(num_images):
                largest[n] = max(largest[n], real(logits[b, s, n]))
        for s in range(num_outputs):
            for n in range(num_images):
                x = (real(logits[b, s, n]) - largest[n]) * scale
                # Below -87, exp is no float32.
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
    logits: Float[Tensor, "B S N"], labels: Int64[Tensor, "B N"], scale: float
) -> Float[Tensor, "B S N"]:
    """Compute the same in one pass over contiguous float32 or bfloat16 logits on the CPU."""
    _, num_outputs, num_images = logits.shape
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < num_outputs:
        raise ValueError(f"labels must be in [0, {num_outputs}), got {labels.unique().tolist()}")
    delta = torch.empty_like(logits)
    values = as_stored(delta)
    _fused(
        as_stored(logits),
        labels.numpy(),
        values,
        values.dtype.type(0),
        np.float32(scale),
        np.float32(scale / num_images),
        np.empty((num_outputs, num_images), np.float32),
    )
    return delta


def logit_gradient_for(dtype: torch.dtype, device: torch.device) -> LogitGradient:
    """Choose: fused for the types it knows on the CPU, else plain."""
    if device.type == "cpu" and dtype in (torch.float32, torch.bfloat16):
        return logit_gradient_fused
    return logit_gradient_plain
