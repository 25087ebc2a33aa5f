"""The mean of the values that a mask keeps, on the CPU, in one pass over memory."""

from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from supsup_core.kernels.bfloat16 import as_stored, real
from supsup_core.kernels.compiled import compiled


def means_of_kept_plain(
    values: Float[Tensor, "B O I"], masked: Float[Tensor, "B O I"]
) -> Float64[Tensor, " B"]:
    """Compute the mean of the values where `masked` is not 0, for each of B tasks, with torch.

    The sums are in float64, so that the order of the additions hardly changes the result.
    """
    kept = masked != 0
    sums = torch.where(kept, values, 0).sum((1, 2), dtype=torch.float64)
    return sums / kept.sum((1, 2))


# The additions may be in any order, so that LLVM can add several values at a time.
@compiled(fastmath={"reassoc"})
@no_type_check
def _sum_of_kept(values, masked):  # pragma: no cover
    total, count = 0.0, 0
    for i in range(values.size):
        keeps = real(masked[i]) != 0
        total += np.float64(values[i]) if keeps else 0.0
        count += keeps
    return total, count


def means_of_kept(
    values: Float[Tensor, "B O I"], masked: Float[Tensor, "B O I"]
) -> Float64[Tensor, " B"]:
    """Compute the same means as `means_of_kept_plain`, on the CPU.

    The values and the masked values of each task must be contiguous.

    Raises:
        RuntimeError: the values of a task are not contiguous.
    """
    means = np.empty(len(values))
    for b, (own, its) in enumerate(zip(values, masked, strict=True)):
        total, count = _sum_of_kept(as_stored(own).reshape(-1), as_stored(its).reshape(-1))
        means[b] = total / count
    return torch.from_numpy(means)
