"""A search that several processes make together, each with a range of a model's items.

A model that is mapped from its folder is in memory only where it is looked at: each process ranks
its items, and reads those points only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from nearfar.runtime.arrays import Bool, Float32, Int32
from nearfar.search.neighbours import Exclusion, TopK
from nearfar.search.row_ranges import even_bounds
from nearfar.search.scoring import scorer_of
from nearfar.search.shard_search import Ranks, ShardSearch, parts_of

if TYPE_CHECKING:
    from nearfar.model.cml import CML


class JointIndex:
    """The items of a model at one setting of its dial, divided among ranks; the search is exact.

    All ranks make the same calls of `CML.recommend` with it, each for users of its own.

    Parameters
    ----------
    model : CML
    ranks : Ranks
    popularity : float
        The setting, checked.
    threads : int
    """

    def __init__(self, model: CML, ranks: Ranks, popularity: float, threads: int) -> None:
        n = model.interactions.n_items
        first, last = even_bounds(n, ranks.size, 1)[ranks.rank : ranks.rank + 2].tolist()
        here, numbers = model.item_vectors[first:last], np.arange(first, last, dtype=np.int32)
        points = scorer_of(here, here, model.options.geometry)
        search = ShardSearch(ranks, numbers, points, n, threads)
        search = search.weighted(model.weights.at(popularity))
        near = model.neighbours
        self.search = search if near is None else search.near(near, model.neighbour_weight)

    def for_users(self, queries: Float32, own: Exclusion) -> JointScorer:
        """Return a scorer of all items for users, whose own items are `own`."""
        return JointScorer(self.search, queries, own)


class JointScorer:
    """A `Finder` and a `Divider`, which searches together with the other ranks."""

    def __init__(self, search: ShardSearch, queries: Float32, own: Exclusion) -> None:
        self._search, self._queries, self._own = search, queries, own
        self.n_users, self.n_items = len(queries), search.n_items

    def score_block(self, rows: Int32, first_item: int, out: Float32) -> None:
        """Refuse: no rank can score all items."""
        raise NotImplementedError("a rank has the points of some items only")

    def parts(self, n: int, at_once: int) -> list[slice]:
        """Divide n rows, which differ between ranks, so that all ranks search equally often."""
        return parts_of(self._search.ranks, n, at_once)

    def best(
        self,
        rows: Int32,
        k: int,
        *,
        exclude: Exclusion | None,
        allow: Bool | None,
        progress: Callable[[int], None],
    ) -> TopK:
        """Return the k best items of users; `exclude` is None or their own items."""
        indptr, items = self._own
        counts = np.diff(indptr)[rows]
        ends = np.concatenate([[0], np.cumsum(counts)])
        at = np.arange(ends[-1]) + np.repeat(indptr[rows] - ends[:-1], counts)
        hides = exclude is not None
        own = ends, items[at]
        found = self._search.best(self._queries[rows], own, k, exclude_own=hides, allow=allow)
        progress(len(rows))
        return found
