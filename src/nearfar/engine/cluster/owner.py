"""What an owner does in a step: it sends up-to-date rows, and moves them by the slopes it gets.

The rows that a step sends are the **sent rows**: for rank 0, for rank 1, ... A rank sends itself
those of its rows that others need as well. A row may be among them several times; it is gathered
once, and its slopes are added in the order of the sent rows, which is that of the ranks.

Without content a slope is that of a point, and goes through the normalisation here. With content
it is that of delta or of a column's vector: ranks have encoded the point. The decay is added here,
once, if any rank's pairs have read the row (`nearfar.engine.cpu.descent.PartRule`).
"""

from __future__ import annotations

from types import NoneType
from typing import NamedTuple

import numpy as np

from nearfar.engine.cluster.content_read import pulls_of
from nearfar.engine.content import Content
from nearfar.engine.cpu.descent import Change, Pace, step_size, take_step
from nearfar.engine.cpu.hashing import empty, find_or_add, table_size
from nearfar.engine.cpu.rows import ROWS_AT_ONCE, Gathered, Learner, Moved, gather, update
from nearfar.engine.cpu.running import pieces_of
from nearfar.engine.cpu.team import Team, together
from nearfar.runtime.arrays import Float32, Floats, Int, Int64
from nearfar.runtime.jit import by_record, kernel
from nearfar.runtime.references import refer


class Order(NamedTuple):
    """The rows of a rank's table that a step sends."""

    listed: Int64
    """(n,) each of them once, in order of first appearance."""
    slot: Int64
    """(k,) for each sent row its place in `listed`."""
    start: Int64
    """(n + 1,) where the sent rows of each listed row begin in `sent`."""
    sent: Int64
    """(k,) the sent rows of each listed row, ascending."""


class Decay(NamedTuple):
    """How rows of the rank's table decay when a step reads them."""

    pull: Float32
    """(n,) that of each row; 0 for a plain point."""


class Service(NamedTuple):
    """What an owner works with in a step."""

    t: int
    order: Order
    learner: Learner
    now: Gathered
    """Room for the listed rows."""
    sent: Floats
    """(k, d) the sent rows; then, in their place, their slopes."""
    decay: Decay | None
    """None without content."""


def make_decay(content: Content | None, rows: Int64) -> Decay | None:
    """Return how the rows of a rank's table decay; `rows` are their joint numbers."""
    return None if content is None else Decay(pulls_of(content, rows))


class Moving(NamedTuple):
    """A thread's own: its room for gradients, and the pace of the step."""

    moved: Moved
    pace: Pace


def make_order(rows: Int64) -> Order:
    """Index the sent rows `rows`, (k,).

    Examples
    --------
    >>> order = make_order(np.array([4, 7, 4, 9]))
    >>> order.listed, order.slot, order.start, order.sent
    (array([4, 7, 9]), array([0, 1, 0, 2]), array([0, 2, 3, 4]), array([0, 2, 1, 3]))
    """
    k = len(rows)
    order = Order(*(np.empty(n, np.int64) for n in (k, k, k + 1, k)))
    n = _index(rows, np.empty(table_size(k), np.int64), order)
    return order._replace(listed=order.listed[:n], start=order.start[: n + 1])


@kernel
def _index(rows: Int64, seen: Int64, order: Order) -> Int:
    """Fill the order; returns the number of different rows."""
    listed, slot, start, sent, n = order.listed, order.slot, order.start, order.sent, 0
    empty(seen)
    start[:] = 0
    for i in range(rows.shape[0]):
        at = find_or_add(seen, rows[i], n)
        if at == n:
            listed[n] = rows[i]
            n += 1
        slot[i] = at
        start[at + 1] += 1
    for u in range(n):
        start[u + 1] += start[u]
    following = start[:n].copy()
    for i in range(rows.shape[0]):
        sent[following[slot[i]]] = i
        following[slot[i]] += 1
    return n


@kernel
def serve(team: Team, service: Service) -> None:
    """Fill `sent` with the rows as they are after t steps. All threads of a team call it."""
    here = refer(service)
    n, k = service.order.listed.shape[0], service.order.slot.shape[0]
    phase = together(team, 0, pieces_of(n, ROWS_AT_ONCE), _gather, here, here)
    together(team, phase, pieces_of(k, ROWS_AT_ONCE), _copy, here, here)


@kernel
def _gather(piece: Int, service: Service, run: Service) -> None:
    listed, begin = service.order.listed, piece * ROWS_AT_ONCE
    end = min(begin + ROWS_AT_ONCE, listed.shape[0])
    gather(listed, begin, end, service.t, service.learner, service.now)


@kernel
def _copy(piece: Int, service: Service, run: Service) -> None:
    slot, sent, current = service.order.slot, service.sent, service.now.current
    for i in range(piece * ROWS_AT_ONCE, min((piece + 1) * ROWS_AT_ONCE, slot.shape[0])):
        at = slot[i]
        for k in range(sent.shape[1]):
            sent[i, k] = current[at, k]


@kernel
def move(team: Team, service: Service, moved: Moved) -> None:
    """Move the listed rows by the slopes in `sent`, as step t + 1. All threads call it."""
    here = refer(service)
    mine = refer(Moving(moved, step_size(service.learner.rule, service.t + 1)))
    pieces = pieces_of(service.order.listed.shape[0], ROWS_AT_ONCE)
    together(team, 0, pieces, _move, here, mine)


@kernel
def _move(piece: Int, service: Service, mine: Moving) -> None:
    order, moved, total, count = service.order, mine.moved, mine.moved.total, 0
    begin, listed = piece * ROWS_AT_ONCE, order.listed
    for u in range(begin, min(begin + ROWS_AT_ONCE, listed.shape[0])):
        moved.at[count] = u
        flows = _add(order, u, service.sent, total, count)
        count += flows or _was_read(service.decay, total, count)
    _take_steps(service.decay, count, moved, service, mine.pace)


@kernel
def _any_slope(decay: Decay, total: Floats, at: Int) -> bool:
    return not np.signbit(total[at, 0])


@kernel
def _no_slope(decay: None, total: Floats, at: Int) -> bool:
    return False


_was_read = by_record({Decay: _any_slope, NoneType: _no_slope})
"""`_was_read(decay, total, at)`: whether a sum of zeros is a slope, which decay is added to."""


@kernel
def _decay(decay: Decay, count: Int, moved: Moved, service: Service, pace: Pace) -> None:
    total, current, learner = moved.total, service.now.current, service.learner
    for r in range(count):
        u = moved.at[r]
        row = service.order.listed[u]
        for k in range(total.shape[1]):
            total[r, k] += decay.pull[row] * current[u, k]
        change = Change(total, r, current, u, np.float32(0.0), np.float32(1.0))
        take_step(learner.rule, learner.rows, row, service.t - learner.last[row] + 1, pace, change)
        learner.last[row] = service.t + 1


@kernel
def _plain(decay: None, count: Int, moved: Moved, service: Service, pace: Pace) -> None:
    update(count, moved, service.order.listed, service.t, pace, service.learner, service.now)


_take_steps = by_record({Decay: _decay, NoneType: _plain})
"""`_take_steps(decay, count, moved, service, pace)`: change rows by their slopes."""


@kernel
def _add(order: Order, u: Int, sent: Floats, total: Floats, at: Int) -> bool:
    """Add the slopes of listed row u; returns whether any is not 0: 0 is no slope."""
    start, entry, any_flow = order.start, order.sent, False
    for k in range(sent.shape[1]):
        total[at, k] = sent[entry[start[u]], k]
    for e in range(start[u] + 1, start[u + 1]):
        for k in range(sent.shape[1]):
            total[at, k] += sent[entry[e], k]
    for k in range(sent.shape[1]):
        any_flow |= total[at, k] != 0.0
    return any_flow
