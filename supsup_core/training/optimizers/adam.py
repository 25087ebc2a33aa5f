"""Adam (Kingma & Ba 2015), with the same steps as torch.optim.Adam.

    g <- gradient * sign + weight_decay s
    u <- momentum u + (1 - momentum) g
    v <- smoothing v + (1 - smoothing) g g
    s <- s - learning_rate / (1 - momentum^t) u / (sqrt(v / (1 - smoothing^t)) + epsilon)

s is the score, g the gradient of the loss with respect to s, u the running mean of gradients, v the
running mean of squares, and t the number of the step, which is 1 at first. protocol.py defines
`gradient` and `sign`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import sqrt
from typing import Any, no_type_check

import numpy as np
import torch
from torch import Tensor

from supsup_core.kernels.bfloat16 import sign_of
from supsup_core.kernels.compiled import compiled
from supsup_core.kernels.gains import masked_sign, score_gradient
from supsup_core.training.optimizers.protocol import EPSILON, Optimizer, signed_squares, signs_of


@compiled()
@no_type_check
def _fused(scores, squares, means, gradients, masked, zero, constants, rule):  # pragma: no cover
    size, momentum, rest_momentum, smoothing, rest, correction, epsilon = constants
    slope, decay, weight_decay, tau = rule
    for i in range(scores.size):
        sign = sign_of(squares[i])
        g = score_gradient(gradients[i], sign, scores[i], masked[i], slope, decay, weight_decay)
        u = momentum * means[i] + rest_momentum * g
        v = smoothing * (squares[i] * sign) + rest * g * g
        s = scores[i] - size * u / (np.sqrt(v) * correction + epsilon)
        means[i] = u
        squares[i] = v * sign
        scores[i] = s
        masked[i] = masked_sign(s, sign, zero, tau)


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam: a step subtracts learning_rate * u / sqrt(v) from a score.

    u is the running mean of the score's gradients, and v the running mean of their squares.

    Attributes:
        momentum: decay per step of the running mean of gradients (beta 1).
        smoothing: decay per step of the running mean of squares (beta 2).
        weight_decay: see Optimizer.
    """

    momentum: float
    smoothing: float
    weight_decay: float = 0.0

    name = "adam"

    @property
    def kernel(self) -> Callable[..., None]:
        """The Numba kernel of the step; see Optimizer.kernel."""
        return _fused  # type: ignore[no-any-return]

    @property
    def odd_state(self) -> tuple[int, ...]:
        """The index of the means of gradients; see Optimizer.odd_state."""
        return (1,)

    def begin(self, signs: Tensor) -> tuple[Tensor, ...]:
        """Make the state before the first step: signed squares of zero, and means of zero."""
        return signed_squares(signs), torch.zeros_like(signs)

    def constants(self, learning_rate: float, count: int) -> tuple[float, ...]:
        """Return the constants of a step, in the order in which the step reads them.

        At the start, both running means are too small, because they begin at 0. The constants
        correct this. They are, for step t = `count`: learning_rate / (1 - momentum^t), momentum,
        1 - momentum, smoothing, 1 - smoothing, 1 / sqrt(1 - smoothing^t), and epsilon.
        """
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
        """Read the signs of the weights.

        They are the sign bits of the running means of squared gradients, which are never negative.
        """
        return signs_of(state[0])

    def move(
        self, scores: Tensor, state: tuple[Tensor, ...], g: Tensor, constants: Iterable[Any]
    ) -> None:
        """Take one step with torch; see Optimizer.move."""
        squares, means = state
        g = self.decayed(g, scores)
        size, momentum, rest_momentum, smoothing, rest, correction, epsilon = constants
        means.copy_(momentum * means + rest_momentum * g)
        v = smoothing * squares.abs() + rest * g * g
        scores.sub_(size * means / (v.sqrt() * correction + epsilon))
        squares.copy_(torch.copysign(v, squares))

    def torch_form(self, parameters: list[Tensor], learning_rate: float) -> torch.optim.Optimizer:
        """Make a torch.optim.Adam with the same settings; see Optimizer.torch_form."""
        betas = self.momentum, self.smoothing
        return torch.optim.Adam(parameters, learning_rate, betas, weight_decay=self.weight_decay)
