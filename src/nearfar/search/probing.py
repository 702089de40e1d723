"""Approximate search with `Lists`: filters before the cut, exact scores and exact order.

faiss orders by squared distance, which is the order of scores in every geometry. The items that it
finds are ranked by exact scores, as in `nearfar.search.neighbours`. Weights of the items are two
more coordinates there (`nearfar.search.lift`). If a result is too short, more
lists are searched, and finally all items exactly, so a query for which k items are left always gets
k items.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nearfar.runtime.arrays import Bool, Float32, Int32, Int64
from nearfar.runtime.threads import run_blocks
from nearfar.search.inverted_lists import Lists
from nearfar.search.neighbours import SPARE, Exclusion, Points, TopK, top_k

_BLOCK_USERS = 64
_BLOCK_CANDIDATES = 2**14


class IndexedPoints:
    """A scorer that finds the best items in lists: a `Scorer` and a `Finder` of `neighbours`.

    The result does not depend on the number of threads or on the other queries.

    Parameters
    ----------
    points : Points
        The queries, and the items that are in the lists.
    lists : Lists
    n_probed : int
        The number of lists searched for a query. With all of them the search is exact.
    threads : int
    more : float32 array of shape (c,), optional
        The coordinates of a query that the lists have in addition to those of the points.
    """

    def __init__(
        self,
        points: Points,
        lists: Lists,
        n_probed: int,
        threads: int,
        more: Float32 | None = None,
    ) -> None:
        self.points, self.lists, self.n_probed, self.threads = points, lists, n_probed, threads
        self.more = more

    @property
    def n_users(self) -> int:
        """Number of queries."""
        return self.points.n_users

    @property
    def n_items(self) -> int:
        """Number of items."""
        return self.points.n_items

    def probe(self, row: int) -> Float32:
        """Return a query as the lists compare it."""
        query: Float32 = self.points.queries[row]
        return query if self.more is None else np.append(query, self.more)

    def score_block(self, rows: Int32, first_item: int, out: Float32) -> None:
        """Compute one tile of scores; see `nearfar.search.neighbours.Scorer`."""
        self.points.score_block(rows, first_item, out)

    def best(
        self,
        rows: Int32,
        k: int,
        *,
        exclude: Exclusion | None,
        allow: Bool | None,
        progress: Callable[[int], None],
    ) -> TopK:
        """Find k of the best items of each row; see `nearfar.search.neighbours.Finder`."""
        if self.n_probed == len(self.lists):
            return top_k(self.points, rows, k, exclude=exclude, allow=allow,
                         threads=self.threads, progress=progress)  # fmt: skip
        search = _ListSearch(self, rows, k, exclude, allow)
        search.run(progress)
        return search.found


class _ListSearch:
    """The state of one call of `IndexedPoints.best`: its arguments and its result."""

    def __init__(
        self,
        scorer: IndexedPoints,
        rows: Int32,
        k: int,
        exclude: Exclusion | None,
        allow: Bool | None,
    ) -> None:
        self.scorer, self.rows, self.exclude, self.allow = scorer, rows, exclude, allow
        self.found = TopK.empty(len(rows), k)
        self.selector: Any = None

    def run(self, progress: Callable[[int], None]) -> None:
        """Search for all rows; repeat those with too few items by exact search."""
        if self._few_allowed():
            self.exactly(np.arange(len(self.rows)))
            progress(len(self.rows))
            return
        if self.allow is not None:
            self.selector = self.scorer.lists.selector(self.allow)
        k = self.found.items.shape[1]
        self.size = min(_BLOCK_USERS, -(-_BLOCK_CANDIDATES // (k + SPARE)))
        starts = range(0, len(self.rows), self.size)
        if len(starts) > 1:
            run_blocks(self.block, starts, self.scorer.threads, progress)
        elif len(starts) == 1:  # limiting BLAS, which is not used here, would double the time
            progress(self.block(0))
        self.exactly(np.flatnonzero(self.found.items[:, -1] < 0))

    def _few_allowed(self) -> bool:
        """Return whether there are fewer allowed items than a query would compare."""
        if self.allow is None:
            return False
        n_lists = len(self.scorer.lists)
        looked_at = n_lists + self.scorer.n_items * self.scorer.n_probed / n_lists
        return bool(np.count_nonzero(self.allow) <= looked_at)

    def block(self, start: int) -> int:
        """Search for the rows of the block at `start`; return their number."""
        rows = self.rows[start : start + self.size]
        n = self.found.items.shape[1] + SPARE
        items = np.full((len(rows), n), -1, np.int32)
        for place, row in enumerate(rows):
            near = self._near(int(row), n)
            items[place, : len(near)] = near
        found = self.scorer.points.best_of(rows, items, n - SPARE)
        self._keep(slice(start, start + len(rows)), found)
        return len(rows)

    def _near(self, row: int, n: int) -> Int64:
        """Find n items of a row, or fewer than k if exact search is needed.

        If the lists contain fewer than k items, the number of lists is doubled repeatedly, up to
        half of them, where exact search is as fast. Once k items are found after such a doubling,
        the number is doubled one more time, so that there are more candidates to choose from.
        """
        first, most, k = self.scorer.n_probed, len(self.scorer.lists), n - SPARE
        n_probed, found = first, self._in_lists(row, n, first)
        while len(found) < k and 2 * n_probed < most:
            n_probed *= 2
            found = self._in_lists(row, n, n_probed)
        if len(found) >= k and n_probed > first:
            found = self._in_lists(row, n, min(2 * n_probed, most))
        return found

    def _in_lists(self, row: int, n: int, n_probed: int) -> Int64:
        """Find n items of a row, asking for more because those it leaves out are then removed."""
        query, seen = self.scorer.probe(row), self._seen(row)
        found = self.scorer.lists.nearest(
            query, n + len(seen), n_probed=n_probed, allow=self.selector
        )
        if len(seen):
            at = np.minimum(np.searchsorted(seen, found), len(seen) - 1)
            found = found[seen[at] != found]
        return found[:n]

    def _seen(self, row: int) -> Int32:
        if self.exclude is None:
            return np.empty(0, np.int32)
        indptr, items = self.exclude
        return items[indptr[row] : indptr[row + 1]]

    def _keep(self, places: Any, found: TopK) -> None:
        self.found.items[places], self.found.scores[places] = found

    def exactly(self, places: Int64) -> None:
        """Search for the rows at `places` exactly, among the allowed items."""
        if not len(places):
            return
        scorer, points, rows = self.scorer, self.scorer.points, self.rows[places]
        n_items = scorer.n_items
        among = np.arange(n_items) if self.allow is None else np.flatnonzero(self.allow)
        here = np.full(n_items, -1, np.int32)
        here[among] = np.arange(len(among), dtype=np.int32)
        seen = [here[self._seen(int(row))] for row in rows]
        seen = [some[some >= 0] for some in seen]
        indptr = np.cumsum([0, *map(len, seen)], dtype=np.int64)
        offset = None if points.offset is None else points.offset[among]
        some = Points(points.queries[rows], points.targets[among], offset)
        found = top_k(some, np.arange(len(rows)), self.found.items.shape[1],
                      exclude=(indptr, np.concatenate(seen)), threads=scorer.threads)  # fmt: skip
        items = np.append(among, -1)[found.items].astype(np.int32)
        width = items.shape[1]  # less than k if fewer items are allowed
        self.found.items[places, :width], self.found.scores[places, :width] = items, found.scores
