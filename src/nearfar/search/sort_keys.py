"""The order of lists as integers, in compiled code.

The larger score comes first, and ties are broken by the smaller item row. So an entry has a key of
64 bits. Its high half is the score as an integer of the same order, its low half the item, counted
from the last: the largest key comes first, and no two are equal. `numpy.sort` sorts many short rows
of integers several times as fast as heaps do.

`nearfar.search.order_keys` does the same on a PyTorch device.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from nearfar.runtime.arrays import Float32, Float64, Int32, Int64
from nearfar.runtime.jit import kernel

_LAST: Final = 0x7FFFFFFF
NOTHING: Final = -(2**63)
"""The key of no item."""


class Candidates(NamedTuple):
    """Items that may be among the best of each row, and what their scores are the sum of.

    Each is (n_rows, n).
    """

    items: Int32
    """Those of a row are followed by -1."""
    products: Float64
    weight: Float32
    """Before it is multiplied by a factor."""
    offset: Float32
    terms: Float64


@kernel
def key_of(score: np.float32) -> np.int32:
    """Return an integer of the same order as a score that is not NaN; the same for 0.0 and -0.0."""
    bits = np.float32(score + np.float32(0.0)).view(np.int32)
    return np.int32(bits ^ ((bits >> 31) & 0x7FFFFFFF))


@kernel
def score_of(key: np.int32) -> np.float32:
    """Return the score of which an integer is the `key_of`."""
    return np.int32(key ^ ((key >> 31) & 0x7FFFFFFF)).view(np.float32)


@kernel
def write_keys(candidates: Candidates, factor: np.float32, floors: Float32, keys: Int64) -> int:
    """Write the keys of the candidates whose exact score is at least the floor of their row.

    They are at the beginning of each row of `keys`, (n_rows, n), followed by `NOTHING`. The score
    is ``products + (offset + factor * weight) + terms``, the bracket in float32, the sum in float64
    and then rounded. Returns the largest number of keys of a row.
    """
    most, scores = 0, np.empty(keys.shape[1], np.float32)
    for a in range(len(keys)):
        items, found = candidates.items[a], keys[a]
        products, terms = candidates.products[a], candidates.terms[a]
        weight, offset = candidates.weight[a], candidates.offset[a]
        for b in range(len(scores)):
            scores[b] = products[b] + np.float64(offset[b] + factor * weight[b]) + terms[b]
        n = 0
        for b in range(len(items)):
            if items[b] < 0:
                break
            found[n] = (np.int64(key_of(scores[b])) << 32) | (_LAST - items[b])
            n += scores[b] >= floors[a] and scores[b] > -np.inf
        for b in range(n, len(found)):
            found[b] = NOTHING
        most = max(most, n)
    return most


@kernel
def read_keys(keys: Int64, items: Int32, scores: Float32) -> None:
    """Write the items and scores of ascending keys, the last first, until there are no more.

    The other entries of `items` and `scores` are not changed.
    """
    n = keys.shape[1]
    for a in range(keys.shape[0]):
        for r in range(min(n, items.shape[1])):
            key = keys[a, n - 1 - r]
            if key == NOTHING:
                break
            items[a, r] = _LAST - (key & _LAST)
            scores[a, r] = score_of(np.int32(key >> 32))
