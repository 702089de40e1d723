"""The second stage of 2-stage sampling as phases of a step: vectors of the moment, choice."""

from __future__ import annotations

from nearfar.engine.cpu.choose import choose_negatives, map_places, place_of
from nearfar.engine.cpu.content_phases import cache_refreshed
from nearfar.engine.cpu.content_plan import plan_content
from nearfar.engine.cpu.encoding import look_up
from nearfar.engine.cpu.plan import index_rows
from nearfar.engine.cpu.plan_records import N_MISSED, N_PAIRS, N_UNIQUE
from nearfar.engine.cpu.products import product
from nearfar.engine.cpu.rows import ROWS_AT_ONCE, gather, to_unit
from nearfar.engine.cpu.running import PlannedStep, TwoStageRun, pieces_of
from nearfar.engine.cpu.team import Team, together
from nearfar.runtime.arrays import Int
from nearfar.runtime.counter import stream_at
from nearfar.runtime.jit import kernel

PAIRS_A_BLOCK = 128
"""Pairs whose products with all candidates are computed in one matrix product. Every product packs
all candidates anew, so larger blocks are faster; smaller ones occupy more threads."""


@kernel
def second_stage(run: TwoStageRun, team: Team, phase: Int, step: PlannedStep) -> Int:
    """Draw the negatives of a step among its candidates; returns the next phase."""
    size, n_candidates = step.plan.size[N_PAIRS], step.plan.candidates.shape[0]
    phase = cache_refreshed(step.plan.content, team, phase, step, run)
    pieces = 1 + pieces_of(size + n_candidates, ROWS_AT_ONCE)
    phase = together(team, phase, pieces, _look, step, run)
    phase = together(team, phase, pieces_of(size, PAIRS_A_BLOCK), _choose, step, run)
    return together(team, phase, 1, _index, step, run)


@kernel
def _look(piece: Int, step: PlannedStep, run: TwoStageRun) -> None:
    """Map the candidates; or put some unit vectors together, of pairs, then of candidates."""
    plan, second = step.plan, run.second
    if piece == 0:
        map_places(plan.candidates, second.where)
        return
    size, n_users = plan.size[N_PAIRS], run.source.positives.indptr.shape[0] - 1
    begin = (piece - 1) * ROWS_AT_ONCE
    end = min(begin + ROWS_AT_ONCE, size + plan.candidates.shape[0])
    frozen, units, listed = second.frozen, second.units.current, second.wanted
    left_out, anchor = second.n_rows - frozen.shape[0], second.rule.anchor
    for at in range(begin, end):
        wanted = plan.entries[at, anchor] if at < size else n_users + plan.candidates[at - size]
        listed[at], second.joint[at] = place_of(second.home, wanted), wanted
        if frozen.shape[0] > 0:
            for k in range(frozen.shape[1]):
                units[at, k] = frozen[wanted - left_out, k]
    if frozen.shape[0] == 0:
        gather(listed[:end], begin, end, step.t, run.learner, second.units)
        to_unit(begin, end, run.learner.geometry, second.units)
        look_up(run.source.content, begin, end, second)


@kernel
def _choose(piece: Int, step: PlannedStep, run: TwoStageRun) -> None:
    """Choose the negatives of a block of pairs."""
    plan, second, positives = step.plan, run.second, run.source.positives
    size, n_candidates = plan.size[N_PAIRS], plan.candidates.shape[0]
    begin = piece * PAIRS_A_BLOCK
    end = min(size, begin + PAIRS_A_BLOCK)
    s, units = second.products[: end - begin], second.units.current
    product(units[begin:end], units[size : size + n_candidates].T, s)
    key = stream_at(run.source.draws.choice, step.t)
    second.missed[piece] = choose_negatives(s, begin, key, positives, plan, second)


@kernel
def _index(piece: Int, step: PlannedStep, run: TwoStageRun) -> None:
    """Count the places that stayed empty, and find who touches which row."""
    missed, size = 0, step.plan.size
    for block in range(pieces_of(size[N_PAIRS], PAIRS_A_BLOCK)):
        missed += run.second.missed[block]
    size[N_MISSED] = missed
    index_rows(step.plan, run.source.all_shared, 0, 0, run.desk.sketch)
    unique = step.plan.unique[: size[N_UNIQUE]]
    plan_content(run.source.content, step.t, unique, step.plan.content, run.desk.columns)
