"""Whole steps in compiled code: the phases of a step, and the pieces each is cut into.

Every thread of a team runs `run_steps`; what it computes does not depend on which pieces it claims.
"""

from __future__ import annotations

import numpy as np

from nearfar.engine.cpu import compute, shared
from nearfar.engine.cpu.buffers import PAIRS_A_BLOCK, Second
from nearfar.engine.cpu.choose import choose_negatives, hash_candidates
from nearfar.engine.cpu.compute import Room
from nearfar.engine.cpu.decay import Decay, step_size
from nearfar.engine.cpu.plan import (
    N_MISSED,
    N_PAIRS,
    N_SHARED,
    N_UNIQUE,
    Draws,
    Plan,
    Positives,
    index_rows,
    plan_step,
)
from nearfar.engine.cpu.shared import Wide
from nearfar.engine.cpu.team import Team, claim, done, wait
from nearfar.engine.spec import SPHERE, Spec
from nearfar.method.proposal import AliasTable
from nearfar.runtime.arrays import Float32, Float64, Int, Int32, Int64, Real
from nearfar.runtime.counter import stream_at
from nearfar.runtime.jit import inner, kernel

_ROWS_A_PIECE = 16
PAIRS_AT_ONCE = 16
"""Pairs that are gathered, compared and moved while their rows are in the cache."""


@inner
def second_stage(
    team: Team,
    phase: Int,
    t: Int,
    rows: Float32,
    last: Int64,
    positives: Positives,
    draws: Draws,
    overflow_gap: Real,
    plan: Plan,
    spec: Spec,
    decay: Decay,
    second: Second,
    products: Float32,
    scratch: Float32,
) -> Int:
    """Draw the negatives of a step among its candidates, by the vectors of the moment."""
    size, n_candidates = plan.size[N_PAIRS], draws.candidates
    pieces = 1 + pieces_of(size + n_candidates, _ROWS_A_PIECE)
    while True:
        piece = claim(team, phase, pieces)
        if piece < 0:
            break
        if piece == 0:
            hash_candidates(plan.candidates, n_candidates, second.places, second.following)
        else:
            begin = (piece - 1) * _ROWS_A_PIECE
            end = min(begin + _ROWS_A_PIECE, size + n_candidates)
            gather_units(begin, end, t, rows, last, positives, plan, spec, decay, second)
        done(team, phase, pieces)
    phase = wait(team, phase)
    pieces = pieces_of(size, PAIRS_A_BLOCK)
    key = stream_at(draws.choice, t)
    while True:
        piece = claim(team, phase, pieces)
        if piece < 0:
            break
        begin = piece * PAIRS_A_BLOCK
        end = min(size, begin + PAIRS_A_BLOCK)
        s = products[: end - begin]
        np.dot(second.units[begin:end], second.units[size : size + n_candidates].T, s)
        second.missed[piece] = choose_negatives(
            s,
            begin,
            end - begin,
            n_candidates,
            rows.shape[2],
            overflow_gap,
            key,
            positives,
            plan.candidates,
            plan.entries,
            second.places,
            second.following,
            scratch,
        )
        done(team, phase, pieces)
    phase = wait(team, phase)
    if claim(team, phase, 1) == 0:
        plan.size[N_MISSED] = second.missed[:pieces].sum()
        index_rows(plan, draws.all_shared, 0, 0)
        done(team, phase, 1)
    return wait(team, phase)


@kernel
def pieces_of(n: Int, size: Int) -> Int:
    """Into how many pieces of `size` do n things go."""
    return (n + size - 1) // size


@inner
def gather_units(
    begin: Int,
    end: Int,
    t: Int,
    rows: Float32,
    last: Int64,
    positives: Positives,
    plan: Plan,
    spec: Spec,
    decay: Decay,
    second: Second,
) -> None:
    """Put the unit vectors of places begin..end-1, pairs' positives then candidates, together."""
    n_users, size = positives.indptr.shape[0] - 1, plan.size[N_PAIRS]
    for at in range(begin, end):
        wanted = plan.entries[at, 1] if at < size else n_users + plan.candidates[at - size]
        second.wanted[at] = wanted
        if second.frozen.shape[0] > 0:
            for k in range(rows.shape[2]):
                second.units[at, k] = second.frozen[wanted - n_users, k]
    if second.frozen.shape[0] == 0:
        compute.gather(
            second.wanted[:end], begin, end, rows, last, t, spec, decay,
            second.units, second.inverse, second.offset,
        )  # fmt: skip
        compute.to_unit(begin, end, spec.geometry, second.units, second.inverse, second.offset)


@kernel
def run_steps(
    team: Team,
    first: Int,
    count: Int,
    rows: Float32,
    last: Int64,
    positives: Positives,
    proposal: AliasTable,
    support: Int32,
    draws: Draws,
    overflow_gap: Real,
    spec: Spec,
    decay: Decay,
    plans: Plan,
    room: Room,
    second: Second | None,
    wide: Wide | None,
    share: Int | None,
    log: Float64,
) -> None:
    """Do steps first..first+count-1 together with the other threads of the team.

    `plans` holds as many plans as its first axis is long; that many steps are planned at a time.
    `second` is there with 2-stage sampling only. With shared negatives there is `wide`, otherwise
    `share`, how many pairs of a step a thread takes at a time. What needs the ones that are None
    is not compiled.
    """
    width = plans.slots.shape[2]
    total = np.empty((width * PAIRS_AT_ONCE, rows.shape[2]), np.float32)
    moved = np.empty(width * PAIRS_AT_ONCE, np.int64)
    power = np.empty(max(width, draws.candidates), np.float32)
    n_ahead, phase = plans.entries.shape[0], 0
    products = np.empty((PAIRS_A_BLOCK, draws.candidates), np.float32)
    scratch = np.empty((3, draws.candidates), np.float32)
    for begin in range(first, first + count, n_ahead):
        n_planned = min(n_ahead, first + count - begin)
        while True:
            p = claim(team, phase, n_planned)
            if p < 0:
                break
            plan_step(begin + p, positives, proposal, support, draws, one_plan(plans, p))
            done(team, phase, n_planned)
        phase = wait(team, phase)
        for p in range(n_planned):
            t = begin + p
            plan = one_plan(plans, p)
            if wide is not None:
                phase = shared_step(
                    team, phase, t, rows, last, positives, plan, spec, decay, room, wide,
                    products, power, total, moved, log[t - first],
                )  # fmt: skip
            if second is not None:
                phase = second_stage(
                    team, phase, t, rows, last, positives, draws, overflow_gap, plan, spec,
                    decay, second, products, scratch,
                )  # fmt: skip
            if share is not None:
                phase = do_step(
                    team, phase, t, rows, last, plan, spec, decay, room, total, moved, power,
                    share, log[t - first],
                )  # fmt: skip


@inner
def one_plan(plans: Plan, p: Int) -> Plan:
    """Give the p-th plan."""
    return Plan(
        plans.entries[p],
        plans.slots[p],
        plans.unique[p],
        plans.own[p],
        plans.start[p],
        plans.pair[p],
        plans.place[p],
        plans.candidates[p],
        plans.size[p],
    )


@inner
def do_step(
    team: Team,
    phase: Int,
    t: Int,
    rows: Float32,
    last: Int64,
    plan: Plan,
    spec: Spec,
    decay: Decay,
    room: Room,
    total: Float32,
    moved: Int64,
    power: Float32,
    share: Int,
    log: Float64,
) -> Int:
    """Gather, contrast, update: the planned step t, counted from 0.

    Rows that several pairs read are gathered before any of them is written, and updated when all
    pairs have been compared. A row of one pair only, as most are, is gathered and updated on the
    spot, while it is in the cache.
    """
    n_shared, n_pairs = plan.size[N_SHARED], plan.size[N_PAIRS]
    listed, pace = plan.unique[: plan.size[N_UNIQUE]], step_size(spec, t + 1)
    pieces = max(1, pieces_of(n_shared, _ROWS_A_PIECE))
    while True:
        piece = claim(team, phase, pieces)
        if piece < 0:
            break
        begin = piece * _ROWS_A_PIECE
        compute.gather(
            listed, begin, min(begin + _ROWS_A_PIECE, n_shared), rows, last, t, spec, decay,
            room.current, room.inverse, room.offset,
        )  # fmt: skip
        done(team, phase, pieces)
    phase = wait(team, phase)
    pieces = pieces_of(n_pairs, share)
    while True:
        piece = claim(team, phase, pieces)
        if piece < 0:
            break
        begin = piece * share
        compare(
            begin, min(begin + share, n_pairs), t, rows, last, plan, spec, decay, pace, room,
            total, moved, power,
        )  # fmt: skip
        done(team, phase, pieces)
    phase = wait(team, phase)
    if claim(team, phase, 1) == 0:
        if spec.decorrelate > 0.0:
            compute.decorrelate(n_shared, spec, room)
        if spec.spread_out > 0.0:
            compute.spread_slopes(plan, spec, rows.shape[2], room)
        write_log(plan, room, log)
        done(team, phase, 1)
    phase = wait(team, phase)
    pieces = max(1, pieces_of(n_shared, _ROWS_A_PIECE))
    while True:
        piece = claim(team, phase, pieces)
        if piece < 0:
            break
        begin = piece * _ROWS_A_PIECE
        end = min(begin + _ROWS_A_PIECE, n_shared)
        count = compute.collect(begin, end, plan, spec, room, total, moved)
        compute.update(count, moved, listed, rows, last, t, spec, decay, pace, room, total)
        done(team, phase, pieces)
    return wait(team, phase)


@inner
def shared_step(
    team: Team,
    phase: Int,
    t: Int,
    rows: Float32,
    last: Int64,
    positives: Positives,
    plan: Plan,
    spec: Spec,
    decay: Decay,
    room: Room,
    wide: Wide,
    products: Float32,
    power: Float32,
    total: Float32,
    moved: Int64,
    log: Float64,
) -> Int:
    """Gather, contrast, update, where all pairs share their negatives: the planned step t."""
    n_rows, n_pairs, n = plan.size[N_UNIQUE], plan.size[N_PAIRS], plan.candidates.shape[0]
    listed, pace = plan.unique[:n_rows], step_size(spec, t + 1)
    pieces = 1 + pieces_of(n_rows, _ROWS_A_PIECE)
    while True:
        piece = claim(team, phase, pieces)
        if piece < 0:
            break
        if piece == 0:
            hash_candidates(plan.candidates, n, wide.places, wide.following)
        else:
            begin = (piece - 1) * _ROWS_A_PIECE
            end = min(begin + _ROWS_A_PIECE, n_rows)
            compute.gather(
                listed, begin, end, rows, last, t, spec, decay, room.current, room.inverse,
                room.offset,
            )  # fmt: skip
            shared.lay_out(begin, end, room, wide)
        done(team, phase, pieces)
    phase = wait(team, phase)
    n_blocks = pieces_of(n_pairs, PAIRS_A_BLOCK)
    while True:
        block = claim(team, phase, n_blocks)
        if block < 0:
            break
        begin = block * PAIRS_A_BLOCK
        shared.contrast(
            block, begin, min(begin + PAIRS_A_BLOCK, n_pairs), n, positives, plan, spec, room,
            wide, products, power,
        )  # fmt: skip
        done(team, phase, n_blocks)
    phase = wait(team, phase)
    if claim(team, phase, 1) == 0:
        if spec.decorrelate > 0.0:
            compute.decorrelate(n_rows, spec, room)
        write_log(plan, room, log)
        done(team, phase, 1)
    phase = wait(team, phase)
    pieces = pieces_of(n_rows, _ROWS_A_PIECE)
    while True:
        piece = claim(team, phase, pieces)
        if piece < 0:
            break
        begin = piece * _ROWS_A_PIECE
        end = min(begin + _ROWS_A_PIECE, n_rows)
        count = shared.collect(
            begin, end, n, n_blocks, plan, spec, room, wide, total, moved
        )  # fmt: skip
        compute.update(count, moved, listed, rows, last, t, spec, decay, pace, room, total)
        done(team, phase, pieces)
    return wait(team, phase)


@inner
def compare(
    first: Int,
    last_pair: Int,
    t: Int,
    rows: Float32,
    last: Int64,
    plan: Plan,
    spec: Spec,
    decay: Decay,
    pace: tuple[Real, Real],
    room: Room,
    total: Float32,
    moved: Int64,
    power: Float32,
) -> None:
    """Compare pairs first..last_pair-1 with their negatives, and move the rows that are theirs."""
    listed = plan.unique[: plan.own[last_pair]]
    for begin in range(first, last_pair, PAIRS_AT_ONCE):
        end = min(begin + PAIRS_AT_ONCE, last_pair)
        compute.gather(
            listed, np.int64(plan.own[begin]), np.int64(plan.own[end]), rows, last, t, spec,
            decay, room.current, room.inverse, room.offset,
        )  # fmt: skip
        compute.contrast(begin, end, plan, spec, room, power)
        if spec.spread_out > 0.0:
            compute.spread(begin, end, plan, room)
        count = compute.collect_own(begin, end, plan, room, total, moved)
        compute.update(count, moved, listed, rows, last, t, spec, decay, pace, room, total)


@inner
def write_log(plan: Plan, room: Room, log: Float64) -> None:
    """Write the step's entries of LOG_FIELDS, in their order."""
    loss, violated = 0.0, 0
    for g in range(plan.size[N_PAIRS]):
        loss += room.loss[g]
        violated += room.violated[g]
    log[0] = loss
    log[1] = room.totals[2]
    log[2] = room.totals[3]
    log[3] = plan.size[N_PAIRS]
    log[4] = violated
    log[5] = plan.size[N_MISSED]


@kernel
def settle_rows(
    begin: Int, end: Int, rows: Float32, last: Int64, t: Int, spec: Spec, decay: Decay
) -> None:
    """Bring rows begin..end-1 up to date for t steps done, in place."""
    current = np.empty((_ROWS_A_PIECE, rows.shape[2]), np.float32)
    inverse, offset = np.empty(_ROWS_A_PIECE, np.float32), np.empty(_ROWS_A_PIECE, np.float32)
    for first in range(begin, end, _ROWS_A_PIECE):
        n = min(_ROWS_A_PIECE, end - first)
        listed = np.arange(first, first + n)
        compute.gather(listed, 0, n, rows, last, t, spec, decay, current, inverse, offset)
        compute.settle(0, n, first, rows, last, t, decay, current)


@kernel
def export_rows(
    listed: Int64,
    begin: Int,
    end: Int,
    rows: Float32,
    last: Int64,
    t: Int,
    spec: Spec,
    decay: Decay,
    out: Float32,
) -> None:
    """Write the points of the rows listed[begin:end] as of t steps done to out[begin:end]."""
    inverse, offset = np.empty(_ROWS_A_PIECE, np.float32), np.empty(_ROWS_A_PIECE, np.float32)
    for first in range(begin, end, _ROWS_A_PIECE):
        n = min(_ROWS_A_PIECE, end - first)
        points = out[first : first + n]
        compute.gather(
            listed[first : first + n], 0, n, rows, last, t, spec, decay, points, inverse, offset
        )
        if spec.geometry == SPHERE:
            compute.to_unit(0, n, spec.geometry, points, inverse, offset)
