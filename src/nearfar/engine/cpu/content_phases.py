"""The phases that content adds to a step: its vectors, and the cached points of a second stage.

They are compiled only where there is content, so no record that they read is None.
"""

from __future__ import annotations

from types import NoneType

from nearfar.engine.cpu.content_plan import ContentPlan
from nearfar.engine.cpu.encoding import gather_vectors, move_vectors, refresh
from nearfar.engine.cpu.rows import ROWS_AT_ONCE
from nearfar.engine.cpu.running import PlannedStep, Run, TwoStageRun, pieces_of
from nearfar.engine.cpu.team import Team, together
from nearfar.runtime.arrays import Int
from nearfar.runtime.jit import by_record, kernel


@kernel
def _gather(piece: Int, step: PlannedStep, run: Run) -> None:
    """Gather some of the vectors of the content's columns."""
    reading, plan = run.flow.reading, step.plan.content
    gather_vectors(reading, piece, plan, step.t, run.learner)  # type: ignore[arg-type]


@kernel
def _move(piece: Int, step: PlannedStep, run: Run) -> None:
    """Update some of the vectors of the content's columns."""
    reading, plan, learner, moved = run.flow.reading, step.plan.content, run.learner, run.desk.moved
    t, pace = step.t, step.pace
    move_vectors(reading, piece, plan, t, pace, learner, moved)  # type: ignore[arg-type]


@kernel
def _refresh(piece: Int, step: PlannedStep, run: TwoStageRun) -> None:
    """Encode some of the cached points anew; see `nearfar.engine.Problem.refreshed`."""
    source, room = run.source.content, run.desk.moved.total
    refresh(source, piece, step.t, run.learner, room, run.second)  # type: ignore[arg-type]


@kernel
def _vectors_gathered(
    plan: ContentPlan, team: Team, phase: Int, step: PlannedStep, run: Run
) -> Int:
    return together(team, phase, pieces_of(plan.size[0], ROWS_AT_ONCE), _gather, step, run)


@kernel
def _vectors_moved(plan: ContentPlan, team: Team, phase: Int, step: PlannedStep, run: Run) -> Int:
    return together(team, phase, pieces_of(plan.size[0], ROWS_AT_ONCE), _move, step, run)


@kernel
def _cache_refreshed(
    plan: ContentPlan, team: Team, phase: Int, step: PlannedStep, run: TwoStageRun
) -> Int:
    size = run.second.cache.shape[0] // run.second.n_slices + 1
    return together(team, phase, pieces_of(size, ROWS_AT_ONCE), _refresh, step, run)


@kernel
def _no_phase(plan: None, team: Team, phase: Int, step: PlannedStep, run: Run) -> Int:
    return phase


vectors_gathered = by_record({ContentPlan: _vectors_gathered, NoneType: _no_phase})
"""`vectors_gathered(plan, team, phase, step, run)`: gather the vectors of a step, if there
is content; returns the next phase."""

vectors_moved = by_record({ContentPlan: _vectors_moved, NoneType: _no_phase})
"""`vectors_moved(plan, team, phase, step, run)`: likewise, change them by their gradients."""

cache_refreshed = by_record({ContentPlan: _cache_refreshed, NoneType: _no_phase})
"""`cache_refreshed(plan, team, phase, step, run)`: likewise, encode the next slice of the cache."""
