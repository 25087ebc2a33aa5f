"""Adam, as torch.optim.Adam does it without decay (Kingma & Ba 2015).

    g <- gradient * sign
    u <- momentum u + (1 - momentum) g
    v <- smoothing v + (1 - smoothing) g g
    s <- s - learning_rate / (1 - momentum^t) u / (sqrt(v / (1 - smoothing^t)) + epsilon)

Scores s, gradients in them g, weights' signs as in protocol.py.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import sqrt
from typing import Any, no_type_check

import numba
import numpy as np
import torch
from torch import Tensor

from supsup_core.kernels.bfloat16 import real, sign_of, stored
from supsup_core.training.optimizers.protocol import EPSILON, Optimizer, signed_squares, signs_of


@numba.njit(error_model="numpy", cache=True)
@no_type_check
def _fused(scores, squares, means, gradients, masked, zero, constants):  # pragma: no cover
    size, momentum, rest_momentum, smoothing, rest, correction, epsilon = constants
    for i in range(scores.size):
        sign = sign_of(squares[i])
        g = real(gradients[i]) * sign
        u = momentum * means[i] + rest_momentum * g
        v = smoothing * (squares[i] * sign) + rest * g * g
        s = scores[i] - size * u / (np.sqrt(v) * correction + epsilon)
        means[i] = u
        squares[i] = v * sign
        scores[i] = s
        masked[i] = stored(sign, zero) if s >= scores.dtype.type(0) else zero


@dataclass(frozen=True)
class Adam(Optimizer):
    """Divides a running mean of gradients by the root of that of their squares.

    Attributes:
        momentum: decay of the mean of gradients a step (beta 1).
        smoothing: decay of the mean of squares a step (beta 2).
    """

    momentum: float
    smoothing: float

    @property
    def kernel(self) -> Callable[..., None]:
        """The same in one pass."""
        return _fused  # type: ignore[no-any-return]

    @property
    def odd_state(self) -> tuple[int, ...]:
        """The means."""
        return (1,)

    def begin(self, signs: Tensor) -> tuple[Tensor, ...]:
        """Signed squares and means of zero."""
        return signed_squares(signs), torch.zeros_like(signs)

    def constants(self, learning_rate: float, count: int) -> tuple[float, ...]:
        """The corrected learning rate, both decays and their rests, the root's correction."""
        return (
            learning_rate / (1 - self.momentum**count),
            self.momentum,
            1 - self.momentum,
            self.smoothing,
            1 - self.smoothing,
            1 / sqrt(1 - self.smoothing**count),
            EPSILON,
        )

    def signs(self, state: tuple[Tensor, ...]) -> Tensor:
        """Read from the sign bits of the squares."""
        return signs_of(state[0])

    def move(
        self, scores: Tensor, state: tuple[Tensor, ...], g: Tensor, constants: Iterable[Any]
    ) -> None:
        """Move scores and state in torch operations."""
        squares, means = state
        size, momentum, rest_momentum, smoothing, rest, correction, epsilon = constants
        means.copy_(momentum * means + rest_momentum * g)
        v = smoothing * squares.abs() + rest * g * g
        scores.sub_(size * means / (v.sqrt() * correction + epsilon))
        squares.copy_(torch.copysign(v, squares))

    def torch_form(self, parameters: list[Tensor], learning_rate: float) -> torch.optim.Optimizer:
        """torch.optim.Adam."""
        return torch.optim.Adam(parameters, learning_rate, (self.momentum, self.smoothing))
