"""Make and check the tasks of a family, and collect the arrays that describe the tasks.

Shape letters: T tasks, P pixels, N images.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np
from jaxtyping import Int64, UInt8

from supsup_core.tasks.protocol import Family, Setting, Task, source_type

# Number of random images by which two tasks are compared. With 8 images, each pixel has 8 random
# bytes. So two tasks show the same images only if they choose the same pixels.
_NUM_PROBES = 8

# If a task has fewer classes than other tasks of its run, this number fills its row of `classes`.
NO_CLASS = 2**16 - 1


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
    """Raise ValueError if a task uses pixels or classes that the data set does not have."""
    source, classes, who = task.source, task.classes, f"task {task.task_id}"
    num_pixels, num_classes = setting.num_pixels, setting.num_classes
    if source is not None:
        length = setting.num_values if len(source) == setting.num_values else num_pixels
        expected = np.dtype(source_type(length)), (length,)
        if (source.dtype, source.shape) != expected:
            raise ValueError(
                f"{who} must have a source of type {expected[0]} and shape {expected[1]}, got "
                f"{source.dtype} and {source.shape}"
            )
        if source.max() > length:
            raise ValueError(
                f"{who} must have indices up to {length} in its source, got {source.max()}"
            )
    if task.change is not None and task.change.num_pixels != num_pixels:
        raise ValueError(
            f"{who} must have a change for images of {num_pixels} pixels, got a change for "
            f"{task.change.num_pixels} pixels"
        )
    if classes is not None and not (classes and 0 <= min(classes) <= max(classes) < num_classes):
        raise ValueError(f"{who} must have classes in [0, {num_classes}), got {classes}")


def task_inputs(tasks: Sequence[Task], most_classes: int | None = None) -> dict[str, np.ndarray]:
    """Collect the arrays that define the tasks, in the form that the mask store keeps.

    Args:
        tasks: T tasks of one family.
        most_classes: the largest number of classes of a task of the run; None: the largest number
            of classes of a task in `tasks`.

    Returns:
        A mapping from name to array. Permuted tasks have `permutations`, uint16 (T, P), or uint32
        if P is above 65,535. Other tasks with a source have `sources`, with the same type and
        shape; the value P means black. P is the number of pixels, or of the values of all channels.
        Split tasks have `classes`, uint16 (T, most_classes), filled up with NO_CLASS. Each
        parameter of the tasks has its own array, float64 (T,), such as the `angles` of rotated
        tasks in degrees.
    """
    inputs = {}
    if tasks[0].classes is not None:
        classes = [task.classes or () for task in tasks]
        width = max(map(len, classes)) if most_classes is None else most_classes
        rows = np.full((len(tasks), width), NO_CLASS, dtype=np.uint16)
        for row, own in zip(rows, classes, strict=True):
            row[: len(own)] = own
        inputs["classes"] = rows
    for name in tasks[0].parameters:
        inputs[name] = np.array([task.parameters[name] for task in tasks], dtype=np.float64)
    if tasks[0].source is not None:
        name = "permutations" if tasks[0].is_permutation else "sources"
        inputs[name] = np.stack([task.source for task in tasks if task.source is not None])
    return inputs


def first_equals(tasks: Iterable[Task], num_values: int) -> Int64[np.ndarray, " T"]:
    """Find equal tasks. Two tasks are equal if they have the same classes and make the same images.

    Args:
        tasks: T tasks of one family.
        num_values: P, the number of values of an image, in all its channels.

    Returns:
        For each task, the position of the first task that equals it. A task without an equal task
        before it has its own position.

    Raises:
        ValueError: the change of a task makes images of another shape or type.
    """
    probe = np.random.default_rng(0).integers(0, 256, (_NUM_PROBES, num_values), dtype=np.uint8)
    marks = np.fromiter((_mark(task, probe) for task in tasks), np.uint64)
    _, firsts, groups = np.unique(marks, return_index=True, return_inverse=True)
    return firsts[groups]


def _mark(task: Task, probe: UInt8[np.ndarray, "N P"]) -> int:
    """Compute a 64-bit hash of a task's classes and of the images that it makes from `probe`."""
    content = task.images(probe).tobytes() + repr(task.classes).encode()
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little")
