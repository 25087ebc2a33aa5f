"""The memory of a GPU: how much is free, and what to do if there is too little."""

import warnings

import torch


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a CUDA GPU in bytes. For other devices, return 1 GiB."""
    if device.type != "cuda":
        return 2**30
    # PyTorch keeps memory that it has freed, and uses this memory again.
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def free_and_warn(wanted: str, then: str) -> None:
    """After an error of too little memory, return unused memory to the GPU, and warn.

    Call this function outside of the `except` clause. Inside, the frames of the error still hold
    memory.

    Args:
        wanted: the computation that did not fit, such as "512 queries".
        then: how the work continues.
    """
    torch.cuda.empty_cache()
    warnings.warn(
        f"the device must have memory for {wanted}, got too little: {then}; another program may "
        "use the same device",
        RuntimeWarning,
        stacklevel=3,
    )
