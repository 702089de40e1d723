"""Exact search where every process has some of the items: each ranks its own, and the tops merge.

A **rank** is one of the processes. It brings queries of its own, as many as it likes. All ranks see
the queries of all, each finds the best of its own items with the search for one machine, and the
rank that asked merges the lists. An exact score depends on its query and its item only, and ties
go to the smaller item number, within a rank and between ranks. So the lists are those of
`nearfar.search.neighbours.top_k` over all items, bit for bit.

No rank has more than its items, and the queries and lists of one round: some tens of megabytes.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any, Final, NamedTuple, Protocol

import numpy as np

from nearfar.runtime.arrays import Array, Bool, Float32, Float64, Int32, Int64
from nearfar.search.each_weight import top_k_each
from nearfar.search.item_item import NearItems, Terms
from nearfar.search.neighbours import Exclusion, Points, TopK, top_k

_PLACES: Final = 2**22
"""Places of lists that a rank sends in a round, at most, unless one query of each has more."""
_QUERIES: Final = 2**13
"""Queries of all ranks together in a round, at most."""


class Ranks(Protocol):
    """Several processes. Every one must call the same methods in the same order."""

    rank: int
    """The number of this one."""
    size: int
    """How many there are."""

    def exchange(self, send: Array, counts: Int64, expected: Int64, out: Array) -> Array:
        """Send to each rank its part of `send`, and put what arrives into `out`."""
        ...

    def total(self, values: Float64) -> Float64:
        """Return the sum over the ranks, the same bits on each."""
        ...


class Round(NamedTuple):
    """The queries of all ranks in a round."""

    points: Float32
    """(n, d), rank by rank."""
    own: Exclusion
    """The own items of each, as numbers."""
    counts: Int64
    """(P,) how many are of each rank."""


class ShardSearch:
    """The items of this rank, for searches that all ranks make together.

    Parameters
    ----------
    ranks : Ranks
    numbers : int32 array of shape (m,)
        The numbers of this rank's items, ascending; every item is one rank's.
    points : Points
        Their points as targets, with their offsets.
    n_items : int
        M, of all ranks.
    threads : int
    """

    def __init__(
        self, ranks: Ranks, numbers: Int32, points: Points, n_items: int, threads: int = 1
    ) -> None:
        self.ranks, self.numbers, self.points = ranks, numbers, points
        self.n_items, self._threads = n_items, threads
        self._near: NearItems | None = None
        self._lambda = 0.0

    def weighted(self, weight: Float32 | None) -> ShardSearch:
        """Return a search that adds a weight (M,) to the scores of the items."""
        other = copy(self)
        part = None if weight is None else weight[self.numbers]
        other.points = self.points.weighted(part)
        return other

    def near(self, near: NearItems, weight: float) -> ShardSearch:
        """Return a search that adds the terms of co-occurrence; see `nearfar.search.item_item`."""
        other = copy(self)
        at, here = self._local(near.items)
        kept = np.concatenate([[0], np.cumsum(here)])
        other._near = NearItems(kept[near.indptr], at[here], near.values[here])
        other._lambda = weight
        return other

    def best(
        self,
        queries: Float32,
        own: Exclusion,
        k: int,
        *,
        exclude_own: bool = True,
        allow: Bool | None = None,
    ) -> TopK:
        """Return the k best items of each of this rank's queries. All ranks call it.

        Parameters
        ----------
        queries : float32 array of shape (n, d)
            Of this rank; n may be 0.
        own : (indptr, items)
            The own items of each query: int64 (n + 1,) and int32, ascending.
        k : int
            The same on all ranks.
        exclude_own : bool
            Whether lists leave out the own items.
        allow : bool array of shape (M,), optional
            Only these items may be listed.

        Returns
        -------
        TopK
            Of shapes (n, min(k, M)), with item numbers.
        """
        allowed = None if allow is None else allow[self.numbers]

        def search(asked: Round) -> list[TopK]:
            points, rows = self._for(asked), np.arange(len(asked.points))
            hidden = self._hidden(asked.own) if exclude_own else None
            found = top_k(points, rows, k, exclude=hidden, allow=allowed, threads=self._threads)
            return [found]

        return self._lists(queries, own, k, 1, search)[0]

    def best_each(
        self, queries: Float32, own: Exclusion, k: int, weight: Float32, factors: Float32
    ) -> list[TopK]:
        """Return `best` under each of the weightings ``factors[g] * weight``; `weight` is (M,)."""
        part = weight[self.numbers]

        def search(asked: Round) -> list[TopK]:
            rows, hidden = np.arange(len(asked.points)), self._hidden(asked.own)
            return top_k_each(
                self._for(asked), part, factors, rows, k, exclude=hidden, threads=self._threads
            )

        return self._lists(queries, own, k, len(factors), search)

    def _for(self, asked: Round) -> Points:
        points = self.points.with_queries(asked.points)
        return (
            points
            if self._near is None
            else points.near(Terms(self._near, self._lambda, asked.own))
        )

    def _hidden(self, own: Exclusion) -> Exclusion:
        """Return those own items of queries that are this rank's, as rows of its table."""
        at, here = self._local(own[1])
        return np.concatenate([[0], np.cumsum(here)])[own[0]], at[here]

    def _local(self, items: Int32) -> tuple[Int32, Bool]:
        """Return the rows of items in this rank's table, and which of them are there."""
        at = np.searchsorted(self.numbers, items).astype(np.int32)
        here = at < len(self.numbers)
        here[here] = self.numbers[at[here]] == items[here]
        return at, here

    def _lists(
        self,
        queries: Float32,
        own: Exclusion,
        k: int,
        n_lists: int,
        search: Callable[[Round], list[TopK]],
    ) -> list[TopK]:
        """Search in rounds, for some queries of each rank at a time."""
        k, size = min(k, self.n_items), self.ranks.size
        at_once = max(1, min(_QUERIES // size, _PLACES // (size * n_lists * k)))
        found = [TopK.empty(len(queries), k) for _ in range(n_lists)]
        for part in parts_of(self.ranks, len(queries), at_once):
            asked = _asked(self.ranks, queries[part], _part(own, part))
            tops = np.empty((len(asked.points), n_lists, 2, k), np.int32)
            _pack(search(asked) if len(self.numbers) else [], self.numbers, tops)
            for one, merged in zip(found, self._merged(tops, asked.counts), strict=True):
                one.items[part], one.scores[part] = merged
        return found

    def _merged(self, tops: Int32, counts: Int64) -> list[TopK]:
        """Return each list to the rank that asked, and merge what arrives."""
        size, (_, n_lists, _, k) = self.ranks.size, tops.shape
        n = int(counts[self.ranks.rank])
        back = np.empty((size * n, n_lists, 2, k), np.int32)
        self.ranks.exchange(tops, counts, np.full(size, n), back)
        each = back.reshape(size, n, n_lists, 2, k).transpose(2, 3, 1, 0, 4)
        return [
            _merge(items.reshape(n, size * k), scores.reshape(n, size * k).view(np.float32), k)
            for items, scores in each
        ]


def parts_of(ranks: Ranks, n: int, at_once: int) -> list[slice]:
    """Return slices of this rank's n rows; all ranks get the same number, of which some are empty.

    Parameters
    ----------
    ranks : Ranks
    n : int
        May differ between ranks.
    at_once : int
        The length of a slice; the same on all ranks.
    """
    mine = np.zeros(ranks.size)
    mine[ranks.rank] = n
    most = int(ranks.total(mine).max())
    return [slice(min(i, n), min(i + at_once, n)) for i in range(0, most, at_once)]


def _part(own: Exclusion, part: slice) -> Exclusion:
    """Return the own items of some queries."""
    indptr = own[0][part.start : part.stop + 1]
    return indptr - indptr[0], own[1][indptr[0] : indptr[-1]]


def _asked(ranks: Ranks, queries: Float32, own: Exclusion) -> Round:
    """Show queries to all ranks."""
    size, lengths = ranks.size, np.diff(own[0])
    ones = np.ones(size, np.int64)
    mine = np.tile(np.array([len(queries), len(own[1])]), (size, 1))
    counts, owned = ranks.exchange(mine, ones, ones, np.empty((size, 2), np.int64)).T
    points = _shown(ranks, np.ascontiguousarray(queries, np.float32), counts)
    indptr = np.concatenate([[0], np.cumsum(_shown(ranks, lengths, counts))])
    return Round(points, (indptr, _shown(ranks, own[1], owned)), counts.copy())


def _shown(ranks: Ranks, mine: Array, counts: Int64) -> Array:
    """Return the rows that all ranks have brought, rank by rank."""
    out: Any = np.empty((int(counts.sum()), *mine.shape[1:]), mine.dtype)
    send: Any = np.concatenate([mine] * ranks.size)
    found: Array = ranks.exchange(send, np.full(ranks.size, len(mine)), counts, out)
    return found


def _pack(found: list[TopK], numbers: Int32, out: Int32) -> None:
    """Put lists of this rank's rows into (n, G, 2, k): item numbers, and the bits of scores."""
    out[:, :, 0], out[:, :, 1] = -1, np.float32(-np.inf).view(np.int32)
    for g, (items, scores) in enumerate(found):
        width = items.shape[1]
        out[:, g, 0, :width] = np.where(items >= 0, numbers[items], np.int32(-1))
        out[:, g, 1, :width] = scores.view(np.int32)


def _merge(items: Int32, scores: Float32, k: int) -> TopK:
    """Return the k best of several lists of each row; ties go to the smaller item."""
    order = np.lexsort((items, -scores), axis=-1)[:, :k]
    return TopK(np.take_along_axis(items, order, 1), np.take_along_axis(scores, order, 1))
