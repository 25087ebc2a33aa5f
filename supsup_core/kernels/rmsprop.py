"""One RMSprop step on scores, with the masked signs that follow, in one pass.

    g <- gradient * sign                     straight-through: d loss / d score
    v <- smoothing v + (1 - smoothing) g g
    s <- s - learning_rate g / (sqrt(v) + epsilon)
    masked <- sign where the method's mask keeps it, else 0

as torch.optim.RMSprop does without momentum or decay. Memory limits the step, so
little of it is touched: v is never negative, and its sign bit holds the weight's sign
("signed squares"), and the fused form makes one pass where the plain one makes ten.
The fused one knows the threshold rule alone, mask = [s >= 0]. Arithmetic is in the
scores' type; gradient and masked sign may be bfloat16, which is exact for a sign.
"""

from typing import no_type_check

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from supsup_core.kernels.bfloat16 import as_stored, real, sign_of, stored
from supsup_core.methods import Method

EPSILON = 1e-8  # torch's default


def signed_squares(signs: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Where a run begins: squares of zero, which hold the weights' signs (+1 and -1)."""
    return torch.zeros_like(signs) * signs


def rmsprop_step_plain(
    scores: Float[Tensor, "*shape"],
    squares: Float[Tensor, "*shape"],
    gradients: Float[Tensor, "*shape"],
    masked: Float[Tensor, "*shape"],
    learning_rate: float,
    smoothing: float,
    method: Method,
) -> None:
    """Take one step in torch operations, on any device.

    Args:
        scores: changed in place.
        squares: signed squares, changed in place.
        gradients: d loss / d masked sign.
        masked: overwritten with the signs that stay.
        learning_rate: step size, in units of score.
        smoothing: decay of the running mean a step.
        method: the mask rule.
    """
    signs = torch.copysign(torch.ones_like(squares), squares)
    g = gradients.to(scores.dtype) * signs
    squares.abs_().mul_(smoothing).addcmul_(g, g, value=1 - smoothing)
    scores.addcdiv_(g, squares.sqrt().add_(EPSILON), value=-learning_rate)
    squares.mul_(signs)
    masked.copy_(signs * method.mask(scores))


@numba.njit(error_model="numpy", cache=True)
@no_type_check
def _fused(scores, squares, gradients, masked, zero, constants):  # pragma: no cover
    learning_rate, smoothing, rest, epsilon = constants
    for i in range(scores.size):
        sign = sign_of(squares[i])
        g = real(gradients[i]) * sign
        v = smoothing * (squares[i] * sign) + rest * g * g
        s = scores[i] - learning_rate * g / (np.sqrt(v) + epsilon)
        squares[i] = v * sign
        scores[i] = s
        masked[i] = stored(sign, zero) if s >= scores.dtype.type(0) else zero


class FusedRmsprop:
    """The same step in one pass, for the threshold rule, over memory that stays where it is.

    Args:
        scores: float32 or float64.
        squares: signed squares, of the same type.
        gradients: read at every step; may be shared by many.
        masked: of the gradients' type.
        smoothing: decay of the running mean a step.

    Raises:
        ValueError: shapes that differ; the loop checks no bounds.
        RuntimeError: a tensor that is not contiguous.
    """

    def __init__(
        self, scores: Tensor, squares: Tensor, gradients: Tensor, masked: Tensor, smoothing: float
    ) -> None:
        shapes = {tuple(t.shape) for t in (scores, squares, gradients, masked)}
        if len(shapes) > 1:
            raise ValueError(f"scores and all beside them must have one shape, got {shapes}")
        self._arrays = [as_stored(t).reshape(-1) for t in (scores, squares, gradients, masked)]
        self._zero = self._arrays[3].dtype.type(0)
        self._smoothing = smoothing

    def step(self, learning_rate: float) -> None:
        """Take one step."""
        real_type = self._arrays[0].dtype.type
        constants = (learning_rate, self._smoothing, 1 - self._smoothing, EPSILON)
        _fused(*self._arrays, self._zero, tuple(real_type(c) for c in constants))
