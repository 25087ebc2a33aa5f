"""The base class of the optimisers of scores, and an optimiser's step in one pass over memory.

A step reads d loss / d masked sign, which is called `gradient` here. A masked sign is the gain
times the sign of the weight. The gradient of a score is gradient * sign (straight-through), times
the slope of the finder's rule. A finder and an optimiser may add a decay of the score to this
gradient. The step changes the scores, and writes the masked signs that the new scores give.

Memory limits the speed of a step, so a step should read and write few bytes. A running mean of
squares is never negative, so its sign bit is not needed. This sign bit stores the sign of the
weight. Such values are called signed squares.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from supsup_core.kernels.bfloat16 import as_stored

EPSILON = 1e-8  # the default of RMSprop and Adam in torch.optim


class Optimizer(ABC):
    """A rule that changes scores to lower the loss.

    `move` is one step with torch, on any device. `kernel` is the same step in one pass over memory
    on the CPU. It also writes masked signs (kernels/gains.py).

    Attributes:
        name: the name in names.OPTIMIZERS.
        weight_decay: weight_decay * score is added to the gradient of each score (L2 decay).
    """

    name: ClassVar[str]
    weight_decay: float

    @property
    @abstractmethod
    def kernel(self) -> Callable[..., None]:
        """The Numba kernel of the step. It changes the scores, the state and the masked signs.

        Its arguments are (scores, *state, gradients, masked, zero, constants, rule). The arguments
        before `zero` are flat arrays. `zero` is a zero in the type of `masked`, and `constants` is
        the tuple that the method `constants` returns. `rule` is the tuple (slope, decay,
        weight_decay, tau); see kernels/gains.py.
        """

    @property
    @abstractmethod
    def odd_state(self) -> tuple[int, ...]:
        """Indices of the odd tensors in the tuple of state tensors.

        If the scores and their gradients had the opposite sign, the odd state tensors would have
        the opposite sign too. The other (even) state tensors would have the same values.
        """

    @abstractmethod
    def begin(self, signs: Float[Tensor, "*shape"]) -> tuple[Tensor, ...]:
        """Make the optimiser's state before the first step: a tuple of tensors.

        The sign bits of the first tensor are always the signs of the weights.

        Args:
            signs: the signs of the weights, +1 and -1.
        """

    @abstractmethod
    def constants(self, learning_rate: float, count: int) -> tuple[float, ...]:
        """Compute the constants of a step, for `move` and for `kernel`.

        Args:
            learning_rate: the learning rate of the step.
            count: the number of this step; the first step has the number 1.
        """

    @abstractmethod
    def signs(self, state: tuple[Tensor, ...]) -> Tensor:
        """Read the signs of the weights, +1 and -1, from the optimiser's state."""

    @abstractmethod
    def move(
        self, scores: Tensor, state: tuple[Tensor, ...], g: Tensor, constants: Iterable[Any]
    ) -> None:
        """Take one step with torch: change the scores and the state in place.

        Args:
            scores: the scores, of any shape.
            state: the optimiser's state. Its first tensor also stores the signs of the fixed
                weights, in its sign bits. The step keeps these sign bits.
            g: d loss / d score, with the shape and dtype of the scores. The step adds the weight
                decay.
            constants: what the method `constants` returns, as numbers or 0-dimensional tensors.
        """

    def decayed(self, g: Tensor, scores: Tensor) -> Tensor:
        """Add the weight decay to the gradients `g` of the scores."""
        # add(alpha=...) may round only once, and the kernels round twice.
        return g + self.weight_decay * scores if self.weight_decay else g

    @abstractmethod
    def torch_form(self, parameters: list[Tensor], learning_rate: float) -> torch.optim.Optimizer:
        """Make the optimiser from torch.optim that takes the same steps.

        Args:
            parameters: the tensors that the optimiser changes.
            learning_rate: the learning rate of the first step.
        """


def signed_squares(signs: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return +0.0 for each sign +1 and -0.0 for each sign -1.

    An optimiser starts with these numbers as its running means of squares: the means are zero, and
    their sign bits store the signs of the weights.
    """
    return torch.zeros_like(signs) * signs


def signs_of(squares: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Read the signs of the weights, +1 and -1, from the sign bits of the means of squares."""
    return torch.copysign(torch.ones_like(squares), squares)


class FusedStep:
    """A step of the optimiser in one pass over memory, by the optimiser's kernel.

    The object keeps references to its tensors, and each step changes the tensors in place.

    Args:
        optimizer: the optimiser of the scores.
        scores: the scores, float32 or float64.
        state: the optimiser's state, from its method `begin`.
        gradients: d loss / d masked sign. Each step reads this tensor. Several FusedStep objects
            may use the same tensor.
        masked: the masked signs, in the gradients' dtype. Each step overwrites them.
        slope: magnitude of d gain / d score.
        decay: if a weight's masked sign is 0 before a step, decay * score is added to the gradient
            of its score.
        tau: None for the masked signs of the threshold rule: the sign of the weight if the score is
            >= 0, otherwise 0. With a number, the gain is the sign of the score if |score| is above
            `tau`, otherwise 0.

    Raises:
        ValueError: the shapes differ. The kernel does not check indices, so it would read and
            write outside of the arrays.
        RuntimeError: a tensor is not contiguous.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        scores: Tensor,
        state: tuple[Tensor, ...],
        gradients: Tensor,
        masked: Tensor,
        *,
        slope: float = 1.0,
        decay: float = 0.0,
        tau: float | None = None,
    ) -> None:
        tensors = (scores, *state, gradients, masked)
        shapes = {tuple(t.shape) for t in tensors}
        if len(shapes) > 1:
            raise ValueError(
                f"scores, state, gradients and masked must have the same shape, got {shapes}"
            )
        self._optimizer = optimizer
        self._arrays = [as_stored(t).reshape(-1) for t in tensors]
        self._zero = self._arrays[-1].dtype.type(0)
        self._real = self._arrays[0].dtype.type
        used = (slope if slope != 1 else None, decay or None, optimizer.weight_decay or None, tau)
        self._rule = tuple(None if number is None else self._real(number) for number in used)

    def step(self, learning_rate: float, count: int) -> None:
        """Take one step of the optimiser, and write the new masked signs.

        Args:
            learning_rate: the learning rate of the step.
            count: the number of this step; the first step has the number 1.
        """
        constants = tuple(map(self._real, self._optimizer.constants(learning_rate, count)))
        self._optimizer.kernel(*self._arrays, self._zero, constants, self._rule)
