"""Planned steps of a rank, with what it sends and expects: two collectives for all of them.

Until ranks have told each other what they ask for, a place in the table of copies stands for each
row of a step. Then the rows that only their owner needs become rows of its table again: they are
neither copied nor sent. The copies of the others keep their order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nearfar.engine.cluster.owner import Order, make_order
from nearfar.engine.cluster.part_plan import PartPlans
from nearfar.engine.cluster.process_group import Group
from nearfar.engine.cpu.choose import Home
from nearfar.engine.cpu.hashing import empty, find, find_or_add, table_size
from nearfar.engine.cpu.plan_records import N_UNIQUE, Plan
from nearfar.engine.cpu.steps import one_plan
from nearfar.runtime.arrays import Bool, Int32, Int64
from nearfar.runtime.jit import kernel

_COMMON, _ASKED = 0, 1


class PartStep(NamedTuple):
    """A step of a rank, ready to be done."""

    plan: Plan
    home: Home | None
    """Where joint rows lie, with a second stage; None if one rank has them all."""
    order: Order
    """The rows that are sent: for rank 0, for rank 1, ..."""
    counts: Int64
    """(P,) rows sent to each rank."""
    expected: Int64
    """(P,) rows that arrive from each."""


def part_steps(group: Group, planned: PartPlans, n: int, n_own: int) -> list[PartStep]:
    """Tell the owners which rows are asked of them in the first `n` planned steps.

    The rank's table has `n_own` rows.
    """
    if group.size == 1:
        nobody, nothing = np.zeros(1, np.int64), make_order(np.empty(0, np.int64))
        return [
            PartStep(one_plan(planned.plan, p), None, nothing, nobody, nobody) for p in range(n)
        ]
    sections = planned.wanted.sections[:n]
    asked = np.ascontiguousarray(sections[:, :-1, _ASKED].T)
    ones = np.full(group.size, n)
    counted = group.exchange(asked.reshape(-1), ones, ones, np.empty(asked.size, np.int64))
    of_us = counted.reshape(asked.shape)
    ours, theirs = asked.sum(1), of_us.sum(1)
    rows = _exchanged(group, planned, n, ours, theirs)
    begins = np.cumsum(of_us.reshape(-1)) - of_us.reshape(-1)
    asks = [
        [rows[b : b + k] for b, k in zip(*part, strict=True)]
        for part in zip(begins.reshape(of_us.shape).T, of_us.T, strict=True)
    ]
    return [_part_step(group.rank, planned, p, asks[p], n_own) for p in range(n)]


def _exchanged(group: Group, planned: PartPlans, n: int, ours: Int64, theirs: Int64) -> Int32:
    """Return the rows that others ask for: rank by rank, and of each step by step."""
    wanted = planned.wanted
    flat = wanted.sections[:n].reshape(n, -1)
    ends = np.cumsum(flat, axis=1)
    send = [
        wanted.rows[p, ends[p, 2 * rank + _COMMON] : ends[p, 2 * rank + _ASKED]]
        for rank in range(group.size)
        for p in range(n)
    ]
    out = np.empty(theirs.sum(), np.int32)
    return group.exchange(np.concatenate(send).astype(np.int32), ours, theirs, out)


def _part_step(rank: int, planned: PartPlans, p: int, asked: list[Int32], n_own: int) -> PartStep:
    """Return the p-th step; `asked` are the rows of this rank that each rank asks for."""
    plan, sections = one_plan(planned.plan, p), planned.wanted.sections[p]
    local = planned.wanted.rows[p, : sections.sum()]
    begin, end = int(sections[:rank].sum()), int(sections[: rank + 1].sum())
    common = local[begin : begin + sections[rank, _COMMON]]
    copied = np.ones(len(local), np.bool_)
    copied[begin:end] = _needed_elsewhere(local[begin:end], len(common), rank, asked)
    copied[len(local) - sections[-1].sum() :] = False  # users of the rank's pairs
    rows = np.where(copied, n_own - 1 + np.cumsum(copied), local)
    home = Home(planned.wanted.home[p], rows)
    if len(home.table) == 0:
        unique = plan.unique[: plan.size[N_UNIQUE]]
        unique[:] = rows[unique]
        if plan.content is not None:
            wanted = plan.content.wanted[: plan.content.size[0]]
            wanted[:] = rows[wanted]
    parts = [np.concatenate([common, one]) for one in asked]
    parts[rank] = local[begin:end][copied[begin:end]]
    counts, expected = np.array([len(part) for part in parts]), sections[:-1].sum(1)
    expected[rank] = counts[rank]
    return PartStep(plan, home, make_order(np.concatenate(parts)), counts, expected)


def _needed_elsewhere(ours: Int64, n_common: int, rank: int, asked: list[Int32]) -> Bool:
    """Return which of the rank's own rows other ranks need as well; the common ones come first."""
    listed = np.concatenate([one for r, one in enumerate(asked) if r != rank])
    found = np.ones(len(ours), np.bool_)
    seen = np.empty(table_size(len(listed)), np.int64)
    _find_among(listed, ours[n_common:], seen, found[n_common:])
    return found


@kernel
def _find_among(listed: Int32, rows: Int64, seen: Int64, out: Bool) -> None:
    """Find out which of `rows` are listed."""
    empty(seen)
    for i in range(listed.shape[0]):
        find_or_add(seen, listed[i], 0)
    for i in range(rows.shape[0]):
        out[i] = seen[find(seen, rows[i])] >= 0
