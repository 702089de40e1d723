"""Whole steps in compiled code: planned some at a time, then done one after the other.

Every thread of a team runs `run_steps`; what it computes does not depend on which pieces it claims.
"""

from __future__ import annotations

from typing import NamedTuple

from nearfar.engine.cpu.content_plan import one_content_plan, plan_content
from nearfar.engine.cpu.descent import step_size
from nearfar.engine.cpu.own_step import own_step
from nearfar.engine.cpu.plan import plan_step
from nearfar.engine.cpu.plan_records import N_UNIQUE, Plan
from nearfar.engine.cpu.running import OwnRun, PlannedStep, Run, SharedRun, TwoStageRun
from nearfar.engine.cpu.second_stage import second_stage
from nearfar.engine.cpu.shared_step import shared_step
from nearfar.engine.cpu.team import Team, together
from nearfar.engine.spec import TWO_STAGE
from nearfar.runtime.arrays import Float64, Int
from nearfar.runtime.jit import by_record, kernel
from nearfar.runtime.references import refer


class PlannedSteps(NamedTuple):
    """Steps that are planned at the same time."""

    begin: int
    plans: Plan
    """With one more axis, the first."""


@kernel
def run_steps(team: Team, first: Int, count: Int, run: Run, plans: Plan, log: Float64) -> None:
    """Do steps first..first+count-1 together with the other threads of the team.

    `plans` holds as many plans as its first axis is long; that many steps are planned at a time.
    """
    n_ahead, phase, here = plans.entries.shape[0], 0, refer(run)
    for begin in range(first, first + count, n_ahead):
        n_planned = min(n_ahead, first + count - begin)
        phase = together(team, phase, n_planned, _plan, refer(PlannedSteps(begin, plans)), here)
        for p in range(n_planned):
            t = begin + p
            pace = step_size(here.learner.rule, t + 1)
            step = refer(PlannedStep(t, pace, one_plan(plans, p), log[t - first]))
            phase = do_step(here, team, phase, step)


@kernel
def _plan(piece: Int, ahead: PlannedSteps, run: Run) -> None:
    plan = refer(one_plan(ahead.plans, piece))
    source, step = run.source, ahead.begin + piece
    plan_step(step, source, plan, run.desk.sketch)
    if source.draws.kind != TWO_STAGE:
        unique = plan.unique[: plan.size[N_UNIQUE]]
        plan_content(source.content, step, unique, plan.content, run.desk.columns)


@kernel
def _two_stage_step(run: TwoStageRun, team: Team, phase: Int, step: PlannedStep) -> Int:
    return own_step(run, team, second_stage(run, team, phase, step), step)


do_step = by_record({OwnRun: own_step, TwoStageRun: _two_stage_step, SharedRun: shared_step})
"""`do_step(run, team, phase, step)`: do a planned step; returns the next phase."""


@kernel
def one_plan(plans: Plan, p: Int) -> Plan:
    """Return the p-th plan."""
    return Plan(
        plans.entries[p],
        plans.position[p],
        plans.slots[p],
        plans.unique[p],
        plans.own[p],
        plans.start[p],
        plans.pair[p],
        plans.place[p],
        plans.candidates[p],
        plans.size[p],
        one_content_plan(plans.content, p),
    )
