"""Rows of a table that several processes share, moved so that each has a range of them."""

from __future__ import annotations

from typing import Any, Final, cast

import numpy as np

from nearfar.runtime.arrays import Array, Int64
from nearfar.search.shard_search import Ranks

_ROWS: Final = 2**15
"""Rows that a rank receives in a round, at most."""


def even_bounds(n: int, size: int, multiple: int) -> Int64:
    """Return where the ranges of ranks begin, and n: multiples of a number, about equal ranges.

    Examples
    --------
    >>> even_bounds(10, 3, 1), even_bounds(10, 3, 4), even_bounds(3, 3, 4)
    (array([ 0,  3,  6, 10]), array([ 0,  4,  8, 10]), array([0, 3, 3, 3]))
    """
    units = -(-n // multiple)
    bounds = np.minimum((np.arange(size + 1) * units // size) * multiple, n)
    if units < size:  # the first ranks have them
        bounds = np.minimum(np.arange(size + 1) * multiple, n)
    return bounds.astype(np.int64)


def in_ranges(ranks: Ranks, rows: Int64, table: Array, bounds: Int64) -> Array:
    """Return rows ``bounds[r]`` to ``bounds[r + 1]`` on each rank r. All ranks call it.

    Parameters
    ----------
    ranks : Ranks
    rows : int64 array of shape (n,)
        Which rows this rank has, in any order; each row is one rank's.
    table : array of shape (n, ...)
    bounds : int64 array of shape (P + 1,)
        The same on all ranks.
    """
    order = np.argsort(rows)
    ascending = rows[order]
    begin, end = int(bounds[ranks.rank]), int(bounds[ranks.rank + 1])
    out: Array = cast(Any, np.empty((end - begin, *table.shape[1:]), table.dtype))
    for first in range(0, int(np.diff(bounds).max(initial=0)), _ROWS):
        starts = np.minimum(bounds[:-1] + first, bounds[1:])
        ends = np.minimum(starts + _ROWS, bounds[1:])
        low, high = np.searchsorted(ascending, starts), np.searchsorted(ascending, ends)
        mine = np.concatenate([order[a:b] for a, b in zip(low, high, strict=True)])
        ones = np.ones(ranks.size, np.int64)
        expected = ranks.exchange(high - low, ones, ones, np.empty(ranks.size, np.int64))
        numbers = np.empty(expected.sum(), np.int64)
        ranks.exchange(rows[mine], high - low, expected, numbers)
        arrived: Any = np.empty((len(numbers), *table.shape[1:]), table.dtype)
        ranks.exchange(np.ascontiguousarray(table[mine]), high - low, expected, arrived)
        out[numbers - begin] = arrived
    return out
