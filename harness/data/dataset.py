"""Data sets: training images and test images with labels.

Shape letters: N images, P pixels per image, C channels.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from supsup_core.data import ImageSet
from supsup_core.tasks.make import NO_CLASS

EVERY = 5  # every fifth image is a test image, if the source has no test images
MOST_CLASSES = NO_CLASS  # the store has labels of 16 bits, and one of these numbers for no class

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
        licence: the licence of the images, in a few words; "" if the loader does not know it.
    """

    name: str
    train: ImageSet
    test: ImageSet
    num_classes: int
    licence: str = ""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image: (channels, rows, columns), or (P,) if the data are vectors."""
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


def every_fifth(
    name: str, images: UInt8[np.ndarray, "N C H W"], labels: UInt8[np.ndarray, " N"], licence: str
) -> Dataset:
    """Make a data set in which every fifth image of each class is a test image.

    If images are equal, only the first is kept, so that no test image is also a training image.

    Args:
        name: name of the data set, for messages and tables.
        images: all images, in the order of the source files.
        labels: their classes. Each class has at least five different images.
        licence: the licence of the images.
    """
    _, first = np.unique(images.reshape(len(images), -1), axis=0, return_index=True)
    images, labels = images[np.sort(first)], labels[np.sort(first)]
    is_test = np.zeros(len(labels), dtype=bool)
    for number in range(labels.max() + 1):
        is_test[np.flatnonzero(labels == number)[EVERY - 1 :: EVERY]] = True
    mean, std = moments(in_parts(images[~is_test]))
    train, test = (ImageSet(images[s], labels[s], mean, std) for s in (~is_test, is_test))
    return Dataset(name, train, test, int(labels.max()) + 1, licence)


def moments(parts: Iterable[UInt8[np.ndarray, "N ..."]]) -> tuple[tuple[float, ...], ...]:
    """Compute mean and standard deviation of pixel / 255, for each channel.

    The sums are computed from whole numbers, so every machine finds the same values.

    Args:
        parts: the images in one or more parts: (N, C, rows, columns), or (N, P) vectors. All values
            of vectors count as one channel.

    Returns:
        The means and the standard deviations of the C channels. If all pixels of a channel are
        equal, the standard deviation of this channel is given as 1, because images are divided by
        it.
    """
    counts: list[np.ndarray] = []
    for part in parts:
        pixels = part if part.ndim == 4 else part[:, None]
        found = [
            np.bincount(pixels[:, channel].ravel(), minlength=256)
            for channel in range(pixels.shape[1])
        ]
        counts = [a + b for a, b in zip(counts, found, strict=True)] if counts else found
    values = np.arange(256)
    means, stds = [], []
    for count in counts:
        num, total, squares = (int((count * power).sum()) for power in (1, values, values**2))
        means.append(total / (255 * num))
        stds.append(math.sqrt(num * squares - total**2) / (255 * num) or 1.0)
    return tuple(means), tuple(stds)


def label_type(num_classes: int) -> type[np.unsignedinteger[Any]]:
    """Return the smallest type that can hold the labels of a number of classes."""
    return np.uint8 if num_classes <= 256 else np.uint16


def in_parts(images: np.ndarray) -> Iterable[np.ndarray]:
    """Split images into parts of at most 1,000 images, so that temporary arrays stay small."""
    return (images[start : start + 1000] for start in range(0, len(images), 1000))
