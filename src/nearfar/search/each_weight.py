"""The best items under several weightings of the same points, with one matrix product for all.

Weighting g adds ``weights[g, j]`` to the score of item j (`Points.weighted`). The products of a
tile are computed once and compared with the heaps of all weightings. Items are visited from the
largest weight to the smallest, so within a tile the weights differ little: a product is looked at
only if it could enter at least one heap with the largest weight of its tile. The lists are those of
`nearfar.search.neighbours.top_k`, with exact scores and the same order of ties.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt

from nearfar.runtime.arrays import Float32, Float64, Int32, Int64, read_only
from nearfar.runtime.jit import kernel
from nearfar.runtime.threads import checked_threads, run_blocks
from nearfar.search import heap
from nearfar.search.exact import Operands, product
from nearfar.search.heap import CHUNK, sift_down
from nearfar.search.neighbours import (
    BLOCK_ITEMS,
    BLOCK_USERS,
    SPARE,
    Exclusion,
    Points,
    TopK,
    not_a_number,
    top_k,
)


def top_k_each(
    points: Points,
    weights: Float32,
    rows: npt.ArrayLike,
    k: int,
    *,
    exclude: Exclusion,
    threads: int | None = 1,
    progress: Callable[[int], None] | None = None,
) -> list[TopK]:
    """Return the k best items of each row under each weighting, exactly.

    Parameters
    ----------
    points : Points
    weights : float32 array of shape (n_weightings, n_items)
        Each may be another multiple of one order of the items: the quicker for it.
    rows, k, exclude, threads, progress
        As in `nearfar.search.neighbours.top_k`.

    Returns
    -------
    list of TopK
        ``top_k(points.weighted(weights[g]), rows, k, exclude=exclude)`` for each g.

    Raises
    ------
    DataError
        A score is NaN.
    """
    search = _EachSearch(points, weights, np.asarray(rows, np.int32), k, exclude)
    n_threads = checked_threads(threads)
    search.run(n_threads, progress or (lambda n: None))
    for g, found in enumerate(search.found):
        doubtful = np.flatnonzero(search.doubtful[g])
        if doubtful.size:
            again = top_k(search.weighted[g], search.users[doubtful], k, exclude=exclude,
                          threads=threads)  # fmt: skip
            found.items[doubtful], found.scores[doubtful] = again
    return search.found


class _EachSearch:
    """The state of one call: its arguments, the items in the order of the visit, and the result."""

    def __init__(
        self, points: Points, weights: Float32, users: Int32, k: int, exclude: Exclusion
    ) -> None:
        self.users, self.k = users, min(k, points.n_items)
        self.weighted = [points.weighted(weight) for weight in weights]
        self.offsets = np.stack([np.asarray(each.offset) for each in self.weighted])
        self.order = np.argsort(-weights.max(axis=0), kind="stable").astype(np.int32)
        ordered = None if points.offset is None else points.offset[self.order]
        terms = None if points.terms is None else points.terms.reordered(self.order)
        self.points = Points(points.queries, points.targets[self.order], ordered).near(terms)
        self.weights = np.ascontiguousarray(weights[:, self.order], np.float32)
        self.exclude = _reordered(exclude, self.order)
        self.n = min(k + SPARE, points.n_items)
        self.found = [TopK.empty(len(users), self.k) for _ in weights]
        self.doubtful = np.zeros((len(weights), len(users)), np.bool_)
        self.tiles: SimpleQueue[Float32] = SimpleQueue()

    def run(self, threads: int, progress: Callable[[int], None]) -> None:
        """Search for all rows, block by block."""
        for _ in range(threads):
            self.tiles.put(np.empty(BLOCK_USERS * BLOCK_ITEMS, np.float32))
        run_blocks(self.block, range(0, len(self.users), BLOCK_USERS), threads, progress)

    def block(self, start: int) -> int:
        """Search for the block of users at `start`; return their number."""
        places = np.arange(start, min(start + BLOCK_USERS, len(self.users)))
        users = self.users[places]
        scores, items = self._candidates(users)
        found = self._ranked(users, items)
        for g, points in enumerate(self.weighted):
            best = TopK(found.items[g], found.scores[g])
            heap.sort(best.scores, best.items)
            self.found[g].items[places], self.found[g].scores[places] = best
            if self.n < points.n_items:
                left = scores[g][:, 0] + points.rounding(users)  # the root is the worst
                full = items[g][:, 0] >= 0
                last = best.scores[:, -1]
                self.doubtful[g, places] = full & (last <= left.astype(np.float32))
        return len(places)

    def _ranked(self, users: Int32, candidates: Int32) -> TopK:
        """Return the k best candidates of each weighting by exact scores, as heaps (G, n_rows, k).

        A candidate of one weighting counts for all: its product is computed once.
        """
        n_weightings, n_rows, _ = candidates.shape
        each = np.sort(candidates.transpose(1, 0, 2).reshape(n_rows, -1), axis=1)
        each[:, 1:][each[:, 1:] == each[:, :-1]] = -1
        shape = (n_weightings, n_rows, self.k)
        found = TopK(np.full(shape, -1, np.int32), np.full(shape, -np.inf, np.float32))
        source = self.weighted[0]
        tables = Operands(*map(read_only, (source.queries, source.targets, self.offsets)))
        terms = source.terms_of(users, each)
        keep_best_each(tables, users, each, terms, found.scores, found.items)
        return found

    def _candidates(self, users: Int32) -> tuple[Float32, Int32]:
        """Return the n best of each weighting by rounded scores, as heaps (G, n_rows, n)."""
        shape = (len(self.weights), len(users), self.n)
        scores, items = np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int32)
        points, buffer = self.points.holding(users), self.tiles.get()
        try:
            for first in range(0, self.points.n_items, BLOCK_ITEMS):
                width = min(BLOCK_ITEMS, self.points.n_items - first)
                tile = buffer[: len(users) * width].reshape(len(users), width)
                points.score_block(users, first, tile)
                heap.hide(tile, first, users, *self.exclude)
                bad = scan_each(tile, first, self.order, self.weights, scores, items)
                if bad >= 0:
                    where = self.order[first + bad % width]
                    raise not_a_number(int(users[bad // width]), int(where))
        finally:
            self.tiles.put(buffer)
        return scores, items


def _reordered(exclude: Exclusion, order: Int32) -> Exclusion:
    """Return the excluded items as positions in `order`, ascending for each user."""
    indptr, items = exclude
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    users: Int64 = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    keys = np.sort(users * len(order) + place[items])
    return indptr, (keys % max(len(order), 1)).astype(np.int32)


@kernel
def scan_each(
    tile: Float32, first: int, order: Int32, weights: Float32, scores: Float32, items: Int32
) -> int:
    """Insert the scores of a tile under each weighting into its heaps.

    Column b of the tile is item ``order[first + b]``, and `weights`, (G, M), is in that order too;
    `scores` and `items` are (G, n_rows, n). Returns the position in the tile of a product that is
    NaN, or -1.
    """
    width: int = tile.shape[1]
    n_weightings: int = weights.shape[0]
    n = scores.shape[2]
    reach = np.empty(n_weightings, np.float32)
    for g in range(n_weightings):
        reach[g] = weights[g, first : first + width].max()
    for a in range(tile.shape[0]):
        least = _least(scores, a, reach)
        for start in range(0, width, CHUNK):
            stop = min(start + CHUNK, width)
            if stop - start == CHUNK:
                any_above = 0
                for b in range(start, start + CHUNK):
                    any_above += not (tile[a, b] <= least)  # NaN counts as above
                if any_above == 0:
                    continue
            for b in range(start, stop):
                if tile[a, b] <= least:
                    continue
                if np.isnan(tile[a, b]):
                    return a * width + b
                item = order[first + b]
                entered = 0
                for g in range(n_weightings):
                    score = np.float32(tile[a, b] + weights[g, first + b])
                    if score > scores[g, a, 0] or (
                        score == scores[g, a, 0] and item < items[g, a, 0]
                    ):
                        sift_down(scores[g], items[g], a, n, score, item)
                        entered += 1
                if entered > 0:
                    least = _least(scores, a, reach)
    return -1


@kernel
def keep_best_each(
    tables: Operands,
    rows: Int32,
    candidates: Int32,
    terms: Float64,
    scores: Float32,
    items: Int32,
) -> None:
    """Keep the best candidates of each row under each weighting; see `exact.keep_best`.

    The offsets of `tables` are (G, n_items).
    """
    queries, targets, offsets = tables
    k = scores.shape[2]
    for a in range(len(rows)):
        for b in range(candidates.shape[1]):
            item = candidates[a, b]
            if item < 0:
                continue
            inner = product(queries, rows[a], targets, item)
            for g in range(offsets.shape[0]):
                exact = inner + np.float64(offsets[g, item])
                if len(terms) > 0:
                    exact += terms[a, b]
                score = np.float32(exact)
                if score > scores[g, a, 0] or (score == scores[g, a, 0] and item < items[g, a, 0]):
                    sift_down(scores[g], items[g], a, k, score, item)


@kernel
def _least(scores: Float32, row: int, reach: Float32) -> np.float32:
    """Return a product below which nothing can enter a heap of the row, rounding included."""
    least = np.float32(np.inf)
    for g in range(reach.shape[0]):
        worst = scores[g, row, 0]
        slack = np.float32(2.0**-21) * (abs(worst) + abs(reach[g]))
        bound = worst - reach[g] - slack if worst > -np.inf else worst
        least = min(least, bound)
    return least
