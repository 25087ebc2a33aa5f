"""Packed bits: transposed, multiplied with real vectors, or with planes of rounded ones.

Rounded to whole numbers of P bits, a real vector is cut into P bit planes, so that its
product with a row of bits is P times AND and popcount:

    <v, m> = -2^(P-1) popcount(b_(P-1) & m) + sum over p < P-1 of 2^p popcount(b_p & m)

Shape letters: T masks, W words of a transposed row, V 64-bit words of a packed row,
P planes, U units (rows of a weight matrix), I inputs of a unit, N chosen words.
"""

from typing import Any, no_type_check

import numba
import numpy as np
from numba.extending import intrinsic

from supsup_core.kernels.vectors import LANES, add_chosen, no_doubles, total


@intrinsic
@no_type_check  # Numba wants the function itself, not the wrapper that checks shapes in tests
def _popcount(typing_context: Any, word: Any) -> Any:
    """Ones of a word."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return word(word), generate


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
def add_exact_products(rows, tasks, values, firsts, products, start, end):  # pragma: no cover
    """Add <values, bits> of chosen masks in float64, bit by bit.

    Args:
        rows: uint64 (T, V), packed masks with a zero byte at their end.
        tasks: int64, which masks.
        values: float32 (U, I).
        firsts: int64 (U,), of each unit's bits in a row.
        products: float64 (len(tasks),), added to.
        start: first of the tasks.
        end: the one after the last.
    """
    num_inputs = values.shape[1]
    for t in range(start, end):
        row = rows[tasks[t]]
        # One sum for each bit of a byte, twice, so that additions need not wait for each other.
        even, odd, rest = no_doubles(), no_doubles(), 0.0
        for u in range(len(values)):
            value = values[u]
            for i in range(0, num_inputs, 64):
                bit = firsts[u] + i
                place, shift = bit >> 6, np.uint64(bit & 63)
                word = row[place] >> shift
                if shift:
                    word |= row[place + 1] << (np.uint64(64) - shift)
                count = min(64, num_inputs - i)
                j = i
                while j + 16 <= i + count:
                    even = add_chosen(even, value, j, np.uint8(word))
                    odd = add_chosen(odd, value, j + 8, np.uint8(word >> np.uint64(8)))
                    word >>= np.uint64(16)
                    j += 16
                while j < i + count:
                    rest += np.float64(value[j]) * np.int32(word & np.uint64(1))
                    word >>= np.uint64(1)
                    j += 1
        products[t] += total(even) + total(odd) + rest


@numba.njit(error_model="numpy", cache=True)
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
def plane_products(rows, words, planes, products, start, end):  # pragma: no cover
    """Multiply planes with masks as they are packed: for masks that are read only once.

    Args:
        rows: uint64 (T, V), packed masks.
        words: int64 (N,), which words the planes belong to.
        planes: uint64 (N, P).
        products: int64 (T,), written.
        start: first mask.
        end: the one after the last.
    """
    last = planes.shape[1] - 1
    for t in range(start, end):
        total = np.int64(0)
        for n in range(len(words)):
            word = rows[t, words[n]]
            value = -np.int64(_popcount(word & planes[n, last]))
            for p in range(last - 1, -1, -1):
                value = value + value + np.int64(_popcount(word & planes[n, p]))
            total += value
        products[t] = total
