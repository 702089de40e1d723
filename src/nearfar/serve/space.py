"""Nearest-neighbour lists from one table of points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from nearfar.method.prior import ItemWeights
from nearfar.runtime.arrays import Bool, Float32, Int32
from nearfar.search.item_index import ItemIndex
from nearfar.search.neighbours import Points, Scorer, TopK, top_k
from nearfar.search.scoring import closeness


class Nearest(NamedTuple):
    """A list: rows of the table, the best first, and 1 - D^2 / 2 of each."""

    rows: Int32
    """int32, (n,): n is k, or less if fewer rows are left."""
    scores: Float32
    """float32, (n,)."""


@dataclass(frozen=True, eq=False)
class Wish:
    """A query for a list."""

    query: Float32
    """The point whose neighbours are searched, (d,)."""
    k: int
    """The maximum length of the list."""
    hidden: Int32
    """Rows to leave out, increasing."""
    among: Int32 | None = None
    """Rows to choose from, increasing; all rows if None."""
    popularity: float = 0.0
    """The setting of the popularity dial."""


@dataclass(frozen=True, eq=False)
class Space:
    """A table of points.

    Parameters
    ----------
    points : Points
        A scorer with the table as its targets; its queries are not used.
    geometry : str
        The geometry of the points; see `nearfar.method.geometry.Geometry`.
    index : ItemIndex, optional
        An approximate index of the table. Lists from few allowed rows are exact nevertheless.
    allowed : bool array of shape (n_rows,), optional
        The rows that may be listed, those with a learned point; all if None.

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
    allowed: Bool | None = None
    weights: ItemWeights | None = None
    """The weights of the targets; None if they have none."""

    def __post_init__(self) -> None:
        if self.allowed is not None and self.allowed.all():
            object.__setattr__(self, "allowed", None)

    def nearest(self, wishes: Sequence[Wish]) -> list[Nearest]:
        """Compute several lists together, each the same as if computed alone.

        Raises
        ------
        DataError
            A score is NaN.
        """
        lists: dict[int, Nearest] = {}
        for popularity in {wish.popularity for wish in wishes}:
            alike = [wish for wish in wishes if wish.popularity == popularity]
            whole = [wish for wish in alike if wish.among is None]
            lists |= zip(map(id, whole), self._searched(whole, popularity), strict=True)
        return [
            lists[id(wish)] if wish.among is None else self._chosen(wish, wish.among)
            for wish in wishes
        ]

    def _weighted(self, points: Points, popularity: float) -> Points:
        return points if self.weights is None else points.weighted(self.weights.at(popularity))

    def _searched(self, wishes: Sequence[Wish], popularity: float) -> list[Nearest]:
        """Search the whole table."""
        if not wishes:
            return []
        queries = np.stack([wish.query for wish in wishes])
        hidden = [wish.hidden for wish in wishes]
        excluded = np.cumsum([0, *map(len, hidden)], dtype=np.int64), np.concatenate(hidden)
        scorer: Scorer
        if self.index is None:
            scorer = self._weighted(self.points.with_queries(queries), popularity)
        else:
            scorer = self.index.scorer(queries, popularity=popularity, threads=1)
        k = min(max(wish.k for wish in wishes), self.points.n_items)
        rows = np.arange(len(wishes))
        found = top_k(scorer, rows, k, exclude=excluded, allow=self.allowed)
        return [self._list(found, row, wish.query, wish.k) for row, wish in enumerate(wishes)]

    def _chosen(self, wish: Wish, among: Int32) -> Nearest:
        """Rank the allowed rows."""
        if self.allowed is not None:
            among = among[self.allowed[among]]
        left = np.setdiff1d(among, wish.hidden).astype(np.int32)[None]
        points = self._weighted(self.points.with_queries(wish.query[None]), wish.popularity)
        found = points.best_of(np.zeros(1, np.int32), left, max(min(wish.k, left.size), 1))
        return self._list(found, 0, wish.query, wish.k)

    def _list(self, found: TopK, row: int, query: Float32, k: int) -> Nearest:
        rows, scores = found.items[row, :k], found.scores[row, :k]
        there = rows >= 0
        return Nearest(rows[there], closeness(scores[there], query, self.geometry))
