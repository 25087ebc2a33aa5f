"""The functions of packed.py in torch. They work on packed rows, on any device.

Shape letters: T states, Q queries, C candidate states of a query, R bytes and F = 8 R bits of a
packed row, L limbs, K images of a query, O outputs and I inputs of a layer.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Float32, Float64, Int64, UInt8
from torch import Tensor

# Number of bits that are unpacked at a time to multiply them. In float64, they take 32 MB.
_BITS_AT_ONCE = 2**22


def unpack(rows: UInt8[Tensor, "T R"], out: Tensor) -> None:
    """Write the bits of packed rows as zeros and ones, the lowest bit of a byte first.

    Args:
        rows: (T, R) packed rows.
        out: (T, F) output, of any type of floats.
    """
    shifts = torch.arange(8, dtype=torch.uint8, device=rows.device)
    bits = rows[:, :, None].bitwise_right_shift(shifts).bitwise_and_(1)
    out.copy_(bits.flatten(1))


def limbs(vectors: Float32[Tensor, "Q F"], num_limbs: int, dtype: torch.dtype) -> Tensor:
    """Split each float32 value into limbs: bfloat16 numbers whose sum is about the value.

    The first limb is the value, rounded to bfloat16. Each later limb is the rest that the limbs
    before it leave, rounded to bfloat16. Three limbs have all 24 binary digits of a float32. Two
    limbs leave a rest of at most 2^-18 of the value.

    Args:
        vectors: (Q, F) the values.
        num_limbs: L, the number of limbs.
        dtype: the type of the result, which may have more digits than bfloat16.

    Returns:
        (L, Q, F) limbs, the largest first.
    """
    found, rest = vectors.new_empty((num_limbs, *vectors.shape), dtype=dtype), vectors
    for limb in found:
        rounded = rest.to(torch.bfloat16)
        limb.copy_(rounded)
        rest = rest - rounded
    return found


class Layer(NamedTuple):
    """The evidence of Q queries in one layer, as factors.

    Attributes:
        deltas: (Q, K, O) derivatives of the objective with respect to the pre-activations of the
            layer's O outputs, for K images per query.
        received: (Q, K, I) the layer's I inputs.
        weights: (O, I) the layer's weights.
        first: index of the layer's first bit in a packed row.
    """

    deltas: Float32[Tensor, "Q K O"]
    received: Float32[Tensor, "Q K I"]
    weights: Float32[Tensor, "O I"]
    first: int


class LaidOut(NamedTuple):
    """One vector per query, with one value per bit of a packed row.

    Attributes:
        flat: (Q, F) the vectors of Q queries, for packed rows of F bits.
        limbs: (L, Q, F) the L limbs of each value; see the function `limbs`.
        absolute: (Q,) for each vector, the sum of the absolute values.
    """

    flat: Float32[Tensor, "Q F"]
    limbs: Float[Tensor, "L Q F"]
    absolute: Float32[Tensor, " Q"]


def lay_out(layers: Sequence[Layer], num_bits: int, num_limbs: int, dtype: torch.dtype) -> LaidOut:
    """Compute the evidence of queries in the order of the bits of a packed row.

    The evidence of a layer is (deltas^T @ received) * weights; see bits/evidence.py.

    Args:
        layers: the layers in the order of their bits.
        num_bits: F, the number of bits of a row. Bits that belong to no layer get zeros.
        num_limbs: L, the number of limbs; 0 if no limbs are needed.
        dtype: the type of the limbs.
    """
    flat = layers[0].deltas.new_zeros((len(layers[0].deltas), num_bits))
    for deltas, received, weights, first in layers:
        out = flat[:, first : first + weights.numel()].unflatten(1, weights.shape)
        # A matrix product may be rounded differently from the product of two numbers.
        is_one = deltas.shape[1] == 1
        outer = deltas.mT * received if is_one else deltas.mT @ received
        torch.mul(outer, weights, out=out)
    return LaidOut(flat, limbs(flat, num_limbs, dtype), flat.abs().sum(dim=1))


def packed_dot(
    rows: UInt8[Tensor, "T R"], vectors: Float32[Tensor, "Q F"]
) -> Float32[Tensor, "Q T"]:
    """Multiply each packed row with each vector, in float32.

    Args:
        rows: (T, R) packed rows.
        vectors: (Q, F) one value per bit of a row.

    Returns:
        (Q, T) for each vector and row, the sum of the values of the bits that are one.
    """
    at_once = max(1, _BITS_AT_ONCE // vectors.shape[1])
    found = []
    for some in rows.split(at_once):
        bits = vectors.new_empty((len(some), vectors.shape[1]))
        unpack(some, bits)
        found.append(vectors @ bits.t())
    return torch.cat(found, dim=1)


def exact_products(
    rows: UInt8[Tensor, "T R"], vectors: Float32[Tensor, "Q F"], tasks: Int64[Tensor, "Q C"]
) -> Float64[Tensor, "Q C"]:
    """Multiply each query's vector with the rows of the query's candidates, in float64.

    Equal rows have exactly equal products, because all rows are summed in the same order. A matrix
    product does not have this property.

    Args:
        rows: (T, R) packed rows.
        vectors: (Q, F) one value per bit of a row.
        tasks: (Q, C) row indices of the candidates. A negative number stands for no candidate.

    Returns:
        (Q, C) for each candidate, the sum of the values of the bits that are one. An entry without
        a candidate is infinity. If a query has only one candidate, its product is not needed, and
        the entry is 0.
    """
    num_queries, num_candidates = tasks.shape
    num_bits, flat = vectors.shape[1], tasks.clamp_min(0).flatten()
    found = []
    for places in torch.arange(len(flat)).split(max(1, _BITS_AT_ONCE // num_bits)):
        first, end = int(places[0]), int(places[-1]) + 1
        chosen = rows.index_select(0, flat[first:end])
        bits = torch.empty((end - first, num_bits), dtype=torch.float64, device=rows.device)
        unpack(chosen, bits)
        query = torch.arange(first, end, device=rows.device) // num_candidates
        found.append(bits.mul_(vectors.index_select(0, query)).sum(dim=1))
    return decidable(torch.cat(found).unflatten(0, (num_queries, num_candidates)), tasks)


def decidable(
    products: Float64[Tensor, "Q C"], tasks: Int64[Tensor, "Q C"]
) -> Float64[Tensor, "Q C"]:
    """Set the entries without a candidate (a negative task) to infinity.

    If a query has only one candidate, set the candidate's product to 0.
    """
    is_candidate = tasks >= 0
    needed = is_candidate.sum(dim=1, keepdim=True) > 1
    return torch.where(is_candidate, products * needed, torch.inf)
