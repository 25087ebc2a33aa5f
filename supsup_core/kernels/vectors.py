"""Eight 64-bit numbers at a time: Numba types for words of bits, and for sums in float64.

Numba would have to prove that no two of a dozen arrays overlap before it vectorised a loop
of adders; with these types it need not. LLVM makes of one what the processor has: a
register of AVX-512, two of AVX2, four of NEON.
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
    """LANES words of 64 bits."""

    def __init__(self) -> None:
        super().__init__(name="Words")


WORDS = _Words()


class _Doubles(types.Type):  # type: ignore[misc]
    """LANES numbers in float64."""

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
    """Words with words make words."""

    @no_type_check
    def generic(self, args: Any, kws: Any) -> Any:
        return WORDS(WORDS, WORDS) if args == (WORDS, WORDS) else None


def _register(function: Any, instruction: str) -> None:
    """Let an operator between words be one instruction."""

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
    """Lanes added up, lowest first."""
    lanes = [builder.extract_element(vector, ir.IntType(32)(b)) for b in range(LANES)]
    result = lanes[0]
    for lane in lanes[1:]:
        result = add(result, lane)
    return result


def _place(
    context: Any, builder: Any, kind: Any, array: Any, index: Any, vector: Any = _VECTOR
) -> Any:
    """Where the LANES numbers from index on lie in a contiguous array."""
    data = context.make_array(kind)(context, builder, value=array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


@intrinsic
@no_type_check  # Numba wants the functions themselves, not wrappers that check shapes in tests
def load(typing_context: Any, array: Any, index: Any) -> Any:
    """The words array[index : index + LANES]; no bounds are checked."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_place(context, builder, signature.args[0], *args), align=8)

    return WORDS(array, types.intp), generate


@intrinsic
@no_type_check
def store(typing_context: Any, array: Any, index: Any, words: Any) -> Any:
    """Write words to array[index : index + LANES]; no bounds are checked."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, index, words = args
        place = _place(context, builder, signature.args[0], array, index)
        builder.store(words, place, align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, words), generate


@intrinsic
@no_type_check
def spread(typing_context: Any, word: Any) -> Any:
    """One word LANES times."""

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
    """Ones of each word."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(_VECTOR, [_VECTOR])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.ctpop.v8i64")
        return builder.call(function, args)

    return words(words), generate


@intrinsic
@no_type_check
def lowest_one(typing_context: Any, number: Any) -> Any:
    """Place of the lowest one of a number that has one."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return number(number), generate


@intrinsic
@no_type_check
def total_words(typing_context: Any, words: Any) -> Any:
    """All words together, as one number of 64 bits with a sign."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _all_lanes(builder, builder.add, args[0])

    return types.int64(words), generate


@intrinsic
@no_type_check
def prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Begin to bring the words from index on into the core's own caches."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.bitcast(
            _place(context, builder, signature.args[0], *args), ir.IntType(8).as_pointer()
        )
        i32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, i32, i32, i32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        # for reading, into the second level, as data
        builder.call(function, [place, i32(0), i32(2), i32(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@intrinsic
@no_type_check
def no_doubles(typing_context: Any) -> Any:
    """LANES zeros."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(_DOUBLE_VECTOR, [0.0] * LANES)

    return DOUBLES(), generate


@intrinsic
@no_type_check
def load_doubles(typing_context: Any, array: Any, index: Any) -> Any:
    """The numbers array[index : index + LANES], of float32; no bounds are checked."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _place(context, builder, signature.args[0], *args, vector=_FLOAT_VECTOR)
        return builder.fpext(builder.load(place, align=4), _DOUBLE_VECTOR)

    return DOUBLES(array, types.intp), generate


@intrinsic
@no_type_check
def add_chosen(typing_context: Any, sums: Any, numbers: Any, byte: Any) -> Any:
    """Add number b to sum b for each bit b of a byte that is one."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sums, numbers, byte = args
        bits = builder.bitcast(byte, ir.VectorType(ir.IntType(1), LANES))
        return builder.select(bits, builder.fadd(sums, numbers), sums)

    return DOUBLES(sums, numbers, types.uint8), generate


@intrinsic
@no_type_check
def total(typing_context: Any, sums: Any) -> Any:
    """All sums together, lowest first."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _all_lanes(builder, builder.fadd, args[0])

    return types.float64(sums), generate
