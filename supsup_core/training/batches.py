"""The images of each training step of a block.

Shape letters: B tasks of the block, N images of a batch.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Integer

from supsup_core.data import ImageSet, batches
from supsup_core.tasks.protocol import Task
from supsup_core.training.recipe import Recipe


def task_batches(
    tasks: Sequence[Task], data: ImageSet, recipe: Recipe, seed: int
) -> Iterator[Integer[np.ndarray, "B N"]]:
    """Yield the image indices of each step, without end; row b is for task b of the block.

    If no task chooses classes, all tasks share one sequence of batches, whose key is the first
    task's number. Otherwise each task has its own sequence, whose key is the task's number.

    Raises:
        ValueError: the data set has no image of a task's classes.
    """
    if all(task.classes is None for task in tasks):
        for batch in batches(seed, tasks[0].task_id, len(data.images), recipe.batch_size):
            yield np.broadcast_to(batch, (len(tasks), len(batch)))
    members = [task.members(data.labels) for task in tasks]
    for task, member in zip(tasks, members, strict=True):
        if not len(member):
            raise ValueError(
                f"task {task.task_id} needs images of classes {task.classes}, got none: "
                "use more training images"
            )
    num_images = min(len(m) for m in members)  # all tasks of a block need the same batch size
    size = min(recipe.batch_size, num_images)
    sequences = [
        batches(seed, task.task_id, len(m), size) for task, m in zip(tasks, members, strict=True)
    ]
    while True:
        yield np.stack([m[next(s)] for m, s in zip(members, sequences, strict=True)])
