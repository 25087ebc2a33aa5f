"""Choose the form of the parts of a training step: Triton if it works on the device, else torch."""

import torch

from supsup_core.kernels.gpu.choose import triton_works
from supsup_core.training.resident.steps import PlainSteps


def steps_for(device: torch.device, dtype: torch.dtype) -> PlainSteps:
    """Return the parts of a training step for a device and a type of the matrix products."""
    if dtype not in (torch.float32, torch.bfloat16) or not triton_works(device):
        return PlainSteps()
    from supsup_core.training.resident.triton_steps import TritonSteps

    return TritonSteps()
