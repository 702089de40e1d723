"""The encoder of a step: points out of content and delta, and their gradients back into both.

With x_r the content of row r, w_f the vector of column f and m_r the draw of
`nearfar.engine.content`, the stored row of a point is ::

    z_r = sum_f x_rf w_f + m_r delta_r

and a gradient s_r of z_r goes to delta_r as m_r s_r + decay delta_r, if m_r = 1, and to w_f as
sum_r x_rf s_r over the rows of the step, in their order, and decay w_f. A copy of another table's
row (`nearfar.engine.cpu.descent.PartRule`) gets its slope without the decay, which its owner adds.
"""

from __future__ import annotations

from types import NoneType
from typing import NamedTuple

import numpy as np

from nearfar.engine.content import Content, id_pull, weight_pull
from nearfar.engine.cpu.choose import Second, place_of
from nearfar.engine.cpu.content_plan import ContentPlan, ContentSource
from nearfar.engine.cpu.descent import Change, Pace, catch_up, dot, take_step
from nearfar.engine.cpu.rows import ROWS_AT_ONCE, Gathered, Learner, Moved, gather, update
from nearfar.runtime.arrays import Floats, Int, Int64
from nearfar.runtime.jit import by_record, inlined


class Reading(NamedTuple):
    """Room for the content of a step."""

    content: Content
    own: Floats
    """(U, d) delta of each unique row."""
    slope: Floats
    """(U, d) gradients of z."""
    vectors: Gathered
    """(K, d) the vectors w of the columns."""


@inlined
def gather_vectors(
    reading: Reading, piece: Int, plan: ContentPlan, t: Int, learner: Learner
) -> None:
    """Gather a piece of the vectors of the step, as they are after t steps."""
    begin = piece * ROWS_AT_ONCE
    end = min(begin + ROWS_AT_ONCE, plan.size[0])
    gather(plan.wanted[: plan.size[0]], begin, end, t, learner, reading.vectors)


@inlined
def _encode_rows(reading: Reading, begin: Int, end: Int, plan: ContentPlan, now: Gathered) -> None:
    own, current, inverse, vectors = reading.own, now.current, now.inverse, reading.vectors.current
    indptr, values, slot = reading.content.indptr, reading.content.values, plan.slot
    one, dim = np.float32(1.0), current.shape[1]
    for at in range(begin, end):
        keep = one if plan.kept[at] else np.float32(0.0)
        for k in range(dim):
            own[at, k] = current[at, k]
            current[at, k] = keep * own[at, k]
        first, last = np.int64(plan.begin[at]), np.int64(plan.begin[at + 1])
        shift = indptr[plan.row[at]] - first
        for e in range(first, last):
            x, f = values[e + shift], slot[e]
            for k in range(dim):
                current[at, k] += x * vectors[f, k]
        if last > first:
            squares = dot(current, at, current, at)
            inverse[at] = one / np.sqrt(squares) if squares > 0.0 else one


@inlined
def _stay(reading: None, begin: Int, end: Int, plan: None, now: Gathered) -> None:
    pass


encode_rows = by_record({Reading: _encode_rows, NoneType: _stay})
"""`encode_rows(reading, begin, end, plan, now)`: replace gathered deltas begin..end-1 by z, on the
sphere."""


@inlined
def _yes(reading: Reading) -> bool:
    return True


@inlined
def _no(reading: None) -> bool:
    return False


is_hybrid = by_record({Reading: _yes, NoneType: _no})
"""`is_hybrid(reading)`: whether there is content: then decay moves rows without a gradient too."""


@inlined
def _move(
    reading: Reading, count: Int, moved: Moved, listed: Int64, plan: ContentPlan, t: Int,
    pace: Pace, learner: Learner, now: Gathered,
) -> None:  # fmt: skip
    total, own, slope, current = moved.total, reading.own, reading.slope, now.current
    rows, last, real = learner.rows, learner.last, moved.total.dtype.type
    for r in range(count):
        u = moved.at[r]
        row, inverse = listed[u], real(now.inverse[u])
        radial = dot(total, r, current, u) * inverse * inverse
        pull = np.float32(0.0)
        if row < rows.shape[0]:
            pull = id_pull(reading.content, plan.row[u])
        for k in range(slope.shape[1]):
            slope[u, k] = (total[r, k] - radial * current[u, k]) * inverse
            total[r, k] = slope[u, k] + pull * own[u, k]
        if plan.kept[u]:
            change = Change(total, r, own, u, np.float32(0.0), np.float32(1.0))
            take_step(learner.rule, rows, row, t - last[row] + 1, pace, change)
            last[row] = t + 1


@inlined
def _update(
    reading: None, count: Int, moved: Moved, listed: Int64, plan: None, t: Int,
    pace: Pace, learner: Learner, now: Gathered,
) -> None:  # fmt: skip
    update(count, moved, listed, t, pace, learner, now)


move_rows = by_record({Reading: _move, NoneType: _update})
"""`move_rows(reading, count, moved, listed, plan, t, pace, learner, now)`: change the rows
listed[moved.at[:count]] by the gradients of their points, as step t + 1."""


@inlined
def move_vectors(
    reading: Reading, piece: Int, plan: ContentPlan, t: Int, pace: Pace, learner: Learner,
    moved: Moved,
) -> None:  # fmt: skip
    """Change a piece of the vectors of the step by the gradients of the points that read them."""
    begin = piece * ROWS_AT_ONCE
    end = min(begin + ROWS_AT_ONCE, plan.size[0])
    total, slope, vectors = moved.total, reading.slope, reading.vectors.current
    rows, last, content = learner.rows, learner.last, reading.content
    for f in range(begin, end):
        row, pull = plan.wanted[f], np.float32(0.0)
        if row < rows.shape[0]:
            pull = weight_pull(content, plan.column[f])
        for k in range(slope.shape[1]):
            total[0, k] = pull * vectors[f, k]
        for e in range(plan.start[f], plan.start[f + 1]):
            x, u = plan.value[e], plan.reader[e]
            for k in range(slope.shape[1]):
                total[0, k] += x * slope[u, k]
        change = Change(total, 0, vectors, f, np.float32(0.0), np.float32(1.0))
        take_step(learner.rule, rows, row, t - last[row] + 1, pace, change)
        last[row] = t + 1


@inlined
def refresh(
    source: ContentSource, piece: Int, t: Int, learner: Learner, room: Floats, second: Second
) -> None:
    """Put a piece of the points whose turn it is, as they are after t steps, into the cache.

    See `nearfar.engine.Problem.refreshed`.
    """
    content, cache, rows, last = source.content, second.cache, learner.rows, learner.last
    n, dim, one = cache.shape[0], cache.shape[1], np.float32(1.0)
    size = (n + second.n_slices - 1) // second.n_slices
    first = t % second.n_slices * size
    begin, last_one = first + piece * ROWS_AT_ONCE, min(first + size, n)
    for at in range(begin, min(begin + ROWS_AT_ONCE, last_one)):
        row = at + second.first_cached
        place = place_of(second.home, row)
        catch_up(learner.rule, rows, place, last[place], t, cache, at)
        for e in range(content.indptr[row], content.indptr[row + 1]):
            vector = place_of(second.home, source.n_rows + np.int64(content.columns[e]))
            x = content.values[e]
            catch_up(learner.rule, rows, vector, last[vector], t, room, 0)
            for k in range(dim):
                cache[at, k] += x * room[0, k]
        squares = dot(cache, at, cache, at)
        scale = one / np.sqrt(squares) if squares > 0.0 else one
        for k in range(dim):
            cache[at, k] *= scale
        second.cached_at[at] = t


@inlined
def _look_up(source: ContentSource, begin: Int, end: Int, second: Second) -> None:
    indptr, cache, units = source.content.indptr, second.cache, second.units.current
    for at in range(begin, end):
        row = second.joint[at]
        if indptr[row + 1] > indptr[row]:
            for k in range(cache.shape[1]):
                units[at, k] = cache[row - second.first_cached, k]


@inlined
def _look_at_none(source: None, begin: Int, end: Int, second: Second) -> None:
    pass


look_up = by_record({ContentSource: _look_up, NoneType: _look_at_none})
"""`look_up(source, begin, end, second)`: replace unit vectors begin..end-1 by the cached points of
rows with content."""
