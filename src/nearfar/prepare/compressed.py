"""The end of the plan: the pairs that are left, as arrays."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import narwhals.stable.v2 as nw
import numpy as np

from nearfar.data.pairs import Times
from nearfar.prepare.pair_plan import Frame, Survivors
from nearfar.runtime.arrays import Int32, Int64

_AT_A_TIME: Final = 2
"""Parts that are in memory together."""


class CompressedPairs(NamedTuple):
    """One list of items a user, under new numbers: those of the users and items that are left."""

    indptr: Int64
    """Where each user's list starts, shape (n_users + 1,)."""
    items: Int32
    """Shape (n_pairs,), increasing within a list."""
    times: Times | None
    """Shape (n_pairs,); None if the pairs have none."""
    user_rows: Int64
    """The old numbers of the users, shape (n_users,)."""
    item_rows: Int64
    """The old numbers of the items, shape (n_items,)."""


def compressed(left: Survivors, shape: tuple[int, int]) -> CompressedPairs:
    """Gather the pairs that are left, part by part.

    Parameters
    ----------
    left : Survivors
        Its parts are in the order of their users; within a part pairs may be in any order.
    shape : tuple of int
        How many users and items were numbered.
    """
    user_rows, counts = _some(left, "user")
    item_rows, _ = _some(left, "item")
    indptr = np.append(0, np.cumsum(counts))
    new_rows = _renumbered(user_rows, shape[0]), _renumbered(item_rows, shape[1])
    items = np.empty(indptr[-1], np.int32)
    times = _empty_times(left.parts[0], items.size)

    def place(part: Frame) -> None:
        table = part.collect()
        users, part_items, kept = _of_part(table, new_rows)
        if users.size:  # all pairs of its first user are in this part
            at = slice(indptr[users[0]], indptr[users[0]] + users.size)
            items[at] = part_items
            if times is not None:
                times[at] = table["time"].to_numpy()[kept]

    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        list(pool.map(place, left.parts))
    return CompressedPairs(indptr, items, times, user_rows, item_rows)


def _empty_times(part: Frame, n: int) -> Any:
    none = part.head(0).collect()
    return np.empty(n, none["time"].to_numpy().dtype) if "time" in none.columns else None


def _some(left: Survivors, side: str) -> tuple[Int64, Int64]:
    """Return the numbers of the users or items that have pairs, sorted, and how many they have."""
    table = left.counts[side].filter(nw.col("n") > 0).collect().sort(side)
    return table[side].to_numpy().astype(np.int64), table["n"].to_numpy()


def _renumbered(rows: Int64, n: int) -> Int32:
    """Return the new number of each old one, -1 where it is gone."""
    new = np.full(n, -1, np.int32)
    new[rows] = np.arange(rows.size)
    return new


def _of_part(table: nw.DataFrame[Any], new_rows: tuple[Int32, Int32]) -> tuple[Int32, Int32, Any]:
    """Return users and items of those pairs that are left, sorted, and which pairs these are."""
    users, items = new_rows[0][table["user"].to_numpy()], new_rows[1][table["item"].to_numpy()]
    kept: Any = (users >= 0) & (items >= 0)
    keys = users[kept].astype(np.int64) << 32 | items[kept]
    if not (keys[1:] > keys[:-1]).all():
        order = np.argsort(keys)
        kept = np.flatnonzero(kept)[order]
    return users[kept], items[kept], kept
