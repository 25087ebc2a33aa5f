"""What an optimiser of scores has to say, and its step in one pass over memory.

A step takes d loss / d masked sign, makes it the score's gradient straight through
(gradient * sign), moves the scores, and writes the masked signs that follow. Memory
limits it, so little is touched: where an optimiser keeps squares, which are never
negative, their sign bit holds the weight's sign ("signed squares").
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from supsup_core.kernels.bfloat16 import as_stored

EPSILON = 1e-8  # torch's default, of RMSprop and Adam


class Optimizer(ABC):
    """A rule that moves scores down their gradient.

    The form in torch runs on any device; the kernel is the same in one pass on the CPU,
    for the threshold rule, mask = [score >= 0].
    """

    @property
    @abstractmethod
    def kernel(self) -> Callable[..., None]:
        """(scores, *state, gradients, masked, zero, constants), all flat; changes them in place."""

    @property
    @abstractmethod
    def odd_state(self) -> tuple[int, ...]:
        """Indices of the state tensors that change sign if scores and their gradients do.

        The other state tensors stay the same.
        """

    @abstractmethod
    def begin(self, signs: Float[Tensor, "*shape"]) -> tuple[Tensor, ...]:
        """Make the state before the first step from the weights' signs, +1 and -1.

        The sign bits of the first state tensor are the weights' signs, then and after every step.
        """

    @abstractmethod
    def constants(self, learning_rate: float, count: int) -> tuple[float, ...]:
        """Numbers that the step with this count, from 1, needs."""

    @abstractmethod
    def signs(self, state: tuple[Tensor, ...]) -> Tensor:
        """Read the weights' signs from the state, +1 and -1."""

    @abstractmethod
    def move(
        self, scores: Tensor, state: tuple[Tensor, ...], g: Tensor, constants: Iterable[Any]
    ) -> None:
        """Move scores and state in torch operations, in place.

        Args:
            scores: of any shape.
            state: as it began, or as the step before left it; keeps the weights' signs.
            g: d loss / d score, of the scores' shape and type.
            constants: of this step, numbers or tensors of no dimension.
        """

    @abstractmethod
    def torch_form(self, parameters: list[Tensor], learning_rate: float) -> torch.optim.Optimizer:
        """Make what torch has of this name."""


def signed_squares(signs: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Squares of zero, which hold the weights' signs."""
    return torch.zeros_like(signs) * signs


def signs_of(squares: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Read the weights' signs back, +1 and -1."""
    return torch.copysign(torch.ones_like(squares), squares)


class FusedStep:
    """An optimiser's kernel over memory that stays where it is.

    Args:
        optimizer: whose.
        scores: float32 or float64.
        state: as the optimiser began it.
        gradients: read at every step; may be shared by many.
        masked: of the gradients' type.

    Raises:
        ValueError: shapes that differ; the loop checks no bounds.
        RuntimeError: a tensor that is not contiguous.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        scores: Tensor,
        state: tuple[Tensor, ...],
        gradients: Tensor,
        masked: Tensor,
    ) -> None:
        tensors = (scores, *state, gradients, masked)
        shapes = {tuple(t.shape) for t in tensors}
        if len(shapes) > 1:
            raise ValueError(f"scores and all beside them must have one shape, got {shapes}")
        self._optimizer = optimizer
        self._arrays = [as_stored(t).reshape(-1) for t in tensors]
        self._zero = self._arrays[-1].dtype.type(0)

    def step(self, learning_rate: float, count: int) -> None:
        """Take the step with this count, from 1."""
        real_type = self._arrays[0].dtype.type
        constants = self._optimizer.constants(learning_rate, count)
        self._optimizer.kernel(*self._arrays, self._zero, tuple(real_type(c) for c in constants))
