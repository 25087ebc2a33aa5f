"""Make and check the tasks of a family, and collect the arrays that describe them.

Shape letters: T tasks, P pixels.
"""

from collections.abc import Sequence

import numpy as np

from supsup_core.tasks.protocol import Family, Setting, Task


def make_task(family: Family, task_id: int, setting: Setting) -> Task:
    """Make one task of a family.

    Args:
        family: the family of the task.
        task_id: number of the task, in [0, setting.num_tasks).
        setting: the run and the data set for which the task is made.

    Raises:
        ValueError: the family has no task with this number, or the task has pixels or classes
            that the data set does not have.
    """
    limit = family.max_tasks(setting.num_classes)
    end = setting.num_tasks if limit is None else min(limit, setting.num_tasks)
    if not 0 <= task_id < end:
        raise ValueError(f"task_id must be in [0, {end}), got {task_id}")
    task = family.make(task_id, setting)
    _check(task, setting)
    return task


def _check(task: Task, setting: Setting) -> None:
    """Raise ValueError if a task has pixels or classes that the data set does not have."""
    source, classes, who = task.source, task.classes, f"task {task.task_id}"
    num_pixels, num_classes = setting.num_pixels, setting.num_classes
    if source is not None:
        found, expected = (source.dtype, source.shape), (np.dtype(np.uint16), (num_pixels,))
        if found != expected:
            raise ValueError(
                f"{who} must have a source of uint16 {expected[1]}, got {found[0]} {found[1]}"
            )
        if source.max() > num_pixels:
            raise ValueError(f"{who} must have pixels up to {num_pixels}, got {source.max()}")
    if classes is not None and not (classes and 0 <= min(classes) <= max(classes) < num_classes):
        raise ValueError(f"{who} must have classes in [0, {num_classes}), got {classes}")


def task_inputs(tasks: Sequence[Task]) -> dict[str, np.ndarray]:
    """Collect the arrays that define the tasks, in the form that the mask store keeps.

    Args:
        tasks: T tasks of one family.

    Returns:
        A mapping from name to array. If the tasks permute the P pixels, it has `permutations`,
        uint16 (T, P). If the tasks have other sources, it has `sources`, uint16 (T, P), in which
        the value P means black. If the tasks rotate the images, it also has `angles`, float64
        (T,), in degrees. If the tasks choose classes, it has `classes`, uint16 (T, classes per
        task).
    """
    inputs = {}
    if tasks[0].classes is not None:
        inputs["classes"] = np.array([task.classes for task in tasks], dtype=np.uint16)
    if tasks[0].angle is not None:
        inputs["angles"] = np.array([task.angle for task in tasks], dtype=np.float64)
    if tasks[0].source is not None:
        name = "permutations" if tasks[0].is_permutation else "sources"
        inputs[name] = np.stack([task.source for task in tasks if task.source is not None])
    return inputs
