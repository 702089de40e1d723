"""A step whose pairs share their negatives: matrix products over all of them.

With U the points of a block of pairs' users, V those of the C shared negatives and S the shares of
the loss (`nearfar.engine.cpu.soft`), the block needs U V', S V and S' U. The blocks are the same
for any number of threads, and what they add up to is added in their order.
"""

from __future__ import annotations

import numpy as np

from nearfar.engine.cpu.choose import exclude_positives, map_places
from nearfar.engine.cpu.content_phases import vectors_gathered, vectors_moved
from nearfar.engine.cpu.contrast import Pair, weigh
from nearfar.engine.cpu.descent import dot
from nearfar.engine.cpu.encoding import (
    encode_rows,
    is_hybrid,
    move_rows,
)
from nearfar.engine.cpu.gradients import add, add_difference, clear
from nearfar.engine.cpu.plan_records import N_PAIRS, N_UNIQUE
from nearfar.engine.cpu.products import product
from nearfar.engine.cpu.regularise import add_covariance, decorrelate
from nearfar.engine.cpu.rows import ROWS_AT_ONCE, gather
from nearfar.engine.cpu.running import PlannedStep, SharedRun, pieces_of, write_log
from nearfar.engine.cpu.second_stage import PAIRS_A_BLOCK
from nearfar.engine.cpu.team import Team, together
from nearfar.runtime.arrays import Int
from nearfar.runtime.jit import inlined, kernel


@kernel
def shared_step(run: SharedRun, team: Team, phase: Int, step: PlannedStep) -> Int:
    """Do a planned step; returns the next phase."""
    n_rows, n_pairs = step.plan.size[N_UNIQUE], step.plan.size[N_PAIRS]
    row_pieces = pieces_of(n_rows, ROWS_AT_ONCE)
    phase = vectors_gathered(step.plan.content, team, phase, step, run)
    phase = together(team, phase, 1 + row_pieces, _gather, step, run)
    phase = together(team, phase, pieces_of(n_pairs, PAIRS_A_BLOCK), _contrast, step, run)
    phase = together(team, phase, 1, _finish, step, run)
    phase = together(team, phase, row_pieces, _update, step, run)
    return vectors_moved(step.plan.content, team, phase, step, run)


@kernel
def _gather(piece: Int, step: PlannedStep, run: SharedRun) -> None:
    """Map the shared negatives; or gather some rows and make points of them."""
    plan, wide, now = step.plan, run.wide, run.flow.now
    if piece == 0:
        map_places(plan.candidates, wide.where)
        return
    n_rows, begin = plan.size[N_UNIQUE], (piece - 1) * ROWS_AT_ONCE
    end = min(begin + ROWS_AT_ONCE, n_rows)
    listed = plan.unique[:n_rows]
    gather(listed, begin, end, step.t, run.learner, now)
    encode_rows(run.flow.reading, begin, end, plan.content, now)
    points, inverse, current = wide.points, now.inverse, now.current
    for at in range(begin, end):
        for k in range(points.shape[1]):
            points[at, k] = inverse[at] * current[at, k]


@kernel
def _contrast(block: Int, step: PlannedStep, run: SharedRun) -> None:
    """Compare a block of pairs with the shared negatives that are none of their positives."""
    plan, wide, n = step.plan, run.wide, step.plan.candidates.shape[0]
    begin = block * PAIRS_A_BLOCK
    end = min(begin + PAIRS_A_BLOCK, plan.size[N_PAIRS])
    points, slots = wide.points, plan.slots
    s, users, shared = wide.products[: end - begin], wide.users[begin:end], points[:n]
    for g in range(begin, end):
        user = slots[g, 0]
        for k in range(users.shape[1]):
            users[g - begin, k] = points[user, k]
    product(users, shared.T, s)
    _weigh_block(begin, end, step, run)
    product(s, shared, wide.pulls[begin:end])
    product(s.T, users, wide.towards[block])
    _sum_block(block, begin, end, step, run)


@inlined
def _weigh_block(begin: Int, end: Int, step: PlannedStep, run: SharedRun) -> None:
    """Turn the products of pairs begin..end-1 into shares of the loss."""
    plan, wide, off, points = step.plan, run.wide, run.flow.now.offset, run.wide.points
    s, n = wide.products, plan.candidates.shape[0]
    missing = s.dtype.type(-np.inf)
    for g in range(begin, end):
        r = g - begin
        u, j = plan.slots[g, 0], plan.slots[g, 1]
        near = dot(points, u, points, j) - off[u] - off[j]
        for c in range(n):
            s[r, c] -= off[u] + off[c]
        user = plan.entries[g, 0]
        excluded = exclude_positives(s, r, user, run.source.positives, wide.where, missing)
        pair = Pair(g, n, n - excluded, near)
        weigh(run.loss, pair, run.flow.pairs, s, r, run.desk.power)


@inlined
def _sum_block(block: Int, begin: Int, end: Int, step: PlannedStep, run: SharedRun) -> None:
    """Complete the pulls of pairs begin..end-1, and sum what flows into each shared negative."""
    slots, coefficient, n = step.plan.slots, run.flow.pairs.coefficient, run.wide.flows.shape[1]
    points, pulls, flows, s = run.wide.points, run.wide.pulls, run.wide.flows, run.wide.products
    for c in range(n):
        flows[block, c] = 0.0
    for g in range(begin, end):
        j, whole, r = slots[g, 1], coefficient[g], g - begin
        for k in range(points.shape[1]):
            pulls[g, k] -= whole * points[j, k]
        for c in range(n):
            flows[block, c] += s[r, c]


@kernel
def _finish(piece: Int, step: PlannedStep, run: SharedRun) -> None:
    """Do what is done once for the whole batch."""
    of_covariance = decorrelate(run.flow.covariance, step.plan.size[N_UNIQUE], run.flow.now)
    write_log(step, run.flow, 0.0, of_covariance)


@kernel
def _update(piece: Int, step: PlannedStep, run: SharedRun) -> None:
    """Sum the gradients of some points, and update their rows."""
    plan, moved, total = step.plan, run.desk.moved, run.desk.moved.total
    n_rows, begin, count = plan.size[N_UNIQUE], piece * ROWS_AT_ONCE, 0
    for u in range(begin, min(begin + ROWS_AT_ONCE, n_rows)):
        clear(total, count)
        flows = _add_shared(count, u, step, run)
        flows |= _add_pairs(count, u, step, run)
        flows |= add_covariance(run.flow.covariance, total, count, u)
        flows |= is_hybrid(run.flow.reading)
        moved.at[count] = u
        count += flows
    flow, listed = run.flow, plan.unique[:n_rows]
    move_rows(
        flow.reading, count, moved, listed, plan.content, step.t, step.pace, run.learner, flow.now
    )


@inlined
def _add_shared(at: Int, u: Int, step: PlannedStep, run: SharedRun) -> bool:
    """Add what flows into point u as a shared negative: dL/dv_k = sum of share_k (u - v_k)."""
    wide, total = run.wide, run.desk.moved.total
    if u >= step.plan.candidates.shape[0]:
        return False
    whole = wide.flows.dtype.type(0.0)
    for block in range(pieces_of(step.plan.size[N_PAIRS], PAIRS_A_BLOCK)):
        whole += wide.flows[block, u]
        add(total, at, 1.0, wide.towards[block], u)
    add(total, at, -whole, wide.points, u)
    return bool(whole != 0.0)


@inlined
def _add_pairs(at: Int, u: Int, step: PlannedStep, run: SharedRun) -> bool:
    """Add what flows into point u as the user or the positive item of pairs."""
    plan, wide, total, flows = step.plan, run.wide, run.desk.moved.total, False
    for e in range(plan.start[u], plan.start[u + 1]):
        g = np.int64(plan.pair[e])
        c = run.flow.pairs.coefficient[g]
        if c == 0.0:
            continue
        flows = True
        if plan.place[e] == 0:
            add(total, at, 1.0, wide.pulls, g)
        else:  # dL/dv_j = c (v_j - u)
            add_difference(total, at, c, u, c, plan.slots[g, 0], wide.points)
    return flows
