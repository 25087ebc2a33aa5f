"""Add rows of bits by carry-save adders: 512 sums at a time, with few logic operations per row.

Sums are stored by binary digit: column c holds digit c of every sum. A full adder of three words
adds three bits at each of 64 positions. The sum bit stays in its column, and the carry bit goes to
the next column. A tree of seven adders adds eight rows of bits to the columns c, c + 1 and c + 2,
and produces one row of carries for column c + 3. One adder adds two such rows to column c + 3 and
produces one row of carries for column c + 4, and so on. So a row costs about one adder (five
operations), for sums of any size.

Rows can also be multiplied by whole numbers. Each digit other than 0 adds the row to the column of
this digit, and costs an adder. The whole numbers are in non-adjacent form (binary with digits 0, +1
and -1), because two thirds of the digits are then 0. For a digit of -1, the row's complement is
added, and a constant is subtracted at the end.

Shape letters: N rows of bits, W words of a row, U units, I inputs of a unit.
Source: Muła, Kurz & Lemire 2018, arXiv:1611.07612, for the tree of adders.
"""

from typing import Any, no_type_check

import numpy as np
from jaxtyping import UInt64

from supsup_core.kernels.compiled import compiled
from supsup_core.kernels.vectors import LANES, load, lowest_one, prefetch, spread, store

NUM_COLUMNS = 56  # sums are below 2**56
MAX_DIGITS = 26  # enough digits for the non-adjacent form of numbers up to 2**24
# This many rows (one per weight) are added digit by digit before the next rows are read, so that
# they stay in the cache.
_BLOCK = 1024
_GROUP = 8  # number of rows that one tree of adders adds
_TILE = 128  # number of words counted at a time: their columns stay in the first-level cache


class Sums:
    """Working memory of the adders. It holds 64 W sums, one per bit of a row of W words.

    Args:
        num_words: W, a multiple of LANES.

    Attributes:
        state: the arrays that the kernels of this module take as the argument `state`.

    Raises:
        ValueError: `num_words` is not a multiple of LANES.
    """

    def __init__(self, num_words: int) -> None:
        if num_words % LANES:
            raise ValueError(
                f"num_words must be a multiple of {LANES}, got {num_words}: round it up"
            )
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
        """Set all sums to zero."""
        self._columns[:] = 0
        self._held[:] = False


@compiled(inline="always")
@no_type_check
def _add(a, b, c):  # pragma: no cover
    """Add three words at each bit position, and return the sum bits and the carry bits."""
    half = a ^ b
    return half ^ c, (a & b) | (half & c)


@compiled(nogil=True)
@no_type_check
def _insert(columns, waiting, held, carry, column, width):  # pragma: no cover
    """Add a row of carries, `carry`, to a column.

    The first row of carries for a column is kept in `waiting`. When the second row comes, one adder
    adds both rows to the column and produces one row of carries. This row is inserted into the next
    column. `carry` is overwritten.
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


@compiled(nogil=True)
@no_type_check
def _add_group(rows, stride, start, group, flip, columns, carry, column, width):  # pragma: no cover
    """Add eight rows to the columns from `column` to `column` + 2.

    The carries for `column` + 3 are written to `carry`. Only `width` words of each row, from
    word `start` on, are added. If `flip` is ~0, the complements of the rows are added. If `flip` is
    0, the rows themselves are added.
    """
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


@compiled(nogil=True)
@no_type_check
def _empty_lists(rows, width, state):  # pragma: no cover
    """For each digit, add the rows in the digit's list to the sums. Then empty the lists.

    For a digit of -1, the complement of the row is added. This makes every sum too large by a
    constant.

    Returns:
        The excess: the sum of these constants.
    """
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


@compiled(inline="always")
@no_type_check
def _list_digits(lists, lengths, whole, row):  # pragma: no cover
    """Add a row to the lists of those digits of a whole number that are not 0.

    The non-adjacent form of q has a digit +1 or -1 at each position at which the bits of 3 q / 2
    and q / 2 differ.
    """
    size = np.int64(abs(whole))
    tripled = 3 * size
    digits = (tripled ^ size) >> 1
    signs = (size >> 1) ^ -np.int64(whole < 0)
    while digits:
        digit = lowest_one(digits)
        sign = (signs >> digit) & 1
        lists[digit, sign, lengths[digit, sign]] = row
        lengths[digit, sign] += 1
        digits &= digits - 1


@compiled(nogil=True)
@no_type_check
def weigh(
    rows, width, outer, weights, units, inputs, first, inverse, state, start, end
):  # pragma: no cover
    """Multiply the rows of a layer by rounded values, and add the results to the sums.

    Each weight has a row. The row of unit units[u] and input inputs[i] is multiplied by the value
    outer[u, i] * weights[units[u], inputs[i]].

    Args:
        rows: uint64 (N W,), N rows of W words, one after another. The last row is zero.
        width: W, the number of words of a row.
        outer: float32 (U, I) factors of the weights.
        weights: float32 (all units, all inputs) weights of the layer.
        units: int64 (U,) indices of the units that have values.
        inputs: int64 (I,) indices of the inputs that have values.
        first: index of the row of unit 0 and input 0.
        inverse: factor that multiplies the values before they are rounded to whole numbers. The
            magnitudes of the whole numbers must be below 2**24.
        state: the state of a Sums object, which holds the sums.
        start: index in `units` of the first unit to add.
        end: index in `units` after the last unit to add.

    Returns:
        Four numbers. (1) The sum of the absolute rounding errors. The errors of two sums differ by
        at most this number. (2) The sum of the squared rounding errors. The errors in (1) and (2)
        are those of the values times `inverse`. (3) The excess: every sum is too large by this
        constant, which must be subtracted later. (4) The number of rows read.
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
            row = unit_first + inputs[i]
            _list_digits(lists, lengths, whole, row)
            if whole != 0:
                for w in range(0, width, LANES):
                    prefetch(rows, row * width + w)
            num_rows += whole != 0
            listed += whole != 0
            if listed == _BLOCK:
                excess += _empty_lists(rows, width, state)
                listed = 0
    excess += _empty_lists(rows, width, state)
    return bound, squares, excess, num_rows


@compiled(nogil=True)
@no_type_check
def _read_column(words, column, totals):  # pragma: no cover
    for w in range(len(words)):
        word = words[w]
        if word:
            for b in range(64):
                totals[64 * w + b] += np.int64((word >> np.uint64(b)) & np.uint64(1)) << column


@compiled(nogil=True)
@no_type_check
def read_sums(state, totals):  # pragma: no cover
    """Convert the 64 W sums of `state` to int64, and add them to `totals`, (64 W,)."""
    columns, waiting, held, carry, _, _ = state
    width = len(carry)
    for column in range(len(held)):
        place = column * width
        _read_column(columns[place : place + width], column, totals)
        if held[column]:
            _read_column(waiting[place : place + width], column, totals)


@compiled(nogil=True)
@no_type_check
def add_scaled_rows(table, chosen, factors, out):  # pragma: no cover
    """Add factors[i] * table[chosen[i], : len(out)] to `out` (float64), for every i."""
    for i in range(len(chosen)):
        factor, row = factors[i], table[chosen[i]]
        for t in range(len(out)):
            out[t] += factor * row[t]


@compiled(nogil=True)
@no_type_check
def _count(rows, stride, chosen, counts, start, end):  # pragma: no cover
    num_columns = 3
    while (1 << num_columns) <= len(chosen):
        num_columns += 1
    num_columns += 1  # a row of carries may wait in the column after the last digit
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
    """Count, for each bit position, how many of the chosen rows have a one.

    The words of a row are divided into groups of LANES words. A call counts only some groups.

    Args:
        rows: (N, W), contiguous rows of W words. W is a multiple of LANES.
        chosen: int64 indices of the chosen rows.
        counts: int32 (64 W,) zeros, to which the counts are added.
        start: index of the first group to count.
        end: index after the last group to count.
    """
    _count(rows.reshape(-1), rows.shape[1], chosen, counts, LANES * start, LANES * end)
