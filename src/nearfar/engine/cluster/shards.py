"""Which rank owns which rows, as a function: no table that grows with users or items."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nearfar.engine.problem import Problem
from nearfar.runtime.arrays import Int, Int64
from nearfar.runtime.counter import Purpose, permuted_at, stream
from nearfar.runtime.jit import kernel


class Shards(NamedTuple):
    """How users and items are divided among the ranks.

    A **place** of an item is its image under a keyed permutation of 0..M-1; the item itself, if
    there is one rank, whose table is then the joint one. Rank r owns the users
    ``users[r]``..``users[r + 1] - 1`` and the items with places r K..(r + 1) K - 1, where
    K = ceil(M / P).
    Its table holds its users, then its items, in these orders.
    """

    users: Int64
    """(P + 1,) the first user of each rank, then N."""
    pairs: Int64
    """(P + 1,) the first pair of each rank, then the number of pairs."""
    n_items: int
    chunk: int
    """K."""
    key: Int
    """That of the permutation."""


def make_shards(problem: Problem, size: int) -> Shards:
    """Divide users into ranges with about equal numbers of pairs, and items into equal parts."""
    data = problem.interactions
    wanted = np.arange(size + 1) * data.n_pairs // size
    users = np.searchsorted(data.indptr, wanted).astype(np.int64)
    users[0], users[-1] = 0, data.n_users
    return Shards(
        users,
        data.indptr[users].astype(np.int64),
        data.n_items,
        -(-data.n_items // size),
        stream(problem.seed, Purpose.SHARD, 0),
    )


def item_places(shards: Shards, rank: int) -> range:
    """Return the places of a rank's items.

    Examples
    --------
    >>> import numpy as np
    >>> shards = Shards(np.array([0, 5, 9]), np.array([0, 7, 14]), 7, 4, np.uint64(1))
    >>> item_places(shards, 0), item_places(shards, 1)
    (range(0, 4), range(4, 7))
    """
    n, chunk = shards.n_items, shards.chunk
    return range(min(rank * chunk, n), min((rank + 1) * chunk, n))


def n_rows_of(shards: Shards, rank: int) -> int:
    """Return the number of rows of a rank's table."""
    return int(shards.users[rank + 1] - shards.users[rank]) + len(item_places(shards, rank))


def rows_of_rank(shards: Shards, rank: int) -> Int64:
    """Return the joint rows of a rank's table, in its order."""
    places, n_users = item_places(shards, rank), shards.users[-1]
    items = np.empty(len(places), np.int64)
    _items_at(shards, places.start, items)
    return np.concatenate([np.arange(shards.users[rank], shards.users[rank + 1]), n_users + items])


@kernel
def _place(shards: Shards, item: Int) -> Int:
    """Return the place of an item."""
    if shards.chunk >= shards.n_items:
        return item
    return permuted_at(shards.key, item, shards.n_items)


@kernel
def _items_at(shards: Shards, first: Int, out: Int64) -> None:
    """Put the items with places first..first+len(out)-1 into `out`, in this order."""
    for item in range(shards.n_items if out.shape[0] > 0 else 0):
        at = _place(shards, item) - first
        if 0 <= at < out.shape[0]:
            out[at] = item


@kernel
def locate(shards: Shards, rows: Int64, owner: Int64, local: Int64) -> None:
    """Find the owner of each joint row, and its row in the owner's table."""
    users, n_ranks = shards.users, shards.users.shape[0] - 1
    n_users = users[n_ranks]
    for i in range(rows.shape[0]):
        if rows[i] < n_users:
            owner[i] = np.searchsorted(users[1:], rows[i], side="right")
            local[i] = rows[i] - users[owner[i]]
        else:
            place = _place(shards, rows[i] - n_users)
            owner[i] = place // shards.chunk
            local[i] = users[owner[i] + 1] - users[owner[i]] + place % shards.chunk
