"""The base classes of trainers."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from itertools import islice
from math import ceil
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from supsup_core.data import ImageSet, normalise
from supsup_core.methods.protocol import Method, Shared
from supsup_core.networks.protocol import Network
from supsup_core.states.layout import TaskState
from supsup_core.tasks.protocol import Task
from supsup_core.training.batches import (
    Batch,
    batch_images,
    batch_labels,
    batch_size,
    block_batches,
)
from supsup_core.training.measure import Measure
from supsup_core.training.protocol import Measured, OnStep
from supsup_core.training.recipe import Recipe
from supsup_core.training.transfer import Transfer

N = TypeVar("N", bound=Network)
M = TypeVar("M", bound=Method)


class StagedTrainer(ABC):
    """The base class of trainers: it makes the other methods of Trainer from `stages`.

    Args:
        measure: the function that measures the accuracy and the loss of a state.
        recipe: the settings of the training.
    """

    def __init__(self, measure: Measure, recipe: Recipe) -> None:
        self._measure, self._recipe = measure, recipe

    @abstractmethod
    def stages(
        self,
        tasks: Sequence[Task],
        after: Collection[int],
        shared: Shared | None = None,
        on_step: OnStep | None = None,
        batches: Iterator[Batch] | None = None,
    ) -> Iterator[tuple[list[TaskState], Shared]]:
        """Train a block of tasks; see Trainer.stages."""

    def side_by_side(
        self, blocks: Sequence[Sequence[Task]], on_step: OnStep | None = None
    ) -> list[TaskState]:
        """Train several blocks one after another; see Trainer.side_by_side."""
        states: list[TaskState] = []
        for i, block in enumerate(blocks):
            share = i / len(blocks), 1 / len(blocks)
            told = part_of(on_step, share, self._recipe.steps)
            ((found, _),) = self.stages(block, [self._recipe.steps], on_step=told)
            states += found
        return states

    def measure(self, task: Task, state: TaskState, shared: Shared | None = None) -> Measured:
        """Measure the accuracy and the loss of one state on the test images of its task."""
        return self._measure(task, state)

    def measure_each(
        self, tasks: Sequence[Task], states: Sequence[TaskState], shared: Shared | None = None
    ) -> list[Measured]:
        """Measure the state of each task on the test images of the task."""
        pairs = zip(tasks, states, strict=True)
        return [self.measure(task, state, shared) for task, state in pairs]


def part_of(on_step: OnStep | None, share: tuple[float, float], steps: int) -> OnStep | None:
    """Make the function that one part of a training calls after each of its steps.

    The function converts the finished steps of the part to finished steps of the whole training,
    and calls `on_step` with this number. If `on_step` is None, the result is None.

    Args:
        on_step: a function that takes the number of finished steps of the whole training.
        share: two fractions of the whole training: the fraction before the part, and the fraction
            that the part takes.
        steps: number of steps of the part, and of the whole training.
    """
    if on_step is None:
        return None
    before, own = share
    return lambda done: on_step(min(steps, ceil(before * steps + own * done - 1e-9)))


class BlockTrainer(StagedTrainer, Generic[N, M]):
    """The base class of trainers of blocks of tasks. A subclass adds the method `stages`.

    Args:
        network: the fixed network.
        method: the mask finder.
        train: the training images.
        measure: the function that measures the accuracy and the loss of a state.
        recipe: the settings of the training.
        seed: the run's seed.
        dtype: dtype of the matrix products: float32, bfloat16 or float64. Scores and the
            optimiser's state have this dtype too, but float32 if `dtype` is bfloat16.
        device: device of all computations.
    """

    def __init__(
        self,
        network: N,
        method: M,
        train: ImageSet,
        measure: Measure,
        recipe: Recipe,
        *,
        seed: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__(measure, recipe)
        self._network, self._method, self._data = network, method, train
        self._seed, self._dtype, self._device = seed, dtype, device
        self._transfer = Transfer(network, method, recipe, seed, device)

    def _starts(
        self, tasks: Sequence[Task], shared: Shared | None = None
    ) -> list[dict[str, np.ndarray]]:
        """Make the first scores of each task: a mapping from name to float32 scores."""
        first_images = partial(self._first_images, tasks)
        return self._transfer.starts([task.task_id for task in tasks], shared, first_images)

    def _first_images(
        self, tasks: Sequence[Task], share: float, at_most: int
    ) -> tuple[Tensor, Tensor]:
        """Make the images of the first training steps; see transfer.FirstImages."""
        data, recipe = self._data, self._recipe
        fewest = min(len(task.members(data.labels)) for task in tasks)
        num_steps = max(1, ceil(min(share * fewest, at_most) / batch_size(tasks, data, recipe)))
        first = list(islice(block_batches(tasks, data, recipe, self._seed), num_steps))
        shown = [batch_images(batch, data, recipe, self._seed) for batch in first]
        labels = [batch_labels(tasks, data, batch.index) for batch in first]
        pixels = torch.from_numpy(np.concatenate(shown, axis=1))
        known = torch.from_numpy(np.concatenate(labels, axis=1))
        return normalise(pixels, data.mean, data.std), known
