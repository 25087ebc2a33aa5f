"""A task, and the protocol of a family of tasks.

A task may choose pixels: x_task[j] = x[source[j]]. The index P, one above the index of the last
pixel, stands for the black background. If images have several channels, all channels change in the
same way. But if `source` has one entry for each pixel of each channel, it can also move numbers
from one channel to another. Permutations, rotations by whole pixels and both together are such
choices. One indexing operation makes the images of such a task, and the mask store can list its
source. A task may also change the images by any other rule, such as interpolation. `Task.images`
makes the images of every task, and pixels stay whole numbers from 0 to 255. So code that has no
fast path for `source` calls `Task.images`, and works for every family.

Shape letters: N images, P pixels (or values), M images of a task.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64, Integer, UInt, UInt8


def source_type(length: int) -> type[np.unsignedinteger[Any]]:
    """Return the type of a source of `length` pixels: 16 bits if they can hold all its indices."""
    return np.uint16 if length <= np.iinfo(np.uint16).max else np.uint32


@runtime_checkable  # lets tests check annotations at run time
class Change(Protocol):
    """A rule that changes images in another way than by choosing pixels."""

    @property
    def num_pixels(self) -> int:
        """P, the number of pixels of an image, without channels."""
        ...

    @property
    def rule(self) -> str:
        """The rule in words, with its formula. The mask store contains this text for users.

        All tasks of a family have the same rule. The numbers in which the tasks differ are the
        tasks' `parameters`, which the store lists as arrays of `inputs`.
        """
        ...

    def __call__(self, pixels: UInt8[np.ndarray, "N P"]) -> UInt8[np.ndarray, "N P"]:
        """Make the changed images. An image does not depend on the other images."""
        ...


@dataclass(frozen=True, eq=False)  # == of arrays gives an array, not one bool
class Task:
    """One learning problem: a change of images, a choice of pixels, or a choice of classes.

    Attributes:
        task_id: number of the task, from 0.
        change: rule that changes the images before their pixels are chosen; None if the task only
            chooses pixels or classes.
        source: (P,) for each pixel of the task's images, the index of the original pixel. The index
            P means the black background. P is the number of pixels, or the number of values of all
            channels. The type is `source_type(P)`. None if the task does not choose pixels.
        is_permutation: whether `source` has every pixel exactly once. All tasks of a family have
            the same value. If it is true, blocks train faster.
        parameters: a mapping from name to a number that defines or describes the task. A name, such
            as "angles", is also the name of an array in the store's `inputs`. All tasks of a family
            have the same names.
        classes: labels of the images that belong to the task, with the numbers of the data set.
            If None, all images belong to the task.
        renumbers: whether the task's labels are positions in `classes`, and not the numbers of the
            data set. All tasks of a family have the same value.

    Raises:
        ValueError: `is_permutation` is true, but `source` is not a permutation; or the task has
            both a source and classes, or both a change and classes; or the task has a change, but
            no parameters; or the task renumbers, but has no classes or one class twice.
    """

    task_id: int
    source: UInt[np.ndarray, " P"] | None = None
    is_permutation: bool = False
    parameters: Mapping[str, float] = field(default_factory=dict)
    classes: tuple[int, ...] | None = None
    change: Change | None = None
    renumbers: bool = False

    def __post_init__(self) -> None:
        given = "source" if self.source is not None else "change" if self.change else None
        if given and self.classes is not None:
            raise ValueError(f"task {self.task_id} must have a {given} or classes, got both")
        if self.change is not None and not self.parameters:
            raise ValueError(
                f"task {self.task_id} has a change of images, so it must have "
                "parameters that define this change, got none"
            )
        if self.renumbers and len(set(self.classes or ())) != len(self.classes or (0,)):
            raise ValueError(
                f"task {self.task_id} must have different classes if it renumbers its labels, got "
                f"{self.classes}"
            )
        if self.is_permutation and (
            self.source is None or (np.bincount(self.source, minlength=len(self.source)) != 1).any()
        ):
            raise ValueError(
                f"task {self.task_id} must have a permutation as source if is_permutation is true, "
                "got another source"
            )

    def images(self, images: UInt8[np.ndarray, "N ..."]) -> UInt8[np.ndarray, "N ..."]:
        """Make the task's images from images of the data set.

        Raises:
            ValueError: the task's change makes images of another shape or type.
        """
        shown = images
        if self.change is not None:
            pixels = images.reshape(-1, self.change.num_pixels)
            made = self.change(pixels)
            if (made.dtype, made.shape) != (pixels.dtype, pixels.shape):
                raise ValueError(
                    f"task {self.task_id} must make images of {pixels.dtype} {pixels.shape}, "
                    f"got {made.dtype} {made.shape}"
                )
            shown = made.reshape(images.shape)
        if self.source is not None:
            pixels = shown.reshape(-1, len(self.source))
            background = np.zeros((len(pixels), 1), dtype=np.uint8)
            chosen = np.concatenate([pixels, background], axis=1)[:, self.source]
            shown = chosen.reshape(images.shape)
        return shown

    def members(self, labels: Integer[np.ndarray, " N"]) -> Integer[np.ndarray, " M"]:
        """Return the indices of the images that belong to the task, in ascending order.

        Args:
            labels: (N,) the class of each image of the data set.
        """
        if self.classes is None:
            return np.arange(len(labels))
        return np.flatnonzero(np.isin(labels, self.classes))

    def labels(self, labels: Integer[np.ndarray, "*shape"]) -> Int64[np.ndarray, "*shape"]:
        """Return the labels that the task has to learn.

        Args:
            labels: labels of images that belong to the task, with the numbers of the data set.

        Returns:
            The same numbers, or the positions of these numbers in `classes` if the task renumbers.
        """
        if not self.renumbers or self.classes is None:
            return labels.astype(np.int64)
        order = np.argsort(self.classes)
        found: np.ndarray = order[np.searchsorted(self.classes, labels, sorter=order)]
        return found


@dataclass(frozen=True)
class Setting:
    """Facts about the run and the data set. A family needs them to make tasks.

    Attributes:
        seed: the run's seed.
        num_tasks: number of tasks of the run.
        shape: number of rows and number of columns of an image, in pixels.
        num_classes: number of classes of the data set.
        channels: number of channels of an image.
    """

    seed: int
    num_tasks: int
    shape: tuple[int, int]
    num_classes: int
    channels: int = 1

    @property
    def num_pixels(self) -> int:
        """P, the number of pixels of an image: rows times columns."""
        return self.shape[0] * self.shape[1]

    @property
    def num_values(self) -> int:
        """The number of values of an image: channels times pixels."""
        return self.channels * self.num_pixels

    @property
    def side(self) -> int:
        """The number of rows of a square image. The number of columns is the same.

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
