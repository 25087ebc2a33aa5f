"""One RMSprop step on scores, with the masks and masked signs that follow, in one pass.

    g <- gradient * sign                     straight-through: d loss / d score
    v <- smoothing v + (1 - smoothing) g g
    s <- s - learning_rate g / (sqrt(v) + epsilon)
    masked <- sign where the method's mask keeps it, else 0

as torch.optim.RMSprop does without momentum or decay. The scores' type is the
type of all arithmetic; gradient and sign may be narrower (bfloat16), which is
exact for the sign. The plain version makes ten passes over memory where the
fused one makes one, and memory is what limits the step. The fused one knows the
threshold rule alone, mask = [s >= 0].
"""

from collections.abc import Callable
from functools import partial
from typing import no_type_check

import numba
import numpy as np
import torch
from torch import Tensor

from supsup_core.kernels.bfloat16 import as_stored, real
from supsup_core.methods import Method, Threshold

EPSILON = 1e-8  # torch's default
THRESHOLD = Threshold()

Step = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, float, float], None]


def rmsprop_step_plain(
    scores: Tensor,
    squares: Tensor,
    gradients: Tensor,
    signs: Tensor,
    masked: Tensor,
    learning_rate: float,
    smoothing: float,
    method: Method = THRESHOLD,
) -> None:
    """Take one step in torch operations, on any device, shapes that broadcast included.

    Args:
        scores: any shape, changed in place.
        squares: the running mean of squared gradients, changed in place.
        gradients: d loss / d masked sign.
        signs: +1 or -1; its shape broadcasts to the scores'.
        masked: overwritten with the signs that stay.
        learning_rate: step size, in units of score.
        smoothing: decay of the running mean a step.
        method: the mask rule.
    """
    g = gradients.to(scores.dtype) * signs.to(scores.dtype)
    squares.mul_(smoothing).addcmul_(g, g, value=1 - smoothing)
    scores.addcdiv_(g, squares.sqrt().add_(EPSILON), value=-learning_rate)
    torch.where(method.mask(scores), signs, torch.zeros_like(signs), out=masked)


@numba.njit(error_model="numpy", cache=True)
@no_type_check
def _fused(scores, squares, gradients, signs, masked, zero, constants):  # pragma: no cover
    learning_rate, smoothing, rest, epsilon = constants
    for i in range(scores.size):
        g = real(gradients[i]) * real(signs[i])
        v = smoothing * squares[i] + rest * g * g
        s = scores[i] - learning_rate * g / (np.sqrt(v) + epsilon)
        squares[i] = v
        scores[i] = s
        masked[i] = signs[i] if s >= scores.dtype.type(0) else zero


def rmsprop_step_fused(
    scores: Tensor,
    squares: Tensor,
    gradients: Tensor,
    signs: Tensor,
    masked: Tensor,
    learning_rate: float,
    smoothing: float,
) -> None:
    """Take the same step in one pass over contiguous CPU tensors of one shape.

    Raises:
        ValueError: shapes that differ; the loop checks no bounds.
    """
    shapes = {tuple(t.shape) for t in (scores, squares, gradients, signs, masked)}
    if len(shapes) > 1:
        raise ValueError(f"scores and all beside them must have one shape, got {sorted(shapes)}")
    arrays = [as_stored(t).reshape(-1) for t in (scores, squares, gradients, signs, masked)]
    real_type, sign_type = arrays[0].dtype.type, arrays[3].dtype.type
    constants = (learning_rate, smoothing, 1 - smoothing, EPSILON)
    _fused(*arrays, sign_type(0), tuple(real_type(c) for c in constants))


def rmsprop_step_for(method: Method, device: torch.device) -> Step:
    """Choose the step: fused for the threshold rule on the CPU, else plain."""
    if device.type == "cpu" and isinstance(method, Threshold):
        return rmsprop_step_fused
    return partial(rmsprop_step_plain, method=method)
