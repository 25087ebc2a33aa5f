"""Nested coats of the weights whose scores have the largest magnitudes, on the CPU.

The first coat keeps the largest magnitudes of a tensor. Each further coat keeps at most as many, so
it keeps only weights that the coat before it keeps. Edge-popup has one coat. Scores are stored as
magnitudes (patterns.py).

Shape letters: C coats.
"""

from collections.abc import Sequence
from typing import no_type_check

import numba
import numpy as np
import torch
from torch import Tensor

from supsup_core.kernels.bfloat16 import real, sign_of, stored
from supsup_core.kernels.compiled import compiled
from supsup_core.kernels.patterns import (
    BLOCK,
    Magnitudes,
    block_above,
    num_ones,
    reflect_block,
    reflect_each,
)
from supsup_core.kernels.vectors import lowest_one

# The new threshold is first searched in a range around the last threshold. These are the smallest
# half-widths of the range, as differences of bit patterns: 2**-11 of the threshold. Each key is the
# number of bytes of a magnitude.
LEAST_REACH = {4: 1 << 12, 8: 1 << 41}

# For each coat, the number of weights that it keeps, and the gain of a weight that this coat keeps
# and the next coat drops.
Coats = Sequence[tuple[int, float]]


def keep_largest_plain(magnitudes: Tensor, signs: Tensor, masked: Tensor, coats: Coats) -> None:
    """Write the gains of the weights, times the signs of the weights, into `masked`.

    This is a simple form in torch. TopShare does the same in less time.

    Args:
        magnitudes: magnitudes of the scores, a tensor of any shape.
        signs: signs of the weights, +1 and -1, in the same shape.
        masked: output: for each weight, its sign times the gain of the last coat that keeps it, and
            0 if no coat keeps it. If magnitudes are equal, the lower index is kept, so that each
            coat keeps exactly its number of weights.
        coats: the coats, from the first to the last.
    """
    flat = magnitudes.flatten()
    order = flat.sort(descending=True, stable=True).indices
    gains = torch.zeros_like(flat)
    for num_kept, gain in coats:
        gains[order[:num_kept]] = gain
    masked.copy_(torch.where(gains.view_as(magnitudes) > 0, gains.view_as(magnitudes) * signs, 0))


@numba.njit(inline="always")
@no_type_check
def _write(patterns, signs, masked, zero, gain, bound, start, count):  # pragma: no cover
    """Write gain * sign for the weights above `bound` into `masked`, and 0 for the other weights.

    A weight is above `bound` if the bit pattern of its magnitude is. Only `count` elements are
    written, from index `start` on.
    """
    # With slices, the loop runs from 0 to a constant. LLVM then vectorises the loop, and needs no
    # checks in each block.
    patterns, signs, masked = patterns[start:], signs[start:], masked[start:]
    for i in range(count):
        value = stored(sign_of(real(signs[i])) * gain, zero)
        masked[i] = value if patterns[i] > bound else zero


@numba.njit(inline="always")
@no_type_check
def _overwrite(patterns, signs, masked, zero, gain, bound, start, count):  # pragma: no cover
    """Do as `_write`, but leave the other weights as they are."""
    patterns, signs, masked = patterns[start:], signs[start:], masked[start:]
    for i in range(count):
        value = stored(sign_of(real(signs[i])) * gain, zero)
        masked[i] = value if patterns[i] > bound else masked[i]


@compiled()
@no_type_check
def _settle(
    magnitudes, patterns, odd, signs, masked, zero, gains, lows, highs, near
):  # pragma: no cover
    """Make negative magnitudes positive, write `masked`, and list the near magnitudes of each coat.

    `masked` gets, for each weight, its sign times the gain of the last coat j with a magnitude
    above highs[j], and 0 for the other weights. A magnitude is near coat j if its bit pattern is in
    (lows[j], highs[j]]. The indices of near magnitudes are written to `near`, which has the same
    space for each coat, in ascending order, while the coat has space for at least BLOCK more.

    Returns:
        For each coat, the number of magnitudes above highs[j], and the number of near magnitudes.
        If the second number is larger than the space minus BLOCK, the coat's list may be
        incomplete.
    """
    num_above = np.zeros(highs.size, np.int64)
    num_near = np.zeros(highs.size, np.int64)
    space = near.size // highs.size
    end = patterns.size // BLOCK * BLOCK
    for start in range(0, end, BLOCK):
        reflect_block(magnitudes, patterns, odd, start)
        for j in range(highs.size):
            above = block_above(patterns, start, highs[j])
            num_above[j] += num_ones(above)
            inside = block_above(patterns, start, lows[j]) & ~above
            if num_near[j] + BLOCK > space:
                num_near[j] += num_ones(inside)
                inside = np.uint64(0)
            while inside:
                near[j * space + num_near[j]] = start + np.int64(lowest_one(inside))
                inside &= inside - np.uint64(1)
                num_near[j] += 1
            if j == 0:
                _write(patterns, signs, masked, zero, gains[j], highs[j], start, BLOCK)
            elif above:
                _overwrite(patterns, signs, masked, zero, gains[j], highs[j], start, BLOCK)
    count = patterns.size - end
    reflect_each(magnitudes, patterns, odd, end, patterns.size)
    _write(patterns, signs, masked, zero, gains[0], highs[0], end, count)
    for j in range(highs.size):
        for i in range(end, patterns.size):
            if patterns[i] > highs[j]:
                num_above[j] += 1
            elif patterns[i] > lows[j]:
                near[j * space + min(num_near[j], space - 1)] = i
                num_near[j] += 1
        _overwrite(patterns, signs, masked, zero, gains[j], highs[j], end, count)
    return num_above, num_near


@compiled()
@no_type_check
def _keep(patterns, near, signs, masked, zero, gain, threshold, num_kept):  # pragma: no cover
    """Write gain * sign of the `num_kept` weights with the largest near magnitudes into `masked`.

    `near` has the indices of the near magnitudes. All near magnitudes above `threshold` are kept.
    Then the first magnitudes that are equal to `threshold` are kept, until `num_kept` are kept.
    """
    num_equal = num_kept
    for i in near:
        num_equal -= patterns[i] > threshold
    for i in near:
        equal = patterns[i] == threshold and num_equal > 0
        num_equal -= equal
        if equal or patterns[i] > threshold:
            masked[i] = stored(sign_of(real(signs[i])) * gain, zero)


def _kth_largest(patterns: np.ndarray, k: int) -> int:
    return int(np.partition(patterns, len(patterns) - k)[len(patterns) - k])


class TopShare:
    """The work after each step of the optimiser: correct negative magnitudes, and write the gains.

    The threshold of a coat (the smallest magnitude that it keeps) changes slowly from step to step.
    One pass over memory collects the few magnitudes near the last threshold of each coat. If the
    new threshold is one of these magnitudes, the pass finds it exactly. If not, the threshold is
    searched among all magnitudes, and the pass is repeated. This takes several times as long. The
    result is the same in both cases.

    Args:
        magnitudes: magnitudes of the scores; see Magnitudes for this and the next three arguments.
        odd: the odd tensors of the optimiser's state.
        signs: tensor with the signs of the weights.
        masked: the output of `settle`; see keep_largest_plain.
        coats: the coats, from the first to the last.

    Raises:
        ValueError: a number of weights is out of range or larger than that of the coat before, or
            the tensors do not fit; see Magnitudes.
        RuntimeError: a tensor is not contiguous.
    """

    def __init__(
        self,
        magnitudes: Tensor,
        odd: Sequence[Tensor],
        signs: Tensor,
        masked: Tensor,
        coats: Coats,
    ) -> None:
        self._num_kept, gains = zip(*coats, strict=True)
        most = magnitudes.numel()
        for num in self._num_kept:
            if not 1 <= num <= most:
                raise ValueError(f"num_kept must be in [1, {most}], got {num}: try num_kept=1")
            most = num
        self._of = Magnitudes(magnitudes, odd, signs, masked)
        size = self._of.magnitudes.itemsize
        self._gains = np.array(gains, self._of.magnitudes.dtype)
        space = len(self._of.patterns) // 8 + 2 * BLOCK
        self._near = np.empty((len(coats), space), np.int32)
        self._thresholds = [_kth_largest(self._of.patterns, num) for num in self._num_kept]
        self._least_reach = LEAST_REACH[size]
        self._reaches = [self._least_reach] * len(coats)

    def settle(self) -> None:
        """Make negative magnitudes positive, and write the new gains into `masked`."""
        most = int(np.iinfo(self._of.patterns.dtype).max)
        ranges = list(zip(self._thresholds, self._reaches, strict=True))
        lows = [max(threshold - reach, 0) - 1 for threshold, reach in ranges]
        highs = [min(threshold + reach, most) for threshold, reach in ranges]
        found = self._settle_between(lows, highs, self._near)
        if None in found:
            exact = [
                _kth_largest(self._of.patterns, num) if threshold is None else threshold
                for threshold, num in zip(found, self._num_kept, strict=True)
            ]
            below = [threshold - 1 for threshold in exact]
            again = self._settle_between(below, exact, self._space_for_all())
            assert again == exact, "the k-th largest pattern must be in its own range"
        for j, (threshold, reach) in enumerate(ranges):
            new = found[j]
            if new is None:
                new, reach = exact[j], 0
            move = abs(new - threshold)
            self._reaches[j] = max(4 * move, reach * 7 // 8, self._least_reach)
            self._thresholds[j] = new

    def _settle_between(
        self, lows: list[int], highs: list[int], near: np.ndarray
    ) -> list[int | None]:
        """Make negative magnitudes positive, and write `masked` if all thresholds are in ranges.

        Args:
            lows: for each coat, the bit pattern before the first bit pattern of its range.
            highs: for each coat, the last bit pattern of its range.
            near: (C, space) working memory for the indices of the magnitudes in the ranges.

        Returns:
            For each coat, the bit pattern of the threshold (the smallest magnitude that is kept).
            None if the threshold is not in the range, or if `near` is too small. If one is None,
            `masked` is not final.
        """
        of, kind = self._of, self._of.patterns.dtype.type
        # A magnitude above the range of a coat must not be in the range of an earlier coat.
        ends = np.minimum.accumulate(np.array(highs[::-1], kind))[::-1].copy()
        given = of.signs, of.masked, of.zero
        num_above, num_near = _settle(
            *(of.magnitudes, of.patterns, of.odd, *given, self._gains),
            *(np.array(lows, kind), ends, near.reshape(-1)),
        )
        missing = [int(num) for num in np.array(self._num_kept) - num_above]
        lists = [row[:num] for row, num in zip(near, num_near, strict=True)]
        found = [
            _kth_largest(of.patterns[row], num)
            if 0 < num <= len(row) <= near.shape[1] - BLOCK
            else None
            for row, num in zip(lists, missing, strict=True)
        ]
        if None not in found:
            for row, gain, threshold, num in zip(lists, self._gains, found, missing, strict=True):
                _keep(of.patterns, row, *given, gain, kind(threshold), num)
        return found

    def _space_for_all(self) -> np.ndarray:
        return np.empty((len(self._num_kept), len(self._of.patterns) + BLOCK), np.int32)
