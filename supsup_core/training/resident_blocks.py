"""The base class of the tensors of blocks that train at the same time on one device.

Shape letters: T tasks of all blocks, G groups of tasks that have the same images (the blocks, or
the tasks), N images of a batch.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from supsup_core.kernels.gpu.replay import RepeatedStep
from supsup_core.training.recipe import Recipe
from supsup_core.training.resident_feed import Tables


@dataclass(frozen=True)
class ResidentForm:
    """The numbers that determine the shapes of the tensors of some blocks.

    Attributes:
        tasks: T, number of tasks of all blocks.
        groups: G, number of groups of tasks that have the same images.
        images: N, number of images of a batch.
    """

    tasks: int
    groups: int
    images: int


F = TypeVar("F", bound=ResidentForm)


class ResidentBlocks(ABC, Generic[F]):
    """The tensors of some blocks. The method `advance` takes a training step of all their tasks.

    Args:
        recipe: the settings of the training.
        form: the numbers that determine the shapes of the tensors.
        dtype: type of the optimiser's constants.
        device: the device of all tensors.
        graphs: whether a CUDA graph repeats the steps on a CUDA device.

    Attributes:
        tables: the image indices and the optimiser's constants of the next steps.
        form: the argument `form`.
        graphs: the argument `graphs`.
    """

    def __init__(
        self, recipe: Recipe, form: F, dtype: torch.dtype, device: torch.device, *, graphs: bool
    ) -> None:
        self.form, self.graphs = form, graphs
        self._optimizer = recipe.make_optimizer()
        self.tables = Tables(recipe, self._optimizer, form.groups, form.images, dtype, device)
        self._repeated = RepeatedStep(device, graphs=graphs)

    def advance(self) -> None:
        """Take one training step of all tasks."""
        self._repeated(self._step)

    @abstractmethod
    def _step(self) -> None:
        """Launch the work of one step. It must not wait for the device."""

    def _first_state(self, score: Tensor) -> tuple[Tensor, ...]:
        """Make the optimiser's first state of scores that autograd trains.

        The optimisers also store signs of weights. Autograd needs no signs.
        """
        return self._optimizer.begin(torch.ones_like(score))

    def _restart(self, score: Tensor, state: tuple[Tensor, ...]) -> None:
        """Write the optimiser's first state into the state of scores that autograd trains."""
        for to, value in zip(state, self._first_state(score), strict=True):
            to.copy_(value)

    def _of_tasks(self, values: Tensor) -> Tensor:
        """Repeat values (G, ...) for each task of a group, unless each task has its own values."""
        if len(values) == self.form.tasks:
            return values
        in_group = self.form.tasks // len(values)
        return values[:, None].expand(-1, in_group, *values.shape[1:]).flatten(0, 1)
