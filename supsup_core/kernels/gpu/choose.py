"""Choose the kernels on packed rows for a device: Triton on a GPU that can run it, else torch."""

import warnings
from functools import cache
from importlib.util import find_spec
from types import ModuleType

import torch

from supsup_core.kernels.gpu import packed_plain


@cache
def packed_kernels(device: torch.device) -> ModuleType:
    """Return the module packed.py if its kernels work on a device, otherwise packed_plain.py.

    Triton compiles its kernels when they run for the first time. This needs a C compiler and the
    headers of Python, which a machine may lack. So one kernel is tried first.
    """
    if device.type != "cuda" or find_spec("triton") is None:
        return packed_plain
    rows = torch.arange(256, device=device).to(torch.uint8).view(4, 64)
    found, expected = torch.empty(2, 4, 512, dtype=torch.bfloat16, device=device)
    packed_plain.unpack(rows, expected)
    try:
        from supsup_core.kernels.gpu import packed

        packed.unpack(rows, found)
    except Exception as error:
        warnings.warn(
            f"Triton must compile a kernel, got {type(error).__name__}: {error}: inference uses "
            "slower kernels; install gcc and the headers of Python (Debian: python3-dev)",
            RuntimeWarning,
            stacklevel=2,
        )
        return packed_plain
    return packed if torch.equal(found, expected) else packed_plain
