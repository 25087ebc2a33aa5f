"""Copies of images that torch can write to."""

from dataclasses import replace

import numpy as np

from supsup_core.data import ImageSet


def own(data: ImageSet) -> ImageSet:
    """Copy images and labels: arrays from Ray are read-only, and torch needs writable arrays.

    Images that are not in memory are not copied: a new array is made whenever some are read.
    """
    images = np.array(data.images) if isinstance(data.images, np.ndarray) else data.images
    return replace(data, images=images, labels=data.labels.copy())
