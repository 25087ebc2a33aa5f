"""Copies of images that torch can write to."""

from dataclasses import replace

import numpy as np

from supsup_core.data import ImageSet


def own(data: ImageSet) -> ImageSet:
    """Copy images and labels that are read-only, as arrays from Ray are: torch needs writable ones.

    Images that are not in memory are not copied: a new array is made whenever some are read.
    """
    images = _writable(data.images) if isinstance(data.images, np.ndarray) else data.images
    return replace(data, images=images, labels=_writable(data.labels))


def _writable(array: np.ndarray) -> np.ndarray:
    return array if array.flags.writeable else array.copy()
