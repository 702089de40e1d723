"""The co-occurrence term of a search: which items a query's own items are found with.

The formula is in `nearfar.method.co_occurrence`. `near_items` computes the matrix g from
interactions, one item after the other: memory is what it returns and one number per item for each
thread. `Terms` adds the term to the scores of `nearfar.search.neighbours.Points`. A term is always
summed in float64 in the order of the query's own items, so that its bits depend neither on the
other queries nor on the tile. Most terms of a query are 0; the others are summed once and held
while its tiles are searched, 12 bytes each.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from nearfar.runtime.arrays import Float32, Float64, Int32, Int64, read_only
from nearfar.runtime.jit import kernel
from nearfar.runtime.threads import checked_threads, run_blocks
from nearfar.search.heap import first_at_least, sift_down

_BLOCK_ITEMS = 512
"""Items that a thread takes at a time."""
Lists = tuple[Int64, Int32]
"""Lists of items: int64 (n + 1,) and int32, those of row a at ``indptr[a]:indptr[a + 1]``."""


class Rows(NamedTuple):
    """The rows of a sparse 0-1 matrix, ascending."""

    indptr: Int64
    columns: Int32


class Sums(NamedTuple):
    """What a term is summed from, for kernels."""

    indptr: Int64
    """(M + 1,) the start of the neighbours of each item."""
    items: Int32
    """The neighbours of all items, ascending for each."""
    values: Float32
    """Their g_kj."""
    own_indptr: Int64
    """(n_users + 1,) the start of the own items of each query."""
    own: Int32
    """The own items of all queries."""
    weight: float
    """lambda."""
    order: Int32
    """The items in the order in which a search visits them, or empty if it is their own; of a
    search in some of the items only, all of these."""


class Summed(NamedTuple):
    """The terms of some rows that are not 0."""

    starts: Int64
    """(n_rows + 1,) where the terms of each row start."""
    ends: Int64
    """(n_rows,) where they end; entries between an end and the next start are unused."""
    items: Int32
    """The items of the terms, ascending for each row."""
    values: Float64


@dataclass(frozen=True, eq=False)
class NearItems:
    """The matrix g: the neighbours of each item, and how often they are found together."""

    indptr: Int64
    """int64, (M + 1,): the neighbours of item k are at ``indptr[k]:indptr[k + 1]``."""
    items: Int32
    """int32, ascending for each item."""
    values: Float32
    """float32, g_kj > 0 of each neighbour."""

    @property
    def n_items(self) -> int:
        """The number of items, M."""
        return len(self.indptr) - 1

    @property
    def n_bytes(self) -> int:
        """The size in memory."""
        return self.indptr.nbytes + self.items.nbytes + self.values.nbytes

    @cached_property
    def largest(self) -> Float64:
        """The largest g_kj of each item k, (M,); 0 if it has no neighbours."""
        found = np.zeros(self.n_items)
        filled = np.flatnonzero(np.diff(self.indptr))
        if len(filled):
            found[filled] = np.maximum.reduceat(self.values, self.indptr[filled])
        return found


class Terms:
    """The terms of some queries.

    Parameters
    ----------
    near : NearItems
    weight : float
        lambda.
    own : (indptr, items)
        The own items of each query, S_i.

    Examples
    --------
    >>> pairs = np.array([0, 2, 3]), np.array([0, 1, 0], np.int32)
    >>> terms = Terms(near_items(pairs, 2, 1), 2.0, pairs)
    >>> terms.of(np.array([1], np.int32), np.array([[0, 1]], np.int32)).round(4).tolist()
    [[0.0, 0.7071]]
    """

    def __init__(self, near: NearItems, weight: float, own: Lists) -> None:
        self.near, self.weight, self.own = near, float(weight), own
        self._sums = Sums(
            read_only(np.asarray(near.indptr, np.int64)),
            read_only(np.asarray(near.items, np.int32)),
            read_only(np.asarray(near.values, np.float32)),
            read_only(np.asarray(own[0], np.int64)),
            read_only(np.asarray(own[1], np.int32)),
            self.weight,
            read_only(np.empty(0, np.int32)),
        )
        self._held: tuple[Int32, Summed] | None = None

    def reordered(self, order: Int32) -> Terms:
        """Return the terms of the same queries for the items ``order[0]``, ``order[1]``, ..."""
        other = copy(self)
        other._held, other._sums = None, self._sums._replace(order=read_only(order))
        return other

    def holding(self, rows: Int32) -> Terms:
        """Return the same terms, summed once for calls with this array `rows`."""
        other = copy(self)
        other._held = rows, self._summed(rows)
        return other

    def add_to(self, tile: Float32, rows: Int32, first_item: int) -> None:
        """Add to ``tile[a, b]`` the term of query ``rows[a]`` and item ``first_item + b``."""
        add_terms(tile, self._summed(rows), first_item)

    def of(self, rows: Int32, items: Int32) -> Float64:
        """Return the terms of each row's own items (n_rows, n), float64; 0 for items of -1."""
        found = np.zeros(items.shape)
        look_up(found, self._summed(rows), read_only(items))
        return found

    def sizes(self, rows: Int32) -> Int64:
        """Return how many terms of a row are not 0, at most, (n_rows,)."""
        counts = np.diff(self.near.indptr)
        each = [counts[self._own_of(row)].sum() for row in rows]
        return np.minimum(np.array(each, np.int64), self.near.n_items)

    def _own_of(self, row: int) -> Int32:
        return self.own[1][self.own[0][row] : self.own[0][row + 1]]

    def _summed(self, rows: Int32) -> Summed:
        """Return the terms of rows that are not 0."""
        if self._held is not None and self._held[0] is rows:
            return self._held[1]
        starts = np.cumsum([0, *self.sizes(rows)], dtype=np.int64)
        items, values = np.empty(starts[-1], np.int32), np.empty(starts[-1])
        ends = np.empty(len(rows), np.int64)
        sum_terms(Summed(starts, ends, items, values), self._sums, read_only(rows))
        return Summed(starts, ends, items, values)

    def bound(self, rows: Int32) -> Float64:
        """Return what no term of a row exceeds, (n_rows,)."""
        found = np.empty(len(rows))
        for a, row in enumerate(rows):
            own = self._own_of(row)
            total = float(self.near.largest[own].sum())
            found[a] = self.weight * total / np.sqrt(max(len(own), 1))
        return found


def near_items(
    pairs: Lists, n_items: int, nearest: int, *, threads: int | None = None
) -> NearItems:
    """Return the `nearest` largest g_kj of each item k, with j != k.

    Parameters
    ----------
    pairs : (indptr, items)
        The interactions by user: int64 (N + 1,) and int32, ascending for each user.
    n_items : int
    nearest : int
    threads : int, optional
        Number of threads; all available cores if None. The result does not depend on it.
    """
    indptr, items = np.asarray(pairs[0], np.int64), np.asarray(pairs[1], np.int32)
    users = np.repeat(np.arange(len(indptr) - 1, dtype=np.int32), np.diff(indptr))
    starts = np.cumsum([0, *np.bincount(items, minlength=n_items)], dtype=np.int64)
    by_user = Rows(read_only(indptr), read_only(items))
    by_item = Rows(read_only(starts), read_only(users[np.argsort(items, kind="stable")]))
    n = min(nearest, max(n_items - 1, 1))
    parts: dict[int, tuple[Int64, Int32, Float32]] = {}

    def work(first: int) -> int:
        shape = min(_BLOCK_ITEMS, n_items - first), n
        values, found = np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int32)
        keep_nearest(by_user, by_item, first, values, found)
        order = np.argsort(found, axis=1)
        columns = np.take_along_axis(found, order, axis=1)
        there = columns >= 0
        kept = np.take_along_axis(values, order, axis=1)[there]
        parts[first] = there.sum(axis=1), columns[there], kept
        return shape[0]

    run_blocks(work, range(0, n_items, _BLOCK_ITEMS), checked_threads(threads), lambda done: None)
    counts = [np.zeros(1, np.int64), *(parts[first][0] for first in sorted(parts))]
    columns = [np.empty(0, np.int32), *(parts[first][1] for first in sorted(parts))]
    values = [np.empty(0, np.float32), *(parts[first][2] for first in sorted(parts))]
    return NearItems(
        np.cumsum(np.concatenate(counts), dtype=np.int64),
        np.concatenate(columns),
        np.concatenate(values),
    )


@kernel
def keep_nearest(by_user: Rows, by_item: Rows, first: int, values: Float32, items: Int32) -> None:
    """Keep the largest g_kj of items k from `first` in the heaps of ``values`` and ``items``.

    Row a of both is of item ``first + a``.
    """
    of_user, of_item = by_user.indptr, by_item.indptr
    had, users = by_user.columns, by_item.columns
    n_items, size = len(of_item) - 1, values.shape[1]
    sums, met = np.zeros(n_items), np.empty(n_items, np.int32)
    for a in range(values.shape[0]):
        k, n_met = first + a, 0
        for m in range(of_item[k], of_item[k + 1]):
            begin, end = of_user[users[m]], of_user[users[m] + 1]
            share = 1.0 / (end - begin)
            for n in range(begin, end):
                j = had[n]
                if sums[j] == 0.0:
                    met[n_met] = j
                    n_met += 1
                sums[j] += share
        count = np.float64(of_item[k + 1] - of_item[k])
        for n in range(n_met):
            j = met[n]
            value = np.float32(sums[j] / np.sqrt(count * (of_item[j + 1] - of_item[j])))
            sums[j] = 0.0
            if j != k and (value > values[a, 0] or (value == values[a, 0] and j < items[a, 0])):
                sift_down(values, items, a, size, value, j)


@kernel
def sum_terms(found: Summed, sums: Sums, rows: Int32) -> None:
    """Write the terms of rows to ``items`` and ``values`` from ``starts``, and to ``ends``."""
    starts, ends, found_items, found_values = found
    indptr, items, values, own_indptr, own, weight, order = sums
    n_items = len(indptr) - 1
    n_columns = len(order) if len(order) > 0 else n_items  # fewer if only some items are searched
    total = np.zeros(n_items)
    for a in range(len(rows)):
        begin, end = own_indptr[rows[a]], own_indptr[rows[a] + 1]
        for n in range(begin, end):
            for at in range(indptr[own[n]], indptr[own[n] + 1]):
                total[items[at]] += np.float64(values[at])
        place = starts[a]
        factor = weight / np.sqrt(np.float64(max(end - begin, 1)))
        for b in range(n_columns if begin < end else 0):
            j = order[b] if len(order) > 0 else np.int32(b)
            if total[j] > 0.0:
                found_items[place] = b
                found_values[place] = factor * total[j]
                total[j] = 0.0
                place += 1
        ends[a] = place


@kernel
def add_terms(tile: Float32, summed: Summed, first: int) -> None:
    """Add the terms of each row of a tile, whose first column is item `first`."""
    starts, ends, items, values = summed
    end = first + tile.shape[1]
    for a in range(tile.shape[0]):
        at = first_at_least(items, starts[a], ends[a], first)
        while at < ends[a] and items[at] < end:
            tile[a, items[at] - first] += np.float32(values[at])
            at += 1


@kernel
def look_up(found: Float64, summed: Summed, wanted: Int32) -> None:
    """Write the terms of each row's own items `wanted`, where they are not 0."""
    starts, ends, items, values = summed
    for a in range(wanted.shape[0]):
        for b in range(wanted.shape[1]):
            at = first_at_least(items, starts[a], ends[a], wanted[a, b])
            if at < ends[a] and items[at] == wanted[a, b]:
                found[a, b] = values[at]
