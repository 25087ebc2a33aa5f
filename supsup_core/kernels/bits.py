"""Transpose packed bits, and multiply packed bits with real vectors or with bit planes.

If a real vector v is rounded to whole numbers of P bits, v can be cut into P bit planes b_p. The
product of v and a row of bits m then needs P times AND and popcount:

    <v, m> = -2^(P-1) popcount(b_(P-1) & m) + sum over p < P-1 of 2^p popcount(b_p & m)

Shape letters: T masks, W words of a transposed row, V 64-bit words of a packed row, P planes,
U units (rows of a weight matrix), I inputs of a unit, N words of a packed row that are not padding.
"""

from typing import no_type_check

import numpy as np

from supsup_core.kernels.compiled import compiled
from supsup_core.kernels.vectors import (
    LANES,
    add_chosen,
    load,
    load_doubles,
    no_doubles,
    popcount,
    spread,
    total,
    total_words,
)


@compiled()
@no_type_check
def _transpose_square(square):  # pragma: no cover
    """Transpose 64 words of 64 bits in place, as a square matrix of bits.

    Each pass swaps blocks across the diagonal: blocks of 32 by 32 bits, then 16 by 16, and so on.
    """
    shift, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    while shift:
        step = np.int64(shift)
        for k in range(0, 64, 2 * step):
            for i in range(k, k + step):
                swap = ((square[i] >> shift) ^ square[i + step]) & mask
                square[i] ^= swap << shift
                square[i + step] ^= swap
        shift >>= np.uint64(1)
        mask ^= mask << shift


@compiled(nogil=True)
@no_type_check
def transpose(rows, bits, start, end):  # pragma: no cover
    """Transpose packed masks: each bit position becomes a row with one bit per task.

    Args:
        rows: uint64 (T, V), the packed masks of T tasks. V is a multiple of LANES.
        bits: uint64 (64 V, W) output, with 64 W >= T. Bits after task T - 1 are set to zero.
        start: the words of a packed row are divided into groups of LANES words. `start` is the
            index of the first group to transpose.
        end: index after the last group to transpose.
    """
    square = np.empty(64, np.uint64)
    for line in range(start, end):
        for w in range(bits.shape[1]):
            num_tasks = min(64, len(rows) - 64 * w)
            for v in range(LANES * line, LANES * (line + 1)):
                for t in range(64):
                    square[t] = rows[64 * w + t, v] if t < num_tasks else np.uint64(0)
                _transpose_square(square)
                for b in range(64):
                    bits[64 * v + b, w] = square[b]


@compiled(nogil=True)
@no_type_check
def _multiply(left, right, out):  # pragma: no cover
    for i in range(len(out)):
        out[i] = left[i] * right[i]


@compiled(nogil=True)
@no_type_check
def lay_out(outer, weights, units, first, places, laid, count):  # pragma: no cover
    """Write the values of a layer's weights in the order of the bits of a packed row.

    A word of a packed row has 64 bits, so it gets 64 values. Words without values are left out. The
    value of a weight is the weight times its entry of `outer`.

    Args:
        outer: float32 (U, I) factors of the weights.
        weights: float32 (all units, I) weights of the layer.
        units: int64 (U,) indices of the units that have values, in ascending order.
        first: index of the layer's first bit in a packed row, a multiple of 64.
        places: int64 (N,) output: indices of the words, written from places[count] on.
        laid: float32 (N, 64) output: values of the words, written from laid[count] on. A bit
            without a value gets zero.
        count: number of words that earlier calls have written.

    Returns:
        Number of words that this call and earlier calls have written.
    """
    num_inputs = outer.shape[1]
    begun = count
    for u in range(len(units)):
        bit = first + num_inputs * units[u]
        i = 0
        while i < num_inputs:
            place, shift = bit >> 6, bit & 63
            if count == begun or places[count - 1] != place:
                places[count] = place
                laid[count] = 0
                count += 1
            number = min(64 - shift, num_inputs - i)
            _multiply(
                outer[u, i : i + number],
                weights[units[u], i : i + number],
                laid[count - 1, shift : shift + number],
            )
            i += number
            bit += number
    return count


@compiled(nogil=True)
@no_type_check
def exact_products(rows, tasks, places, values, products, start, end):  # pragma: no cover
    """For each chosen mask, sum the values of the bits that are one, in float64.

    Args:
        rows: uint64 (T, V), the packed masks of T tasks.
        tasks: int64 row indices of the chosen masks.
        places: int64 (N,) indices of the words of a packed row that have values.
        values: float32 (64 N,) values of the bits of these words.
        products: float64 (len(tasks),) output: one sum per chosen mask.
        start: index in `tasks` of the first mask to compute.
        end: index in `tasks` after the last mask to compute.
    """
    for t in range(start, end, 4):
        # Four masks are computed at a time. Values are then loaded once for four masks, and the
        # processor can add for one mask while an addition for another mask is not finished. If
        # fewer than four masks are left, the last mask is repeated.
        t1, t2, t3 = min(t + 1, end - 1), min(t + 2, end - 1), min(t + 3, end - 1)
        r0, r1, r2, r3 = rows[tasks[t]], rows[tasks[t1]], rows[tasks[t2]], rows[tasks[t3]]
        s0, s1, s2, s3 = no_doubles(), no_doubles(), no_doubles(), no_doubles()
        for n in range(len(places)):
            place = places[n]
            w0, w1, w2, w3 = r0[place], r1[place], r2[place], r3[place]
            for b in range(8):
                numbers = load_doubles(values, 64 * n + 8 * b)
                shift = np.uint64(8 * b)
                s0 = add_chosen(s0, numbers, np.uint8(w0 >> shift))
                s1 = add_chosen(s1, numbers, np.uint8(w1 >> shift))
                s2 = add_chosen(s2, numbers, np.uint8(w2 >> shift))
                s3 = add_chosen(s3, numbers, np.uint8(w3 >> shift))
        products[t], products[t1] = total(s0), total(s1)
        products[t2], products[t3] = total(s2), total(s3)


@compiled(nogil=True)
@no_type_check
def cut_planes(values, inverse, planes):  # pragma: no cover
    """Round values to whole numbers, and cut the whole numbers into bit planes.

    Args:
        values: float32 (64 N,) values.
        inverse: factor that multiplies the values before they are rounded. The whole numbers must
            fit into P bits (two's complement).
        planes: uint64 (N, P) output: P bit planes for each group of 64 values, lowest plane first.
    """
    for n in range(len(planes)):
        planes[n] = 0
        for b in range(64):
            whole = np.int64(np.rint(values[64 * n + b] * inverse))
            for p in range(planes.shape[1]):
                planes[n, p] |= np.uint64((whole >> p) & 1) << np.uint64(b)


@compiled(nogil=True)
@no_type_check
def plane_products(rows, num_words, lines, planes, products):  # pragma: no cover
    """Multiply packed masks with whole numbers, which are given as bit planes.

    Each bit position of a mask has a whole number. The product is the sum of the whole numbers of
    all positions at which the mask has a one.

    Args:
        rows: uint64 (T V,), the packed masks of T tasks, one after another.
        num_words: V, the number of words of a packed row.
        lines: int64 (N,) indices of the lines that have values. (A line is LANES words of a packed
            row.)
        planes: uint64 (N P LANES,), P bit planes of each line, lowest plane first.
        products: int64 (T,) output: the product of each mask.
    """
    num_planes = len(planes) // max(1, LANES * len(lines))
    for t in range(len(products)):
        sums = spread(np.uint64(0))
        for n in range(len(lines)):
            words = load(rows, t * num_words + LANES * lines[n])
            place = LANES * num_planes * n
            last = place + LANES * (num_planes - 1)
            value = spread(np.uint64(0)) - popcount(words & load(planes, last))
            for p in range(last - LANES, place - LANES, -LANES):
                value = value + value + popcount(words & load(planes, p))
            sums = sums + value
        products[t] = total_words(sums)
