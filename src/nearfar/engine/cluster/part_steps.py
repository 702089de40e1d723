"""Planned steps of a rank, with what it sends and expects: two collectives for all of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nearfar.engine.cluster.owner import Order, make_order
from nearfar.engine.cluster.part_plan import PartPlans
from nearfar.engine.cluster.process_group import Group
from nearfar.engine.cpu.plan_records import Plan
from nearfar.engine.cpu.steps import one_plan
from nearfar.runtime.arrays import Int32, Int64

_COMMON, _ASKED = 0, 1


class PartStep(NamedTuple):
    """A step of a rank, ready to be done."""

    plan: Plan
    home: Int64
    order: Order
    counts: Int64
    """(P,) rows sent to each rank."""
    expected: Int64
    """(P,) rows that arrive from each."""
    n_users: int
    """Own users in the step; their rows are the last sent ones, and the last copies."""


def part_steps(group: Group, planned: PartPlans, n: int) -> list[PartStep]:
    """Tell the owners which rows are asked of them in the first `n` planned steps."""
    sections = planned.wanted.sections[:n]
    asked = np.ascontiguousarray(sections[:, :-1, _ASKED].T)
    ones = np.full(group.size, n)
    counted = group.exchange(asked.reshape(-1), ones, ones, np.empty(asked.size, np.int64))
    of_us = counted.reshape(asked.shape)
    ours, theirs = asked.sum(1), of_us.sum(1)
    rows = _exchanged(group, planned, n, ours, theirs)
    begins = np.cumsum(of_us.reshape(-1)) - of_us.reshape(-1)
    return [
        _part_step(group.rank, planned, p, rows, begins.reshape(of_us.shape)[:, p], of_us[:, p])
        for p in range(n)
    ]


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


def _part_step(
    rank: int, planned: PartPlans, p: int, rows: Int32, begins: Int64, asked_of_us: Int64
) -> PartStep:
    """Return the p-th step, given the rows of all steps that others ask for."""
    sections, local = planned.wanted.sections[p], planned.wanted.rows[p]
    begin = int(sections[:rank].sum())
    common = local[begin : begin + sections[rank, _COMMON]]
    n_users, n_copies = int(sections[-1].sum()), int(sections.sum())
    parts = [
        part
        for first, n in zip(begins, asked_of_us, strict=True)
        for part in (common, rows[first : first + n])
    ]
    sent = np.concatenate([*parts, local[n_copies - n_users : n_copies]]).astype(np.int64)
    return PartStep(
        one_plan(planned.plan, p),
        planned.wanted.home[p],
        make_order(sent),
        asked_of_us + len(common),
        sections[:-1].sum(1),
        n_users,
    )
