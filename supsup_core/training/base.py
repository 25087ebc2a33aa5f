"""What trainers of blocks have in common: what they are made from, and how they measure."""

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
    """Holds what a trainer is made from.

    Args:
        network: the fixed network.
        method: the mask finder.
        train: the training images.
        measure: measures states.
        recipe: how scores are trained.
        seed: the run's seed.
        dtype: of the products: float32, bfloat16, or float64. Scores and the optimiser are at
            least float32.
        device: where everything is computed.
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
        """Measure one state on the test images of its task."""
        return self._measure(task, state)
