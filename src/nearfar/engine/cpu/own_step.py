"""A step in which each pair has negatives of its own: gather, contrast, update.

Rows that several pairs read are gathered before any of them is written, and updated when all pairs
have been compared. A row of one pair only, as most are, is gathered and updated on the spot, while
it is in the cache.
"""

from __future__ import annotations

import numpy as np

from nearfar.engine.cpu.content_phases import vectors_gathered, vectors_moved
from nearfar.engine.cpu.contrast import contrast
from nearfar.engine.cpu.encoding import (
    encode_rows,
    move_rows,
)
from nearfar.engine.cpu.gradients import collect, collect_own
from nearfar.engine.cpu.plan_records import N_PAIRS, N_SHARED, N_UNIQUE
from nearfar.engine.cpu.regularise import decorrelate, note_products, spread_slopes
from nearfar.engine.cpu.rows import ROWS_AT_ONCE, gather, update
from nearfar.engine.cpu.running import OwnRun, PlannedStep, TwoStageRun, pieces_of, write_log
from nearfar.engine.cpu.team import Team, together
from nearfar.runtime.arrays import Int
from nearfar.runtime.jit import kernel

PAIRS_AT_ONCE = 16
"""Pairs that are gathered, compared and moved while their rows are in the cache."""


@kernel
def own_step(run: OwnRun | TwoStageRun, team: Team, phase: Int, step: PlannedStep) -> Int:
    """Do a planned step; returns the next phase."""
    shared_pieces = pieces_of(step.plan.size[N_SHARED], ROWS_AT_ONCE)
    phase = vectors_gathered(step.plan.content, team, phase, step, run)
    phase = together(team, phase, shared_pieces, _gather, step, run)
    pieces = pieces_of(step.plan.size[N_PAIRS], run.share)
    phase = together(team, phase, pieces, _compare, step, run)
    phase = together(team, phase, 1, _finish, step, run)
    phase = together(team, phase, shared_pieces, _update, step, run)
    return vectors_moved(step.plan.content, team, phase, step, run)


@kernel
def _gather(piece: Int, step: PlannedStep, run: OwnRun | TwoStageRun) -> None:
    """Gather some of the rows that several pairs read."""
    begin, n_shared = piece * ROWS_AT_ONCE, step.plan.size[N_SHARED]
    listed, end = step.plan.unique[: step.plan.size[N_UNIQUE]], min(begin + ROWS_AT_ONCE, n_shared)
    gather(listed, begin, end, step.t, run.learner, run.flow.now)
    encode_rows(run.flow.reading, begin, end, step.plan.content, run.flow.now)


@kernel
def _compare(piece: Int, step: PlannedStep, run: OwnRun | TwoStageRun) -> None:
    """Compare some pairs with their negatives, and move the rows that are theirs."""
    plan, flow, moved = step.plan, run.flow, run.desk.moved
    first = piece * run.share
    last = min(first + run.share, plan.size[N_PAIRS])
    listed = plan.unique[: plan.own[last]]
    for begin in range(first, last, PAIRS_AT_ONCE):
        end = min(begin + PAIRS_AT_ONCE, last)
        rows = np.int64(plan.own[begin]), np.int64(plan.own[end])
        gather(listed, rows[0], rows[1], step.t, run.learner, flow.now)
        contrast(run.loss, begin, end, plan, flow.now, flow.pairs, run.desk.power)
        note_products(flow.spread, begin, end, plan, flow.now)
        count = collect_own(begin, end, plan, flow, moved)
        update(count, moved, listed, step.t, step.pace, run.learner, flow.now)


@kernel
def _finish(piece: Int, step: PlannedStep, run: OwnRun | TwoStageRun) -> None:
    """Do what is done once for the whole batch."""
    flow, dim = run.flow, run.learner.rows.shape[2]
    of_covariance = decorrelate(flow.covariance, step.plan.size[N_SHARED], flow.now)
    of_spread = spread_slopes(flow.spread, step.plan, dim)
    write_log(step, flow, of_spread, of_covariance)


@kernel
def _update(piece: Int, step: PlannedStep, run: OwnRun | TwoStageRun) -> None:
    """Update some of the rows that several pairs read."""
    plan, moved, begin = step.plan, run.desk.moved, piece * ROWS_AT_ONCE
    end = min(begin + ROWS_AT_ONCE, plan.size[N_SHARED])
    count = collect(begin, end, plan, run.flow, moved)
    flow, listed = run.flow, plan.unique[: plan.size[N_UNIQUE]]
    move_rows(
        flow.reading, count, moved, listed, plan.content, step.t, step.pace, run.learner, flow.now
    )
