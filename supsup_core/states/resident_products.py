"""Matrix products of vectors with bits of states, with sums in float32.

Shape letters: M vectors, C states, D successive bits of a row.
"""

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from supsup_core.states.resident_storage import ROWS_TOGETHER

# A matrix product sums over this many bits of a row. The sums are then added. Long sums of float32
# lose digits, and these short sums keep the errors of ResidentStates.products small.
SUMMED_BITS = 2048
# The short sums of a product, before they are added, take at most this many bytes.
_SUMS_BYTES = 2**31


def product(left: Tensor, right: Tensor) -> Float32[Tensor, "..."]:
    """Multiply two matrices, or two batches of matrices, with sums in float32."""
    multiply = torch.mm if left.dim() == 2 else torch.bmm
    if left.dtype == torch.float32:
        return multiply(left, right)
    return multiply(left, right, out_dtype=torch.float32)


def product_in_short_sums(
    limbs: Float[Tensor, "M D"], bits: Float[Tensor, "C D"]
) -> Float32[Tensor, "M C"]:
    """Multiply M limbs with the bits of C states.

    Sums of at most SUMMED_BITS products are computed first, and then added.
    """
    num_sums, rest = divmod(limbs.shape[1], SUMMED_BITS)
    row_bytes = 4 * max(1, num_sums) * len(limbs)
    at_once = max(1, _SUMS_BYTES // (row_bytes * ROWS_TOGETHER)) * ROWS_TOGETHER
    if len(bits) > at_once:
        parts = bits.split(at_once)
        return torch.cat([product_in_short_sums(limbs, part) for part in parts], dim=1)
    end = num_sums * SUMMED_BITS
    found = []
    if num_sums:
        shape = num_sums, SUMMED_BITS
        left = limbs[:, :end].unflatten(1, shape).transpose(0, 1)
        right = bits[:, :end].unflatten(1, shape).permute(1, 2, 0)
        found.append(product(left, right).sum(dim=0))
    if rest:
        found.append(product(limbs[:, end:], bits[:, end:].t()))
    return found[0] if len(found) == 1 else found[0].add_(found[1])


def summed(products: Float32[Tensor, "M _"], num_limbs: int) -> Float32[Tensor, "_ _"]:
    """Add the products of the limbs of each vector."""
    return products if num_limbs == 1 else products.unflatten(0, (num_limbs, -1)).sum(dim=0)
