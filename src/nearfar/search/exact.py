"""Compiled kernels for scores without the rounding errors of a matrix product.

The rounding of a float32 product depends on the processor, on BLAS and on the other rows computed
with it. So products are used only to find candidates. Their scores are computed here one by one,
summed in float64 and rounded once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nearfar.runtime.arrays import Float32, Float64, Int, Int32, Real
from nearfar.runtime.jit import kernel, reduction
from nearfar.search.heap import sift_down


class Operands(NamedTuple):
    """What scores are computed from, read-only."""

    queries: Float32
    """(n_users, d)."""
    targets: Float32
    """(n_items, d)."""
    offset: Float32
    """(n_items,), or empty if there is none."""


@reduction
def product(queries: Float32, row: Int, targets: Float32, item: Int) -> Real:
    """Return the inner product of a query and a target, in float64."""
    total = 0.0
    for i in range(queries.shape[1]):
        total += np.float64(queries[row, i]) * np.float64(targets[item, i])
    return total


@kernel
def keep_best(
    tables: Operands,
    rows: Int32,
    candidates: Int32,
    terms: Float64,
    scores: Float32,
    items: Int32,
) -> None:
    """Keep the best candidates of each row in the heaps `scores` and `items`; see `heap`.

    `terms`, of the shape of `candidates`, are added to the scores; they are empty, (0, 0), if there
    are none. Candidates of -1 are ignored.
    """
    queries, targets, offset = tables
    k = scores.shape[1]
    for a in range(len(rows)):
        for b in range(candidates.shape[1]):
            item = candidates[a, b]
            if item < 0:
                continue
            exact = product(queries, rows[a], targets, item)
            if len(offset) > 0:
                exact += np.float64(offset[item])
            if len(terms) > 0:
                exact += terms[a, b]
            score = np.float32(exact)
            if score > scores[a, 0] or (score == scores[a, 0] and item < items[a, 0]):
                sift_down(scores, items, a, k, score, item)


@kernel
def products(tables: Operands, rows: Int32, candidates: Int32, out: Float64) -> None:
    """Compute the inner products of each row and its candidates, without an offset."""
    for a in range(len(rows)):
        for b in range(candidates.shape[1]):
            if candidates[a, b] >= 0:
                out[a, b] = product(tables.queries, rows[a], tables.targets, candidates[a, b])
