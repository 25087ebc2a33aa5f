"""Choose kernels for a device: Triton on a GPU that can run it, else torch."""

import warnings
from functools import cache
from importlib.util import find_spec
from types import ModuleType

import torch

from supsup_core.kernels.gpu import packed_plain


@cache
def triton_works(device: torch.device) -> bool:
    """Return whether kernels in Triton can be built and run on a device.

    Triton builds a small C program when a kernel runs for the first time. This needs a C compiler
    and the headers of Python, which a machine may lack. So one kernel is tried first. If this
    kernel fails, one warning gives the reason.
    """
    if device.type != "cuda":
        return False
    try:
        if find_spec("triton") is None:
            raise ModuleNotFoundError("no module named triton")
        from supsup_core.kernels.gpu import packed

        rows = torch.arange(256, device=device).to(torch.uint8).view(4, 64)
        found, expected = torch.empty(2, 4, 512, dtype=torch.float32, device=device)
        packed.unpack(rows, found)
        packed_plain.unpack(rows, expected)
        if not torch.equal(found, expected):
            raise ArithmeticError("a kernel that unpacks bits gave wrong values")
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        warnings.warn(
            f"a GPU must be able to run kernels in Triton to be fast, got {reason}: install triton "
            "and a C compiler with the headers of Python (Debian: build-essential python3-dev); "
            "until then, slower kernels in torch compute the same",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


def packed_kernels(device: torch.device) -> ModuleType:
    """Return the module packed.py if Triton works on a device, otherwise packed_plain.py."""
    if not triton_works(device):
        return packed_plain
    from supsup_core.kernels.gpu import packed

    return packed
