"""Vectors for numba: what its loops cannot be made to say, as LLVM instructions of any CPU.

numba turns scalar loops into vectors when it can prove that it may, and keeps no array in
registers. Here a vector is a value: `rows` of 8 to 64 doubles (LLVM splits them over registers
of the width that the CPU has), and `word8`, 8 words of the stream or their 64 bytes.

No index is checked or wrapped. Byte 8 * j + b of a word8 is byte b of word j, the lowest first.
"""

from typing import Any

import numba
import numpy as np
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.core.errors import RequireLiteralValue
from numba.extending import models, register_model

from fastpop.kernels.permutation.reference import GAMMA, MASK

# Any: a call leaves out the first argument, the typing context, which mypy would ask for.
intrinsic: Any = numba.extending.intrinsic
I8, I32, I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
WORD8, BYTE64, BIT64 = ir.VectorType(I64, 8), ir.VectorType(I8, 64), ir.VectorType(ir.IntType(1), 64)
NOWHERE = 64  # fills a list up: the row after the last of a block


FEATURES = binding.get_host_cpu_features()
# One instruction that packs chosen bytes, and an LLVM that can ask for it.
COMPRESS = bool(FEATURES.get("avx512vbmi2")) and binding.llvm_version_info >= (19,)
# Sums that fit in registers with room to work: 8 of 8 doubles in 32, or 8 of 4 in 16.
COLUMNS = 64 if FEATURES.get("avx512f") else 32


class Vector(types.Type):
    """`lanes` doubles, or words of 64 bits."""

    def __init__(self, lanes: int, double: bool):
        self.lanes, self.double = lanes, double
        super().__init__(f"vector({lanes} x {'double' if double else 'word'})")


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        lane = ir.DoubleType() if kind.double else I64
        super().__init__(manager, kind, ir.VectorType(lane, kind.lanes))


word8 = Vector(8, double=False)


def _at(context, builder, array_type, array, index, kind):
    """The address of array[index], as that of a `kind`."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


def _all(builder, scalar, kind):
    """A vector whose lanes are all `scalar`."""
    nothing = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(nothing, scalar, I32(0))
    return builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(I32, kind.count), None))


def _same(value: int, kind=WORD8):
    return ir.Constant(kind, [value] * kind.count)


def _call(builder, name, result, arguments):
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


@intrinsic(prefer_literal=True)
def load(_, array, index, lanes):
    """array[index : index + lanes] of doubles as a vector; `lanes` is a literal."""
    if not isinstance(lanes, types.IntegerLiteral):
        raise RequireLiteralValue("lanes")
    kind = Vector(lanes.literal_value, double=True)

    def code(context, builder, signature, args):
        vector = context.get_value_type(kind)
        where = _at(context, builder, signature.args[0], args[0], args[1], vector)
        return builder.load(where, align=8)

    return kind(array, types.int64, lanes), code


@intrinsic
def store(_, array, index, value):
    """array[index:] = value, a vector or a word, over as many bytes as it has."""

    def code(context, builder, signature, args):
        where = _at(context, builder, signature.args[0], args[0], args[1], args[2].type)
        builder.store(args[2], where, align=1)
        return context.get_dummy_value()

    return types.void(array, types.int64, value), code


@intrinsic
def scaled(_, value, vector):
    """value * vector"""

    def code(context, builder, signature, args):
        return builder.fmul(_all(builder, args[0], args[1].type), args[1])

    return vector(types.float64, vector), code


@intrinsic
def plus(_, left, right):
    """left + right, vectors"""

    def code(context, builder, signature, args):
        return builder.fadd(args[0], args[1])

    return left(left, right), code


@intrinsic
def add_row(_, total, value, array, index):
    """total + value * array[index : index + lanes of total], rounded once where the CPU can."""

    def code(context, builder, signature, args):
        vector = args[0].type
        where = _at(context, builder, signature.args[2], args[2], args[3], vector)
        row = builder.load(where, align=8)
        return _call(
            builder,
            f"llvm.fmuladd.v{vector.count}f64",
            vector,
            [_all(builder, args[1], vector), row, args[0]],
        )

    return total(total, types.float64, array, types.int64), code


@intrinsic
def words(_, key, first):
    """Words first .. first + 7 of the stream of a key."""

    def code(context, builder, signature, args):
        base = builder.add(args[0], builder.mul(args[1], I64(GAMMA)))
        steps = ir.Constant(WORD8, [(lane + 1) * GAMMA & MASK for lane in range(8)])
        word = builder.add(_all(builder, base, WORD8), steps)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            word = builder.mul(builder.xor(word, builder.lshr(word, _same(shift))), _same(factor))
        return builder.xor(word, builder.lshr(word, _same(31)))

    return word8(types.uint64, types.uint64), code


@intrinsic
def at_least(_, vector, edge):
    """Bit i of the result: byte i of the word8 is >= edge."""

    def code(context, builder, signature, args):
        edges = _all(builder, builder.trunc(args[1], I8), BYTE64)
        bits = builder.icmp_unsigned(">=", builder.bitcast(args[0], BYTE64), edges)
        return builder.bitcast(bits, I64)

    return types.uint64(vector, types.int64), code


@intrinsic
def count_ones(_, word):
    """How many bits of a word are set."""

    def code(context, builder, signature, args):
        return builder.ctpop(args[0])

    return types.int64(types.uint64), code


@intrinsic
def prefetch(_, array, index):
    """Ask for the cache line of array[index]; any index may be asked for."""

    def code(context, builder, signature, args):
        where = _at(context, builder, signature.args[0], args[0], args[1], I8)
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), [where, I32(0), I32(2), I32(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), code


@intrinsic
def _pack(_, array, index, vector, mask):
    """array[index : index + 64] = the bytes of a word8 whose bit is set, then NOWHERE."""

    def code(context, builder, signature, args):
        packed = _call(
            builder,
            "llvm.experimental.vector.compress.v64i8",
            BYTE64,
            [builder.bitcast(args[2], BYTE64), builder.bitcast(args[3], BIT64), _same(NOWHERE, BYTE64)],
        )
        builder.store(packed, _at(context, builder, signature.args[0], args[0], args[1], BYTE64), align=1)
        return context.get_dummy_value()

    return types.void(array, types.int64, vector, types.uint64), code


@intrinsic
def _counting(_):
    """Bytes 0 .. 63."""

    def code(context, builder, signature, args):
        return builder.bitcast(ir.Constant(BYTE64, list(range(64))), WORD8)

    return word8(), code


# Byte n of LIST_256[m] is the place of the n-th bit set in m.
LIST_256 = np.array(
    [sum(place << 8 * n for n, place in enumerate(i for i in range(8) if m >> i & 1)) for m in range(256)],
    np.uint64,
)


@numba.njit(inline="always")
def list_by_table(array, at, mask):
    """array[at:] = the places of the bits set in mask, then 8 times NOWHERE; how many.

    May write 72 bytes.
    """
    end = at
    for n in range(8):
        eighth = (mask >> np.uint64(8 * n)) & np.uint64(255)
        store(array, end, LIST_256[eighth] + np.uint64(n) * np.uint64(0x0808080808080808))
        end += count_ones(eighth)
    store(array, end, np.uint64(NOWHERE * 0x0101010101010101))
    return end - at


@numba.njit(inline="always")
def list_by_compress(array, at, mask):
    """As `list_by_table`; writes 64 bytes."""
    _pack(array, at, _counting(), mask)
    return count_ones(mask)


list_ones = list_by_compress if COMPRESS else list_by_table
