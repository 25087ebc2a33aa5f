"""The base class of trainers of blocks: it has their arguments, and the measurement of states."""

from collections.abc import Sequence
from typing import Generic, TypeVar

import torch

from supsup_core.data import ImageSet
from supsup_core.methods.protocol import Method
from supsup_core.networks.protocol import Network
from supsup_core.states.layout import TaskState
from supsup_core.tasks.protocol import Task
from supsup_core.training.measure import Measure
from supsup_core.training.protocol import Measured
from supsup_core.training.recipe import Recipe

N = TypeVar("N", bound=Network)
M = TypeVar("M", bound=Method)


class BlockTrainer(Generic[N, M]):
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
        self._network, self._method, self._data, self._recipe = network, method, train, recipe
        self._measure, self._seed, self._dtype, self._device = measure, seed, dtype, device

    def measure(self, task: Task, state: TaskState) -> Measured:
        """Measure the accuracy and the loss of one state on the test images of its task."""
        return self._measure(task, state)

    def measure_each(self, tasks: Sequence[Task], states: Sequence[TaskState]) -> list[Measured]:
        """Measure the state of each task on the test images of the task."""
        return [self._measure(task, state) for task, state in zip(tasks, states, strict=True)]
