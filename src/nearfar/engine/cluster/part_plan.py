"""A rank's part of a step as integers: its pairs, their negatives, and which rows it asks for.

The batch is hashed as a whole, so the draws are those of one machine, and the CPU engine's planning
is used as it is, for the pairs of the rank. What it calls rows of the joint table is then replaced
by places in the order of

    rank 0: shared candidates that it owns, rows asked of it; rank 1: ...; own users

of which `nearfar.engine.cluster.part_steps` makes rows of the rank's table and of its copies. With
content the vectors of the columns that the step's rows read are asked for likewise. A second stage
with content reads its cached points on every rank, so all ranks ask for the slice of the rows that
are encoded anew as well, and for the columns of all candidates, as nobody knows the chosen ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nearfar.engine.cluster.content_read import Slices, add_read, put_vectors
from nearfar.engine.cluster.shards import Shards, locate
from nearfar.engine.cpu.buffers import make_plans, reach
from nearfar.engine.cpu.content_plan import ContentSketch, make_content_sketch, plan_content
from nearfar.engine.cpu.hashing import empty, find_or_add, table_size
from nearfar.engine.cpu.plan import index_rows, plan_step
from nearfar.engine.cpu.plan_records import N_PAIRS, N_UNIQUE, DrawSource, Plan, Sketch, make_sketch
from nearfar.engine.cpu.steps import one_plan
from nearfar.engine.problem import Problem
from nearfar.engine.spec import SHARED, TWO_STAGE
from nearfar.runtime.arrays import Int, Int64
from nearfar.runtime.jit import kernel
from nearfar.runtime.references import refer


class Wanted(NamedTuple):
    """Room for the rows of a step: R of them at most, P ranks."""

    owner: Int64
    """(R,) of each row; P for an own user."""
    local: Int64
    """(R,) its row in the table of its owner."""
    rows: Int64
    """(R,) the same in the order of places."""
    sections: Int64
    """(P + 1, 2) numbers of shared candidates and of rows asked for, by owner; own users last."""
    home: Int64
    """From a joint row to its place, with a second stage, which chooses rows later."""


class PartPlans(NamedTuple):
    """Planned steps, each array with one more axis, the first."""

    plan: Plan
    wanted: Wanted


class PartSketch(NamedTuple):
    """What a thread writes on while it plans."""

    rows: Sketch
    columns: ContentSketch | None


def most_wanted(problem: Problem) -> int:
    """Count the rows of a step at most."""
    rows = _most_planned(problem) + -(-len(problem.cached) // problem.steps_per_epoch)
    return rows + reach(problem, rows).columns


def _most_planned(problem: Problem) -> int:
    """Count the rows of a step's pairs, negatives and candidates at most."""
    two_stage = bool(problem.n_own and problem.n_candidates)
    return problem.options.batch * (2 if two_stage else 2 + problem.n_own) + problem.n_candidates


def make_part_plans(n_ahead: int, problem: Problem, size: int) -> PartPlans:
    """Make room for so many steps of one of `size` ranks."""
    rows = most_wanted(problem)
    two_stage = bool(problem.n_own and problem.n_candidates)
    drawn = problem.options.batch * (2 + problem.n_own)
    wanted = Wanted(
        owner=np.empty((n_ahead, rows), np.int64),
        local=np.empty((n_ahead, rows), np.int64),
        rows=np.empty((n_ahead, rows), np.int64),
        sections=np.empty((n_ahead, size + 1, 2), np.int64),
        home=np.empty((n_ahead, table_size(rows) if two_stage else 0), np.int64),
    )
    return PartPlans(make_plans(n_ahead, problem, max(rows, drawn)), wanted)


def make_part_sketch(problem: Problem) -> PartSketch:
    """Make room for a thread that plans."""
    n, content = problem.n_candidates, problem.content
    return PartSketch(
        make_sketch(problem.options.batch, problem.n_own, n, n),
        None if content is None else make_content_sketch(reach(problem).columns),
    )


@kernel
def plan_parts(
    first: Int, begin: Int, end: Int, source: DrawSource, shards: Shards, slices: Slices,
    ahead: PartPlans, sketch: PartSketch,
) -> None:  # fmt: skip
    """Plan steps first + begin .. first + end - 1 into places begin..end-1 of `ahead`."""
    here, room, divided = refer(source), refer(sketch.rows), refer(shards)
    for p in range(begin, end):
        step, plan = first + p, refer(one_plan(ahead.plan, p))
        wanted = refer(_one_wanted(ahead.wanted, p))
        plan_step(step, here, plan, room)
        if source.draws.kind != TWO_STAGE:
            unique = plan.unique[: plan.size[N_UNIQUE]]
            plan_content(source.content, step, unique, plan.content, sketch.columns)
        if shards.users.shape[0] > 2:  # one rank has all rows, at their joint numbers
            _address(step, plan, here, divided, slices, wanted, room)


@kernel
def _one_wanted(wanted: Wanted, p: Int) -> Wanted:
    return Wanted(
        wanted.owner[p], wanted.local[p], wanted.rows[p], wanted.sections[p], wanted.home[p]
    )


@kernel
def _address(
    step: Int, plan: Plan, source: DrawSource, shards: Shards, slices: Slices, wanted: Wanted,
    sketch: Sketch,
) -> None:  # fmt: skip
    """Find out where the rows of a planned step come from, and give each a place."""
    draws, n_users = source.draws, source.positives.indptr.shape[0] - 1
    two_stage = draws.kind == TWO_STAGE
    if two_stage:
        plan.entries[: plan.size[N_PAIRS], 2:] = -1
        index_rows(plan, True, draws.candidates, n_users, sketch)
    n_common = draws.candidates if two_stage or draws.kind == SHARED else 0
    n_unique = plan.size[N_UNIQUE]
    n = add_read(
        source.content, step, n_unique, plan.content, two_stage, slices, plan.unique, wanted.home
    )
    rows = plan.unique[:n]
    _divide(rows, n_common, n_unique, n_users, shards, wanted)
    if two_stage:
        empty(wanted.home)
    begins = _begins(wanted.sections)
    for i in range(n):
        at, kind = wanted.owner[i], np.int64(i >= n_common)
        place = begins[at, kind]
        begins[at, kind] += 1
        wanted.rows[place] = wanted.local[i]
        if two_stage:
            find_or_add(wanted.home, rows[i], place)
        else:
            rows[i] = place
    if not two_stage:
        put_vectors(plan.content, rows[n_unique:])


@kernel
def _divide(
    rows: Int64, n_common: Int, n_unique: Int, n_users: Int, shards: Shards, wanted: Wanted
) -> None:
    """Find the owners of rows, and count their sections."""
    owner, sections = wanted.owner, wanted.sections
    n_ranks = sections.shape[0] - 1
    locate(shards, rows, owner, wanted.local)
    sections[:] = 0
    for i in range(rows.shape[0]):
        if i < n_unique and rows[i] < n_users:  # a rank has pairs of its own users only
            owner[i] = n_ranks
        sections[owner[i], np.int64(i >= n_common)] += 1


@kernel
def _begins(sections: Int64) -> Int64:
    """Return the place at which each section begins."""
    begins, at = np.empty_like(sections), 0
    for rank in range(sections.shape[0]):
        for kind in range(2):
            begins[rank, kind] = at
            at += sections[rank, kind]
    return begins
