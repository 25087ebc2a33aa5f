"""A stream of batches: task 0 delivers some batches, then task 1, and so on.

Nothing in a batch tells the learner which task the batch belongs to. Only the harness, which
evaluates the learner, reads the tasks of the batches.

Shape letters: K images of a batch.
"""

from collections.abc import Callable, Iterator
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from supsup_core.data import ImageSet, normalise
from supsup_core.tasks.protocol import Task
from supsup_core.training.batches import Batch, batch_images, block_batches
from supsup_core.training.recipe import Recipe


class TaskStream:
    """The batches of all tasks, one task after another. Batches are numbered from 0.

    Each task delivers `recipe.steps` batches. They are the batches on which a block with only this
    task trains.

    Args:
        task_of: a function that makes a task from its number.
        num_tasks: number of tasks.
        data: the images of the data set.
        recipe: the settings of the training.
        seed: the run's seed.

    Attributes:
        num_batches: number of batches of the whole stream.
    """

    def __init__(
        self,
        task_of: Callable[[int], Task],
        num_tasks: int,
        data: ImageSet,
        recipe: Recipe,
        seed: int,
    ) -> None:
        self._task_of, self._data, self._recipe, self._seed = task_of, data, recipe, seed
        self.num_batches = num_tasks * recipe.steps

    def task_id(self, number: int) -> int:
        """Return the number of the task that a batch belongs to."""
        return number // self._recipe.steps

    def task(self, number: int) -> Task:
        """Make the task that a batch belongs to."""
        return self._task_of(self.task_id(number))

    def batches(self, first: int) -> Iterator[Batch]:
        """Yield the batches from a given batch on, up to the end of the stream.

        Args:
            first: number of the first batch.
        """
        steps = self._recipe.steps
        while first < self.num_batches:
            tasks, begun = [self.task(first)], first % steps
            order = block_batches(tasks, self._data, self._recipe, self._seed)
            yield from islice(order, begun, steps)
            first += steps - begun

    def images(self, number: int) -> Float[Tensor, "K ..."]:
        """Return the normalised images of one batch, (K, *shape)."""
        batch = next(self.batches(number))
        pixels = batch_images(batch, self._data, self._recipe, self._seed)[0]
        return normalise(torch.from_numpy(pixels), self._data.mean, self._data.std)
