"""One table of points to look around in, and the lists that are wanted of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nearfar.runtime.arrays import Float32, Int32
from nearfar.search.item_index import ItemIndex
from nearfar.search.neighbours import Points, TopK, top_k
from nearfar.search.scoring import closeness


class Nearest(NamedTuple):
    """A list: rows of the table, the best first, and 1 - D^2 / 2 of each."""

    rows: Int32
    """int32, (n,): k of them, or fewer where no more are left."""
    scores: Float32
    """float32, (n,)."""


@dataclass(frozen=True, eq=False)
class Wish:
    """A list that somebody wants."""

    query: Float32
    """The point to look around, (d,)."""
    k: int
    """The longest it may be."""
    hidden: Int32
    """Rows never to be listed, increasing."""
    among: Int32 | None = None
    """Only these rows may be listed, increasing; all if None."""


@dataclass(frozen=True, eq=False)
class Space:
    """A table of points.

    Parameters
    ----------
    points : Points
        With the table as the targets; its queries are not used.
    geometry : str
        Of `nearfar.method.geometry.Geometry`: that of the points.
    index : ItemIndex, optional
        What searches the table approximately. Lists among a few rows are exact anyway.

    Examples
    --------
    >>> table = np.eye(3, dtype=np.float32)
    >>> wish = Wish(query=table[1], k=2, hidden=np.array([1], np.int32))
    >>> Space(Points(table, table), "sphere").nearest([wish])[0].rows.tolist()
    [0, 2]
    """

    points: Points
    geometry: str
    index: ItemIndex | None = None

    def nearest(self, wishes: Sequence[Wish]) -> list[Nearest]:
        """Make lists together, each as it would be alone.

        Raises
        ------
        DataError
            A score is NaN.
        """
        found = iter(self._searched([wish for wish in wishes if wish.among is None]))
        return [
            next(found) if wish.among is None else self._chosen(wish, wish.among) for wish in wishes
        ]

    def _searched(self, wishes: Sequence[Wish]) -> list[Nearest]:
        """Search the whole table."""
        if not wishes:
            return []
        queries = np.stack([wish.query for wish in wishes])
        hidden = [wish.hidden for wish in wishes]
        excluded = np.cumsum([0, *map(len, hidden)], dtype=np.int64), np.concatenate(hidden)
        scorer = (
            self.points.with_queries(queries)
            if self.index is None
            else self.index.scorer(queries, threads=1)
        )
        k = min(max(wish.k for wish in wishes), self.points.n_items)
        found = top_k(scorer, np.arange(len(wishes)), k, exclude=excluded)
        return [self._list(found, row, wish.query, wish.k) for row, wish in enumerate(wishes)]

    def _chosen(self, wish: Wish, among: Int32) -> Nearest:
        """Put some rows in order."""
        left = np.setdiff1d(among, wish.hidden).astype(np.int32)[None]
        points = self.points.with_queries(wish.query[None])
        found = points.best_of(np.zeros(1, np.int32), left, max(min(wish.k, left.size), 1))
        return self._list(found, 0, wish.query, wish.k)

    def _list(self, found: TopK, row: int, query: Float32, k: int) -> Nearest:
        rows, scores = found.items[row, :k], found.scores[row, :k]
        there = rows >= 0
        return Nearest(rows[there], closeness(scores[there], query, self.geometry))
