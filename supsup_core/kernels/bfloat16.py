"""Read and write bfloat16 in Numba kernels, as bits in uint16, because NumPy lacks bfloat16.

Each function generates a few LLVM instructions on bits. LLVM can vectorise a loop with these
instructions. If the functions were written in another way, LLVM could not vectorise the loop.
Values of float32 and float64 stay unchanged, so the same kernel works for every type.
"""

from typing import Any, no_type_check

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.extending import intrinsic
from torch import Tensor

_U32 = ir.IntType(32)


@intrinsic
@no_type_check  # Numba needs the function itself, not the wrapper that checks shapes in tests
def real(typing_context: Any, value: Any) -> Any:
    """Convert a stored value to a float.

    A uint16 holds the bits of a bfloat16, and becomes a float32. A float stays unchanged.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if isinstance(signature.args[0], numba.types.Float):
            return args[0]
        wide = builder.zext(args[0], _U32)
        return builder.bitcast(builder.shl(wide, ir.Constant(_U32, 16)), ir.FloatType())

    result = value if isinstance(value, numba.types.Float) else numba.types.float32
    return result(value), generate


@intrinsic
@no_type_check
def stored(typing_context: Any, value: Any, like: Any) -> Any:
    """Convert a float to the type of `like`, which must be uint16 or the type of `value`.

    If `like` is uint16, the float32 value is rounded to the nearest bfloat16 (ties to even). The
    result holds the bits of this bfloat16. Otherwise the value stays unchanged.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if isinstance(signature.args[1], numba.types.Float):
            return args[0]
        bits = builder.bitcast(args[0], _U32)
        odd = builder.and_(builder.lshr(bits, ir.Constant(_U32, 16)), ir.Constant(_U32, 1))
        rounded = builder.add(bits, builder.add(odd, ir.Constant(_U32, 0x7FFF)))
        return builder.trunc(builder.lshr(rounded, ir.Constant(_U32, 16)), ir.IntType(16))

    result = value if isinstance(like, numba.types.Float) else numba.types.uint16
    return result(value, like), generate


@intrinsic
@no_type_check
def sign_of(typing_context: Any, value: Any) -> Any:
    """Return +1 or -1 in the value's type, from the value's sign bit. So -0.0 gives -1."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        double = signature.args[0] == numba.types.float64
        width, one = (64, 0x3FF0000000000000) if double else (32, 0x3F800000)
        kind = ir.IntType(width)
        sign = builder.and_(builder.bitcast(args[0], kind), ir.Constant(kind, 1 << (width - 1)))
        bits = builder.or_(sign, ir.Constant(kind, one))
        return builder.bitcast(bits, ir.DoubleType() if double else ir.FloatType())

    return value(value), generate


@intrinsic
@no_type_check
def power_of_two(typing_context: Any, exponent: Any) -> Any:
    """Return 2**exponent as float32, for an int32 exponent in [-126, 127]."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        biased = builder.add(args[0], ir.Constant(_U32, 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(_U32, 23)), ir.FloatType())

    return numba.types.float32(numba.types.int32), generate


def as_stored(tensor: Tensor) -> np.ndarray:
    """Return an array that shares the memory of a CPU tensor, for use in a kernel.

    A bfloat16 tensor becomes an array of uint16, which holds the bits.

    Raises:
        RuntimeError: the tensor is not contiguous. (A copy would lose what a kernel writes.)
    """
    flat = tensor.view(-1)
    if tensor.dtype == torch.bfloat16:
        flat = flat.view(torch.int16)
        return flat.numpy().view(np.uint16).reshape(tensor.shape)
    return np.asarray(flat.numpy().reshape(tensor.shape))
