"""Choose the form of the parts of a training step: Triton if it works on the device, else torch."""

import logging
from importlib.util import find_spec

import numpy as np
import torch

from supsup_core.training.resident.steps import PlainSteps

LOG = logging.getLogger(__name__)


def steps_for(device: torch.device, dtype: torch.dtype) -> PlainSteps:
    """Return the parts of a training step for a device and a type of the matrix products.

    Triton builds a small C program when a kernel is first used. So it needs a C compiler and the
    header files of Python. If a kernel cannot be built or run, a warning says so once, and the
    steps run with torch, which takes more time.
    """
    if device.type != "cuda" or dtype not in (torch.float32, torch.bfloat16):
        return PlainSteps()
    if not find_spec("triton"):
        LOG.warning("training must have Triton to be fast on a GPU, got none: pip install triton")
        return PlainSteps()
    from supsup_core.training.resident.triton_steps import TritonSteps

    steps = TritonSteps()
    try:
        steps.draw(np.zeros((1, 2), np.uint64), 1.0, None, torch.empty((1, 16, 16), device=device))
        torch.cuda.synchronize(device)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        LOG.warning(
            "training must be able to build Triton kernels to be fast on a GPU, got %s: install a "
            "C compiler and the headers of Python (Debian: build-essential python3-dev); "
            "training goes on with torch",
            reason,
        )
        return PlainSteps()
    return steps
