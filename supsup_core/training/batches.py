"""Choose the images of each training step, for the tasks of a block.

Shape letters: B tasks of the block, N images of a batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, Integer, UInt8

from supsup_core.data import ImageSet, batches
from supsup_core.tasks.protocol import Task
from supsup_core.training.augment import augmented
from supsup_core.training.recipe import Recipe


@dataclass(frozen=True, eq=False)  # == of arrays has no single truth value
class Batch:
    """The images of one training step.

    Attributes:
        tasks: the B tasks that the images belong to.
        index: (B, N) for each of the B tasks, the indices of its N images in the data set.
        step: number of the batch among the batches of these tasks, from 0. Random changes of the
            images depend on this number.
    """

    tasks: Sequence[Task]
    index: Integer[np.ndarray, "B N"]
    step: int


def block_batches(
    tasks: Sequence[Task], data: ImageSet, recipe: Recipe, seed: int
) -> Iterator[Batch]:
    """Yield the batch of each step of a block, without end; see task_batches."""
    for step, index in enumerate(task_batches(tasks, data, recipe, seed)):
        yield Batch(tasks, index, step)


def task_batches(
    tasks: Sequence[Task], data: ImageSet, recipe: Recipe, seed: int
) -> Iterator[Integer[np.ndarray, "B N"]]:
    """Yield image indices for each step of training, without end.

    If no task chooses classes, all tasks share one sequence of batches. The first task's number
    then determines the sequence. Otherwise each task has its own sequence, which the task's number
    determines.

    Yields:
        (B, N) indices: the images of each of the B tasks.

    Raises:
        ValueError: the data set has no image of a task's classes.
    """
    if share_images(tasks):
        for batch in batches(seed, tasks[0].task_id, len(data.images), recipe.batch_size):
            yield np.broadcast_to(batch, (len(tasks), len(batch)))
    members = _members(tasks, data)
    size = batch_size(tasks, data, recipe)
    sequences = [
        batches(seed, task.task_id, len(m), size) for task, m in zip(tasks, members, strict=True)
    ]
    while True:
        yield np.stack([m[next(s)] for m, s in zip(members, sequences, strict=True)])


def batch_images(
    batch: Batch, data: ImageSet, recipe: Recipe, seed: int
) -> UInt8[np.ndarray, "B N ..."]:
    """Make the pixels of a batch: N images for each of the B tasks.

    The images are changed at random before the task changes them, if the recipe says so.

    Args:
        batch: the batch.
        data: the images of the data set.
        recipe: the settings of the training.
        seed: the run's seed.
    """
    augment, step = recipe.augment, batch.step
    return np.stack(
        [
            task.images(augmented(data.images[own], augment, seed, task.task_id, step))
            for task, own in zip(batch.tasks, batch.index, strict=True)
        ]
    )


def batch_labels(
    tasks: Sequence[Task], data: ImageSet, index: Integer[np.ndarray, "B N"]
) -> Int64[np.ndarray, "B N"]:
    """Return the labels that each of the B tasks has to learn; see Task.labels.

    Args:
        tasks: the B tasks.
        data: the images of the data set.
        index: for each task, the indices of N images that belong to the task.
    """
    pairs = zip(tasks, data.labels[index], strict=True)
    return np.stack([task.labels(own) for task, own in pairs])


def batch_size(tasks: Sequence[Task], data: ImageSet, recipe: Recipe) -> int:
    """Return N, the number of images of each task in a step; see task_batches."""
    if share_images(tasks):
        return min(recipe.batch_size, len(data.images))
    # All tasks of a block need the same batch size.
    return min(recipe.batch_size, *(len(m) for m in _members(tasks, data)))


def share_images(tasks: Sequence[Task]) -> bool:
    """Return whether all tasks of a block have the same images: no task chooses classes."""
    return all(task.classes is None for task in tasks)


def _members(tasks: Sequence[Task], data: ImageSet) -> list[Integer[np.ndarray, " _"]]:
    """Return the indices of the images of each task."""
    members = [task.members(data.labels) for task in tasks]
    for task, member in zip(tasks, members, strict=True):
        if not len(member):
            raise ValueError(
                f"task {task.task_id} needs images of classes {task.classes}, got none: "
                "use more training images"
            )
    return members
