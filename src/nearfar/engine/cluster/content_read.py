"""What a rank reads of content in a step: vectors of columns, and rows that a cache takes."""

from __future__ import annotations

from types import NoneType
from typing import NamedTuple

import numpy as np

from nearfar.engine.content import Content, id_pull, weight_pull
from nearfar.engine.cpu.choose import Home, place_of
from nearfar.engine.cpu.content_plan import ContentPlan, ContentSource
from nearfar.engine.cpu.hashing import empty, find_or_add
from nearfar.engine.problem import Problem
from nearfar.runtime.arrays import Float32, Int, Int64
from nearfar.runtime.jit import by_record, kernel


class Slices(NamedTuple):
    """Which rows of a cache a step encodes anew: `nearfar.engine.Problem.refreshed`."""

    first: int
    """The first row of the cache."""
    last: int
    """The row after its last one."""
    n: int
    """In as many steps the whole cache is encoded anew."""


def make_slices(problem: Problem) -> Slices:
    """Return the slices of a problem's cache; they are empty if there is none.

    Examples
    --------
    >>> Slices(10, 17, 3)  # step 0 encodes rows 10, 11, 12; step 1 13, 14, 15; step 2 row 16
    Slices(first=10, last=17, n=3)
    """
    return Slices(problem.cached.start, problem.cached.stop, problem.steps_per_epoch)


@kernel
def _add_read(
    source: ContentSource, step: Int, n: Int, plan: ContentPlan, two_stage: bool, slices: Slices,
    joint: Int64, home: Int64,
) -> Int:  # fmt: skip
    if not two_stage:
        for f in range(plan.size[0]):
            joint[n + f] = plan.wanted[f]
        return n + plan.size[0]
    empty(home)
    for i in range(n):
        find_or_add(home, joint[i], i)
    size = (slices.last - slices.first + slices.n - 1) // slices.n
    first = slices.first + step % slices.n * size
    for row in range(first, min(first + size, slices.last)):
        n = _added(row, n, joint, home)
    content = source.content
    for i in range(n):
        row = joint[i]
        for e in range(content.indptr[row], content.indptr[row + 1]):
            n = _added(source.n_rows + np.int64(content.columns[e]), n, joint, home)
    return n


@kernel
def _added(row: Int, n: Int, joint: Int64, home: Int64) -> Int:
    """Add a row unless it is there; returns the number of rows."""
    if find_or_add(home, row, n) < n:
        return n
    joint[n] = row
    return n + 1


@kernel
def _add_nothing(
    source: None, step: Int, n: Int, plan: None, two_stage: bool, slices: Slices, joint: Int64,
    home: Int64,
) -> Int:  # fmt: skip
    return n


add_read = by_record({ContentSource: _add_read, NoneType: _add_nothing})
"""`add_read(source, step, n, plan, two_stage, slices, joint, home)`: add to the n rows in `joint`
those that content reads too; returns how many there are. `home` is room for a hash table, with a
second stage."""


@kernel
def _put_vectors(plan: ContentPlan, places: Int64) -> None:
    plan.wanted[: plan.size[0]] = places


@kernel
def _put_nothing(plan: None, places: Int64) -> None:
    pass


put_vectors = by_record({ContentPlan: _put_vectors, NoneType: _put_nothing})
"""`put_vectors(plan, places)`: replace the rows of the step's vectors by places."""


@kernel
def _find_vectors(plan: ContentPlan, home: Home | None) -> None:
    for f in range(plan.size[0]):
        plan.wanted[f] = place_of(home, plan.wanted[f])


@kernel
def _find_nothing(plan: None, home: Home | None) -> None:
    pass


find_vectors = by_record({ContentPlan: _find_vectors, NoneType: _find_nothing})
"""`find_vectors(plan, home)`: replace the joint rows of the step's vectors by rows of the learner,
when the second stage has chosen."""


def pulls_of(content: Content, rows: Int64) -> Float32:
    """Return the decay of rows of the joint table: of deltas and vectors; 0 for plain points."""
    pulls = np.empty(len(rows), np.float32)
    _fill_pulls(content, rows, pulls)
    return pulls


@kernel
def _fill_pulls(content: Content, rows: Int64, out: Float32) -> None:
    n = content.indptr.shape[0] - 1
    for i in range(rows.shape[0]):
        out[i] = id_pull(content, rows[i]) if rows[i] < n else weight_pull(content, rows[i] - n)
