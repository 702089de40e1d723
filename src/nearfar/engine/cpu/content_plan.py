"""The integers of a step with content: which columns its rows read, and who reads each column."""

from __future__ import annotations

from types import NoneType
from typing import NamedTuple

import numpy as np

from nearfar.engine.content import Content, keeps_id_at
from nearfar.engine.cpu.hashing import empty, find_or_add, table_size
from nearfar.runtime.arrays import Bool, Float32, Int, Int32, Int64
from nearfar.runtime.counter import stream_at
from nearfar.runtime.jit import by_record, kernel


class ContentSource(NamedTuple):
    """What the content of a step is planned from."""

    content: Content
    n_rows: int
    """N + M; the vector of column f is in row N + M + f of the tables."""
    dropout: Int
    """The base of the stream of m."""


class ContentPlan(NamedTuple):
    """Room for the content of a step: U rows with E entries in K different columns."""

    row: Int64
    """(U,) each unique row as a row of the joint table."""
    kept: Bool
    """(U,) m of each unique row."""
    column: Int32
    """(K,) the different columns."""
    wanted: Int64
    """(K,) the rows of the tables that hold their vectors."""
    begin: Int32
    """(U + 1,) where the entries of each unique row begin in `slot`."""
    slot: Int32
    """(E,) place in `wanted` of each entry, row by row."""
    start: Int32
    """(K + 1,) where the entries of each column begin in `reader` and `value`."""
    reader: Int32
    """(E,) the unique row of each entry, column by column, ascending."""
    value: Float32
    """(E,) x of these entries."""
    size: Int64
    """(1,) columns of the step."""


class ContentSketch(NamedTuple):
    """What a thread writes on while it plans content."""

    table: Int64
    """(table_size(K),) a hash table."""
    following: Int32
    """(K,)."""


def make_content_plan(n_ahead: int, rows: int, entries: int, columns: int) -> ContentPlan:
    """Make room for the content of `n_ahead` steps."""
    return ContentPlan(
        row=np.empty((n_ahead, rows), np.int64),
        kept=np.empty((n_ahead, rows), np.bool_),
        column=np.empty((n_ahead, columns), np.int32),
        wanted=np.empty((n_ahead, columns), np.int64),
        begin=np.empty((n_ahead, rows + 1), np.int32),
        slot=np.empty((n_ahead, entries), np.int32),
        start=np.empty((n_ahead, columns + 1), np.int32),
        reader=np.empty((n_ahead, entries), np.int32),
        value=np.empty((n_ahead, entries), np.float32),
        size=np.zeros((n_ahead, 1), np.int64),
    )


def make_content_sketch(columns: int) -> ContentSketch:
    """Make room to plan steps with so many different columns."""
    return ContentSketch(np.empty(table_size(columns), np.int64), np.empty(columns, np.int32))


@kernel
def _plan(
    source: ContentSource, step: Int, unique: Int64, plan: ContentPlan, sketch: ContentSketch
) -> None:
    n = _number_columns(source, step, unique, plan, sketch)
    content, start, following = source.content, plan.start, sketch.following
    begin, slot, reader, value = plan.begin, plan.slot, plan.reader, plan.value
    total = 0
    for f in range(n):
        count = following[f]
        start[f], following[f] = total, total
        total += count
    start[n] = total
    for u in range(unique.shape[0]):
        first = content.indptr[unique[u]]
        for e in range(begin[u], begin[u + 1]):
            at = following[slot[e]]
            reader[at], value[at] = u, content.values[first + e - begin[u]]
            following[slot[e]] += 1
    plan.size[0] = n


@kernel
def _number_columns(
    source: ContentSource, step: Int, unique: Int64, plan: ContentPlan, sketch: ContentSketch
) -> Int:
    """Draw m, and number the columns by their first appearance; returns how many there are.

    Their counts go into `sketch.following`.
    """
    content, count, table = source.content, sketch.following, sketch.table
    kept, begin, slot, wanted = plan.kept, plan.begin, plan.slot, plan.wanted
    key, n, e = stream_at(source.dropout, step), 0, 0
    empty(table)
    for u in range(unique.shape[0]):
        row = unique[u]
        plan.row[u], kept[u], begin[u] = row, keeps_id_at(content, key, row), e
        for x in range(content.indptr[row], content.indptr[row + 1]):
            column = np.int64(content.columns[x])
            place = find_or_add(table, column, n)
            if place == n:
                plan.column[n], wanted[n], count[n] = column, source.n_rows + column, 0
                n += 1
            count[place] += 1
            slot[e] = place
            e += 1
    begin[unique.shape[0]] = e
    return n


@kernel
def _no_plan(source: None, step: Int, unique: Int64, plan: None, sketch: None) -> None:
    pass


plan_content = by_record({ContentSource: _plan, NoneType: _no_plan})
"""`plan_content(source, step, unique, plan, sketch)`: plan the content of the step's rows."""


@kernel
def _one(plans: ContentPlan, p: Int) -> ContentPlan:
    return ContentPlan(
        plans.row[p], plans.kept[p], plans.column[p], plans.wanted[p], plans.begin[p],
        plans.slot[p], plans.start[p], plans.reader[p], plans.value[p], plans.size[p],
    )  # fmt: skip


@kernel
def _none(plans: None, p: Int) -> None:
    return None


one_content_plan = by_record({ContentPlan: _one, NoneType: _none})
"""`one_content_plan(plans, p)`: the p-th plan."""
