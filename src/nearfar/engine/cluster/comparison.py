"""A rank's pairs against their negatives, on copies of rows: the CPU engine's step, without moving.

The learner of these runs is the table of copies with a `SlopeRule`: where the CPU engine would move
a row, its slope is put in the row's place.
"""

from __future__ import annotations

import numpy as np

from nearfar.engine.cpu.buffers import make_runs
from nearfar.engine.cpu.choose import Home, place_of
from nearfar.engine.cpu.descent import Pace, SlopeRule
from nearfar.engine.cpu.own_step import own_step
from nearfar.engine.cpu.plan_records import N_UNIQUE, PairRange, Plan
from nearfar.engine.cpu.rows import ROWS_AT_ONCE, Learner
from nearfar.engine.cpu.running import OwnRun, PlannedStep, Run, SharedRun, TwoStageRun, pieces_of
from nearfar.engine.cpu.second_stage import second_stage
from nearfar.engine.cpu.shared_step import shared_step
from nearfar.engine.cpu.team import Team, together
from nearfar.engine.problem import Problem, State
from nearfar.engine.spec import FREE, SPHERE, make_spec
from nearfar.runtime.arrays import Float64, Int, Int64
from nearfar.runtime.jit import by_record, kernel
from nearfar.runtime.references import refer


def make_comparisons(
    problem: Problem, state: State, n_copies: int, threads: int, part: PairRange
) -> list[Run]:
    """Make a record for each thread, with a table of so many copies of rows of `state`."""
    # rows of the ball are clipped where they are moved
    geometry = SPHERE if make_spec(problem).sphere else FREE
    dtype = state.rows.dtype
    copies = np.empty((n_copies, 1, problem.options.dim), dtype)
    learner = Learner(copies, np.zeros(n_copies, np.int64), geometry, SlopeRule())
    return make_runs(problem, learner, threads, state, part=part, dtype=dtype)


def with_home(run: Run, home: Int64) -> Run:
    """Return the record of a step; `home` says where copies lie, with a second stage."""
    if isinstance(run, TwoStageRun):
        return run._replace(second=run.second._replace(home=Home(home)))
    return run


@kernel
def compare(team: Team, run: Run, t: Int, plan: Plan, log: Float64) -> None:
    """Turn the copies of a planned step into slopes, 0 where nothing flows. All threads call it."""
    here, step = refer(run), refer(PlannedStep(t, Pace(0.0, 0.0), plan, log))
    phase = _do_part(here, team, 0, step)
    pieces = pieces_of(run.learner.rows.shape[0], ROWS_AT_ONCE)
    together(team, phase, pieces, _clear_rest, step, here)


@kernel
def _clear_rest(piece: Int, step: PlannedStep, run: Run) -> None:
    """Put 0 in the place of copies that have no slope."""
    rows, last, begin = run.learner.rows, run.learner.last, piece * ROWS_AT_ONCE
    for at in range(begin, min(begin + ROWS_AT_ONCE, rows.shape[0])):
        for k in range(rows.shape[2] if last[at] != step.t + 1 else 0):
            rows[at, 0, k] = 0.0


@kernel
def _second_and_own(run: TwoStageRun, team: Team, phase: Int, step: PlannedStep) -> Int:
    phase = second_stage(run, team, phase, step)
    phase = together(team, phase, 1, _find_copies, step, run)
    return own_step(run, team, phase, step)


@kernel
def _find_copies(piece: Int, step: PlannedStep, run: TwoStageRun) -> None:
    """Replace the rows that the second stage has chosen by the places of their copies."""
    unique, home = step.plan.unique, run.second.home
    for u in range(step.plan.size[N_UNIQUE]):
        unique[u] = place_of(home, unique[u])


_do_part = by_record({OwnRun: own_step, TwoStageRun: _second_and_own, SharedRun: shared_step})
