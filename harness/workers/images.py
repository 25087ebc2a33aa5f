"""Copies of images that torch can write to."""

from dataclasses import replace

from supsup_core.data import ImageSet


def own(data: ImageSet) -> ImageSet:
    """Copy images and labels: arrays from Ray are read-only, and torch needs writable arrays."""
    return replace(data, images=data.images.copy(), labels=data.labels.copy())
