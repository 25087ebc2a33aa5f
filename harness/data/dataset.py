"""A data set: images of two splits, and what they are.

Shape letters: N images, P pixels of an image.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from supsup_core.data import ImageSet

Labelled = tuple[UInt8[np.ndarray, "N P"], UInt8[np.ndarray, " N"]]


@dataclass(frozen=True)
class Dataset:
    """Labelled images, in file order (mnist5k comes sorted by class).

    Attributes:
        name: for people and tables.
        train: the training images.
        test: the test images, normalised by the moments of the training images.
        num_classes: number of classes, whose labels count from 0.
    """

    name: str
    train: ImageSet
    test: ImageSet
    num_classes: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image: channels, rows, columns."""
        return self.train.shape


def grey_dataset(
    name: str, train: Labelled, test: Labelled, moments: tuple[float, float]
) -> Dataset:
    """Make a data set of square grey images of ten classes.

    Args:
        name: for people and tables.
        train: images, flattened row by row, and their labels.
        test: likewise.
        moments: mean and standard deviation of the training pixels / 255, rounded to 4 digits.
    """

    def split(images: np.ndarray, labels: np.ndarray) -> ImageSet:
        side = math.isqrt(images.shape[1])
        return ImageSet(images.reshape(-1, 1, side, side), labels, moments[:1], moments[1:])

    return Dataset(name, split(*train), split(*test), num_classes=10)
