"""Let the C library keep the memory of freed tensors for later tensors."""

import ctypes
from functools import cache

# Names and numbers of glibc's malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_LARGEST_KEPT = 32 * 2**20  # glibc allows no larger threshold
_MOST_KEPT = 2**31 - 1
_GROWN_BY = 64 * 2**20


@cache
def keep_freed_memory() -> None:
    """Keep the memory of freed tensors of up to 32 MiB in this process.

    glibc gives the memory of large arrays back to the kernel as soon as they are freed. The next
    tensor then gets new pages, which the kernel fills with zeros. A training step of a
    convolutional network makes and frees hundreds of large tensors. The setting applies to the
    whole process. Nothing happens if the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
        mallopt(_TRIM_THRESHOLD, _MOST_KEPT)
        mallopt(_TOP_PAD, _GROWN_BY)
