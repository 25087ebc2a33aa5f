"""Labelled images for training and inference, and the order of the images in batches.

An image may have any shape. If an image has channels, they are its first axis. Shape letters:
N images, P values of an image, C channels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Integer, UInt, UInt8
from torch import Tensor

from supsup_core.streams import Role, stream


@runtime_checkable  # lets tests check annotations at run time
class Images(Protocol):
    """Images (N, *shape) of uint8: an array, or an object that reads images when it is indexed."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, *shape): the number of images, and the shape of one image."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of a pixel, which must be uint8."""
        ...

    def __len__(self) -> int:
        """N, the number of images."""
        ...

    def __getitem__(self, index: Any, /) -> Any:
        """Return the images of an index array of any shape, or of a slice, as an array of uint8."""
        ...


@dataclass(frozen=True, eq=False)  # == of arrays has no single truth value
class ImageSet:
    """Images and labels of one split of a data set.

    Attributes:
        images: (N, *shape) pixel values, from 0 (black) to 255.
        labels: (N,) the class of each image, a number from 0, in any unsigned type.
        mean: mean of pixel / 255: one value for all channels, or one value per channel.
            `normalise` subtracts the mean.
        std: standard deviation of pixel / 255, with as many values as `mean`. `normalise` divides
            by the standard deviation.

    Raises:
        ValueError: pixels have another type than uint8, or the numbers of images and labels, or of
            channels and moments, do not fit each other.
    """

    images: Images
    labels: UInt[np.ndarray, " N"]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8:
            raise ValueError(
                f"images must have pixels of uint8, got {self.images.dtype}: convert the pixels to "
                "whole numbers from 0 to 255"
            )
        if len(self.images) != len(self.labels):
            raise ValueError(
                f"labels must have one entry per image, got {len(self.labels)} labels "
                f"for {len(self.images)} images: give every image one label"
            )
        if not len(self.mean) == len(self.std) in (1, self.channels):
            raise ValueError(
                f"mean and std must each have 1 value, or one per channel ({self.channels}), "
                f"got {len(self.mean)} values of mean and {len(self.std)} values of std"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return self.images.shape[1:]

    @property
    def channels(self) -> int:
        """Number of channels; 1 if an image has only one or two axes."""
        return self.shape[0] if len(self.shape) > 2 else 1

    @property
    def in_memory(self) -> bool:
        """Whether `images` is an array. Otherwise, images are read when they are indexed."""
        return isinstance(self.images, np.ndarray)

    @property
    def flat(self) -> UInt8[np.ndarray, "N P"]:
        """(N, P) the images as vectors of P values, in C order.

        Raises:
            ValueError: the images are not in memory.
        """
        if not isinstance(self.images, np.ndarray):
            raise ValueError(
                f"images must be in memory, got {len(self.images)} images that are read from files "
                "when they are used: use fewer or smaller images"
            )
        return self.images.reshape(len(self.images), -1)


def normalise(
    pixels: UInt8[Tensor, "*shape"], mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Tensor, "*shape"]:
    """Compute (pixel / 255 - mean) / std, as float32.

    Args:
        pixels: pixel values from 0 to 255. If `mean` has one value per channel, the channels must
            be the third axis from the end.
        mean: mean of pixel / 255: one value for all channels, or one value per channel.
        std: standard deviation of pixel / 255, with as many values as `mean`.
    """
    factor, offset = factor_and_offset(mean, std, pixels.device)
    return pixels.to(torch.float32).mul_(factor).sub_(offset)


def factor_and_offset(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor | float, Tensor | float]:
    """Return two values: `normalise` multiplies a pixel by the first and subtracts the second.

    Args:
        mean: as for `normalise`.
        std: as for `normalise`.
        device: the device of the pixels.

    Returns:
        Two numbers, or, with one value per channel, two tensors (C, 1, 1) on the device.
    """
    if len(mean) == 1:
        return 1 / (255 * std[0]), mean[0] / std[0]
    means, stds = (torch.tensor(m, device=device).reshape(-1, 1, 1) for m in (mean, std))
    return 1 / (255 * stds), means / stds


def batches(
    seed: int, key: int, num_images: int, batch_size: int
) -> Iterator[Integer[np.ndarray, " N"]]:
    """Yield batches of image indices without end.

    Every epoch (one pass over the images) has a new random order. At the end of an
    epoch, images that do not fill a batch are dropped, so that every batch has the
    same size. The next epoch drops other images. The authors of supermasks in
    superposition do not drop images: they also train on the last, smaller batch.

    Args:
        seed: the run's seed.
        key: a number that determines, with the seed, the sequence of batches. This is
            the number of a task. If several tasks share their batches, it is the
            number of the first of these tasks.
        num_images: number of images in the data set.
        batch_size: N, the number of images in a batch. If the data set has fewer
            images, a batch has all images.

    Yields:
        (N,) image indices, in [0, num_images).
    """
    size = min(batch_size, num_images)
    epoch = 0
    while True:
        order = stream(seed, Role.BATCHES, key, epoch).permutation(num_images)
        for start in range(0, num_images - size + 1, size):
            yield order[start : start + size]
        epoch += 1
