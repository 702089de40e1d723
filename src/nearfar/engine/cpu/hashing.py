"""Open-addressing hash tables in one array: from a row or an item to a small number."""

from __future__ import annotations

import numpy as np

from nearfar.runtime.arrays import Int, Int64
from nearfar.runtime.counter import GOLDEN
from nearfar.runtime.jit import kernel


@kernel
def table_size(n: Int) -> Int:
    """Return a power of two at which a hash table of n keys is at most half full."""
    size = 16
    while size < 2 * n:
        size *= 2
    return size


@kernel
def empty(table: Int64) -> None:
    """Remove all keys."""
    for at in range(table.shape[0]):
        table[at] = -1


@kernel
def find(table: Int64, key: Int) -> Int:
    """Where `key` stands in the table, or where it would be put.

    An entry is ``key << 32 | value``, -1 where nothing stands; at least one is empty.
    """
    mask = table.shape[0] - 1
    at = np.int64((np.uint64(key) * GOLDEN) >> np.uint64(33)) & mask
    while table[at] >> 32 != key and table[at] >= 0:
        at = (at + 1) & mask
    return at


@kernel
def find_or_add(table: Int64, key: Int, value: Int) -> Int:
    """Return the value that stands at `key`; if there is none, put `value` there."""
    at = find(table, key)
    if table[at] < 0:
        table[at] = key << 32 | value
    return table[at] & 0xFFFFFFFF
