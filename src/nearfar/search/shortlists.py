"""Compiled kernels that keep every item that may be among the best k under some weighting.

Weighting g adds ``factors[g] * weight[j]`` to the score of item j. With a heap for each weighting,
every score would be compared with all of them. Instead each row has one *shortlist*, and for each
weighting a *floor*, a score that its k best surely reach. An item can be among the best only if

    s_j + factors[g] weight[j] >= floor_g for some g,    so only if    s_j >= min_g (floor_g - r_g),

r_g being the largest weight in a run of neighbouring items. So there is one comparison, whatever
the number of weightings. Items are visited from the largest weight to the smallest, so the weights
of a run are nearly equal, and few items pass that are not among the best.

`first_floors` finds floors in the first tile. `collect` adds the items that pass; when a shortlist
has grown enough, it is pruned: its floors rise to about the k-th best of its scores, and what is
below all floors is dropped. After all tiles it holds the best k under each weighting, and little
else. If there are too many near ties, it is full; such a row is *crowded*, and has to be searched
in another way.

Scores are rounded (`nearfar.search.neighbours`), so a floor is a margin below the k-th best of the
rounded scores, and the shortlist also holds the best by exact scores.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from nearfar.runtime.arrays import Float32, Int32, Int64
from nearfar.runtime.jit import inlined, kernel
from nearfar.search.sort_keys import key_of, score_of

RUN: Final = 64
"""Items with a common r_g, which are compared at a time."""
_GROUPS: Final = 128
"""Groups of the first tile, at least."""


class Weightings(NamedTuple):
    """The weights of the items in the order of the visit."""

    factors: Float32
    """(G,)."""
    weight: Float32
    """(M,), descending."""
    reach: Float32
    """(ceil(M / RUN), G): r_g of each run."""

    @classmethod
    def of(cls, factors: Float32, weight: Float32) -> Weightings:
        """Return the weightings by the factors and the descending weights."""
        first = np.arange(0, len(weight), RUN)
        last = np.minimum(first + RUN, len(weight)) - 1  # the largest if a factor is negative
        ends = (np.multiply.outer(weight[ends], factors) for ends in (first, last))
        return cls(factors, weight, np.maximum(*ends))


class Shortlists(NamedTuple):
    """The shortlists of a block of rows."""

    items: Int32
    """(n_rows, size): places of items in the order of the visit."""
    scores: Float32
    """(n_rows, size): their rounded scores without a weight."""
    counts: Int64
    """(n_rows,): the length of each shortlist, or -1 if the row is crowded."""
    due: Int64
    """(n_rows,): the length at which it is pruned."""
    floors: Float32
    """(n_rows, G)."""
    margins: Float32
    """(n_rows,): how far a floor must be below the k-th best of the rounded scores."""


@kernel
def first_floors(tile: Float32, weightings: Weightings, lists: Shortlists, k: int) -> None:
    """Set the floors to scores that the k best items of the first tile reach.

    Its columns are dealt into groups. If the best of k groups reach a score, so do k items; as
    there are more than twice as many groups, few of the best k share one.
    """
    n_groups = max(_GROUPS, 5 * k // 2)
    best, keys = np.empty(n_groups, np.float32), np.empty(n_groups, np.int32)
    for a in range(tile.shape[0]):
        for g in range(len(weightings.factors)):
            factor = weightings.factors[g]
            for b in range(len(best)):
                best[b] = -np.inf
            for start in range(0, tile.shape[1] - n_groups + 1, n_groups):
                scores = tile[a][start : start + n_groups]
                weight = weightings.weight[start : start + n_groups]
                for b in range(len(best)):
                    score = scores[b] + factor * weight[b]
                    best[b] = score if score > best[b] else best[b]
            for b in range(len(best)):
                keys[b] = key_of(best[b])
            reached = _about_best(keys, k, key_of(np.float32(-np.inf)))
            lists.floors[a, g] = score_of(reached) - lists.margins[a]


@kernel
def collect(
    tile: Float32, first: int, weightings: Weightings, lists: Shortlists, k: int, step: int
) -> int:
    """Add the items of a tile that may be among the best to the shortlists.

    Column b of the tile is place ``first + b``, with `first` a multiple of `RUN`. A shortlist is
    pruned whenever it has grown by `step`. Returns the position in the tile of a score that is NaN,
    or -1.
    """
    width: int = tile.shape[1]
    for a in range(tile.shape[0]):
        if lists.counts[a] < 0:
            continue
        for start in range(0, width, RUN):
            part, reach = tile[a][start : start + RUN], weightings.reach[(first + start) // RUN]
            least = _least(lists.floors[a], reach)
            if not _any_reach(part, least):
                continue
            if lists.counts[a] + RUN > lists.due[a]:
                prune(lists, a, weightings, k, step)
                if lists.counts[a] < 0:
                    break
                least = _least(lists.floors[a], reach)
            bad = _append(part, least, first + start, lists, a)
            if bad >= 0:
                return a * width + start + bad
    return -1


@kernel
def prune_all(lists: Shortlists, weightings: Weightings, k: int) -> None:
    """Prune the shortlists of all rows, after the last tile."""
    for a in range(len(lists.counts)):
        if lists.counts[a] >= 0:
            prune(lists, a, weightings, k, 0)


@kernel
def prune(lists: Shortlists, row: int, weightings: Weightings, k: int, step: int) -> None:
    """Raise the floors of a row, and drop what is below all of them.

    The row is crowded if there is no room for `step` more.
    """
    n = lists.counts[row]
    items, scores, floors = lists.items[row][:n], lists.scores[row][:n], lists.floors[row]
    weight, keys, kept = np.empty(n, np.float32), np.empty(n, np.int32), np.zeros(n, np.bool_)
    for i in range(len(items)):
        weight[i] = weightings.weight[items[i]]
    for g in range(len(floors)):
        factor = weightings.factors[g]
        for i in range(len(keys)):
            keys[i] = key_of(scores[i] + factor * weight[i])
        if n >= k:
            best = score_of(_about_best(keys, k, key_of(floors[g])))
            floors[g] = max(floors[g], best - lists.margins[row])
        floor = key_of(floors[g])
        for i in range(len(keys)):
            kept[i] |= keys[i] >= floor
    at = 0
    for i in range(len(items)):
        items[at], scores[at] = items[i], scores[i]
        at += kept[i]
    lists.counts[row] = at if at + step <= lists.items.shape[1] else -1
    lists.due[row] = at + step


@inlined
def _least(floors: Float32, reach: Float32) -> np.float32:
    """Return the score below which no item of a run can be among the best."""
    least = np.float32(np.inf)
    for g in range(len(floors)):
        least = min(least, floors[g] - reach[g])
    return least


@inlined
def _any_reach(part: Float32, least: np.float32) -> bool:
    """Return whether a score is at least `least`, or NaN.

    Without a branch, and over a slice, the loop becomes a few vector instructions.
    """
    n = np.int32(0)
    for b in range(len(part)):
        n = np.int32(n + np.int32(not (part[b] < least)))
    return bool(n > 0)


@inlined
def _append(part: Float32, least: np.float32, first: int, lists: Shortlists, row: int) -> int:
    """Add the items of a run that reach `least`; return the column of a NaN, or -1."""
    at, items, scores = lists.counts[row], lists.items[row], lists.scores[row]
    for b in range(len(part)):
        if part[b] < least or part[b] == -np.inf:
            continue
        if np.isnan(part[b]):
            return b
        items[at], scores[at] = first + b, part[b]
        at += 1
    lists.counts[row] = at
    return -1


@kernel
def _about_best(keys: Int32, k: int, low: np.int32) -> np.int32:
    """Return a key that at least k of the keys reach, and few others: bisection.

    At least k reach `low`, or it is below all.
    """
    least, high = np.int32(0x7FFFFFFF), np.int32(-0x80000000)
    for i in range(len(keys)):
        least, high = min(least, keys[i]), max(high, keys[i])
    low = max(low, least)
    while low < high:
        middle = np.int32((np.int64(low) + np.int64(high) + 1) >> 1)
        n = 0
        for i in range(len(keys)):
            n += keys[i] >= middle
        if n < k:
            high = np.int32(middle - 1)
        else:
            low = middle
            if n <= k + k // 8:
                break
    return low
