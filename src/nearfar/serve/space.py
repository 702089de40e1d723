"""One table of points to look around in, and the lists that are wanted of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from nearfar.neighbours import Points, Scorer, top_k

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]


class Index(Protocol):
    """What searches a table approximately: `nearfar.approximate.ItemIndex`."""

    @property
    def recall(self) -> float:
        """The measured share of the exact lists that it finds."""

    @property
    def k(self) -> int:
        """The length of lists for which that was measured."""

    def scorer(self, queries: Float32) -> Scorer:
        """Give a scorer of queries that finds their lists itself."""


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
    index : Index, optional
        What searches the table approximately. Lists among a few rows are exact anyway.

    Examples
    --------
    >>> table = np.eye(3, dtype=np.float32)
    >>> wish = Wish(query=table[1], k=2, hidden=np.array([1], np.int32))
    >>> Space(Points(table, table)).nearest([wish])[0].rows.tolist()
    [0, 2]
    """

    points: Points
    index: Index | None = None

    def nearest(self, wishes: Sequence[Wish]) -> list[Nearest]:
        """Make lists together, each as it would be alone.

        All wishes must be among the same rows, that is, of the same array.
        """
        queries = np.stack([wish.query for wish in wishes])
        among = wishes[0].among
        if among is not None and not among.size:
            return [Nearest(among, np.empty(0, np.float32)) for _ in wishes]
        if among is None:
            hidden = [wish.hidden for wish in wishes]
            scorer: Scorer = self._scorer(queries)
        else:
            hidden = [_places(wish.hidden, among) for wish in wishes]
            scorer = self._part(queries, among)
        ends = np.cumsum([0, *map(len, hidden)], dtype=np.int64)
        excluded = ends, np.concatenate(hidden).astype(np.int32)
        k = min(max(wish.k for wish in wishes), max(scorer.n_items, 1))
        found = top_k(scorer, np.arange(len(queries)), k, exclude=excluded)
        rows = found.items if among is None else among[found.items]
        scores = found.scores + self._constant(queries)
        lengths = [min(wish.k, n) for wish, n in zip(wishes, _filled(found.items), strict=True)]
        return [Nearest(rows[at, :n], scores[at, :n]) for at, n in enumerate(lengths)]

    def _scorer(self, queries: Float32) -> Scorer:
        if self.index is not None:
            return self.index.scorer(queries)
        return Points(queries, self.points.targets, self.points.offset)

    def _part(self, queries: Float32, among: Int32) -> Points:
        offset = self.points.offset
        return Points(
            queries, self.points.targets[among], None if offset is None else offset[among]
        )

    def _constant(self, queries: Float32) -> Float32:
        """Give what is left out of a score because it is the same for all rows; (n_queries, 1).

        On the sphere a score is the product, and that is 1 - D^2 / 2.
        """
        if self.points.offset is None:
            return np.zeros((len(queries), 1), np.float32)
        halves: Float32 = 0.5 * np.sum(queries * queries, axis=1, keepdims=True)
        return 1 - halves


def _places(hidden: Int32, among: Int32) -> Int32:
    """Give where in `among` there are rows that are hidden."""
    return np.flatnonzero(np.isin(among, hidden)).astype(np.int32)


def _filled(items: Int32) -> list[int]:
    counts: list[int] = np.count_nonzero(items >= 0, axis=1).tolist()
    return counts
