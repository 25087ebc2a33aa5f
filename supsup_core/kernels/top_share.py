"""Edge-popup's mask on the CPU: keep the weights whose scores have the largest magnitudes.

Scores are stored as magnitudes. Edge-popup's gradient is sign(score) * d loss / d gain, so a step
changes a magnitude in the same way as it changes a score of the threshold rule. If a step makes a
magnitude negative, the score has crossed zero. The kernel then negates the magnitude, and also
negates the odd values of the optimiser's state at the same index. (Odd values are those that change
sign if the score and its gradients change sign.) IEEE arithmetic is symmetric in the sign. So each
magnitude has, bit for bit, the value that it would have with signed scores.

Magnitudes are not negative, so their bit patterns, read as integers, have the same order as the
magnitudes. The kernels compare bit patterns.
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
from supsup_core.kernels.compiled import compiled
from supsup_core.kernels.vectors import lowest_one

BLOCK = 64  # number of magnitudes compared at once: each result is one bit of a word

# The new threshold is first searched in a range around the last threshold. These are the smallest
# half-widths of the range, as differences of bit patterns: 2**-11 of the threshold. Each key is the
# number of bytes of a magnitude.
LEAST_REACH = {4: 1 << 12, 8: 1 << 41}


def reflect_plain(magnitudes: Tensor, odd: Sequence[Tensor]) -> None:
    """Make negative magnitudes positive, in place.

    This is a simple form in torch. TopShare does the same in less time.

    Args:
        magnitudes: tensor of any shape. A negative element means that the score has crossed zero.
        odd: tensors of the same shape. At each index at which the magnitude was negative, the
            elements of these tensors change their sign.
    """
    crossed = magnitudes.signbit()
    magnitudes.abs_()
    for tensor in odd:
        tensor.copy_(torch.where(crossed, -tensor, tensor))


def keep_largest_plain(magnitudes: Tensor, signs: Tensor, masked: Tensor, num_kept: int) -> None:
    """Write the signs of the weights with the largest magnitudes into `masked`.

    This is a simple form in torch. TopShare does the same in less time.

    Args:
        magnitudes: magnitudes of the scores, a tensor of any shape.
        signs: signs of the weights, +1 and -1, in the same shape.
        masked: output: the signs of the weights with the `num_kept` largest magnitudes, and 0 for
            the other weights. If magnitudes are equal, the lower index is kept, so that exactly
            `num_kept` weights are kept.
        num_kept: number of weights to keep.
    """
    flat = magnitudes.flatten()
    order = flat.sort(descending=True, stable=True).indices[:num_kept]
    kept = torch.zeros_like(flat).index_fill_(0, order, 1).view_as(magnitudes)
    masked.copy_(torch.where(kept > 0, signs.to(masked.dtype), 0))


@intrinsic
@no_type_check  # Numba needs the functions themselves, not wrappers that check shapes in tests
def _block_above(typing_context: Any, array: Any, start: Any, bound: Any) -> Any:
    """Compare BLOCK elements of an array, from index `start` on, with `bound`.

    Bit i of the returned word is one if array[start + i] > bound. The function does not check that
    the array has these elements.
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
    """Count the ones of a 64-bit word."""

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
    """Write the signs of some weights into `masked`, and 0 for the other weights.

    The sign is written if the bit pattern of the weight's magnitude is above `bound`. Only `count`
    elements are written, from index `start` on.
    """
    # With slices, the loop runs from 0 to a constant. LLVM then vectorises the loop, and needs no
    # checks in each block.
    patterns, signs, masked = patterns[start:], signs[start:], masked[start:]
    for i in range(count):
        sign = stored(sign_of(real(signs[i])), zero)
        masked[i] = sign if patterns[i] > bound else zero


@compiled()
@no_type_check
def _settle(magnitudes, patterns, odd, signs, masked, zero, low, high, near):  # pragma: no cover
    """Make negative magnitudes positive, write `masked`, and list the near magnitudes.

    If a magnitude is negative, the values of `odd` at its index change sign too. `masked` gets the
    signs of the weights whose magnitudes are above `high`, and 0 for the other weights. A magnitude
    is near if its bit pattern is in (low, high]. The indices of near magnitudes are written to
    `near`, in ascending order, while `near` has space for at least BLOCK more indices.

    Returns:
        The number of magnitudes above `high`, and the number of near magnitudes. If the second
        number is larger than len(near) - BLOCK, the list in `near` may be incomplete.
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


@compiled()
@no_type_check
def _keep(patterns, near, signs, masked, zero, threshold, num_kept):  # pragma: no cover
    """Write the signs of `num_kept` weights into `masked`: those with the largest near magnitudes.

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
            masked[i] = stored(sign_of(real(signs[i])), zero)


def _kth_largest(patterns: np.ndarray, k: int) -> int:
    return int(np.partition(patterns, len(patterns) - k)[len(patterns) - k])


class TopShare:
    """The work after each step of the optimiser: correct negative magnitudes, and write the mask.

    The threshold (the smallest magnitude that is kept) changes slowly from step to step. One pass
    over memory collects the few magnitudes near the last threshold. If the new threshold is one of
    these magnitudes, the pass finds it exactly. If not, the threshold is searched among all
    magnitudes, and the pass is repeated. This takes several times as long. The result is the same
    in both cases.

    Args:
        magnitudes: magnitudes of the scores in float32 or float64, not negative. They are changed
            in place.
        odd: tensors of the magnitudes' type. If a magnitude is negative after a step, the elements
            at its index change sign, in place.
        signs: tensor whose sign bits are the signs of the weights.
        masked: the output of `settle`: the signs of the weights that are kept, and 0 for the other
            weights. Its type is bfloat16 or the magnitudes' type.
        num_kept: number of weights to keep.

    Raises:
        ValueError: shapes differ, `num_kept` is out of range, or a magnitude is negative.
        RuntimeError: a tensor is not contiguous.
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
            raise ValueError(
                f"magnitudes, odd, signs and masked must have the same shape, got {shapes}: "
                "reshape the tensors"
            )
        if not 1 <= num_kept <= magnitudes.numel():
            raise ValueError(
                f"num_kept must be in [1, {magnitudes.numel()}], got {num_kept}: try num_kept=1"
            )
        if bool((magnitudes < 0).any()):
            raise ValueError(
                f"magnitudes must be >= 0, got {float(magnitudes.min())}: pass absolute values"
            )
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
        """Make negative magnitudes positive, and write the new mask into `masked`."""
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
        """Make negative magnitudes positive, and write `masked` if the threshold is in a range.

        Args:
            low: the bit pattern before the first bit pattern of the range.
            high: the last bit pattern of the range.
            near: working memory for the indices of the magnitudes in the range.

        Returns:
            The bit pattern of the threshold (the smallest magnitude that is kept). None if the
            threshold is not in the range, or if `near` is too small; `masked` is then not final.
        """
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
