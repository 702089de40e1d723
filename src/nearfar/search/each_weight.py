"""The best items under several weightings of the same points, with one matrix product for all.

Weighting g adds ``factors[g] * weight[j]`` to the score of item j (`Points.weighted`). The products
of a tile are computed once, and each row keeps one shortlist of the items that may be among the
best under some weighting (`nearfar.search.shortlists`). Exact scores under different weightings
differ only in the weight, so the exact product of a shortlisted item is computed once too. The
lists are those of `nearfar.search.neighbours.top_k`, with exact scores and the same order of ties.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from nearfar.runtime.arrays import Float32, Int32, Int64, read_only
from nearfar.runtime.jit import kernel
from nearfar.runtime.threads import checked_threads, run_blocks
from nearfar.search.exact import Operands, products
from nearfar.search.neighbours import (
    BLOCK_ITEMS,
    BLOCK_USERS,
    Exclusion,
    Points,
    TopK,
    not_a_number,
    top_k,
)
from nearfar.search.shortlists import (
    RUN,
    Shortlists,
    Weightings,
    collect,
    first_floors,
    prune_all,
)
from nearfar.search.sort_keys import Candidates, read_keys, write_keys

_STEP: Final = 64
"""A shortlist is pruned when it has grown by this and four times k."""


def top_k_each(
    points: Points,
    weight: Float32,
    factors: Float32,
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
    weight : float32 array of shape (n_items,)
    factors : float32 array of shape (n_weightings,)
    rows, k, exclude, threads, progress
        As in `nearfar.search.neighbours.top_k`.

    Returns
    -------
    list of TopK
        ``top_k(points.weighted(factors[g] * weight), rows, k, exclude=exclude)`` for each g.

    Raises
    ------
    DataError
        A score is NaN.
    """
    search = _EachSearch(points, weight, factors, np.asarray(rows, np.int32), k, exclude)
    search.run(checked_threads(threads), progress or (lambda n: None))
    crowded = np.flatnonzero(search.crowded)
    if crowded.size:
        for factor, found in zip(factors, search.found, strict=True):
            again = top_k(points.weighted(factor * weight), search.users[crowded], k,
                          exclude=exclude, threads=threads)  # fmt: skip
            found.items[crowded], found.scores[crowded] = again
    return search.found


class _Space(NamedTuple):
    """The memory that a thread needs for a block of rows."""

    tile: Float32
    items: Int32
    scores: Float32


class _EachSearch:
    """The state of one call: its arguments, the items in the order of the visit, and the result."""

    def __init__(
        self,
        points: Points,
        weight: Float32,
        factors: Float32,
        users: Int32,
        k: int,
        exclude: Exclusion,
    ) -> None:
        self.points, self.weight, self.users = points, weight, users
        self.k, self.step = min(k, points.n_items), min(4 * k + _STEP, points.n_items)
        self.order = np.argsort(-weight, kind="stable").astype(np.int32)
        self.visited = _reordered(points, self.order)
        self.weightings = Weightings.of(factors, weight[self.order])
        place = np.empty(len(self.order), np.int32)
        place[self.order] = np.arange(len(self.order))
        self.hidden = exclude[0], place[exclude[1]]
        some = users[:1]  # how much a weight adds does not depend on the user
        sums = [points.weighted(factor * weight).rounding(some) for factor in factors]
        self.added = np.max(sums, axis=0) - points.rounding(some)
        self.found = [TopK.empty(len(users), self.k) for _ in factors]
        self.crowded = np.zeros(len(users), np.bool_)
        self.spaces: SimpleQueue[_Space] = SimpleQueue()

    def run(self, threads: int, progress: Callable[[int], None]) -> None:
        """Search for all rows, block by block."""
        n_rows, n_items = min(BLOCK_USERS, len(self.users)), self.points.n_items
        size = min(len(self.found) * self.k + self.step, n_items) + self.step + RUN
        for _ in range(threads):
            tile = np.empty(n_rows * min(BLOCK_ITEMS, n_items), np.float32)
            shape = n_rows, size
            self.spaces.put(_Space(tile, np.zeros(shape, np.int32), np.empty(shape, np.float32)))
        run_blocks(self.block, range(0, len(self.users), BLOCK_USERS), threads, progress)

    def block(self, start: int) -> int:
        """Search for the block of users at `start`; return their number."""
        places = slice(start, min(start + BLOCK_USERS, len(self.users)))
        users, space = self.users[places], self.spaces.get()
        try:
            lists = self._shortlists(users, space)
            candidates = self._candidates(users, lists)
        finally:
            self.spaces.put(space)
        self.crowded[places] = lists.counts < 0
        keys = np.empty(candidates.items.shape, np.int64)
        each = zip(self.weightings.factors, lists.floors.T, self.found, strict=True)
        for factor, floors, found in each:
            n = write_keys(candidates, factor, np.ascontiguousarray(floors), keys)
            read_keys(np.sort(keys[:, :n], axis=1), found.items[places], found.scores[places])
        return len(users)

    def _shortlists(self, users: Int32, space: _Space) -> Shortlists:
        """Return the shortlists of the users, in the memory of `space`."""
        points, n, n_items = self.visited.holding(users), len(users), self.points.n_items
        lists = self._empty(users, space)
        for first in range(0, n_items, BLOCK_ITEMS):
            width = min(BLOCK_ITEMS, n_items - first)
            tile = space.tile[: n * width].reshape(n, width)
            points.score_block(users, first, tile)
            hide(tile, first, users, *self.hidden)
            if first == 0:
                first_floors(tile, self.weightings, lists, self.k)
            bad = collect(tile, first, self.weightings, lists, self.k, self.step)
            if bad >= 0:
                raise not_a_number(int(users[bad // width]), int(self.order[first + bad % width]))
        prune_all(lists, self.weightings, self.k)
        return lists

    def _empty(self, users: Int32, space: _Space) -> Shortlists:
        """Return empty shortlists.

        A weighted score is within e = `rounding` + `rounding` + `added` of its exact value. A floor
        that is 2 e below the k-th best of the rounded scores excludes nothing that could be among
        the best; another e covers the rounding of the floors themselves.
        """
        n, margins = len(users), 3.0 * (2.0 * self.points.rounding(users) + self.added)
        counts = np.where(np.isfinite(margins), 0, -1)  # no floor can be found from infinities
        return Shortlists(
            space.items[:n],
            space.scores[:n],
            counts,
            np.full(n, self.step + RUN, np.int64),
            np.full((n, len(self.found)), -np.inf, np.float32),
            margins.astype(np.float32),
        )

    def _candidates(self, users: Int32, lists: Shortlists) -> Candidates:
        """Return the shortlisted items and what their exact scores are the sum of."""
        points, counts = self.points, lists.counts[:, None]
        places = lists.items[:, : counts.max(initial=0)]
        items = np.where(np.arange(places.shape[1]) < counts, self.order[places], np.int32(-1))
        shape, no_offset = items.shape, np.empty(0, np.float32)
        tables = Operands(*map(read_only, (points.queries, points.targets, no_offset)))
        exact = np.zeros(shape)
        products(tables, users, items, exact)
        offset = np.zeros(shape, np.float32) if points.offset is None else points.offset[items]
        terms = np.zeros(shape) if points.terms is None else points.terms_of(users, items)
        return Candidates(items, exact, self.weight[items], offset, terms)


def _reordered(points: Points, order: Int32) -> Points:
    """Return points with the targets in another order."""
    offset = None if points.offset is None else points.offset[order]
    terms = None if points.terms is None else points.terms.reordered(order)
    return Points(points.queries, points.targets[order], offset).near(terms)


@kernel
def hide(tile: Float32, first: int, users: Int32, indptr: Int64, places: Int32) -> None:
    """Set the scores of each user's excluded items to -infinity, places of them in any order.

    All are looked at for every tile, which is little beside its product: sorting them takes longer.
    """
    for a in range(tile.shape[0]):
        row = tile[a]
        for at in range(indptr[users[a]], indptr[users[a] + 1]):
            column = places[at] - first
            if 0 <= column < len(row):
                row[column] = -np.inf
