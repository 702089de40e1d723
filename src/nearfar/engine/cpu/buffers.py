"""The options in numbers, and the room that a step works in: allocated once, used by every step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nearfar.engine.cpu.compute import Room
from nearfar.engine.cpu.plan import Draws, Plan, table_size
from nearfar.engine.cpu.shared import Wide
from nearfar.engine.problem import Problem
from nearfar.engine.spec import make_draw_spec
from nearfar.runtime.arrays import Float32, Int32, Int64

PAIRS_A_BLOCK = 128
"""Pairs whose products with all candidates are computed in one matrix product. Every product packs
all candidates anew, so larger blocks are faster; smaller ones occupy more threads. It is compiled
into the steps, see `nearfar.runtime.jit`."""


class Second(NamedTuple):
    """Room for the second stage of 2-stage sampling."""

    frozen: Float32
    """(M, d) the initial points of the items, where stage 2 looks at those."""
    units: Float32
    """(batch + C, d) unit vectors: of the pairs' positives, then of the candidates."""
    wanted: Int64
    """(batch + C,) their rows."""
    inverse: Float32
    offset: Float32
    """(batch + C,) of the gathered rows."""
    places: Int64
    following: Int32
    """The map from an item to its places among the candidates."""
    missed: Int64
    """(blocks,) places that stayed empty."""


def make_draws(problem: Problem) -> Draws:
    """Put the sampler and the streams of the seed into numbers."""
    given, options = make_draw_spec(problem), problem.options
    return Draws(
        kind=given.kind,
        batch=given.batch,
        negatives=given.negatives,
        redraws=given.redraws,
        candidates=given.candidates,
        distinct_candidates=given.distinct,
        all_shared=options.spread_out is not None or options.decorrelate is not None,
        order=given.order,
        negative=given.negative,
        candidate=given.candidate,
        choice=given.choice,
    )


def make_plans(n_ahead: int, problem: Problem) -> Plan:
    """Make room for the plans of `n_ahead` steps."""
    batch, candidates = problem.options.batch, problem.n_candidates
    width, rows = 2 + problem.n_own, most_rows(problem)
    return Plan(
        entries=np.empty((n_ahead, batch, width), np.int64),
        slots=np.empty((n_ahead, batch, width), np.int32),
        unique=np.empty((n_ahead, rows), np.int64),
        own=np.empty((n_ahead, batch + 1), np.int32),
        start=np.empty((n_ahead, rows + 1), np.int32),
        pair=np.empty((n_ahead, batch * width), np.int32),
        place=np.empty((n_ahead, batch * width), np.int32),
        candidates=np.empty((n_ahead, candidates), np.int32),
        size=np.zeros((n_ahead, 4), np.int64),
    )


def most_rows(problem: Problem) -> int:
    """Count the rows that a step touches at most."""
    shared = problem.n_candidates if problem.options.sampler.needs.shared else 0
    return problem.options.batch * (2 + problem.n_own) + shared


def make_room(rows: int, batch: int, negatives: int, dim: int, *, extra: bool) -> Room:
    """Make room for the numbers of a step of `batch` pairs and at most `rows` rows."""
    return Room(
        current=np.empty((rows, dim), np.float32),
        inverse=np.empty(rows, np.float32),
        offset=np.empty(rows, np.float32),
        coefficient=np.empty(batch, np.float32),
        share=np.empty((batch, negatives), np.float32),
        violated=np.empty(batch, np.bool_),
        loss=np.empty(batch),
        products=np.empty((batch, negatives), np.float32),
        moments=np.empty((batch, 3)),
        extra=np.empty((rows if extra else 0, dim), np.float32),
        totals=np.zeros(4),
    )


def make_wide(problem: Problem) -> Wide | None:
    """Make room for shared negatives, if there are any."""
    if not problem.options.sampler.needs.shared:
        return None
    batch, dim = problem.options.batch, problem.options.dim
    rows, n, blocks = most_rows(problem), problem.n_candidates, -(-batch // PAIRS_A_BLOCK)
    return Wide(
        points=np.empty((rows, dim), np.float32),
        users=np.empty((batch, dim), np.float32),
        pulls=np.empty((batch, dim), np.float32),
        towards=np.empty((blocks, n, dim), np.float32),
        flows=np.empty((blocks, n), np.float32),
        places=np.empty(table_size(n), np.int64),
        following=np.empty(n, np.int32),
    )


def make_second(problem: Problem) -> Second | None:
    """Make room for the second stage, if there is one, and the initial item points it may need."""
    options, n = problem.options, problem.n_candidates
    if not options.sampler.needs.candidates:
        return None
    frozen = problem.frozen_items()
    if frozen is None:
        frozen = np.empty((0, options.dim), np.float32)
    batch, units = options.batch, options.batch + n
    return Second(
        frozen=frozen,
        units=np.empty((units, options.dim), np.float32),
        wanted=np.empty(units, np.int64),
        inverse=np.empty(units, np.float32),
        offset=np.empty(units, np.float32),
        places=np.empty(table_size(n), np.int64),
        following=np.empty(n, np.int32),
        missed=np.zeros(-(-batch // PAIRS_A_BLOCK), np.int64),
    )
