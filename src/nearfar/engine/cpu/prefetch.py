"""Ask for memory before it is needed: the rows of a step lie anywhere in tables larger than caches.

A processor guesses the next cache line of a row, but not which row comes next. The plan knows.
Asking changes no result, only when it is there.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import extending
from numba.core import cgutils, types

intrinsic: Any = extending.intrinsic
unpack: Any = cgutils.unpack_tuple

_LINE = 64


def _ask(builder: Any, pointer: Any) -> None:
    """Read, into the second cache: the first has too few places for what is under way."""
    byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    signature = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
    function = builder.module.declare_intrinsic("llvm.prefetch", [byte], signature)
    builder.call(function, [builder.bitcast(pointer, byte), number(0), number(2), number(1)])


@intrinsic
def prefetch_row(typing_context, array, row):  # type: ignore[no-untyped-def]
    """Ask for all of ``array[row]``; `array` is C-contiguous and `row` is inside it."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        view = context.make_array(signature.args[0])(context, builder, args[0])
        length = unpack(builder, view.strides)[0]
        byte = ir.IntType(8).as_pointer()
        start = builder.gep(builder.bitcast(view.data, byte), [builder.mul(args[1], length)])
        zero, line = length.type(0), length.type(_LINE)
        with cgutils.for_range_slice(builder, zero, length, line, length.type) as (offset, _):
            _ask(builder, builder.gep(start, [offset]))
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@intrinsic
def prefetch(typing_context, array, index):  # type: ignore[no-untyped-def]
    """Ask for the line of ``array[index]``, of a contiguous array with one axis."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        view = context.make_array(signature.args[0])(context, builder, args[0])
        _ask(builder, builder.gep(view.data, [args[1]]))
        return context.get_dummy_value()

    return types.void(array, types.int64), generate
