"""Triton kernels on packed rows: unpack bits, and multiply bits with real vectors.

packed_plain.py has the same functions in torch, and choose.py chooses one of the two modules. This
module imports Triton, so only choose.py and tests import it.

Shape letters: T states, Q queries, C candidate states of a query, R bytes, W 32-bit words and
F = 8 R bits of a packed row, L limbs, N chunks of a row, K images of a query, O outputs and I
inputs of a layer.
"""

from collections.abc import Sequence
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float32, Float64, Int64, UInt8
from torch import Tensor

from supsup_core.kernels.gpu.packed_plain import LaidOut, Layer, decidable

# Sizes of the tiles of the kernels. The sizes must be powers of two.
_UNPACK_BYTES = 512
_DOT_ROWS, _DOT_WORDS = 16, 64
_EXACT_CANDIDATES, _EXACT_BYTES = 8, 64
_LIMB_VALUES = _LAID_VALUES = 1024
# How many tiles of a row one program adds up. The sums of different programs are stored separately
# and added at the end, always in the same order. So equal rows have equal products.
_DOT_TILES, _EXACT_TILES = 4, 32
# Whether a product and a sum may be rounded together. Evidence must be rounded as on the CPU.
_FUSED = False
# These numbers differ between checkpoints and between batches of queries. Triton would compile a
# kernel again if one of them were 1 or a multiple of 16.
_VARY = ["num_rows", "num_queries", "num_candidates"]


@triton.jit
@no_type_check
def unpack_kernel(rows, out, num_bytes, BLOCK: tl.constexpr):  # pragma: no cover
    """Write the bits of a part of a packed row as zeros and ones.

    Args:
        rows: uint8 (T, R), T packed rows of R bytes.
        out: (T, 8 R) output of any type of floats.
        num_bytes: R.
        BLOCK: number of bytes that a program unpacks.
    """
    row = tl.program_id(0).to(tl.int64) * num_bytes
    byte = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    bit = tl.arange(0, 8)
    is_inside = byte < num_bytes
    packed = tl.load(rows + row + byte, mask=is_inside, other=0).to(tl.int32)
    values = tl.where(((packed[:, None] >> bit[None, :]) & 1) != 0, 1.0, 0.0)
    places = 8 * (row + byte)[:, None] + bit[None, :]
    tl.store(out + places, values.to(out.dtype.element_ty), mask=is_inside[:, None])


@triton.jit
@no_type_check
def limbs_kernel(
    vectors, out, num_values, NUM_LIMBS: tl.constexpr, BLOCK: tl.constexpr
):  # pragma: no cover
    """Split each float32 value into limbs: numbers of a shorter type whose sum is about the value.

    Args:
        vectors: float32 (num_values,) values.
        out: (L, num_values) output of a shorter type of floats.
        num_values: number of values.
        NUM_LIMBS: L, the number of limbs of a value.
        BLOCK: number of values that a program splits.
    """
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    is_inside = i < num_values
    rest, place = tl.load(vectors + i, mask=is_inside, other=0.0), out + i
    for _ in tl.static_range(NUM_LIMBS):
        rounded = rest.to(out.dtype.element_ty)
        tl.store(place, rounded, mask=is_inside)
        rest -= rounded.to(tl.float32)
        place += num_values


@triton.jit(do_not_specialize=_VARY)
@no_type_check
def lay_out_kernel(
    deltas,
    received,
    weights,
    flat,
    limbs,
    sums,
    num_queries,
    num_outputs,
    num_inputs,
    num_bits,
    first,
    end,
    first_block,
    num_blocks,
    NUM_IMAGES: tl.constexpr,
    NUM_LIMBS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # pragma: no cover
    """Compute the evidence of one layer in the order of the bits of a packed row.

    Args:
        deltas: float32 (Q, K, O), for Q queries of K images: derivatives of the objective with
            respect to the pre-activations of the layer's O outputs.
        received: float32 (Q, K, I), the layer's I inputs.
        weights: float32 (O, I), the layer's fixed weights.
        flat: float32 (Q, F) output. The bits from `first` to `end` - 1 are written.
        limbs: (L, Q, F) output of a shorter type of floats. The sum of the L limbs is about `flat`.
        sums: float32 (Q, num_blocks) output: the sum of absolute values of each block.
        num_queries: Q.
        num_outputs: O.
        num_inputs: I.
        num_bits: F, the number of bits of a packed row.
        first: index of the layer's first bit.
        end: index after the last bit to write. Bits after the layer's bits get zeros.
        first_block: index of the layer's first block in `sums`.
        num_blocks: number of blocks of all layers.
        NUM_IMAGES: K.
        NUM_LIMBS: L. If 0, `limbs` is not written.
        BLOCK: number of bits of a block.
    """
    query, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    n = block * BLOCK + tl.arange(0, BLOCK)
    is_value = n < num_outputs * num_inputs
    output, column = n // num_inputs, n % num_inputs
    value = tl.zeros((BLOCK,), tl.float32)
    for image in range(NUM_IMAGES):
        row = query * NUM_IMAGES + image
        delta = tl.load(deltas + row * num_outputs + output, mask=is_value, other=0.0)
        value += delta * tl.load(received + row * num_inputs + column, mask=is_value, other=0.0)
    value *= tl.load(weights + n, mask=is_value, other=0.0)
    is_bit = n < end - first
    place = query * num_bits + first + n
    tl.store(flat + place, value, mask=is_bit)
    tl.store(sums + query * num_blocks + first_block + block, tl.sum(tl.abs(value), axis=0))
    limb_place = limbs + place
    for _ in tl.static_range(NUM_LIMBS):
        rounded = value.to(limbs.dtype.element_ty)
        tl.store(limb_place, rounded, mask=is_bit)
        value -= rounded.to(tl.float32)
        limb_place += num_queries.to(tl.int64) * num_bits


@triton.jit(do_not_specialize=_VARY)
@no_type_check
def packed_dot_kernel(
    words,
    values,
    sums,
    num_rows,
    num_words,
    num_queries,
    TILES: tl.constexpr,
    ROWS: tl.constexpr,
    WORDS: tl.constexpr,
):  # pragma: no cover
    """Multiply some packed rows and a part of a query's vector. Bits are unpacked in registers.

    Args:
        words: int32 (T, W), the packed rows.
        values: float32 (Q, 32, W): the value of bit b of word w is values[query, b, w].
        sums: float32 (N, Q, T) output, for N parts of a row: the sum of the values of the bits that
            are one.
        num_rows: T.
        num_words: W.
        num_queries: Q.
        TILES: number of tiles of words that a program adds up.
        ROWS: number of rows of a program.
        WORDS: number of words of a tile.
    """
    task = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    chunk, query = tl.program_id(1), tl.program_id(2)
    is_row = task < num_rows
    row = words + task[:, None].to(tl.int64) * num_words
    own = values + query.to(tl.int64) * 32 * num_words
    total = tl.zeros((ROWS, WORDS), tl.float32)
    for tile in range(TILES):
        place = (chunk * TILES + tile) * WORDS + tl.arange(0, WORDS)
        is_word = place < num_words
        word = tl.load(row + place[None, :], mask=is_row[:, None] & is_word[None, :], other=0)
        for bit in tl.static_range(32):
            value = tl.load(own + bit * num_words + place, mask=is_word, other=0.0)
            total += tl.where(((word >> bit) & 1) != 0, value[None, :], 0.0)
    out = sums + (chunk.to(tl.int64) * num_queries + query) * num_rows + task
    tl.store(out, tl.sum(total, axis=1), mask=is_row)


@triton.jit(do_not_specialize=_VARY)
@no_type_check
def exact_kernel(
    rows,
    vectors,
    tasks,
    counts,
    sums,
    num_bytes,
    num_queries,
    num_candidates,
    TILES: tl.constexpr,
    CANDIDATES: tl.constexpr,
    BYTES: tl.constexpr,
):  # pragma: no cover
    """Multiply the rows of a query's candidates and a part of the query's vector, in float64.

    Args:
        rows: uint8 (T, R), the packed rows.
        vectors: float32 (Q, F), one value per bit of a row.
        tasks: int64 (Q, C), row indices of the candidates. Negative numbers stand for no candidate.
        counts: int64 (Q,), number of candidates of each query.
        sums: float64 (N, Q, C) output, for N parts of a row: the sum of the values of the bits that
            are one.
        num_bytes: R.
        num_queries: Q.
        num_candidates: C.
        TILES: number of tiles of bytes that a program adds up.
        CANDIDATES: number of candidates of a program.
        BYTES: number of bytes of a tile.
    """
    query, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    candidate = tl.program_id(2) * CANDIDATES + tl.arange(0, CANDIDATES)
    is_candidate = candidate < num_candidates
    task = tl.load(tasks + query * num_candidates + candidate, mask=is_candidate, other=0)
    row = rows + tl.maximum(task, 0) * num_bytes
    # A query with only one candidate needs no product. Nearly all queries have only one candidate.
    num_tiles = tl.where(tl.load(counts + query) > 1, TILES, 0)
    bit = tl.arange(0, 8)
    total = tl.zeros((CANDIDATES, BYTES, 8), tl.float64)
    for tile in range(num_tiles):
        byte = (chunk * TILES + tile) * BYTES + tl.arange(0, BYTES)
        is_byte = byte < num_bytes
        at = vectors + query * 8 * num_bytes + 8 * byte[:, None] + bit[None, :]
        value = tl.load(at, mask=is_byte[:, None], other=0.0).to(tl.float64)
        packed = tl.load(row[:, None] + byte[None, :], mask=is_byte[None, :], other=0).to(tl.int32)
        is_one = ((packed[:, :, None] >> bit[None, None, :]) & 1) != 0
        total += tl.where(is_one, value[None, :, :], 0.0)
    summed = tl.sum(tl.sum(total, axis=2), axis=1)
    out = sums + (chunk * num_queries + query) * num_candidates + candidate
    tl.store(out, summed, mask=is_candidate)


def unpack(rows: UInt8[Tensor, "T R"], out: Tensor) -> None:
    """Write the bits of packed rows into `out` (T, F); see packed_plain.unpack."""
    num_rows, num_bytes = rows.shape
    grid = (num_rows, triton.cdiv(num_bytes, _UNPACK_BYTES))
    unpack_kernel[grid](rows, out, num_bytes, BLOCK=_UNPACK_BYTES, enable_fp_fusion=_FUSED)


def limbs(vectors: Float32[Tensor, "Q F"], num_limbs: int, dtype: torch.dtype) -> Tensor:
    """Split vectors into limbs (L, Q, F); see packed_plain.limbs."""
    vectors = vectors.contiguous()
    out = vectors.new_empty((num_limbs, *vectors.shape), dtype=dtype)
    grid = (triton.cdiv(vectors.numel(), _LIMB_VALUES),)
    limbs_kernel[grid](
        vectors,
        out,
        vectors.numel(),
        NUM_LIMBS=num_limbs,
        BLOCK=_LIMB_VALUES,
        enable_fp_fusion=_FUSED,
    )
    return out


def lay_out(layers: Sequence[Layer], num_bits: int, num_limbs: int, dtype: torch.dtype) -> LaidOut:
    """Compute evidence in the order of the bits of a packed row; see packed_plain.lay_out."""
    num_queries, num_images = layers[0].deltas.shape[:2]
    flat = layers[0].deltas.new_empty((num_queries, num_bits))
    limbs = flat.new_empty((num_limbs, num_queries, num_bits), dtype=dtype)
    ends = [*(layer.first for layer in layers[1:]), num_bits]
    counts = [
        triton.cdiv(end - layer.first, _LAID_VALUES)
        for layer, end in zip(layers, ends, strict=True)
    ]
    sums = flat.new_empty((num_queries, sum(counts)))
    for i, (layer, end) in enumerate(zip(layers, ends, strict=True)):
        num_outputs, num_inputs = layer.weights.shape
        lay_out_kernel[(num_queries, counts[i])](
            *(layer.deltas.contiguous(), layer.received.contiguous(), layer.weights.contiguous()),
            *(flat, limbs, sums, num_queries, num_outputs, num_inputs),
            *(num_bits, layer.first, end, sum(counts[:i]), sum(counts)),
            NUM_IMAGES=num_images,
            NUM_LIMBS=num_limbs,
            BLOCK=_LAID_VALUES,
            enable_fp_fusion=_FUSED,
        )
    return LaidOut(flat, limbs, sums.sum(dim=1))


def packed_dot(
    rows: UInt8[Tensor, "T R"], vectors: Float32[Tensor, "Q F"]
) -> Float32[Tensor, "Q T"]:
    """Multiply each packed row with each vector, in float32; see packed_plain.packed_dot."""
    words = rows.view(torch.int32)
    (num_rows, num_words), num_queries = words.shape, len(vectors)
    # A program reads the values of one bit of successive words, so these values must be successive.
    values = vectors.unflatten(1, (num_words, 32)).transpose(1, 2).contiguous()
    num_chunks = triton.cdiv(num_words, _DOT_TILES * _DOT_WORDS)
    sums = vectors.new_empty((num_chunks, num_queries, num_rows))
    packed_dot_kernel[(triton.cdiv(num_rows, _DOT_ROWS), num_chunks, num_queries)](
        *(words, values, sums, num_rows, num_words, num_queries),
        TILES=_DOT_TILES,
        ROWS=_DOT_ROWS,
        WORDS=_DOT_WORDS,
        enable_fp_fusion=_FUSED,
    )
    return sums.sum(dim=0)


def exact_products(
    rows: UInt8[Tensor, "T R"], vectors: Float32[Tensor, "Q F"], tasks: Int64[Tensor, "Q C"]
) -> Float64[Tensor, "Q C"]:
    """Multiply the rows of each query's candidates in float64; see packed_plain.exact_products."""
    num_bytes, (num_queries, num_candidates) = rows.shape[1], tasks.shape
    num_chunks = triton.cdiv(num_bytes, _EXACT_TILES * _EXACT_BYTES)
    shape = num_chunks, num_queries, num_candidates
    sums = torch.empty(shape, dtype=torch.float64, device=rows.device)
    exact_kernel[(num_queries, num_chunks, triton.cdiv(num_candidates, _EXACT_CANDIDATES))](
        *(rows, vectors.contiguous(), tasks.contiguous(), (tasks >= 0).sum(dim=1), sums),
        *(num_bytes, num_queries, num_candidates),
        TILES=_EXACT_TILES,
        CANDIDATES=_EXACT_CANDIDATES,
        BYTES=_EXACT_BYTES,
        enable_fp_fusion=_FUSED,
    )
    return decidable(sums.sum(dim=0), tasks)
