"""A task, and what a family of tasks has to say.

A task may choose pixels: x_task[j] = x[source[j]], where the source P, one past the last
pixel, is the black background. So one gather makes the images of any task.
Shape letters: N images, P pixels, M images of a task.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Integer, UInt8, UInt16


@dataclass(frozen=True, eq=False)  # == of arrays has no single truth value
class Task:
    """One learning problem: a choice of pixels or of classes.

    Attributes:
        task_id: from 0.
        source: uint16 (P,), the pixel each input takes its value from; P is background.
            None where the images stay as they are.
        is_permutation: whether `source` takes every pixel once, so that nothing is lost;
            the same for all tasks of a family. Blocks of such tasks train faster.
        angle: degrees, counter-clockwise; None where nothing is rotated.
        classes: the labels of this task; None for all. Labels are not renumbered.

    Raises:
        ValueError: a permutation that leaves a pixel out, or both a source and classes.
    """

    task_id: int
    source: UInt16[np.ndarray, " P"] | None = None
    is_permutation: bool = False
    angle: float | None = None
    classes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.source is not None and self.classes is not None:
            raise ValueError(f"task {self.task_id} must have a source or classes, got both")
        if self.is_permutation and (
            self.source is None or (np.bincount(self.source, minlength=len(self.source)) != 1).any()
        ):
            raise ValueError(f"task {self.task_id} is no permutation: its source leaves pixels out")

    def images(self, images: UInt8[np.ndarray, "N ..."]) -> UInt8[np.ndarray, "N ..."]:
        """Make the task's images from the data set's; each channel takes the same pixels."""
        if self.source is None:
            return images
        pixels = images.reshape(len(images), -1, len(self.source))
        background = np.zeros((*pixels.shape[:2], 1), dtype=np.uint8)
        chosen = np.concatenate([pixels, background], axis=2)[:, :, self.source]
        return chosen.reshape(images.shape)

    def members(self, labels: Integer[np.ndarray, " N"]) -> Integer[np.ndarray, " M"]:
        """Indices of the images that belong to the task, in order."""
        if self.classes is None:
            return np.arange(len(labels))
        return np.flatnonzero(np.isin(labels, self.classes))


@dataclass(frozen=True)
class Setting:
    """What a family makes its tasks for.

    Attributes:
        seed: the run's seed.
        num_tasks: number of tasks of the run.
        shape: rows and columns of the images' pixels.
        num_classes: number of classes of the data set.
    """

    seed: int
    num_tasks: int
    shape: tuple[int, int]
    num_classes: int

    @property
    def num_pixels(self) -> int:
        """Rows times columns."""
        return self.shape[0] * self.shape[1]

    @property
    def side(self) -> int:
        """Rows, and columns, of square images.

        Raises:
            ValueError: the images are not square.
        """
        rows, columns = self.shape
        if rows != columns:
            raise ValueError(f"images must be square, got {rows} by {columns} pixels")
        return rows


@runtime_checkable  # so that the tests can check annotations
class Family(Protocol):
    """Makes tasks by their number."""

    def make(self, task_id: int, setting: Setting) -> Task:
        """Make one task; the same one whenever it is asked for."""
        ...

    def max_tasks(self, num_classes: int) -> int | None:
        """How many tasks there are at most; None where there is no end."""
        ...
