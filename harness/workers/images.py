"""Copies of images that torch can write to."""

from dataclasses import replace

import numpy as np

from supsup_core.data import ImageSet


def own(data: ImageSet) -> ImageSet:
    """Copy read-only images and labels, such as arrays from Ray: torch needs writable arrays.

    Images that are not in memory are not copied, because each reading makes a new array.
    """
    images = _writable(data.images) if isinstance(data.images, np.ndarray) else data.images
    return replace(data, images=images, labels=_writable(data.labels))


def _writable(array: np.ndarray) -> np.ndarray:
    return array if array.flags.writeable else array.copy()
