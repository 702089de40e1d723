"""Which rank owns which rows, as a function: no table that grows with users or items."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nearfar.engine.problem import Problem
from nearfar.runtime.arrays import Int, Int64
from nearfar.runtime.counter import Purpose, permuted_at, stream
from nearfar.runtime.jit import kernel


class Deal(NamedTuple):
    """How things are dealt out in equal parts, in the order of a keyed permutation."""

    n: int
    chunk: int
    """How many a rank has; the last ones may have fewer."""
    key: Int
    """That of the permutation."""


class Shards(NamedTuple):
    """How users, items and columns of the content are divided among the ranks.

    A **place** of an item is its image under a keyed permutation of 0..M-1; the item itself, if
    there is one rank, whose table is then the joint one. Rank r owns the users
    ``users[r]``..``users[r + 1] - 1`` and the items with places r K..(r + 1) K - 1, where
    K = ceil(M / P). The F columns are divided like the items, by a permutation of their own.
    Its table holds its users, then its items, then its columns, in these orders.
    """

    users: Int64
    """(P + 1,) the first user of each rank, then N."""
    pairs: Int64
    """(P + 1,) the first pair of each rank, then the number of pairs."""
    items: Deal
    columns: Deal


def make_shards(problem: Problem, size: int) -> Shards:
    """Divide users into ranges with about equal numbers of pairs, and items into equal parts."""
    data = problem.interactions
    wanted = np.arange(size + 1) * data.n_pairs // size
    users = np.searchsorted(data.indptr, wanted).astype(np.int64)
    users[0], users[-1] = 0, data.n_users
    return Shards(
        users,
        data.indptr[users].astype(np.int64),
        *(
            Deal(n, -(-n // size), stream(problem.seed, Purpose.SHARD, which))
            for which, n in enumerate((data.n_items, problem.n_table_rows - problem.n_rows))
        ),
    )


def places_of(deal: Deal, rank: int) -> range:
    """Return the places of what a rank has.

    Examples
    --------
    >>> deal = Deal(7, 4, np.uint64(1))
    >>> places_of(deal, 0), places_of(deal, 1)
    (range(0, 4), range(4, 7))
    """
    n, chunk = deal.n, deal.chunk
    return range(min(rank * chunk, n), min((rank + 1) * chunk, n))


def n_rows_of(shards: Shards, rank: int) -> int:
    """Return the number of rows of a rank's table."""
    n_users = int(shards.users[rank + 1] - shards.users[rank])
    return n_users + len(places_of(shards.items, rank)) + len(places_of(shards.columns, rank))


def rows_of_rank(shards: Shards, rank: int) -> Int64:
    """Return the joint rows of a rank's table, in its order."""
    n_users = shards.users[-1]
    return np.concatenate(
        [
            np.arange(shards.users[rank], shards.users[rank + 1]),
            n_users + _dealt(shards.items, rank),
            n_users + shards.items.n + _dealt(shards.columns, rank),
        ]
    )


def _dealt(deal: Deal, rank: int) -> Int64:
    """Return the numbers of what a rank has, in the order of their places."""
    places = places_of(deal, rank)
    found = np.empty(len(places), np.int64)
    _numbers_at(deal, places.start, found)
    return found


@kernel
def _place(deal: Deal, number: Int) -> Int:
    """Return the place of an item or a column."""
    if deal.chunk >= deal.n:
        return number
    return permuted_at(deal.key, number, deal.n)


@kernel
def _numbers_at(deal: Deal, first: Int, out: Int64) -> None:
    """Put what has the places first..first+len(out)-1 into `out`, in this order."""
    for number in range(deal.n if out.shape[0] > 0 else 0):
        at = _place(deal, number) - first
        if 0 <= at < out.shape[0]:
            out[at] = number


@kernel
def locate(shards: Shards, rows: Int64, owner: Int64, local: Int64) -> None:
    """Find the owner of each joint row, and its row in the owner's table."""
    users, items, n_ranks = shards.users, shards.items, shards.users.shape[0] - 1
    n_users = users[n_ranks]
    n_rows = n_users + items.n
    for i in range(rows.shape[0]):
        if rows[i] < n_users:
            owner[i] = np.searchsorted(users[1:], rows[i], side="right")
            local[i] = rows[i] - users[owner[i]]
        else:
            is_item = rows[i] < n_rows
            deal = items if is_item else shards.columns
            place = _place(deal, rows[i] - (n_users if is_item else n_rows))
            at = owner[i] = place // deal.chunk
            before = 0 if is_item else min(items.chunk, max(items.n - at * items.chunk, 0))
            local[i] = users[at + 1] - users[at] + before + place % deal.chunk
