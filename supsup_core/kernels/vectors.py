"""Numba types for vectors of eight 64-bit numbers: words of bits, and sums in float64.

Numba could vectorise a loop of adders only if it could prove that none of a dozen arrays overlap.
With these types, no proof is needed. LLVM maps a vector to the registers of the processor: one
register of AVX-512, two of AVX2, or four of NEON.
"""

import operator
from typing import Any, no_type_check

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 8
_VECTOR = ir.VectorType(ir.IntType(64), LANES)


class _Words(types.Type):  # type: ignore[misc]
    """Numba type of a vector of LANES words of 64 bits."""

    def __init__(self) -> None:
        super().__init__(name="Words")


WORDS = _Words()


class _Doubles(types.Type):  # type: ignore[misc]
    """Numba type of a vector of LANES numbers in float64."""

    def __init__(self) -> None:
        super().__init__(name="Doubles")


DOUBLES = _Doubles()
_DOUBLE_VECTOR = ir.VectorType(ir.DoubleType(), LANES)
_FLOAT_VECTOR = ir.VectorType(ir.FloatType(), LANES)


@register_model(_Doubles)
class _DoublesModel(models.PrimitiveModel):  # type: ignore[misc]
    @no_type_check
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _DOUBLE_VECTOR)


@register_model(_Words)
class _WordsModel(models.PrimitiveModel):  # type: ignore[misc]
    @no_type_check
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _VECTOR)


class _Logic(AbstractTemplate):  # type: ignore[misc]
    """Typing rule for Numba: an operator of two WORDS vectors gives a WORDS vector."""

    @no_type_check
    def generic(self, args: Any, kws: Any) -> Any:
        return WORDS(WORDS, WORDS) if args == (WORDS, WORDS) else None


def _register(function: Any, instruction: str) -> None:
    """Tell Numba to compile an operator of two WORDS vectors to one LLVM instruction."""

    class Template(_Logic):
        pass

    infer_global(function)(Template)

    @lower_builtin(function, _Words, _Words)
    @no_type_check
    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*args)


for _function, _instruction in (
    (operator.add, "add"),
    (operator.sub, "sub"),
    (operator.xor, "xor"),
    (operator.and_, "and_"),
    (operator.or_, "or_"),
):
    _register(_function, _instruction)


def _all_lanes(builder: Any, add: Any, vector: Any) -> Any:
    """Add the LANES elements of a vector, lowest index first."""
    lanes = [builder.extract_element(vector, ir.IntType(32)(b)) for b in range(LANES)]
    result = lanes[0]
    for lane in lanes[1:]:
        result = add(result, lane)
    return result


def _place(
    context: Any, builder: Any, kind: Any, array: Any, index: Any, vector: Any = _VECTOR
) -> Any:
    """Return a pointer to LANES elements of a contiguous array, from `index` on."""
    data = context.make_array(kind)(context, builder, value=array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


@intrinsic
@no_type_check  # Numba needs the functions themselves, not wrappers that check shapes in tests
def load(typing_context: Any, array: Any, index: Any) -> Any:
    """Load the words array[index : index + LANES], without checking bounds."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_place(context, builder, signature.args[0], *args), align=8)

    return WORDS(array, types.intp), generate


@intrinsic
@no_type_check
def store(typing_context: Any, array: Any, index: Any, words: Any) -> Any:
    """Write words to array[index : index + LANES], without checking bounds."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, index, words = args
        place = _place(context, builder, signature.args[0], array, index)
        builder.store(words, place, align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, words), generate


@intrinsic
@no_type_check
def spread(typing_context: Any, word: Any) -> Any:
    """Return a vector whose LANES elements are all equal to `word`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first = ir.Constant(ir.IntType(32), 0)
        none = ir.Constant(_VECTOR, ir.Undefined)
        vector = builder.insert_element(none, args[0], first)
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return builder.shuffle_vector(vector, none, everywhere)

    return WORDS(types.uint64), generate


@intrinsic
@no_type_check
def popcount(typing_context: Any, words: Any) -> Any:
    """Count the ones of each word of a vector."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(_VECTOR, [_VECTOR])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.ctpop.v8i64")
        return builder.call(function, args)

    return words(words), generate


@intrinsic
@no_type_check
def lowest_one(typing_context: Any, number: Any) -> Any:
    """Return the position of the lowest bit that is one. The number must not be zero."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return number(number), generate


@intrinsic
@no_type_check
def total_words(typing_context: Any, words: Any) -> Any:
    """Add the words of a vector, and return the sum as a signed 64-bit number."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _all_lanes(builder, builder.add, args[0])

    return types.int64(words), generate


@intrinsic
@no_type_check
def prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Start to load LANES words of an array, from `index` on, into the core's own caches."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.bitcast(
            _place(context, builder, signature.args[0], *args), ir.IntType(8).as_pointer()
        )
        i32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, i32, i32, i32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        # Prefetch data, for reading, into the second-level cache.
        builder.call(function, [place, i32(0), i32(2), i32(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@intrinsic
@no_type_check
def no_doubles(typing_context: Any) -> Any:
    """Return a vector of LANES zeros in float64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(_DOUBLE_VECTOR, [0.0] * LANES)

    return DOUBLES(), generate


@intrinsic
@no_type_check
def load_doubles(typing_context: Any, array: Any, index: Any) -> Any:
    """Load the float32 numbers array[index : index + LANES] as float64, without checking bounds."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _place(context, builder, signature.args[0], *args, vector=_FLOAT_VECTOR)
        return builder.fpext(builder.load(place, align=4), _DOUBLE_VECTOR)

    return DOUBLES(array, types.intp), generate


@intrinsic
@no_type_check
def add_chosen(typing_context: Any, sums: Any, numbers: Any, byte: Any) -> Any:
    """Add numbers[b] to sums[b] for each bit b of `byte` that is one, and return the new sums."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sums, numbers, byte = args
        bits = builder.bitcast(byte, ir.VectorType(ir.IntType(1), LANES))
        return builder.select(bits, builder.fadd(sums, numbers), sums)

    return DOUBLES(sums, numbers, types.uint8), generate


@intrinsic
@no_type_check
def total(typing_context: Any, sums: Any) -> Any:
    """Add the float64 numbers of a vector, lowest index first."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _all_lanes(builder, builder.fadd, args[0])

    return types.float64(sums), generate
