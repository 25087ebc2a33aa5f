"""A data set: images of two splits, and what they are.

Shape letters: N images, P pixels per image (side * side).
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from supsup_core.data import ImageSet


@dataclass(frozen=True, eq=False)  # == of arrays has no single truth value
class Dataset:
    """Images and labels, in file order (mnist5k comes sorted by class)."""

    name: str
    train_images: UInt8[np.ndarray, "N P"]
    """Grey levels 0..255, flattened row by row."""
    train_labels: UInt8[np.ndarray, " N"]
    test_images: UInt8[np.ndarray, "M P"]
    test_labels: UInt8[np.ndarray, " M"]
    side: int
    """Pixels per side; P = side * side."""
    num_classes: int
    mean: float
    """Mean of the training pixels / 255, rounded to 4 digits."""
    std: float
    """Standard deviation of the training pixels / 255, likewise."""

    @property
    def train(self) -> ImageSet:
        """The training images, as supsup_core reads them."""
        return ImageSet(self.train_images, self.train_labels, self.mean, self.std)

    @property
    def test(self) -> ImageSet:
        """The test images, likewise."""
        return ImageSet(self.test_images, self.test_labels, self.mean, self.std)


def image_side(images: UInt8[np.ndarray, "N P"]) -> int:
    """Pixels of a side of square images."""
    return math.isqrt(images.shape[1])
