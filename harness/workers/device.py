"""The device of a worker, and arrays that torch may own."""

from dataclasses import replace

import torch

from supsup_core.data import ImageSet


def own(data: ImageSet) -> ImageSet:
    """Copy arrays that came read-only from Ray's object store: torch wants to own them."""
    return replace(data, images=data.images.copy(), labels=data.labels.copy())


def pick_device() -> torch.device:
    """A GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name(device: torch.device) -> str:
    """What the tables call a device: "cpu", or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
