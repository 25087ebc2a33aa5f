"""SGD, with the same steps as torch.optim.SGD without dampening.

    g <- gradient * sign + weight_decay s
    u <- momentum u + g
    s <- s - learning_rate u

s is the score, g the gradient of the loss with respect to s, and u the running sum of gradients.
protocol.py defines `gradient` and `sign`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, no_type_check

import torch
from torch import Tensor

from supsup_core.kernels.bfloat16 import real
from supsup_core.kernels.compiled import compiled
from supsup_core.kernels.gains import masked_sign, score_gradient
from supsup_core.training.optimizers.protocol import Optimizer


@compiled()
@no_type_check
def _fused(scores, signs, sums, gradients, masked, zero, constants, rule):  # pragma: no cover
    learning_rate, momentum = constants
    slope, decay, weight_decay, tau = rule
    for i in range(scores.size):
        sign = real(signs[i])
        g = score_gradient(gradients[i], sign, scores[i], masked[i], slope, decay, weight_decay)
        u = momentum * sums[i] + g
        s = scores[i] - learning_rate * u
        sums[i] = u
        scores[i] = s
        masked[i] = masked_sign(s, sign, zero, tau)


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent: subtract learning_rate times the running sum of gradients.

    Attributes:
        momentum: decay per step of the running sum. With 0, the sum is only the gradient of the
            current step.
        weight_decay: see Optimizer.
    """

    momentum: float
    weight_decay: float = 0.0

    name = "sgd"

    @property
    def kernel(self) -> Callable[..., None]:
        """The Numba kernel of the step; see Optimizer.kernel."""
        return _fused  # type: ignore[no-any-return]

    @property
    def odd_state(self) -> tuple[int, ...]:
        """The index of the sums of gradients; see Optimizer.odd_state."""
        return (1,)

    def begin(self, signs: Tensor) -> tuple[Tensor, ...]:
        """Make the state before the first step: the signs of the weights, and sums of zero.

        The signs are stored in bfloat16 to save memory.
        """
        return signs.to(torch.bfloat16), torch.zeros_like(signs)

    def constants(self, learning_rate: float, count: int) -> tuple[float, ...]:
        """Return the learning rate and the momentum; see Optimizer.constants."""
        return learning_rate, self.momentum

    def signs(self, state: tuple[Tensor, ...]) -> Tensor:
        """Return the signs of the weights, which are the first tensor of the state."""
        return state[0]

    def move(
        self, scores: Tensor, state: tuple[Tensor, ...], g: Tensor, constants: Iterable[Any]
    ) -> None:
        """Take one step with torch; see Optimizer.move."""
        _, sums = state
        learning_rate, momentum = constants
        sums.copy_(momentum * sums + self.decayed(g, scores))
        scores.sub_(learning_rate * sums)

    def torch_form(self, parameters: list[Tensor], learning_rate: float) -> torch.optim.Optimizer:
        """Make a torch.optim.SGD with the same settings; see Optimizer.torch_form."""
        decay = self.weight_decay
        return torch.optim.SGD(parameters, learning_rate, self.momentum, weight_decay=decay)
