"""The base class of the optimisers of scores, and an optimiser's step in one pass over memory.

A step reads d loss / d masked sign, called `gradient` here. The gradient of a score is
gradient * sign, with the weight's sign (straight-through). The step changes the scores, and writes
the masked signs that follow from the new scores.

Memory limits the speed of a step, so a step should touch few bytes. A running mean of squares is
never negative, so its sign bit is free: it stores the weight's sign ("signed squares").
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from supsup_core.kernels.bfloat16 import as_stored

EPSILON = 1e-8  # the default of RMSprop and Adam in torch.optim


class Optimizer(ABC):
    """A rule that changes scores to lower the loss.

    `move` is the step in torch operations, on any device. `kernel` is the same step in one pass
    over memory on the CPU, and also writes the masks of the threshold rule, [score >= 0].
    """

    @property
    @abstractmethod
    def kernel(self) -> Callable[..., None]:
        """The Numba kernel of the step, which changes scores, state and masked in place.

        Its arguments are (scores, *state, gradients, masked, zero, constants): flat arrays, a zero
        of the type of masked, and the tuple from `constants`.
        """

    @property
    @abstractmethod
    def odd_state(self) -> tuple[int, ...]:
        """Indices of the odd state tensors.

        If the scores and their gradients change sign, the odd state tensors change sign too. The
        other (even) state tensors keep their values.
        """

    @abstractmethod
    def begin(self, signs: Float[Tensor, "*shape"]) -> tuple[Tensor, ...]:
        """Make the state before the first step.

        In every state, the sign bits of the first tensor are the weights' signs.

        Args:
            signs: the weights' signs, +1 and -1.
        """

    @abstractmethod
    def constants(self, learning_rate: float, count: int) -> tuple[float, ...]:
        """Compute the constants of a step, for `move` and for `kernel`.

        Args:
            learning_rate: the learning rate of the step.
            count: number of the step, from 1.
        """

    @abstractmethod
    def signs(self, state: tuple[Tensor, ...]) -> Tensor:
        """Read the weights' signs, +1 and -1, from the state."""

    @abstractmethod
    def move(
        self, scores: Tensor, state: tuple[Tensor, ...], g: Tensor, constants: Iterable[Any]
    ) -> None:
        """Take one step in torch operations: change scores and state in place.

        Args:
            scores: the scores, of any shape.
            state: the state from `begin` or from the step before. The weights' signs in the state
                do not change.
            g: d loss / d score, with the shape and dtype of the scores.
            constants: values from `constants`, as numbers or 0-dimensional tensors.
        """

    @abstractmethod
    def torch_form(self, parameters: list[Tensor], learning_rate: float) -> torch.optim.Optimizer:
        """Make the optimiser of torch.optim with the same step.

        Args:
            parameters: the tensors that the optimiser changes.
            learning_rate: the learning rate of the first step.
        """


def signed_squares(signs: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Make squares of zero whose sign bits are the weights' signs: +0.0 and -0.0."""
    return torch.zeros_like(signs) * signs


def signs_of(squares: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Read the weights' signs, +1 and -1, from the sign bits of signed squares."""
    return torch.copysign(torch.ones_like(squares), squares)


class FusedStep:
    """An optimiser's kernel, bound to tensors that are changed in place.

    Args:
        optimizer: the optimiser of the scores.
        scores: the scores, float32 or float64.
        state: the optimiser's state, from its method `begin`.
        gradients: d loss / d masked sign, which each step reads; several steps may share the
            tensor.
        masked: the masked signs, which each step overwrites; of the gradients' dtype.

    Raises:
        ValueError: the shapes differ. Without this check, the kernel, which checks no bounds,
            would read and write outside of the arrays.
        RuntimeError: a tensor is not contiguous.
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
            raise ValueError(
                f"scores, state, gradients and masked must have one shape, got {shapes}"
            )
        self._optimizer = optimizer
        self._arrays = [as_stored(t).reshape(-1) for t in tensors]
        self._zero = self._arrays[-1].dtype.type(0)

    def step(self, learning_rate: float, count: int) -> None:
        """Take one step.

        Args:
            learning_rate: the learning rate of the step.
            count: number of the step, from 1.
        """
        real_type = self._arrays[0].dtype.type
        constants = self._optimizer.constants(learning_rate, count)
        self._optimizer.kernel(*self._arrays, self._zero, tuple(real_type(c) for c in constants))
