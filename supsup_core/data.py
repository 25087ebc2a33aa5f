"""Labelled images as training and inference read them, and the order of batches.

Shape letters: N images, P pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Integer, UInt8
from torch import Tensor

from supsup_core.streams import Role, stream


@dataclass(frozen=True, eq=False)  # == of arrays has no single truth value
class ImageSet:
    """Images and labels of one split of a data set.

    Attributes:
        images: 0 (black) to 255.
        labels: from 0.
        mean: of all pixels as fractions of 255, subtracted.
        std: of the same, divided by.
    """

    images: UInt8[np.ndarray, "N P"]
    labels: UInt8[np.ndarray, " N"]
    mean: float
    std: float

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise ValueError(
                f"as many labels as images expected, got {len(self.labels)} labels "
                f"for {len(self.images)} images"
            )


def normalise(pixels: UInt8[Tensor, "*shape"], mean: float, std: float) -> Float[Tensor, "*shape"]:
    """(pixel / 255 - mean) / std, as float32."""
    return pixels.to(torch.float32).mul_(1 / (255 * std)).sub_(mean / std)


def batches(
    seed: int, key: int, num_images: int, batch_size: int
) -> Iterator[Integer[np.ndarray, " N"]]:
    """Endless batches of indices, each epoch in an order of its own.

    The images that are left over at an epoch's end are dropped, so that every
    batch has one size; the next epoch's order drops others.

    Args:
        seed: of the run.
        key: which sequence: the first task of those that share the batches.
        num_images: to choose from.
        batch_size: N; all images where there are fewer.
    """
    size = min(batch_size, num_images)
    epoch = 0
    while True:
        order = stream(seed, Role.BATCHES, key, epoch).permutation(num_images)
        for start in range(0, num_images - size + 1, size):
            yield order[start : start + size]
        epoch += 1
