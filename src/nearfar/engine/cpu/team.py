"""A team of threads inside compiled code: work cut into pieces, one phase after the other.

A training step is a few short phases, far too short to go back to Python for each. So every thread
runs the whole chunk of steps in one kernel call. A phase is over, and the next one opens, when all
its pieces are done: *not* when all threads have come by. A thread that the operating system has put
aside between two pieces holds nobody up; when it is back it finds its phases over, skips them and
helps where the others are. Only one that is put aside within a piece is waited for, and the others
then sleep, so that it gets a core. What is computed never depends on who claims what.

Each thread counts the phases it has passed, so the number of phases may depend on nothing that a
phase computes; the number of pieces may. The shared state is one int64 array; its fields lie a
cache line apart.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending
from numba.core import cgutils, types

from nearfar.runtime.arrays import Int, Int64
from nearfar.runtime.jit import inlined, kernel

Team = Int64
intrinsic: Any = extending.intrinsic

_LINE = 16  # int64 fields in two cache lines: neighbouring lines are fetched in pairs
_CLAIMED, _DONE = 0, _LINE
"""``phase << 32 | next piece``; pieces of the phase that are done."""
_SPINS = 20_000
"""How often a waiting thread looks before it sleeps: about 40 microseconds, more than a phase of a
small step takes."""
_NAP = 50
"""Microseconds."""


def make_team() -> Team:
    """Make the shared state of a team."""
    return np.zeros(2 * _LINE, np.int64)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


@intrinsic
def _fetch_add(typing_context, array, index, value):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        return builder.atomic_rmw("add", pointer, args[2], "seq_cst")

    return types.int64(array, types.int64, types.int64), generate


@intrinsic
def _load(typing_context, array, index):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        return builder.load_atomic(pointer, "acquire", 8)

    return types.int64(array, types.int64), generate


@intrinsic
def _store(typing_context, array, index, value):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        builder.store_atomic(args[2], pointer, "release", 8)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), generate


@intrinsic
def _exchange(typing_context, array, index, expected, value):  # type: ignore[no-untyped-def]
    """Put `value` in place of `expected`; whether that stood there."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1])
        result = builder.cmpxchg(pointer, args[2], args[3], "seq_cst", "seq_cst")
        return builder.extract_value(result, 1)

    return types.boolean(array, types.int64, types.int64, types.int64), generate


@intrinsic
def _nap(typing_context):  # type: ignore[no-untyped-def]
    """Let the operating system run something else on this core."""
    get: Any = cgutils.get_or_insert_function
    name, time = ("Sleep", 0) if sys.platform == "win32" else ("usleep", _NAP)

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        number = ir.IntType(32)
        function = get(builder.module, ir.FunctionType(number, [number]), name)
        builder.call(function, [number(time)])
        return context.get_dummy_value()

    return types.void(), generate


@kernel
def claim(team: Team, phase: Int, pieces: Int) -> Int:
    """Take the next piece of the phase, which has `pieces`; -1 if none is left."""
    while True:
        now = _load(team, _CLAIMED)
        piece = now & 0xFFFFFFFF
        if now >> 32 != phase or piece >= pieces:
            return -1
        if _exchange(team, _CLAIMED, now, now + 1):
            return piece


@kernel
def done(team: Team, phase: Int, pieces: Int) -> None:
    """Say that a claimed piece is done; after the last of them the next phase opens."""
    if _fetch_add(team, _DONE, 1) == pieces - 1:
        _store(team, _DONE, 0)
        _store(team, _CLAIMED, (phase + 1) << 32)


@kernel
def wait(team: Team, phase: Int) -> Int:
    """Wait until the phase is over; gives the next one. A phase without pieces is never over."""
    spins = 0
    while _load(team, _CLAIMED) >> 32 <= phase:
        spins += 1
        if spins > _SPINS:
            _nap()
    return phase + 1


@inlined
def together(team: Team, phase: Int, pieces: Int, work: Any, on: Any, run: Any) -> Int:
    """Do ``work(piece, on, run)`` for each of the pieces of a phase, with the other threads.

    Returns the next phase. `work` is a kernel, and there is at least one piece.
    """
    piece = claim(team, phase, pieces)
    while piece >= 0:
        work(piece, on, run)
        done(team, phase, pieces)
        piece = claim(team, phase, pieces)
    return wait(team, phase)
