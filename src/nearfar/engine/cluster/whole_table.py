"""Rows of all ranks on every rank, some thousands at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nearfar.engine.cluster.process_group import Group
from nearfar.engine.cluster.shards import Shards, locate
from nearfar.runtime.arrays import Array, Int64

ROWS_AT_ONCE = 16_384


def whole_rows(
    group: Group,
    shards: Shards,
    own: Callable[[Int64], Any],
    rows: Int64 | None,
    out: Array,
) -> Array:
    """Put joint rows into `out`, on every rank; all ranks name the same.

    Parameters
    ----------
    group, shards
    own : callable
        Returns rows of the rank's own table, (n, ...), of the type of `out`.
    rows : int64 array of shape (n,) or None
        All rows if None.
    out : array of shape (n, ...)

    Returns
    -------
    array
        `out`.
    """
    for first in range(0, len(out), ROWS_AT_ONCE):
        last = min(first + ROWS_AT_ONCE, len(out))
        listed = np.arange(first, last) if rows is None else np.asarray(rows[first:last], np.int64)
        owner, local = np.empty_like(listed), np.empty_like(listed)
        locate(shards, listed, owner, local)
        counts = np.bincount(owner, minlength=group.size)
        mine = np.ascontiguousarray(own(local[owner == group.rank]), out.dtype)
        send, ours = np.concatenate([mine] * group.size), np.full(group.size, len(mine))
        got = group.exchange(send, ours, counts, np.empty((len(listed), *out.shape[1:]), out.dtype))
        out[first + np.argsort(owner, kind="stable")] = got
    return out
