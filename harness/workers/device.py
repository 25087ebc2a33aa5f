"""The device of a worker, and copies of images that torch can write to."""

from dataclasses import replace

import torch

from supsup_core.data import ImageSet


def own(data: ImageSet) -> ImageSet:
    """Copy images and labels: arrays from Ray are read-only, and torch needs writable arrays."""
    return replace(data, images=data.images.copy(), labels=data.labels.copy())


def pick_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """Return the name of a device for the tables: "cpu", or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
