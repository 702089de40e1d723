"""Compiled kernels that keep the k best scores of a long row in a heap.

Row r of `scores` and `items` (both n_rows x k) is a heap whose root, entry 0, is the worst of the
k: the entry with the lowest score and, among ties, the largest item. It is initially filled with
(-infinity, -1), so replacing the root is the only operation. `scan` inserts the scores of a tile,
with items in ascending order; `sort` converts the heap to a list, best first.
"""

from __future__ import annotations

import numpy as np

from nearfar.runtime.arrays import Bool, Float32, Int32, Int64
from nearfar.runtime.jit import kernel

CHUNK = 16
"""Scores compared with the root at a time, without a branch: one or two vector registers."""


@kernel
def sift_down(
    scores: Float32, items: Int32, row: int, n: int, score: np.float32, item: np.int32
) -> None:
    """Replace the root of the heap in the first `n` entries of `row` by (score, item)."""
    at = 0
    while 2 * at + 1 < n:
        child = 2 * at + 1
        other = child + 1
        if other < n and (
            scores[row, other] < scores[row, child]
            or (scores[row, other] == scores[row, child] and items[row, other] > items[row, child])
        ):
            child = other
        if scores[row, child] > score or (scores[row, child] == score and items[row, child] < item):
            break
        scores[row, at] = scores[row, child]
        items[row, at] = items[row, child]
        at = child
    scores[row, at] = score
    items[row, at] = item


@kernel
def sort(scores: Float32, items: Int32) -> None:
    """Convert the heap of every row to a list, best first."""
    for row in range(scores.shape[0]):
        for last in range(scores.shape[1] - 1, 0, -1):
            score, item = scores[row, last], items[row, last]
            scores[row, last], items[row, last] = scores[row, 0], items[row, 0]
            sift_down(scores, items, row, last, score, item)


@kernel
def first_at_least(sorted_items: Int32, start: int, end: int, item: int) -> int:
    """Return the first position in start..end whose item is `item` or larger; `end` if none is."""
    while start < end:
        middle = (start + end) // 2
        if sorted_items[middle] < item:
            start = middle + 1
        else:
            end = middle
    return start


@kernel
def hide(tile: Float32, first: int, users: Int32, indptr: Int64, excluded: Int32) -> None:
    """Set the scores of each user's excluded items in the tile to -infinity."""
    end = first + tile.shape[1]
    for a in range(tile.shape[0]):
        last = indptr[users[a] + 1]
        at = first_at_least(excluded, indptr[users[a]], last, first)
        while at < last and excluded[at] < end:
            tile[a, excluded[at] - first] = -np.inf
            at += 1


@kernel
def scan(tile: Float32, first: int, allowed: Bool, scores: Float32, items: Int32) -> int:
    """Insert the scores of a tile, whose first column is item `first`, into the heaps.

    `allowed` is a mask over all items, or empty to allow all. Returns the position in the tile of a
    score that is NaN, or -1.
    """
    width: int = tile.shape[1]
    k = scores.shape[1]
    for a in range(tile.shape[0]):
        worst = scores[a, 0]
        for start in range(0, width, CHUNK):
            stop = min(start + CHUNK, width)
            if stop - start == CHUNK:
                any_above = 0
                for b in range(start, start + CHUNK):
                    any_above += not (tile[a, b] <= worst)  # NaN counts as above
                if any_above == 0:
                    continue
            for b in range(start, stop):
                if tile[a, b] <= worst or (allowed.shape[0] > 0 and not allowed[first + b]):
                    continue
                if np.isnan(tile[a, b]):
                    return a * width + b
                sift_down(scores, items, a, k, tile[a, b], np.int32(first + b))
                worst = scores[a, 0]
    return -1
