"""Packed bits: transposed, multiplied with real vectors, or with planes of rounded ones.

Rounded to whole numbers of P bits, a real vector is cut into P bit planes, so that its
product with a row of bits is P times AND and popcount:

    <v, m> = -2^(P-1) popcount(b_(P-1) & m) + sum over p < P-1 of 2^p popcount(b_p & m)

Shape letters: T masks, W words of a transposed row, V 64-bit words of a packed row,
P planes, U units (rows of a weight matrix), I inputs of a unit, N words of a packed row.
"""

from typing import no_type_check

import numba
import numpy as np

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


@numba.njit(error_model="numpy", cache=True)
@no_type_check
def _transpose_square(square):  # pragma: no cover
    """Transpose 64 words of 64 bits in place: swap ever smaller blocks across the diagonal."""
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


@numba.njit(error_model="numpy", cache=True, nogil=True)
@no_type_check
def transpose(rows, bits, start, end):  # pragma: no cover
    """Lay the bits of all masks side by side: a row for each bit of a packed row.

    Args:
        rows: uint64 (T, V), packed masks; V a multiple of LANES.
        bits: uint64 (64 V, W), 64 W >= T, written; beyond T zero.
        start: first LANES words of packed rows.
        end: the one after the last.
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


@numba.njit(error_model="numpy", cache=True, nogil=True)
@no_type_check
def _multiply(left, right, out):  # pragma: no cover
    for i in range(len(out)):
        out[i] = left[i] * right[i]


@numba.njit(error_model="numpy", cache=True, nogil=True)
@no_type_check
def lay_out(outer, weights, units, first, places, laid, count):  # pragma: no cover
    """Put a layer's values where its bits lie: 64 for each word of a packed row that has any.

    Args:
        outer: float32 (U, I); times the weights these are the values.
        weights: float32 (all units, I).
        units: int64 (U,), in order.
        first: where the layer's bits begin in a packed row, a multiple of 64.
        places: int64 (N,), which words; written from `count` on.
        laid: float32 (N, 64), written alike; zero where there is no value.
        count: words that there are already.

    Returns:
        the words that there are now.
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


@numba.njit(error_model="numpy", cache=True, nogil=True)
@no_type_check
def exact_products(rows, tasks, places, values, products, start, end):  # pragma: no cover
    """<values, bits> of chosen masks in float64, bit by bit.

    Args:
        rows: uint64 (T, V), packed masks.
        tasks: int64, which masks.
        places: int64 (N,), which words the values belong to.
        values: float32 (64 N,).
        products: float64 (len(tasks),), written.
        start: first of the tasks.
        end: the one after the last.
    """
    for t in range(start, end, 4):
        # Four masks at a time share the values, and none waits for its own last addition; for
        # want of four the last one again.
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


@numba.njit(error_model="numpy", cache=True, nogil=True)
@no_type_check
def cut_planes(values, inverse, planes):  # pragma: no cover
    """Cut rounded values into bit planes.

    Args:
        values: float32 (64 N,); times inverse they round to whole numbers of P bits.
        inverse: what they are multiplied by.
        planes: uint64 (N, P), written.
    """
    for n in range(len(planes)):
        planes[n] = 0
        for b in range(64):
            whole = np.int64(np.rint(values[64 * n + b] * inverse))
            for p in range(planes.shape[1]):
                planes[n, p] |= np.uint64((whole >> p) & 1) << np.uint64(b)


@numba.njit(error_model="numpy", cache=True, nogil=True)
@no_type_check
def plane_products(rows, num_words, lines, planes, products):  # pragma: no cover
    """Multiply planes with masks as they are packed: for masks that are read only once.

    Args:
        rows: uint64 (T V,), packed masks, one after another.
        num_words: V.
        lines: int64 (N,), which LANES words the planes belong to.
        planes: uint64 (N P LANES,), of each line the lowest plane first.
        products: int64 (T,), written.
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
