"""The records of a run of steps: made once, with the room that every step works in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from nearfar.engine.cpu.choose import Second, make_weight_rule, make_where
from nearfar.engine.cpu.content_plan import (
    ContentSource,
    make_content_plan,
    make_content_sketch,
)
from nearfar.engine.cpu.contrast import make_loss, make_pairs
from nearfar.engine.cpu.descent import make_rule
from nearfar.engine.cpu.encoding import Reading
from nearfar.engine.cpu.gradients import PointFlow
from nearfar.engine.cpu.own_step import PAIRS_AT_ONCE
from nearfar.engine.cpu.plan_records import DrawSource, PairRange, Plan, Positives, make_sketch
from nearfar.engine.cpu.regularise import make_covariance, make_spread
from nearfar.engine.cpu.rows import ROWS_AT_ONCE, Learner, Moved, make_gathered
from nearfar.engine.cpu.running import Desk, OwnRun, Run, SharedRun, TwoStageRun, Wide
from nearfar.engine.cpu.second_stage import PAIRS_A_BLOCK
from nearfar.engine.problem import Problem, State
from nearfar.engine.spec import make_draw_spec, make_spec
from nearfar.runtime.arrays import DType, Floats
from nearfar.runtime.counter import Purpose, stream_base

_PLANNED = 65_536
"""Entries that are planned at a time, about."""
_PIECES_A_THREAD = 4
"""Into so many pieces a thread's share of the pairs is cut; none is smaller than a block."""


def make_source(problem: Problem, part: PairRange | None = None) -> DrawSource:
    """Return what the steps are planned from: all pairs, or some."""
    data = problem.interactions
    positives = Positives(data.indptr, data.items, problem.positive_users)
    options = problem.options
    content = make_content_source(problem)
    tied = any(part is not None for part in (options.spread_out, options.decorrelate, content))
    draws = make_draw_spec(problem)
    part = PairRange(0, data.n_pairs) if part is None else part
    return DrawSource(positives, part, problem.proposal, problem.support, draws, tied, content)


def make_content_source(problem: Problem) -> ContentSource | None:
    """Return what the content of steps is planned from, if there is content."""
    if problem.content is None:
        return None
    base = stream_base(problem.seed, Purpose.ID_DROPOUT)
    return ContentSource(problem.content, problem.n_rows, base)


class Reach(NamedTuple):
    """How much content a step reads at most."""

    entries: int
    columns: int


def reach(problem: Problem, rows: int | None = None) -> Reach:
    """Count the entries and different columns that `rows` rows, or a step's, have at most."""
    if problem.content is None:
        return Reach(0, 0)
    lengths = np.diff(problem.content.indptr)
    n = min(most_rows(problem) if rows is None else rows, len(lengths))
    entries = int(np.partition(lengths, len(lengths) - n)[len(lengths) - n :].sum())
    return Reach(entries, min(entries, problem.content.n_columns))


def make_reading(problem: Problem, dtype: DType = np.float32) -> Reading | None:
    """Make room for the content of a step, if there is content."""
    if problem.content is None:
        return None
    rows, dim = most_rows(problem), problem.options.dim
    return Reading(
        problem.content,
        np.empty((rows, dim), dtype),
        np.empty((rows, dim), dtype),
        make_gathered(reach(problem).columns, dim, dtype),
    )


def make_plans(n_ahead: int, problem: Problem, rows: int | None = None) -> Plan:
    """Make room for the plans of `n_ahead` steps, of `rows` different rows or `most_rows`."""
    batch, candidates = problem.options.batch, problem.n_candidates
    width, rows = 2 + problem.n_own, most_rows(problem) if rows is None else rows
    return Plan(
        entries=np.empty((n_ahead, batch, width), np.int64),
        position=np.empty((n_ahead, batch), np.int64),
        slots=np.empty((n_ahead, batch, width), np.int32),
        unique=np.empty((n_ahead, rows), np.int64),
        own=np.empty((n_ahead, batch + 1), np.int32),
        start=np.empty((n_ahead, rows + 1), np.int32),
        pair=np.empty((n_ahead, batch * width), np.int32),
        place=np.empty((n_ahead, batch * width), np.int32),
        candidates=np.empty((n_ahead, candidates), np.int32),
        size=np.zeros((n_ahead, 4), np.int64),
        content=None
        if problem.content is None
        else make_content_plan(n_ahead, rows, *reach(problem)),
    )


def most_rows(problem: Problem) -> int:
    """Count the rows that a step touches at most."""
    shared = problem.n_candidates if problem.options.sampler.needs.shared else 0
    return problem.options.batch * (2 + problem.n_own) + shared


def steps_ahead(problem: Problem) -> int:
    """Return how many steps are planned at a time, so that their plans stay in the cache."""
    entries = most_rows(problem) + reach(problem).entries // 16
    return min(max(1, _PLANNED // entries), 48)


def make_learner(problem: Problem, state: State) -> Learner:
    """Return the tables of `state` with the rule by which they move."""
    spec = make_spec(problem)
    return Learner(state.rows, state.last, spec.geometry, make_rule(spec, problem.horizon))


def make_runs(
    problem: Problem,
    learner: Learner,
    threads: int,
    state: State,
    *,
    part: PairRange | None = None,
    dtype: DType = np.float32,
) -> list[Run]:
    """Make a record for each thread: all is shared but what a thread writes on.

    The pairs are all, or those of `part`; `dtype` is that of the arithmetic.
    """
    options, spec = problem.options, make_spec(problem)
    source, loss = make_source(problem, part), make_loss(spec)
    rows, dim = most_rows(problem), options.dim
    flow = PointFlow(
        make_pairs(options.batch, problem.n_own, dtype),
        make_gathered(rows, dim, dtype),
        make_spread(spec, options.batch, problem.n_own, dtype),
        make_covariance(spec, rows, dim, dtype),
        make_reading(problem, dtype),
    )
    wide, second = make_wide(problem, dtype), make_second(problem, state)
    if wide is not None:
        return [
            SharedRun(
                source, learner, loss, flow, desk, wide._replace(products=_block(problem, dtype))
            )
            for desk in _desks(problem, threads, dtype)
        ]
    share = options.batch // (_PIECES_A_THREAD * threads)
    share = max(PAIRS_AT_ONCE, share // PAIRS_AT_ONCE * PAIRS_AT_ONCE)
    own = [
        OwnRun(source, learner, loss, flow, desk, share) for desk in _desks(problem, threads, dtype)
    ]
    if second is None:
        return [*own]
    scratch = np.empty((3, problem.n_candidates), np.float32)
    return [
        TwoStageRun(
            *run, second._replace(products=_block(problem, np.float32), scratch=scratch.copy())
        )
        for run in own
    ]


def _desks(problem: Problem, threads: int, dtype: DType) -> Iterator[Desk]:
    options, width, n = problem.options, 2 + problem.n_own, problem.n_candidates
    shared = most_rows(problem) - options.batch * width
    rows = max(width * PAIRS_AT_ONCE, ROWS_AT_ONCE)
    for _ in range(threads):
        yield Desk(
            make_sketch(options.batch, problem.n_own, n if shared else 0, n),
            None if problem.content is None else make_content_sketch(reach(problem).columns),
            Moved(np.empty((rows, options.dim), dtype), np.empty(rows, np.int64)),
            np.empty(max(width, n), dtype),
        )


def _block(problem: Problem, dtype: DType) -> Floats:
    return np.empty((PAIRS_A_BLOCK, problem.n_candidates), dtype)


def make_wide(problem: Problem, dtype: DType = np.float32) -> Wide | None:
    """Make room for shared negatives, if there are any; without a thread's own."""
    if not problem.options.sampler.needs.shared:
        return None
    batch, dim = problem.options.batch, problem.options.dim
    rows, n, blocks = most_rows(problem), problem.n_candidates, -(-batch // PAIRS_A_BLOCK)
    return Wide(
        points=np.empty((rows, dim), dtype),
        users=np.empty((batch, dim), dtype),
        pulls=np.empty((batch, dim), dtype),
        towards=np.empty((blocks, n, dim), dtype),
        flows=np.empty((blocks, n), dtype),
        where=make_where(n),
        products=np.empty((0, n), dtype),
    )


def make_second(problem: Problem, state: State) -> Second | None:
    """Make room for the second stage, if there is one; without a thread's own."""
    options, n = problem.options, problem.n_candidates
    if not options.sampler.needs.candidates:
        return None
    frozen, cache, cached_at = problem.frozen(), state.cache, state.cached_at
    if frozen is None:
        frozen = np.empty((0, options.dim), np.float32)
    return Second(
        rule=make_weight_rule(make_spec(problem)),
        frozen=frozen,
        units=make_gathered(options.batch + n, options.dim),
        wanted=np.empty(options.batch + n, np.int64),
        joint=np.empty(options.batch + n, np.int64),
        cache=np.empty((0, options.dim), np.float32) if cache is None else cache,
        cached_at=np.empty(0, np.int64) if cached_at is None else cached_at,
        first_cached=problem.cached.start,
        n_slices=problem.steps_per_epoch,
        n_rows=problem.n_rows,
        home=None,
        where=make_where(n),
        missed=np.zeros(-(-options.batch // PAIRS_A_BLOCK), np.int64),
        products=np.empty((0, n), np.float32),
        scratch=np.empty((3, 0), np.float32),
    )
