"""SGD, with the same step as torch.optim.SGD without dampening and weight decay.

    g <- gradient * sign
    u <- momentum u + g
    s <- s - learning_rate u

s is the score, g the gradient in the score, and u the sum of gradients. `gradient` and `sign` are
those of protocol.py.
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
    """Stochastic gradient descent: subtract learning_rate times the sum of gradients.

    Attributes:
        momentum: decay per step of the sum of gradients. With 0, the sum is the gradient of the
            current step.
    """

    momentum: float

    @property
    def kernel(self) -> Callable[..., None]:
        """The Numba kernel of the step."""
        return _fused  # type: ignore[no-any-return]

    @property
    def odd_state(self) -> tuple[int, ...]:
        """The index of the sums of gradients; the signs of the weights do not change."""
        return (1,)

    def begin(self, signs: Tensor) -> tuple[Tensor, ...]:
        """Make the state: the weights' signs in bfloat16, to save memory, and sums of zero."""
        return signs.to(torch.bfloat16), torch.zeros_like(signs)

    def constants(self, learning_rate: float, count: int) -> tuple[float, ...]:
        """Return the learning rate and the momentum."""
        return learning_rate, self.momentum

    def signs(self, state: tuple[Tensor, ...]) -> Tensor:
        """Return the weights' signs, which the state holds as a tensor."""
        return state[0]

    def move(
        self, scores: Tensor, state: tuple[Tensor, ...], g: Tensor, constants: Iterable[Any]
    ) -> None:
        """Take one step in torch operations, in place; see Optimizer.move."""
        _, sums = state
        learning_rate, momentum = constants
        sums.copy_(momentum * sums + g)
        scores.sub_(learning_rate * sums)

    def torch_form(self, parameters: list[Tensor], learning_rate: float) -> torch.optim.Optimizer:
        """Make a torch.optim.SGD with the same settings."""
        return torch.optim.SGD(parameters, learning_rate, self.momentum)
