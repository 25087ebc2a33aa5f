"""Edge-popup's mask on the CPU: keep the weights whose scores have the largest magnitudes.

Scores are stored as magnitudes. An optimiser's step may make one negative: the score has crossed
zero. Reflecting takes its absolute value, and negates the parts of the optimiser's state that
are odd in the score. IEEE arithmetic is symmetric in the sign, so magnitudes move bit for bit as
the magnitudes of signed scores would.

A magnitude is never negative, so its bit pattern, read as an integer, has the same order. The
kernels compare patterns.
"""

from collections.abc import Sequence
from typing import Any, no_type_check

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from supsup_core.kernels.bfloat16 import as_stored, real, sign_of, stored
from supsup_core.kernels.vectors import lowest_one

BLOCK = 64  # magnitudes that are compared at once: one bit of a word for each

# Smallest half-width of the range that is searched first, in patterns: 2**-11 of the threshold.
LEAST_REACH = {4: 1 << 12, 8: 1 << 41}


def reflect_plain(magnitudes: Tensor, odd: Sequence[Tensor]) -> None:
    """Make negative magnitudes positive, in torch operations and in place.

    Args:
        magnitudes: of any shape; a negative one is a score that has crossed zero.
        odd: tensors of that shape whose elements change sign where a magnitude does.
    """
    crossed = magnitudes.signbit()
    magnitudes.abs_()
    for tensor in odd:
        tensor.copy_(torch.where(crossed, -tensor, tensor))


def keep_largest_plain(magnitudes: Tensor, signs: Tensor, masked: Tensor, num_kept: int) -> None:
    """Write the signs of the weights with the largest magnitudes, in torch operations.

    Args:
        magnitudes: of any shape.
        signs: signs of the weights, +1 and -1, of that shape.
        masked: overwritten with the signs of the `num_kept` largest magnitudes, and 0 elsewhere.
            Among equal magnitudes those with the lower index are kept.
        num_kept: how many signs stay.
    """
    flat = magnitudes.flatten()
    order = flat.sort(descending=True, stable=True).indices[:num_kept]
    kept = torch.zeros_like(flat).index_fill_(0, order, 1).view_as(magnitudes)
    masked.copy_(torch.where(kept > 0, signs.to(masked.dtype), 0))


@intrinsic
@no_type_check  # Numba wants the functions themselves, not wrappers that check shapes in tests
def _block_above(typing_context: Any, array: Any, start: Any, bound: Any) -> Any:
    """Compare array[start : start + BLOCK] > bound: bit i of a word says it of element i.

    No bounds of the array are checked.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        element = context.get_data_type(array.dtype)
        vector = ir.VectorType(element, BLOCK)
        data = context.make_array(array)(context, builder, args[0]).data
        place = builder.bitcast(builder.gep(data, [args[1]]), vector.as_pointer())
        values = builder.load(place, align=array.dtype.bitwidth // 8)
        none, first = ir.Constant(vector, ir.Undefined), ir.Constant(ir.IntType(32), 0)
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), BLOCK), [0] * BLOCK)
        bounds = builder.shuffle_vector(builder.insert_element(none, args[2], first), none, lanes)
        return builder.bitcast(builder.icmp_signed(">", values, bounds), ir.IntType(BLOCK))

    return types.uint64(array, types.intp, array.dtype), generate


@intrinsic
@no_type_check
def _num_ones(typing_context: Any, word: Any) -> Any:
    """Count the ones of a word."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.uint64), generate


@numba.njit(inline="always")
@no_type_check
def _reflect(magnitudes, odd, i):  # pragma: no cover
    magnitudes[i] = -magnitudes[i]
    for values in odd:
        if values.size:
            values[i] = -values[i]


@numba.njit(inline="always")
@no_type_check
def _write(patterns, signs, masked, zero, bound, start, count):  # pragma: no cover
    """Write the signs whose pattern is above the bound, and 0 elsewhere."""
    # A loop from 0 to a constant over slices: LLVM vectorises it without checks in each block.
    patterns, signs, masked = patterns[start:], signs[start:], masked[start:]
    for i in range(count):
        sign = stored(sign_of(real(signs[i])), zero)
        masked[i] = sign if patterns[i] > bound else zero


@numba.njit(error_model="numpy", cache=True)
@no_type_check
def _settle(magnitudes, patterns, odd, signs, masked, zero, low, high, near):  # pragma: no cover
    """Reflect, write masked as if the threshold were `high`, and find what is near it.

    Magnitudes are near if their pattern is in (low, high]. Returns how many are above, and how
    many near ones there are; `near` gets their indices, in order, while it has room for BLOCK.
    """
    one = np.uint64(1)
    num_above = 0
    num_near = 0
    end = patterns.size // BLOCK * BLOCK
    for start in range(0, end, BLOCK):
        crossed = ~_block_above(patterns, start, patterns.dtype.type(-1))
        while crossed:
            _reflect(magnitudes, odd, start + np.int64(lowest_one(crossed)))
            crossed &= crossed - one
        above = _block_above(patterns, start, high)
        num_above += _num_ones(above)
        inside = _block_above(patterns, start, low) & ~above
        if num_near + BLOCK > near.size:
            num_near += _num_ones(inside)
            inside = np.uint64(0)
        while inside:
            near[num_near] = start + np.int64(lowest_one(inside))
            inside &= inside - one
            num_near += 1
        _write(patterns, signs, masked, zero, high, start, BLOCK)
    for i in range(end, patterns.size):
        if patterns[i] < 0:
            _reflect(magnitudes, odd, i)
        if patterns[i] > high:
            num_above += 1
        elif patterns[i] > low:
            near[min(num_near, near.size - 1)] = i
            num_near += 1
    _write(patterns, signs, masked, zero, high, end, patterns.size - end)
    return num_above, num_near


@numba.njit(error_model="numpy", cache=True)
@no_type_check
def _keep(patterns, near, signs, masked, zero, threshold, num_kept):  # pragma: no cover
    """Keep `num_kept` of the near ones: all above the threshold, then the first that equal it."""
    num_equal = num_kept
    for i in near:
        num_equal -= patterns[i] > threshold
    for i in near:
        equal = patterns[i] == threshold and num_equal > 0
        num_equal -= equal
        if equal or patterns[i] > threshold:
            masked[i] = stored(sign_of(real(signs[i])), zero)


def _kth_largest(patterns: np.ndarray, k: int) -> int:
    return int(np.partition(patterns, len(patterns) - k)[len(patterns) - k])


class TopShare:
    """Reflects magnitudes and keeps the largest, in one pass over memory that stays in place.

    The threshold moves slowly from step to step. The pass looks for it near its last value, and
    collects the few magnitudes there, among which it is then found exactly. If the threshold has
    left that range, it is found among all magnitudes, which takes some times longer, and the
    pass is repeated. The result never depends on where the search began.

    Args:
        magnitudes: float32 or float64, none negative.
        odd: tensors whose elements change sign where a magnitude is reflected; of its type.
        signs: tensor whose sign bits are those of the weights.
        masked: where `settle` writes; bfloat16, or the type of the magnitudes.
        num_kept: how many magnitudes are kept.

    Raises:
        ValueError: shapes that differ, `num_kept` out of range, or a negative magnitude.
        RuntimeError: a tensor that is not contiguous.
    """

    def __init__(
        self,
        magnitudes: Tensor,
        odd: Sequence[Tensor],
        signs: Tensor,
        masked: Tensor,
        num_kept: int,
    ) -> None:
        shapes = {tuple(t.shape) for t in (magnitudes, *odd, signs, masked)}
        if len(shapes) > 1:
            raise ValueError(f"magnitudes and the other tensors must have one shape, got {shapes}")
        if not 1 <= num_kept <= magnitudes.numel():
            raise ValueError(f"num_kept must be in [1, {magnitudes.numel()}], got {num_kept}")
        if bool((magnitudes < 0).any()):
            raise ValueError(f"magnitudes must be >= 0, got {float(magnitudes.min())}")
        self._magnitudes, self._signs, self._masked = (
            as_stored(t).reshape(-1) for t in (magnitudes, signs, masked)
        )
        # Numba cannot loop over an empty tuple.
        self._odd = tuple(as_stored(t).reshape(-1) for t in odd) or (self._magnitudes[:0],)
        size = self._magnitudes.itemsize
        self._patterns = self._magnitudes.view(np.dtype(f"i{size}"))
        self._near = np.empty(len(self._patterns) // 8 + 2 * BLOCK, np.int32)
        self._num_kept = num_kept
        self._threshold = _kth_largest(self._patterns, num_kept)
        self._reach = self._least_reach = LEAST_REACH[size]

    def settle(self) -> None:
        """Reflect negative magnitudes, and write the signs of the largest ones into masked."""
        most = int(np.iinfo(self._patterns.dtype).max)
        low = max(self._threshold - self._reach, 0) - 1
        high = min(self._threshold + self._reach, most)
        threshold = self._settle_between(low, high, self._near)
        if threshold is None:
            exact = _kth_largest(self._patterns, self._num_kept)
            threshold = self._settle_between(exact - 1, exact, self._space_for_all())
            assert threshold is not None, "the k-th largest pattern must be in its own range"
            self._reach = 0
        move = abs(threshold - self._threshold)
        self._reach = max(4 * move, self._reach * 7 // 8, self._least_reach)
        self._threshold = threshold

    def _settle_between(self, low: int, high: int, near: np.ndarray) -> int | None:
        """Settle if the threshold is in (low, high] and `near` has room; return it, else None."""
        patterns, kind = self._patterns, self._patterns.dtype.type
        signs, masked = self._signs, self._masked
        zero = masked.dtype.type(0)
        num_above, num_near = _settle(
            self._magnitudes, patterns, self._odd, signs, masked, zero, kind(low), kind(high), near
        )
        missing = self._num_kept - num_above
        if not 0 < missing <= num_near <= len(near) - BLOCK:
            return None
        near = near[:num_near]
        threshold = _kth_largest(patterns[near], missing)
        _keep(patterns, near, signs, masked, zero, kind(threshold), missing)
        return threshold

    def _space_for_all(self) -> np.ndarray:
        return np.empty(len(self._patterns) + BLOCK, np.int32)
