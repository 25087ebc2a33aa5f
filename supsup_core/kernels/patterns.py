"""Compare magnitudes by their bit patterns, and make magnitudes positive, in Numba kernels.

A finder that compares |score| stores magnitudes. The gradient of such a finder is
sign(score) * d loss / d gain, so a step changes a magnitude in the same way as it changes a score
of the threshold rule. If a step makes a magnitude negative, the score has crossed zero. The kernels
then negate the magnitude, and also negate the odd values of the optimiser's state at the same
index. (Odd values are those that change sign if the score and its gradients change sign.) IEEE
arithmetic is symmetric in the sign. So each magnitude has, bit for bit, the value that it would
have with signed scores.

Magnitudes are not negative, so their bit patterns, read as integers, have the same order as the
magnitudes. The kernels compare bit patterns.
"""

from collections.abc import Sequence
from typing import Any, no_type_check

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from supsup_core.kernels.bfloat16 import as_stored
from supsup_core.kernels.vectors import lowest_one

BLOCK = 64  # number of magnitudes compared at once: each result is one bit of a word


@intrinsic
@no_type_check  # Numba needs the functions themselves, not wrappers that check shapes in tests
def block_above(typing_context: Any, array: Any, start: Any, bound: Any) -> Any:
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
def num_ones(typing_context: Any, word: Any) -> Any:
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


@numba.njit
@no_type_check
def reflect_block(magnitudes, patterns, odd, start):  # pragma: no cover
    """Make the negative ones of BLOCK magnitudes positive, from index `start` on."""
    crossed = ~block_above(patterns, start, patterns.dtype.type(-1))
    while crossed:
        _reflect(magnitudes, odd, start + np.int64(lowest_one(crossed)))
        crossed &= crossed - np.uint64(1)


@numba.njit
@no_type_check
def reflect_each(magnitudes, patterns, odd, start, stop):  # pragma: no cover
    """Make the negative magnitudes in a range positive, one after another."""
    for i in range(start, stop):
        if patterns[i] < 0:
            _reflect(magnitudes, odd, i)


def reflect_plain(magnitudes: Tensor, odd: Sequence[Tensor]) -> None:
    """Make negative magnitudes positive, in place.

    This is a simple form in torch of the kernels above.

    Args:
        magnitudes: tensor of any shape. A negative element means that the score has crossed zero.
        odd: tensors of the same shape. At each index at which the magnitude was negative, the
            elements of these tensors change their sign.
    """
    crossed = magnitudes.signbit()
    magnitudes.abs_()
    for tensor in odd:
        tensor.copy_(tensor.where(~crossed, -tensor))


class Magnitudes:
    """The arrays of a kernel that corrects magnitudes and writes masked signs.

    Args:
        magnitudes: magnitudes of the scores in float32 or float64, not negative.
        odd: tensors of the magnitudes' type. If a magnitude is negative after a step, the elements
            at its index change sign.
        signs: tensor whose sign bits are the signs of the weights.
        masked: the masked signs. Their type is bfloat16 or the magnitudes' type.

    Raises:
        ValueError: shapes differ, or a magnitude is negative. The kernels do not check indices, so
            they would read and write outside of the arrays.
        RuntimeError: a tensor is not contiguous.

    Attributes:
        magnitudes: (F,) the magnitudes. All attributes share the memory of the tensors.
        patterns: (F,) the bit patterns of the magnitudes, as integers of the same size.
        odd: (F,) each, the odd tensors.
        signs: (F,) the tensor with the signs of the weights.
        masked: (F,) the masked signs.
    """

    def __init__(
        self, magnitudes: Tensor, odd: Sequence[Tensor], signs: Tensor, masked: Tensor
    ) -> None:
        shapes = {tuple(t.shape) for t in (magnitudes, *odd, signs, masked)}
        if len(shapes) > 1:
            raise ValueError(
                f"magnitudes, odd, signs and masked must have the same shape, got {shapes}: "
                "reshape the tensors"
            )
        if bool((magnitudes < 0).any()):
            raise ValueError(
                f"magnitudes must be >= 0, got {float(magnitudes.min())}: pass absolute values"
            )
        self.magnitudes, self.signs, self.masked = (
            as_stored(t).reshape(-1) for t in (magnitudes, signs, masked)
        )
        # Numba cannot loop over an empty tuple.
        self.odd = tuple(as_stored(t).reshape(-1) for t in odd) or (self.magnitudes[:0],)
        self.patterns = self.magnitudes.view(np.dtype(f"i{self.magnitudes.itemsize}"))

    @property
    def zero(self) -> Any:
        """A zero in the type of the masked signs."""
        return self.masked.dtype.type(0)
