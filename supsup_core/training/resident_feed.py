"""Copy the data of the next training steps to a device, before the device takes these steps.

Shape letters: G groups of tasks that have the same images, B tasks of a block, N images of a batch.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from jaxtyping import Int32, Integer
from torch import Tensor

from supsup_core.tasks.protocol import Task
from supsup_core.training.optimizers import Optimizer
from supsup_core.training.protocol import OnStep
from supsup_core.training.recipe import Recipe

# Number of steps of the tables of image indices and constants. While the device works on the steps
# of a table, the host draws the order of the images for the next steps.
_TABLE_STEPS = 128


class Tables:
    """Tables on a device, with one row per training step. A step reads its row by its number.

    Args:
        recipe: the settings of the training.
        optimizer: the optimiser of the scores.
        num_groups: G, the number of groups.
        num_images: N, the number of images of a batch.
        dtype: type of the optimiser's constants.
        device: the device.

    Attributes:
        index: the indices of the images of each group.
        constants: the constants of the optimiser.
        step: (1,) the number of the row that the current step reads.
    """

    def __init__(
        self,
        recipe: Recipe,
        optimizer: Optimizer,
        num_groups: int,
        num_images: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._recipe, self._optimizer = recipe, optimizer
        self.num_steps = max(1, min(recipe.steps, _TABLE_STEPS))
        num_constants = len(optimizer.constants(recipe.learning_rate, 1))
        shape = self.num_steps, num_groups, num_images
        self.index = torch.empty(shape, dtype=torch.int32, device=device)
        self.constants = torch.empty((self.num_steps, num_constants), dtype=dtype, device=device)
        self.step = torch.zeros(1, dtype=torch.int32, device=device)

    def tell(self, done: int, batches: Iterator[Int32[np.ndarray, "G N"]]) -> None:
        """Before a step, copy the rows of this step and of the next steps, if they are not there.

        Args:
            done: number of finished steps.
            batches: the image indices of all steps that were not copied yet.
        """
        if done % self.num_steps:
            return
        num = min(self.num_steps, self._recipe.steps - done)
        send(np.stack(list(islice(batches, num))), self.index[:num])
        constants = [
            self._optimizer.constants(self._recipe.learning_rate_at(step), step + 1)
            for step in range(done, done + num)
        ]
        send(np.array(constants), self.constants[:num])
        self.step.zero_()


def steps_of(
    tables: Tables,
    batches: Iterator[Int32[np.ndarray, "G N"]],
    advance: Callable[[], None],
    after: Collection[int],
    on_step: OnStep | None,
) -> Iterator[int]:
    """Take training steps, and yield the number of finished steps for each number in `after`.

    Args:
        tables: the tables that the steps read.
        batches: the image indices of all steps.
        advance: a function that takes one step.
        after: numbers of steps. The training ends after the largest.
        on_step: a function that is called after each step, with the number of finished steps. The
            device may finish the step later.
    """
    last = max(after)
    for step in range(last + 1):
        if step in after:
            yield step
        if step == last:
            return
        tables.tell(step, batches)
        advance()
        if on_step is not None:
            on_step(step + 1)


def needs_host(task: Task) -> bool:
    """Return whether a task has images or labels that the host must make for each step."""
    return task.change is not None or task.renumbers


def send(values: np.ndarray, to: Tensor) -> None:
    """Copy an array to the device, without waiting until the device has done earlier work."""
    on_host = torch.from_numpy(values).to(to.dtype)
    if to.device.type == "cuda":
        on_host = on_host.pin_memory()
    to.copy_(on_host, non_blocking=True)


def joined(
    orders: Sequence[Iterator[Integer[np.ndarray, "B N"]]], num_groups: int
) -> Iterator[Int32[np.ndarray, "G N"]]:
    """Yield, for each step, one array with the image indices of every group.

    A group is a set of tasks that have the same images.

    Args:
        orders: for each block, the image indices of its tasks for each step.
        num_groups: number of groups. It is the number of blocks if the tasks of a block have the
            same images, and the number of tasks otherwise.
    """
    shares = num_groups == len(orders)
    while True:
        now = [next(order) for order in orders]
        yield np.concatenate([index[:1] for index in now] if shares else now).astype(np.int32)
