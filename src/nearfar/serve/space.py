"""Nearest-neighbour lists from one table of points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from nearfar.method.prior import ItemWeights
from nearfar.runtime.arrays import Bool, Float32, Int32
from nearfar.search.diversity import diversified, pool_size
from nearfar.search.item_index import ItemIndex
from nearfar.search.item_item import NearItems, Terms
from nearfar.search.neighbours import Exclusion, Points, Scorer, TopK, top_k
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
    own: Int32 = field(default_factory=lambda: np.empty(0, np.int32))
    """The rows whose neighbours by co-occurrence score higher, increasing."""
    diversity: float = 0.0
    """How much the rows of the list differ; see `nearfar.search.diversity`."""

    @property
    def depth(self) -> int:
        """The number of best rows that the list is made of."""
        return pool_size(self.k, self.diversity)


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
    neighbours: NearItems | None = None
    """The neighbours of the rows by co-occurrence; None if the score has no such term."""
    neighbour_weight: float = 0.0
    """lambda of that term."""

    def __post_init__(self) -> None:
        if self.allowed is not None and self.allowed.all():
            object.__setattr__(self, "allowed", None)

    def nearest(self, wishes: Sequence[Wish]) -> list[Nearest]:
        """Compute several lists together, each the same as if computed alone.

        Lists with neighbours are searched for exactly.

        Raises
        ------
        DataError
            A score is NaN.
        """
        lists: dict[int, Nearest] = {}
        groups: dict[tuple[float, bool], list[Wish]] = {}
        for wish in wishes:
            if wish.among is None:
                kind = (wish.popularity, self._has_terms(wish))
                groups.setdefault(kind, []).append(wish)
        for whole in groups.values():
            lists |= zip(map(id, whole), self._searched(whole), strict=True)
        return [
            lists[id(wish)] if wish.among is None else self._chosen(wish, wish.among)
            for wish in wishes
        ]

    def _has_terms(self, wish: Wish) -> bool:
        return self.neighbours is not None and len(wish.own) > 0

    def _scored(self, wishes: Sequence[Wish]) -> Points:
        """Return an exact scorer of wishes of one setting of the dial."""
        points = self.points.with_queries(np.stack([wish.query for wish in wishes]))
        if self.weights is not None:
            points = points.weighted(self.weights.at(wishes[0].popularity))
        if self.neighbours is None or not any(map(self._has_terms, wishes)):
            return points
        own = _lists([wish.own for wish in wishes])
        return points.near(Terms(self.neighbours, self.neighbour_weight, own))

    def _searched(self, wishes: Sequence[Wish]) -> list[Nearest]:
        """Search the whole table for wishes of one setting, all with terms or all without."""
        points = self._scored(wishes)
        scorer: Scorer = points
        if self.index is not None and points.terms is None:
            popularity = wishes[0].popularity
            scorer = self.index.scorer(points.queries, popularity=popularity, threads=1)
        excluded = _lists([wish.hidden for wish in wishes])
        k = min(max(wish.depth for wish in wishes), self.points.n_items)
        rows = np.arange(len(wishes))
        found = top_k(scorer, rows, k, exclude=excluded, allow=self.allowed)
        return [self._list(found, row, wish) for row, wish in enumerate(wishes)]

    def _chosen(self, wish: Wish, among: Int32) -> Nearest:
        """Rank the allowed rows."""
        if self.allowed is not None:
            among = among[self.allowed[among]]
        left = np.setdiff1d(among, wish.hidden).astype(np.int32)[None]
        found = self._scored([wish]).best_of(
            np.zeros(1, np.int32), left, max(min(wish.depth, left.size), 1)
        )
        return self._list(found, 0, wish)

    def _list(self, found: TopK, row: int, wish: Wish) -> Nearest:
        part = slice(row, row + 1), slice(0, wish.depth)
        best = TopK(found.items[part], found.scores[part])
        if wish.diversity > 0.0:
            best = diversified(
                best, self.points.targets, wish.k, wish.diversity,
                on_sphere=self.geometry == "sphere",
            )  # fmt: skip
        there = best.items[0] >= 0
        rows, scores = best.items[0][there], best.scores[0][there]
        return Nearest(rows, closeness(scores, wish.query, self.geometry))


def _lists(rows: Sequence[Int32]) -> Exclusion:
    """Return lists of rows as a CSR matrix."""
    return np.cumsum([0, *map(len, rows)], dtype=np.int64), np.concatenate(rows)
