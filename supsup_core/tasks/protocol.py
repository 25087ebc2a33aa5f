"""A task, and the protocol of a family of tasks.

A task may take each pixel j of its images from another position of the original image:
x_task[j] = x[source[j]]. If source[j] is P, one above the last pixel, pixel j is black background.
Permutations, rotations and both together have this form. So one indexing operation makes the images
of any task, and the mask store can list the source of each task.

Shape letters: N images, P pixels, M images of a task.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Integer, UInt8, UInt16


@dataclass(frozen=True, eq=False)  # == of arrays gives an array, not one bool
class Task:
    """One learning problem: it changes the positions of pixels, or it has only some classes.

    Attributes:
        task_id: number of the task, from 0.
        source: (P,) for each of the P pixels of the task's images, the index of the original pixel
            that gives the value. The index P means background (black). None if the task does not
            change the images.
        is_permutation: whether `source` has every pixel exactly once. All tasks of a family have
            the same value. Tasks that are permutations train faster.
        angle: angle of the rotation in degrees, counter-clockwise; None if the task does not
            rotate the images.
        classes: the classes of the images that belong to the task, as numbered in the data set.
            None: all images belong to the task.

    Raises:
        ValueError: `is_permutation` is true, but `source` is not a permutation; or the task has
            both a source and classes.
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
            raise ValueError(
                f"task {self.task_id} must have a permutation as source if is_permutation is true, "
                "got another source"
            )

    def images(self, images: UInt8[np.ndarray, "N ..."]) -> UInt8[np.ndarray, "N ..."]:
        """Make the task's images from images of the data set. All channels change the same way."""
        if self.source is None:
            return images
        pixels = images.reshape(len(images), -1, len(self.source))
        background = np.zeros((*pixels.shape[:2], 1), dtype=np.uint8)
        chosen = np.concatenate([pixels, background], axis=2)[:, :, self.source]
        return chosen.reshape(images.shape)

    def members(self, labels: Integer[np.ndarray, " N"]) -> Integer[np.ndarray, " M"]:
        """Return the indices of the images that belong to the task, in ascending order.

        Args:
            labels: (N,) the class of each image of the data set.
        """
        if self.classes is None:
            return np.arange(len(labels))
        return np.flatnonzero(np.isin(labels, self.classes))


@dataclass(frozen=True)
class Setting:
    """Facts about the run and the data set, which a family needs to make tasks.

    Attributes:
        seed: the run's seed.
        num_tasks: number of tasks of the run.
        shape: number of rows and number of columns of an image, in pixels.
        num_classes: number of classes of the data set.
    """

    seed: int
    num_tasks: int
    shape: tuple[int, int]
    num_classes: int

    @property
    def num_pixels(self) -> int:
        """P, the number of pixels of an image: rows times columns."""
        return self.shape[0] * self.shape[1]

    @property
    def side(self) -> int:
        """The number of rows of a square image, which is also the number of columns.

        Raises:
            ValueError: the images are not square.
        """
        rows, columns = self.shape
        if rows != columns:
            raise ValueError(f"images must be square, got {rows} by {columns} pixels")
        return rows


@runtime_checkable  # lets tests check annotations at run time
class Family(Protocol):
    """A family of tasks. It makes each task from the task's number."""

    def make(self, task_id: int, setting: Setting) -> Task:
        """Make one task. The same arguments always give the same task."""
        ...

    def max_tasks(self, num_classes: int) -> int | None:
        """Return the largest number of tasks of this family; None if there is no limit.

        Args:
            num_classes: number of classes of the data set.
        """
        ...
