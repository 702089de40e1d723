"""The integers of a step as records: what planning reads, and what it fills.

They are compiled into kernels, see `nearfar.runtime.jit`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nearfar.engine.cpu.content_plan import ContentPlan, ContentSource
from nearfar.engine.cpu.hashing import table_size
from nearfar.engine.spec import DrawSpec
from nearfar.method.proposal import AliasTable
from nearfar.runtime.arrays import Float64, Int32, Int64


class Positives(NamedTuple):
    """The training interactions: CSR by user, and the user of each pair."""

    indptr: Int64
    items: Int32
    users: Int32


class PairRange(NamedTuple):
    """The pairs that are planned: those with numbers first..last-1; all of them on one machine."""

    first: int
    last: int


class DrawSource(NamedTuple):
    """What steps are planned from."""

    positives: Positives
    part: PairRange
    proposal: AliasTable
    support: Int32
    """The items that the proposal can give, ascending."""
    draws: DrawSpec
    all_shared: bool
    """Whether the loss or content ties the pairs of a batch together, so that no row belongs to
    one pair."""
    content: ContentSource | None


class Plan(NamedTuple):
    """Room for the integers of one step; W = 2 + N."""

    entries: Int64
    """(batch, W) rows of the joint table, -1 for an empty place."""
    position: Int64
    """(batch,) the place of each pair in the batch: g itself, unless a part is planned."""
    slots: Int32
    """(batch, W) place of each entry's row in `unique`, -1 for an empty place."""
    unique: Int64
    """(batch * W + shared,) the different rows of the step: those of the shared negatives, those of
    several entries, in order of first appearance, and then the others, which only one pair reads,
    pair by pair."""
    own: Int32
    """(batch + 1,) where the rows that only pair g reads begin in `unique`."""
    start: Int32
    """(batch * W + shared + 1,) where the entries of each unique row begin in `pair`, `place`."""
    pair: Int32
    place: Int32
    """(batch * W,) g and w of the entries of each unique row, ascending."""
    candidates: Int32
    """(C,) items from stage 1, or the shared negatives."""
    size: Int64
    """(4,) pairs in the step, unique rows, places that stayed empty, rows that are shared."""
    content: ContentPlan | None


N_PAIRS, N_UNIQUE, N_MISSED, N_SHARED = 0, 1, 2, 3


class Sketch(NamedTuple):
    """What a thread writes on while it plans; R = batch * W + shared rows, D different items."""

    rows: Int64
    """(table_size(R),) a hash table."""
    items: Int64
    """(table_size(D),) a hash table; D is the candidates, or batch * N."""
    counts: Int32
    number: Int32
    following: Int32
    """(R,) each."""
    first: Int32
    """(batch * N,) attempt 0 of each place."""
    real: Float64
    """(max(D, batch * N),)."""
    order: Int64
    """(batch,) the step's pairs."""


def make_sketch(batch: int, negatives: int, shared: int, candidates: int) -> Sketch:
    """Make room to plan steps of `batch` pairs with so many negatives and candidates.

    `negatives` are a pair's own; `shared` are those of the candidates whose rows the step touches.
    """
    rows, own = batch * (2 + negatives) + shared, batch * negatives
    most = max(own, candidates)
    return Sketch(
        rows=np.empty(table_size(rows), np.int64),
        items=np.empty(table_size(most), np.int64),
        counts=np.empty(rows, np.int32),
        number=np.empty(rows, np.int32),
        following=np.empty(rows, np.int32),
        first=np.empty(own, np.int32),
        real=np.empty(most),
        order=np.empty(batch, np.int64),
    )
