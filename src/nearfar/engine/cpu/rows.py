"""The rows of a step: gathered as they are now, changed by their gradients.

``current`` holds the up-to-date stored rows of the step, one for each unique row; a point is
``inverse * current`` and the score of two points is

    inverse_a inverse_b (current_a . current_b) - offset_a - offset_b

with offset = (|x|^2 - 1) / 2 off the sphere and 0 on it (`nearfar.method.geometry`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nearfar.engine.cpu.descent import (
    AdagradRule,
    AdamRule,
    Change,
    Pace,
    PartRule,
    Rule,
    SGDRule,
    catch_up,
    clip,
    dot,
    replay,
    settle,
    take_step,
)
from nearfar.engine.cpu.prefetch import prefetch, prefetch_row
from nearfar.engine.spec import BALL, SPHERE
from nearfar.runtime.arrays import DType, Floats, Int, Int64
from nearfar.runtime.jit import by_record, inlined, kernel
from nearfar.runtime.references import refer

_AHEAD = 8
"""How many rows ahead of its use a row is asked for."""
ROWS_AT_ONCE = 16
"""Rows that are gathered, or changed, at a time."""


class Learner(NamedTuple):
    """The tables that a run changes, and the rule by which they move."""

    rows: Floats
    """(N + M, slots, d): the parameter and the optimiser's moments."""
    last: Int64
    """(N + M,) the step a row was last brought up to date for; of copies too, with a `PartRule`."""
    geometry: int
    """SPHERE, BALL or FREE."""
    rule: Rule


class Gathered(NamedTuple):
    """Room for rows of a step, U at most; see the module docstring."""

    current: Floats
    """(U, d) stored rows, up to date."""
    inverse: Floats
    """(U,) 1 / length on the sphere, else 1."""
    offset: Floats
    """(U,)."""


class Moved(NamedTuple):
    """Gradients of some points: what a thread collects before it changes their rows."""

    total: Floats
    """(n, d) gradients of points."""
    at: Int64
    """(n,) which of the step's rows each is of."""


def make_gathered(rows: int, dim: int, dtype: DType = np.float32) -> Gathered:
    """Make room for so many rows."""
    return Gathered(np.empty((rows, dim), dtype), np.empty(rows, dtype), np.empty(rows, dtype))


@inlined
def _ask_table(rule: Rule, rows: Floats, row: Int) -> None:
    prefetch_row(rows, row)


@inlined
def _ask_part(rule: PartRule, rows: Floats, row: Int) -> None:
    if row < rows.shape[0]:
        prefetch_row(rows, row)
    else:
        prefetch_row(rule.copies, row - rows.shape[0])


ask = by_record(
    {AdamRule: _ask_table, AdagradRule: _ask_table, SGDRule: _ask_table, PartRule: _ask_part}
)
"""`ask(rule, rows, row)`: ask for the memory of a row before it is needed."""


@inlined
def gather(listed: Int64, begin: Int, end: Int, t: Int, learner: Learner, into: Gathered) -> None:
    """Put the rows listed[begin:end], as they are after t steps, into places begin..end-1.

    The tables stay as they are.
    """
    rows, last = learner.rows, learner.last
    current, inverse, offset = into.current, into.inverse, into.offset
    real, final = current.dtype.type, listed.shape[0] - 1
    one = real(1.0)
    for at in range(begin, end):
        row = listed[at]
        prefetch(last, listed[min(at + 2 * _AHEAD, final)])
        ask(learner.rule, rows, listed[min(at + _AHEAD, final)])
        moved = catch_up(learner.rule, rows, row, last[row], t, current, at)
        squares = dot(current, at, current, at)
        if learner.geometry == SPHERE:
            inverse[at] = one / np.sqrt(squares) if squares > 0.0 else one
            offset[at] = real(0.0)
            continue
        if learner.geometry == BALL and squares > one and moved:
            squares = replay(learner.rule, rows, row, last[row], t, current, at)
        inverse[at] = one
        offset[at] = real(0.5) * (squares - one)


@kernel
def to_unit(begin: Int, end: Int, geometry: Int, points: Gathered) -> None:
    """Bring gathered rows begin..end-1 to length 1, in any geometry."""
    current, real = points.current, points.current.dtype.type
    one = real(1.0)
    for at in range(begin, end):
        scale = real(points.inverse[at])
        if geometry != SPHERE:
            squares = real(2.0) * points.offset[at] + one
            scale = real(one / np.sqrt(squares)) if squares > 0.0 else one
        for k in range(current.shape[1]):
            current[at, k] *= scale


@inlined
def update(
    count: Int, moved: Moved, listed: Int64, t: Int, pace: Pace, learner: Learner, now: Gathered
) -> None:
    """Change the rows listed[moved.at[:count]] by the gradients of their points, as step t + 1.

    `pace` is what `step_size` returns for that step (two powers, too dear for every call).
    The gradient goes through the normalisation x / |x| first: (g - (g.x) x / |x|^2) / |x|.
    """
    total, cur, rows, last = moved.total, now.current, learner.rows, learner.last
    real = total.dtype.type
    for r in range(count):
        u = moved.at[r]
        row = listed[u]
        inverse, radial = real(1.0), real(0.0)
        if learner.geometry == SPHERE:
            inverse = real(now.inverse[u])
            radial = dot(total, r, cur, u) * inverse * inverse
        gap, change = t - last[row] + 1, Change(total, r, cur, u, radial, inverse)
        take_step(learner.rule, rows, row, gap, pace, change)
        last[row] = t + 1
        if learner.geometry == BALL and row < rows.shape[0]:  # a copy is clipped by its owner
            clip(rows[:, 0], row)


@kernel
def bring_up_to_date(listed: Int64, t: Int, learner: Learner, room: Gathered, out: Floats) -> None:
    """Bring the rows `listed` up to date for t steps done.

    Their points are written to `out` (n, d); if it has no rows, the rows are stored in place.
    `room` is for ROWS_AT_ONCE.
    """
    here, in_place = refer(learner), out.shape[0] == 0
    for first in range(0, listed.shape[0], ROWS_AT_ONCE):
        some = listed[first : first + ROWS_AT_ONCE]
        n = some.shape[0]
        current = room.current[:n] if in_place else out[first : first + n]
        gathered = refer(Gathered(current, room.inverse, room.offset))
        gather(some, 0, n, t, here, gathered)
        if in_place:
            store(some, t, here, gathered)
        elif learner.geometry == SPHERE:
            to_unit(0, n, learner.geometry, gathered)


@kernel
def store(listed: Int64, t: Int, learner: Learner, some: Gathered) -> None:
    """Put gathered rows back, and let their moments decay."""
    rows, last, current = learner.rows, learner.last, some.current
    for at in range(listed.shape[0]):
        row = listed[at]
        if 0 < last[row] < t:
            settle(learner.rule, rows, row, t - last[row])
            for k in range(rows.shape[2]):
                rows[row, 0, k] = current[at, k]
            last[row] = t
