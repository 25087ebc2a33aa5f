"""Families of tasks: what each task does to the images and which classes it has.

Every family but `split` is a choice of pixels: x_task[j] = x[source[j]], where
the source P, one past the last pixel, is the black background. A permutation is
such a choice, and so is a rotation by nearest neighbour (as the authors rotate),
so that one gather makes the images of any task.
Shape letters: T tasks, N images, P pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Integer, UInt8, UInt16

from supsup_core.streams import Role, stream

Family = Literal["permuted", "rotated", "permuted_rotated", "split"]
FAMILIES: tuple[str, ...] = get_args(Family)
CLASSES_PER_TASK = 2  # of the split family


@dataclass(frozen=True, eq=False)  # == of arrays has no single truth value
class Task:
    """One learning problem.

    Attributes:
        task_id: from 0.
        source: uint16 (P,), the pixel each input takes its value from; P is background.
            None where the images stay as they are.
        angle: degrees, counter-clockwise; None where nothing is rotated.
        classes: the labels of this task; None for all. Labels are not renumbered.
    """

    task_id: int
    source: UInt16[np.ndarray, " P"] | None = None
    angle: float | None = None
    classes: tuple[int, ...] | None = None

    @property
    def is_permutation(self) -> bool:
        """Whether every pixel is taken once, so that nothing is lost."""
        return self.source is not None and self.angle is None

    def images(self, images: UInt8[np.ndarray, "N P"]) -> UInt8[np.ndarray, "N P"]:
        """Make the task's images from the data set's."""
        if self.source is None:
            return images
        background = np.zeros((len(images), 1), dtype=np.uint8)
        return np.concatenate([images, background], axis=1)[:, self.source]

    def members(self, labels: Integer[np.ndarray, " N"]) -> Integer[np.ndarray, " M"]:
        """Indices of the images that belong to the task, in order."""
        if self.classes is None:
            return np.arange(len(labels))
        return np.flatnonzero(np.isin(labels, self.classes))


def rotation_source(side: int, angle: float) -> UInt16[np.ndarray, " P"]:
    """Choose the pixel that each place of a rotated image shows.

    Args:
        side: pixels of a side; P = side * side.
        angle: degrees, counter-clockwise about the image's centre.

    Returns:
        For each place the nearest source pixel, or P where that lies outside.

    Raises:
        ValueError: an image too large for pixels to be numbered in 16 bits.
    """
    if side * side > np.iinfo(np.uint16).max:
        raise ValueError(f"images must have at most 65535 pixels, got {side} by {side}")
    centre = (side - 1) / 2
    rows, columns = np.mgrid[0:side, 0:side] - centre
    sine, cosine = np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))
    # The inverse rotation: where did the content of this place come from? Rows grow downwards.
    # Rounded first, so that multiples of 90 degrees do not depend on the last bit of a sine.
    source_columns = np.rint(np.round(cosine * columns - sine * rows + centre, 9)).astype(int)
    source_rows = np.rint(np.round(sine * columns + cosine * rows + centre, 9)).astype(int)
    inside = (
        (source_rows >= 0) & (source_rows < side) & (source_columns >= 0) & (source_columns < side)
    )
    return np.where(inside, source_rows * side + source_columns, side * side).ravel().astype("u2")


def max_tasks(family: str, num_classes: int) -> int | None:
    """How many tasks a family has at most; None where there is no end."""
    return num_classes // CLASSES_PER_TASK if family == "split" else None


def angle_between(num_tasks: int) -> float:
    """Degrees between neighbours of the rotated families: even over the full circle."""
    return 360.0 / num_tasks


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
        ValueError: an unknown family, or a task beyond what the family holds.
    """
    limit = max_tasks(family, num_classes)
    end = num_tasks if limit is None else min(limit, num_tasks)
    if not 0 <= task_id < end:
        raise ValueError(f"task_id must be in [0, {end}), got {task_id}")
    match family:
        case "permuted":
            return Task(task_id, source=_permutation(seed, task_id, side))
        case "rotated":
            angle = task_id * angle_between(num_tasks)
            return Task(task_id, source=rotation_source(side, angle), angle=angle)
        case "permuted_rotated":
            angle = task_id * angle_between(num_tasks)
            rotated = rotation_source(side, angle)
            return Task(task_id, source=rotated[_permutation(seed, task_id, side)], angle=angle)
        case "split":
            first = CLASSES_PER_TASK * task_id
            return Task(task_id, classes=tuple(range(first, first + CLASSES_PER_TASK)))
        case _:
            raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}")


def _permutation(seed: int, task_id: int, side: int) -> UInt16[np.ndarray, " P"]:
    order = stream(seed, Role.PERMUTATION, task_id).permutation(side * side)
    return order.astype(np.uint16)


def task_inputs(tasks: Sequence[Task]) -> dict[str, np.ndarray]:
    """Gather what makes each task, as the mask store keeps it.

    Returns:
        `permutations` uint16 (T, P) for permuted tasks; `angles` float64 (T,) in
        degrees and `sources` uint16 (T, P) for rotated ones, where the value P means
        black; `classes` uint16 (T, classes of a task) for split ones.
    """
    if tasks[0].classes is not None:
        return {"classes": np.array([task.classes for task in tasks], dtype=np.uint16)}
    sources = np.stack([task.source for task in tasks if task.source is not None])
    if tasks[0].is_permutation:
        return {"permutations": sources}
    angles = np.array([task.angle for task in tasks], dtype=np.float64)
    return {"angles": angles, "sources": sources}
