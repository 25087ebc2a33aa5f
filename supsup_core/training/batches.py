"""Which images each step of a block sees.

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
    """Indices of the images of each step, a row a task.

    Tasks of the whole data set share one sequence, named by the first of them.
    Tasks with classes of their own have each their own.

    Raises:
        ValueError: a task whose classes have no image.
    """
    if all(task.classes is None for task in tasks):
        for batch in batches(seed, tasks[0].task_id, len(data.images), recipe.batch_size):
            yield np.broadcast_to(batch, (len(tasks), len(batch)))
    members = [task.members(data.labels) for task in tasks]
    for task, member in zip(tasks, members, strict=True):
        if not len(member):
            raise ValueError(f"no image of task {task.task_id}, classes {task.classes}")
    num_images = min(len(m) for m in members)  # so that the block's batches have one size
    size = min(recipe.batch_size, num_images)
    sequences = [
        batches(seed, task.task_id, len(m), size) for task, m in zip(tasks, members, strict=True)
    ]
    while True:
        yield np.stack([m[next(s)] for m, s in zip(members, sequences, strict=True)])
