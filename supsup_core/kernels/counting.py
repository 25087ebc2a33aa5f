"""Sums of bit rows by carry-save adders: 512 sums at a time, few logic operations a row.

A full adder of three words adds three bits at each of 64 places: the sum stays in its
binary column, the carry goes to the next. Eight rows of bits go through a tree of seven
adders into the columns c, c + 1 and c + 2 of the sums, and leave one carry for column
c + 3; of two such carries one adder makes one for column c + 4, and so on. So every row
costs about one adder, five operations, whatever the sums come to.

A row that is worth a whole number goes into several columns: those of the number's
non-adjacent form, binary with digits 0, +1 and -1 of which two thirds are 0. For a digit
of -1 the row's complement is added and a constant is taken off in the end.

Shape letters: N rows of bits, W words of a row, C columns, U units, I inputs of a unit.
Source: Muła, Kurz & Lemire 2018, arXiv:1611.07612, for the tree of adders.
"""

from typing import Any, no_type_check

import numba
import numpy as np
from jaxtyping import UInt64

from supsup_core.kernels.vectors import LANES, load, lowest_one, prefetch, spread, store

NUM_COLUMNS = 56  # sums below 2**56
MAX_DIGITS = 26  # of a number in non-adjacent form: numbers up to 2**24
# Weights whose rows are added column by column before the next: they stay in the cache.
_BLOCK = 1024
_GROUP = 8  # rows of one tree
_TILE = 128  # words counted at a time, so that their columns stay in the first cache


class Sums:
    """Columns of sums that are being formed, W words of them: the state of the kernels.

    Args:
        num_words: W, a multiple of LANES.
    """

    def __init__(self, num_words: int) -> None:
        if num_words % LANES:
            raise ValueError(f"num_words must be a multiple of {LANES}, got {num_words}")
        self._held = np.zeros(NUM_COLUMNS, np.bool_)
        self._columns = np.zeros(NUM_COLUMNS * num_words, np.uint64)
        self._lists = np.empty((MAX_DIGITS, 2, _BLOCK + _GROUP), np.int32)
        self.state: tuple[Any, ...] = (
            self._columns,
            np.empty(NUM_COLUMNS * num_words, np.uint64),
            self._held,
            np.empty(num_words, np.uint64),
            self._lists,
            np.zeros((MAX_DIGITS, 2), np.int64),
        )

    def clear(self) -> None:
        """Begin new sums."""
        self._columns[:] = 0
        self._held[:] = False


@numba.njit(error_model="numpy", cache=True, inline="always")
@no_type_check
def _add(a, b, c):  # pragma: no cover
    """A full adder at every place: sum and carry."""
    half = a ^ b
    return half ^ c, (a & b) | (half & c)


@numba.njit(error_model="numpy", cache=True, nogil=True)
@no_type_check
def _insert(columns, waiting, held, carry, column, width):  # pragma: no cover
    """Add the words in carry to a column.

    A column holds one of them back until a second one comes, and then makes one carry of
    both; carry is overwritten.
    """
    while held[column]:
        held[column] = False
        place = column * width
        for w in range(0, width, LANES):
            total, more = _add(load(columns, place + w), load(waiting, place + w), load(carry, w))
            store(columns, place + w, total)
            store(carry, w, more)
        column += 1
    held[column] = True
    for w in range(0, width, LANES):
        store(waiting, column * width + w, load(carry, w))


@numba.njit(error_model="numpy", cache=True, nogil=True)
@no_type_check
def _add_group(rows, stride, start, group, flip, columns, carry, column, width):  # pragma: no cover
    """Add eight rows' words from start on, complemented where flip is ~0, to three columns."""
    mask = spread(flip)
    r0, r1 = group[0] * stride + start, group[1] * stride + start
    r2, r3 = group[2] * stride + start, group[3] * stride + start
    r4, r5 = group[4] * stride + start, group[5] * stride + start
    r6, r7 = group[6] * stride + start, group[7] * stride + start
    c1 = column * width
    c2, c4 = c1 + width, c1 + 2 * width
    for w in range(0, width, LANES):
        one, two_a = _add(
            load(columns, c1 + w), load(rows, r0 + w) ^ mask, load(rows, r1 + w) ^ mask
        )
        one, two_b = _add(one, load(rows, r2 + w) ^ mask, load(rows, r3 + w) ^ mask)
        two, four_a = _add(load(columns, c2 + w), two_a, two_b)
        one, two_a = _add(one, load(rows, r4 + w) ^ mask, load(rows, r5 + w) ^ mask)
        one, two_b = _add(one, load(rows, r6 + w) ^ mask, load(rows, r7 + w) ^ mask)
        two, four_b = _add(two, two_a, two_b)
        four, eight = _add(load(columns, c4 + w), four_a, four_b)
        store(columns, c1 + w, one)
        store(columns, c2 + w, two)
        store(columns, c4 + w, four)
        store(carry, w, eight)


@numba.njit(error_model="numpy", cache=True, nogil=True)
@no_type_check
def _empty_lists(rows, width, state):  # pragma: no cover
    """Add the rows listed for each digit; returns what their complements added too much."""
    columns, waiting, held, carry, lists, lengths = state
    zero = len(rows) // width - 1
    excess = 0
    for digit in range(len(lists)):
        for sign in range(2):
            length = lengths[digit, sign]
            padded = (length + _GROUP - 1) // _GROUP * _GROUP
            lists[digit, sign, length:padded] = zero
            lengths[digit, sign] = 0
            excess += (sign * padded) << digit
            for i in range(0, padded, _GROUP):
                group = lists[digit, sign, i : i + _GROUP]
                flip = ~np.uint64(0) if sign else np.uint64(0)
                _add_group(rows, width, 0, group, flip, columns, carry, digit, width)
                _insert(columns, waiting, held, carry, digit + 3, width)
    return excess


@numba.njit(error_model="numpy", cache=True, nogil=True)
@no_type_check
def weigh(
    rows, width, outer, weights, units, inputs, first, inverse, state, start, end
):  # pragma: no cover
    """Add a layer's rows, each times a rounded value, to the sums.

    The value of unit units[u] and input inputs[i] is outer[u, i] weights[units[u], inputs[i]].

    Args:
        rows: uint64 (N W,), all rows one after another; the last one is zero.
        width: W.
        outer: float32 (U, I).
        weights: float32 (all units, all inputs).
        units: int64 (U,).
        inputs: int64 (I,).
        first: the row of unit 0 and input 0.
        inverse: values times this, below 2**24, are rounded to whole numbers.
        state: of Sums.
        start: first place in `units`.
        end: the one after the last.

    Returns:
        By how much a sum is at most too low or too high, together, whatever the bits; the
        squares of what rounding took off, summed (both in rounded units); how much the
        sums are too high for the complements in them; and how many rows were read.
    """
    _, _, _, _, lists, lengths = state
    bound, squares = 0.0, 0.0
    excess, listed, num_rows = 0, 0, 0
    for u in range(start, end):
        unit = units[u]
        unit_first = first + unit * weights.shape[1]
        for i in range(len(inputs)):
            exact = np.float64(outer[u, i] * weights[unit, inputs[i]]) * inverse
            whole = np.rint(exact)
            rest = exact - whole
            bound += abs(rest)
            squares += rest * rest
            size = np.int64(abs(whole))
            # Digits +1 and -1 of the non-adjacent form: where 3 q / 2 and q / 2 differ.
            tripled = 3 * size
            digits = (tripled ^ size) >> 1
            signs = (size >> 1) ^ -np.int64(whole < 0)
            while digits:
                digit = lowest_one(digits)
                sign = (signs >> digit) & 1
                lists[digit, sign, lengths[digit, sign]] = unit_first + inputs[i]
                lengths[digit, sign] += 1
                digits &= digits - 1
            if whole != 0:
                for w in range(0, width, LANES):
                    prefetch(rows, (unit_first + inputs[i]) * width + w)
            num_rows += whole != 0
            listed += whole != 0
            if listed == _BLOCK:
                excess += _empty_lists(rows, width, state)
                listed = 0
    excess += _empty_lists(rows, width, state)
    return bound, squares, excess, num_rows


@numba.njit(error_model="numpy", cache=True, nogil=True)
@no_type_check
def _read_column(words, column, totals):  # pragma: no cover
    for w in range(len(words)):
        word = words[w]
        if word:
            for b in range(64):
                totals[64 * w + b] += np.int64((word >> np.uint64(b)) & np.uint64(1)) << column


@numba.njit(error_model="numpy", cache=True, nogil=True)
@no_type_check
def read_sums(state, totals):  # pragma: no cover
    """Add the sums to totals (64 W,), whole numbers."""
    columns, waiting, held, carry, _, _ = state
    width = len(carry)
    for column in range(len(held)):
        place = column * width
        _read_column(columns[place : place + width], column, totals)
        if held[column]:
            _read_column(waiting[place : place + width], column, totals)


@numba.njit(error_model="numpy", cache=True, nogil=True)
@no_type_check
def add_scaled_rows(table, chosen, factors, out):  # pragma: no cover
    """Add factors[i] table[chosen[i]] to out (float64), whole numbers to as many places."""
    for i in range(len(chosen)):
        factor, row = factors[i], table[chosen[i]]
        for t in range(len(out)):
            out[t] += factor * row[t]


@numba.njit(error_model="numpy", cache=True, nogil=True)
@no_type_check
def _count(rows, stride, chosen, counts, start, end):  # pragma: no cover
    num_columns = 3
    while (1 << num_columns) <= len(chosen):
        num_columns += 1
    num_columns += 1  # a carry may wait beyond the last digit
    whole = len(chosen) // _GROUP * _GROUP
    for first in range(start, end, _TILE):
        width = min(_TILE, end - first)
        columns = np.zeros(num_columns * width, np.uint64)
        waiting = np.empty(num_columns * width, np.uint64)
        held = np.zeros(num_columns, np.bool_)
        carry = np.empty(width, np.uint64)
        for i in range(0, whole, _GROUP):
            group = chosen[i : i + _GROUP]
            _add_group(rows, stride, first, group, np.uint64(0), columns, carry, 0, width)
            _insert(columns, waiting, held, carry, 3, width)
        for i in range(whole, len(chosen)):
            place = chosen[i] * stride + first
            carry[:] = rows[place : place + width]
            _insert(columns, waiting, held, carry, 0, width)
        for column in range(num_columns):
            place = column * width
            out = counts[64 * first : 64 * (first + width)]
            _read_column(columns[place : place + width], column, out)
            if held[column]:
                _read_column(waiting[place : place + width], column, out)


def count_ones(
    rows: UInt64[np.ndarray, "N W"], chosen: np.ndarray, counts: np.ndarray, start: int, end: int
) -> None:
    """Count the ones of chosen rows at every bit of the words LANES start to LANES end.

    Args:
        rows: contiguous; W a multiple of LANES.
        chosen: int64, which rows.
        counts: int32 (64 W,) of zeros, written.
        start: first LANES words.
        end: the one after the last.
    """
    _count(rows.reshape(-1), rows.shape[1], chosen, counts, LANES * start, LANES * end)
