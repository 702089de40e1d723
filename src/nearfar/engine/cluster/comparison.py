"""A rank's pairs against their negatives: the CPU engine's step, on its table and on copies.

A row that no other rank asks for is read and moved in the rank's table, as on one machine. The
others are copies behind the table (`PartRule`): where the CPU engine would move one, its slope is
put in its place.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nearfar.engine.cluster.content_read import find_vectors
from nearfar.engine.cpu.buffers import make_runs
from nearfar.engine.cpu.choose import Home, place_of
from nearfar.engine.cpu.descent import PartRule, step_size
from nearfar.engine.cpu.own_step import own_step
from nearfar.engine.cpu.plan_records import N_UNIQUE, PairRange, Plan
from nearfar.engine.cpu.rows import ROWS_AT_ONCE, Learner
from nearfar.engine.cpu.running import OwnRun, PlannedStep, Run, SharedRun, TwoStageRun, pieces_of
from nearfar.engine.cpu.second_stage import second_stage
from nearfar.engine.cpu.shared_step import shared_step
from nearfar.engine.cpu.team import Team, together
from nearfar.engine.problem import Problem, State
from nearfar.runtime.arrays import Float64, Floats, Int, Int64
from nearfar.runtime.jit import by_record, kernel
from nearfar.runtime.references import refer


def make_comparisons(
    problem: Problem, state: State, learner: Learner, last: Int64, threads: int, part: PairRange
) -> list[Run]:
    """Make a record for each thread, of a rank's table and, once a step names them, copies.

    `last` is as long as the table and the copies together; the table's `last` is its beginning.
    """
    dtype = state.rows.dtype
    rule: Any = learner.rule
    both = learner._replace(
        last=last, rule=PartRule(rule, np.empty((0, problem.options.dim), dtype))
    )
    return make_runs(problem, both, threads, state, part=part, dtype=dtype)


def with_copies(run: Run, copies: Floats, home: Home | None) -> Run:
    """Return the record of a step; `home` says where joint rows lie, for a second stage."""
    rule: Any = run.learner.rule
    run = run._replace(learner=run.learner._replace(rule=rule._replace(copies=copies)))
    if isinstance(run, TwoStageRun):
        return run._replace(second=run.second._replace(home=home))
    return run


@kernel
def compare(team: Team, run: Run, t: Int, plan: Plan, log: Float64) -> None:
    """Do a planned step; copies become their slopes, -0 if nothing flows. All threads call it."""
    here = refer(run)
    rule: Any = here.learner.rule
    step = refer(PlannedStep(t, step_size(rule.rule, t + 1), plan, log))
    phase = _do_part(here, team, 0, step)
    pieces = pieces_of(rule.copies.shape[0], ROWS_AT_ONCE)
    together(team, phase, pieces, _clear_rest, step, here)


@kernel
def _clear_rest(piece: Int, step: PlannedStep, run: Run) -> None:
    """Put -0 in the place of copies that have no slope."""
    rule: Any = run.learner.rule
    copies, begin = rule.copies, piece * ROWS_AT_ONCE
    last = run.learner.last[run.learner.rows.shape[0] :]
    for at in range(begin, min(begin + ROWS_AT_ONCE, copies.shape[0])):
        for k in range(copies.shape[1] if last[at] != step.t + 1 else 0):
            copies[at, k] = -0.0


@kernel
def _second_and_own(run: TwoStageRun, team: Team, phase: Int, step: PlannedStep) -> Int:
    phase = second_stage(run, team, phase, step)
    phase = together(team, phase, 1, _find_copies, step, run)
    return own_step(run, team, phase, step)


@kernel
def _find_copies(piece: Int, step: PlannedStep, run: TwoStageRun) -> None:
    """Replace the joint rows that the second stage has chosen by rows of the learner."""
    unique, home = step.plan.unique, run.second.home
    for u in range(step.plan.size[N_UNIQUE]):
        unique[u] = place_of(home, unique[u])
    find_vectors(step.plan.content, home)


_do_part = by_record({OwnRun: own_step, TwoStageRun: _second_and_own, SharedRun: shared_step})
