"""Stochastic gradient descent, as torch.optim.SGD does it without dampening or decay.

    g <- gradient * sign
    u <- momentum u + g
    s <- s - learning_rate u

Scores s, gradients in them g, weights' signs as in protocol.py.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, no_type_check

import numba
import torch
from torch import Tensor

from supsup_core.kernels.bfloat16 import real, stored
from supsup_core.training.optimizers.protocol import Optimizer


@numba.njit(error_model="numpy", cache=True)
@no_type_check
def _fused(scores, signs, sums, gradients, masked, zero, constants):  # pragma: no cover
    learning_rate, momentum = constants
    for i in range(scores.size):
        sign = real(signs[i])
        u = momentum * sums[i] + real(gradients[i]) * sign
        s = scores[i] - learning_rate * u
        sums[i] = u
        scores[i] = s
        masked[i] = stored(sign, zero) if s >= scores.dtype.type(0) else zero


@dataclass(frozen=True)
class SGD(Optimizer):
    """Follows the gradient itself.

    Attributes:
        momentum: decay of the sum of gradients a step; 0 for the last one alone.
    """

    momentum: float

    @property
    def kernel(self) -> Callable[..., None]:
        """The same in one pass."""
        return _fused  # type: ignore[no-any-return]

    @property
    def odd_state(self) -> tuple[int, ...]:
        """The sums."""
        return (1,)

    def begin(self, signs: Tensor) -> tuple[Tensor, ...]:
        """Signs in the narrowest type that a kernel reads, and sums of zero."""
        return signs.to(torch.bfloat16), torch.zeros_like(signs)

    def constants(self, learning_rate: float, count: int) -> tuple[float, ...]:
        """Learning rate and momentum."""
        return learning_rate, self.momentum

    def signs(self, state: tuple[Tensor, ...]) -> Tensor:
        """Kept as they are."""
        return state[0]

    def move(
        self, scores: Tensor, state: tuple[Tensor, ...], g: Tensor, constants: Iterable[Any]
    ) -> None:
        """Move scores and state in torch operations."""
        _, sums = state
        learning_rate, momentum = constants
        sums.copy_(momentum * sums + g)
        scores.sub_(learning_rate * sums)

    def torch_form(self, parameters: list[Tensor], learning_rate: float) -> torch.optim.Optimizer:
        """torch.optim.SGD."""
        return torch.optim.SGD(parameters, learning_rate, self.momentum)
