"""A team of threads inside compiled code: a barrier, and work handed out in pieces.

A training step is a few short phases with a barrier between them, far too short to go back to
Python for each. So every thread runs the whole chunk of steps in one kernel call and meets the
others here. Pieces of a phase are claimed from a shared counter, so a thread that the operating
system puts aside holds up one piece, not half of the phase; and a waiting thread gives its core
away after a moment instead of spinning on it. What is computed never depends on who claims what.

A team is one int64 array; its fields lie a cache line apart.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import extending
from numba.core import cgutils, types

from nearfar.jit import Int, kernel

Team = npt.NDArray[np.int64]
intrinsic: Any = extending.intrinsic

_LINE = 16  # int64 fields in two cache lines: neighbouring lines are fetched in pairs
_ARRIVED, _ROUND, _CLAIMED, _SIZE = 0, _LINE, 2 * _LINE, 3 * _LINE
_SPINS = 50_000
"""How often a waiting thread looks before it gives its core away: about 0.1 ms, several phases of
a small step. Giving way earlier costs a whole time slice whenever another process wants a core."""


def make_team(size: int) -> Team:
    """Make the shared state of a team of `size` threads."""
    team = np.zeros(4 * _LINE, np.int64)
    team[_SIZE] = size
    return team


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
def _give_way(typing_context):  # type: ignore[no-untyped-def]
    """Let the operating system run something else on this core."""
    get: Any = cgutils.get_or_insert_function
    name = "SwitchToThread" if sys.platform == "win32" else "sched_yield"

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        function = get(builder.module, ir.FunctionType(ir.IntType(32), []), name)
        builder.call(function, [])
        return context.get_dummy_value()

    return types.void(), generate


@kernel
def claim(team: Team, pieces: Int) -> Int:
    """Take the next `pieces` pieces of this phase; gives the number of the first."""
    return _fetch_add(team, _CLAIMED, pieces)


@kernel
def barrier(team: Team) -> None:
    """Wait until every thread of the team is here; the next phase starts with nothing claimed."""
    n_round = _load(team, _ROUND)
    if _fetch_add(team, _ARRIVED, 1) == team[_SIZE] - 1:
        _store(team, _ARRIVED, 0)
        _store(team, _CLAIMED, 0)
        _store(team, _ROUND, n_round + 1)
        return
    spins = 0
    while _load(team, _ROUND) == n_round:
        spins += 1
        if spins > _SPINS:
            _give_way()
