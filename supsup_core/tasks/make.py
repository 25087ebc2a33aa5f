"""Tasks by the name of their family, and the arrays that tell what they are.

Shape letters: T tasks, P pixels.
"""

from collections.abc import Sequence

import numpy as np

from supsup_core.tasks import FAMILIES, Setting, Task


def max_tasks(family: str, num_classes: int) -> int | None:
    """How many tasks a family has at most; None where there is no end."""
    return FAMILIES[family].max_tasks(num_classes)


def make_task(
    family: str, task_id: int, *, seed: int, num_tasks: int, side: int, num_classes: int
) -> Task:
    """Make one task of a family.

    Args:
        family: one of FAMILIES.
        task_id: in [0, num_tasks).
        seed: of the run.
        num_tasks: of the run; spaces the angles, and nothing else depends on it.
        side: pixels of a side of the images.
        num_classes: of the data set.

    Raises:
        ValueError: an unknown family, a task beyond what the family holds, or one that the
            family makes for other images.
    """
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}")
    limit = max_tasks(family, num_classes)
    end = num_tasks if limit is None else min(limit, num_tasks)
    if not 0 <= task_id < end:
        raise ValueError(f"task_id must be in [0, {end}), got {task_id}")
    task = FAMILIES[family].make(task_id, Setting(seed, num_tasks, side, num_classes))
    _check(task, family, side**2, num_classes)
    return task


def _check(task: Task, family: str, num_pixels: int, num_classes: int) -> None:
    """Refuse a task whose images or labels would not be those of the data set."""
    source, classes, who = task.source, task.classes, f"task {task.task_id} of family {family}"
    if source is not None:
        found, expected = (source.dtype, source.shape), (np.dtype(np.uint16), (num_pixels,))
        if found != expected:
            raise ValueError(
                f"{who} must have a source of uint16 {expected[1]}, got {found[0]} {found[1]}"
            )
        if source.max() > num_pixels:
            raise ValueError(f"{who} must take pixels up to {num_pixels}, got {source.max()}")
    if classes is not None and not (classes and 0 <= min(classes) <= max(classes) < num_classes):
        raise ValueError(f"{who} must have classes in [0, {num_classes}), got {classes}")


def task_inputs(tasks: Sequence[Task]) -> dict[str, np.ndarray]:
    """Gather what makes each task, as the mask store keeps it.

    Returns:
        `permutations` uint16 (T, P) for permuted tasks; `sources` uint16 (T, P), where the
        value P means black, for other choices of pixels, with `angles` float64 (T,) in
        degrees for rotated ones; `classes` uint16 (T, classes of a task) for split ones.
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
