"""Labelled images as training and inference read them, and the order of batches.

An image has any shape; where it has channels, they come first. Shape letters: N images,
C channels.
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
        images: (N, *shape), from 0 (black) to 255.
        labels: class of each image, from 0.
        mean: mean of the pixels as fractions of 255, which is subtracted; one of all, or one of
            each channel.
        std: standard deviation of the same, which is divided by.
    """

    images: UInt8[np.ndarray, "N ..."]
    labels: UInt8[np.ndarray, " N"]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise ValueError(
                f"as many labels as images expected, got {len(self.labels)} labels "
                f"for {len(self.images)} images"
            )
        if not len(self.mean) == len(self.std) in (1, self.channels):
            raise ValueError(
                f"one mean and std expected, or one for each of {self.channels} channels, "
                f"got {len(self.mean)} and {len(self.std)}"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return self.images.shape[1:]

    @property
    def channels(self) -> int:
        """Number of channels; 1 where an image has rows and columns alone, or is flat."""
        return self.shape[0] if len(self.shape) > 2 else 1

    @property
    def flat(self) -> UInt8[np.ndarray, "N P"]:
        """The images, their values in C order."""
        return self.images.reshape(len(self.images), -1)


def normalise(
    pixels: UInt8[Tensor, "*shape"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Tensor, "*shape"]:
    """(pixel / 255 - mean) / std, as float32.

    Args:
        pixels: with channels third from last, if there are several means.
        mean: one, or one of each channel.
        std: as many.
    """
    found = pixels.to(torch.float32)
    if len(mean) == 1:
        return found.mul_(1 / (255 * std[0])).sub_(mean[0] / std[0])
    means, stds = (torch.tensor(m, device=found.device).reshape(-1, 1, 1) for m in (mean, std))
    return found.mul_(1 / (255 * stds)).sub_(means / stds)


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
