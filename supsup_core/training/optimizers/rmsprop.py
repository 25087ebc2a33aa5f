"""RMSprop, with the same steps as torch.optim.RMSprop without momentum.

    g <- gradient * sign + weight_decay s
    v <- smoothing v + (1 - smoothing) g g
    s <- s - learning_rate g / (sqrt(v) + epsilon)

s is the score, g the gradient of the loss with respect to s, and v the running mean of squares.
protocol.py defines `gradient` and `sign`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
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
def _fused(scores, squares, gradients, masked, zero, constants, rule):  # pragma: no cover
    learning_rate, smoothing, rest, epsilon = constants
    slope, decay, weight_decay, tau = rule
    for i in range(scores.size):
        sign = sign_of(squares[i])
        g = score_gradient(gradients[i], sign, scores[i], masked[i], slope, decay, weight_decay)
        v = smoothing * (squares[i] * sign) + rest * g * g
        s = scores[i] - learning_rate * g / (np.sqrt(v) + epsilon)
        squares[i] = v * sign
        scores[i] = s
        masked[i] = masked_sign(s, sign, zero, tau)


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """RMSprop: a step subtracts learning_rate * g / sqrt(v) from a score.

    g is the score's gradient, and v the running mean of the squares of g.

    Attributes:
        smoothing: decay per step of the running mean v.
        weight_decay: see Optimizer.
    """

    smoothing: float
    weight_decay: float = 0.0

    name = "rmsprop"

    @property
    def kernel(self) -> Callable[..., None]:
        """The Numba kernel of the step; see Optimizer.kernel."""
        return _fused  # type: ignore[no-any-return]

    @property
    def odd_state(self) -> tuple[int, ...]:
        """An empty tuple: RMSprop keeps only squares of gradients; see Optimizer.odd_state."""
        return ()

    def begin(self, signs: Tensor) -> tuple[Tensor, ...]:
        """Make the state before the first step: signed squares of zero."""
        return (signed_squares(signs),)

    def constants(self, learning_rate: float, count: int) -> tuple[float, ...]:
        """Return learning rate, smoothing, 1 - smoothing and epsilon; see Optimizer.constants."""
        return learning_rate, self.smoothing, 1 - self.smoothing, EPSILON

    def signs(self, state: tuple[Tensor, ...]) -> Tensor:
        """Read the signs of the weights.

        They are the sign bits of the running means of squared gradients, which are never negative.
        """
        return signs_of(state[0])

    def move(
        self, scores: Tensor, state: tuple[Tensor, ...], g: Tensor, constants: Iterable[Any]
    ) -> None:
        """Take one step with torch; see Optimizer.move."""
        (squares,) = state
        learning_rate, smoothing, rest, epsilon = constants
        g = self.decayed(g, scores)
        v = smoothing * squares.abs() + rest * g * g
        scores.sub_(learning_rate * g / (v.sqrt() + epsilon))
        squares.copy_(torch.copysign(v, squares))

    def torch_form(self, parameters: list[Tensor], learning_rate: float) -> torch.optim.Optimizer:
        """Make a torch.optim.RMSprop with the same settings; see Optimizer.torch_form."""
        decay = self.weight_decay
        return torch.optim.RMSprop(parameters, learning_rate, self.smoothing, weight_decay=decay)
