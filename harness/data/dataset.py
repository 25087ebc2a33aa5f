"""Data sets: training images and test images with labels.

Shape letters: N images, P pixels per image.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from supsup_core.data import ImageSet

Labelled = tuple[UInt8[np.ndarray, "N P"], UInt8[np.ndarray, " N"]]


@dataclass(frozen=True)
class Dataset:
    """Labelled images in the order of the source files (mnist5k is sorted by class).

    Attributes:
        name: name of the data set, for messages and tables.
        train: the training images.
        test: the test images. They are normalised with the mean and the standard deviation of the
            training images.
        num_classes: number of classes; labels count from 0.
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
        name: name of the data set, for messages and tables.
        train: training images, flattened row by row, and their labels.
        test: test images, flattened row by row, and their labels.
        moments: mean and standard deviation of the training pixels, after division by 255.
    """

    def split(images: np.ndarray, labels: np.ndarray) -> ImageSet:
        side = math.isqrt(images.shape[1])
        return ImageSet(images.reshape(-1, 1, side, side), labels, moments[:1], moments[1:])

    return Dataset(name, split(*train), split(*test), num_classes=10)
