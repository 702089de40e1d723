"""One table of points to look around in, and the lists that are wanted of it.

A search finds a few more rows than are wanted, and the score of each is then computed anew, by
itself and in float64: how a product is rounded depends on what it is computed together with, and an
answer must not depend on who else is asking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from nearfar.neighbours import Points, Scorer, top_k

_SPARE: Final = 8
"""Rows found beyond those wanted, for near ties at the end of a list."""
_FEW: Final = 3
"""Up to so many queries are multiplied one by one: for a matrix, `Points` takes 16 at the least."""

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

        Raises
        ------
        DataError
            A score is NaN.
        """
        found = iter(self._found([wish for wish in wishes if wish.among is None]))
        return [
            self._list(
                wish,
                next(found) if wish.among is None else np.setdiff1d(wish.among, wish.hidden),
            )
            for wish in wishes
        ]

    def _found(self, wishes: Sequence[Wish]) -> list[Int32]:
        """Search for the rows of each list, and a few more."""
        if not wishes:
            return []
        scorer = self._scorer(np.stack([wish.query for wish in wishes]))
        hidden = [wish.hidden for wish in wishes]
        excluded = np.cumsum([0, *map(len, hidden)], dtype=np.int64), np.concatenate(hidden)
        k = min(max(wish.k for wish in wishes) + _SPARE, self.points.n_items)
        found = top_k(scorer, np.arange(len(wishes)), k, exclude=excluded).items
        return [rows[rows >= 0] for rows in found]

    def _scorer(self, queries: Float32) -> Scorer:
        if self.index is not None:
            return self.index.scorer(queries)
        kind = _FewPoints if len(queries) <= _FEW else Points
        return kind(queries, self.points.targets, self.points.offset)

    def _list(self, wish: Wish, rows: Int32) -> Nearest:
        """Score rows, one by one, and put the best first."""
        away = self.points.targets[rows].astype(np.float64) - wish.query
        scores = (1 - 0.5 * np.sum(away * away, axis=1)).astype(np.float32)
        best = np.lexsort((rows, -scores))[: wish.k]
        return Nearest(rows[best], scores[best])


class _FewPoints(Points):
    """Points whose queries are multiplied one by one."""

    def score_block(self, rows: Int32, first_item: int, out: Float32) -> None:
        """Compute one tile of products; see `nearfar.neighbours.Scorer`."""
        part = slice(first_item, first_item + out.shape[1])
        for row, scores in zip(rows, out, strict=True):
            np.dot(self.targets[part], self.queries[row], out=scores)
        if self.offset is not None:
            out += self.offset[part]
