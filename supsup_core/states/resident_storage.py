"""Memory on a GPU for packed rows of states, and for their unpacked bits."""

import numpy as np
import torch
from torch import Tensor

from supsup_core.kernels.gpu.choose import packed_kernels
from supsup_core.kernels.gpu.memory import free_bytes

# Matrix products are fast only if the numbers of rows are multiples of 8.
ROWS_TOGETHER = 64
# Unpacked bits may take this fraction of the free memory. Inference and other actors of the same
# GPU need the rest.
_UNPACKED_SHARE = 0.25


class Storage:
    """Memory on a device for packed rows and, if they fit, for their unpacked bits.

    Args:
        row_bytes: R, the number of bytes of a row.
        capacity: the number of rows for which there must be memory.
        device: the device.
        unpacked_bytes: the largest size of the unpacked bits. If None, a fraction of the device's
            free memory, or 0 on the CPU.

    Attributes:
        rows: (capacity, R) the packed rows. Rows that are not yet stored are zero.
        bits: (capacity, F) the unpacked bits; None if they do not fit.
        dtype: the type of unpacked bits.
        num_rows: number of rows that are stored.
    """

    def __init__(
        self, row_bytes: int, capacity: int, device: torch.device, unpacked_bytes: int | None
    ) -> None:
        capacity = -(-capacity // ROWS_TOGETHER) * ROWS_TOGETHER
        self.dtype = type_of_bits(device)
        self.num_rows, self._device = 0, device
        self.rows = torch.zeros((capacity, row_bytes), dtype=torch.uint8, device=device)
        if unpacked_bytes is None:
            on_cpu = device.type == "cpu"
            unpacked_bytes = 0 if on_cpu else int(_UNPACKED_SHARE * free_bytes(device))
        shape = capacity, 8 * row_bytes
        fits = self.dtype.itemsize * shape[0] * shape[1] <= unpacked_bytes
        self.bits = torch.zeros(shape, dtype=self.dtype, device=device) if fits else None

    @property
    def capacity(self) -> int:
        """Number of rows for which there is memory."""
        return len(self.rows)

    def append(self, rows: np.ndarray | Tensor) -> None:
        """Store more packed rows, and their unpacked bits."""
        if isinstance(rows, np.ndarray):
            # Arrays from another process may be read-only, and torch warns about such arrays.
            rows = torch.from_numpy(rows if rows.flags.writeable else rows.copy())
        where = slice(self.num_rows, self.num_rows + len(rows))
        if len(rows):
            self.rows[where].copy_(rows)
            if self.bits is not None:
                packed_kernels(self._device).unpack(self.rows[where], self.bits[where])
        self.num_rows = where.stop


def storage_bytes(row_bytes: int, num_rows: int) -> int:
    """Compute the bytes of packed rows and of their unpacked bits in bfloat16.

    Args:
        row_bytes: R, the number of bytes of a row.
        num_rows: the number of rows.
    """
    capacity = -(-num_rows // ROWS_TOGETHER) * ROWS_TOGETHER
    return capacity * row_bytes * (1 + 8 * torch.bfloat16.itemsize)


def type_of_bits(device: torch.device) -> torch.dtype:
    """Return bfloat16 for a GPU that can multiply bfloat16, and float32 for other devices.

    A CUDA GPU needs compute capability 8.0 or higher.
    """
    old = device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0)
    return torch.float32 if device.type == "cpu" or old else torch.bfloat16
