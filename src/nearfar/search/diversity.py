"""Lists of items that differ: greedy maximal marginal relevance over the best of a list.

With x the diversity, 0 to 1, each place of the list gets the item that is largest in ::

    (1 - x) score_ij - x max over s above it of sim(j, s),     sim(j, s) = 1 - D^2(v_j, v_s) / 2

among the best `pool_size` items by score; the first place gets the best. Ties are broken by the
smaller item row.

**Scale.** Both are in units of the cosine: on the sphere sim is the cosine of two items and the
score that of the user and the item, to which the prior and the co-occurrence term are added. Off
the sphere both are 1 - D^2 / 2. Only differences between items count, so what all items of a list
have in common does not matter, and nothing is rescaled per user.

Products are summed in float64 one by one, and each list is computed by one thread, so lists depend
neither on the number of threads nor on the other users. A list of k items costs pool_size * k
products, and is the beginning of a longer one as long as both have the same pool.

References
----------
Carbonell and Goldstein, *The Use of MMR, Diversity-Based Reranking*, SIGIR 1998. (The metric MMR of
`nearfar.evaluation.metrics` is another: the median popularity.)
"""

from __future__ import annotations

from typing import Final, Protocol, runtime_checkable

import numpy as np

from nearfar.runtime.arrays import Bool, Float32, Float64, Int, Int32, Real, read_only
from nearfar.runtime.checks import real
from nearfar.runtime.jit import kernel
from nearfar.runtime.threads import checked_threads, run_blocks
from nearfar.search.exact import product
from nearfar.search.neighbours import Exclusion, Scorer, TopK, top_k

POOL: Final = 300
"""The number of items that a list is chosen from, unless it is long."""
_PER_PLACE: Final = 2
"""Items of the pool for each place of a long list."""
_BLOCK_LISTS: Final = 64
"""Lists that a thread takes at a time."""
_PLACES: Final = 2**23
"""Maximum number of places of pools in memory at the same time."""


@runtime_checkable
class Divider(Protocol):
    """A scorer that says in which parts rows are searched, since others search along with it."""

    def parts(self, n: int, at_once: int) -> list[slice]:
        """Divide n rows into parts of at most `at_once`, of which some may be empty."""
        ...


def checked_diversity(diversity: float) -> float:
    """Return a diversity, a number from 0 to 1.

    Raises
    ------
    OptionError
        It is another number, or no number.
    """
    return real("diversity", diversity, least=0.0, most=1.0)


def pool_size(k: int, diversity: float) -> int:
    """Return how many of the best items a list of k is chosen from; k if there is no diversity.

    Examples
    --------
    >>> pool_size(10, 0.3), pool_size(500, 0.3), pool_size(10, 0.0)
    (300, 1000, 10)
    """
    return max(POOL, _PER_PLACE * k) if diversity > 0.0 else k


def diverse_top_k(
    scorer: Scorer,
    targets: Float32,
    rows: Int32,
    k: int,
    diversity: float,
    *,
    on_sphere: bool,
    exclude: Exclusion | None = None,
    allow: Bool | None = None,
    threads: int | None = 1,
) -> TopK:
    """Return k items of each row, chosen one after the other; `top_k` if the diversity is 0.

    Parameters
    ----------
    scorer : Scorer
        If it is also a `Divider`, the rows are searched in its parts.
    targets : float32 array of shape (n_items, d)
        The points of the items.
    rows, k, exclude, allow, threads
        As in `nearfar.search.neighbours.top_k`.
    diversity : float
        x, from 0 to 1.
    on_sphere : bool
        Whether the points have length 1.
    """
    if diversity == 0.0:
        return top_k(scorer, rows, k, exclude=exclude, allow=allow, threads=threads)
    k = min(k, scorer.n_items)
    pool = min(pool_size(k, diversity), scorer.n_items)
    found, at_once = TopK.empty(len(rows), k), max(1, _PLACES // pool)
    for part in _parts(scorer, len(rows), at_once):
        best = top_k(scorer, rows[part], pool, exclude=exclude, allow=allow, threads=threads)
        chosen = diversified(best, targets, k, diversity, on_sphere=on_sphere, threads=threads)
        found.items[part], found.scores[part] = chosen
    return found


def _parts(scorer: Scorer, n: int, at_once: int) -> list[slice]:
    """Return the parts in which n rows are searched."""
    if isinstance(scorer, Divider):
        return scorer.parts(n, at_once)
    return [slice(start, start + at_once) for start in range(0, n, at_once)]


def diversified(
    best: TopK,
    targets: Float32,
    k: int,
    diversity: float,
    *,
    on_sphere: bool,
    threads: int | None = 1,
) -> TopK:
    """Return k items of each list, chosen one after the other, with their scores.

    Parameters
    ----------
    best : TopK
        The lists to choose from, best first.
    targets, k, diversity, on_sphere, threads
        As in `diverse_top_k`.

    Examples
    --------
    >>> best = TopK(np.array([[0, 1, 2]], np.int32), np.array([[0.9, 0.8, 0.7]], np.float32))
    >>> points = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    >>> [diversified(best, points, 2, x, on_sphere=True).items[0].tolist() for x in (0, 0.5)]
    [[0, 1], [0, 2]]
    """
    k = min(k, best.items.shape[1])
    found = TopK.empty(len(best.items), k)
    points = np.ascontiguousarray(targets, np.float32)

    def work(start: int) -> int:
        part = slice(start, start + _BLOCK_LISTS)
        items, scores = best.items[part], best.scores[part]
        lists, shown = found.items[part], found.scores[part]
        choose_apart(
            read_only(points), read_only(items), read_only(scores), diversity, on_sphere, lists,
            shown,
        )  # fmt: skip
        return len(items)

    starts = range(0, len(best.items), _BLOCK_LISTS)
    run_blocks(work, starts, checked_threads(threads), _ignored)
    return found


def _ignored(_: int) -> None:
    """Ignore the progress."""


def intra_list_distances(items: Int32, targets: Float32, *, on_sphere: bool) -> Float64:
    """Return the mean distance of two items of a list, 1 - sim = D^2 / 2, of each list.

    Parameters
    ----------
    items : int32 array of shape (n_lists, k)
        Padded with -1.
    targets, on_sphere
        As in `diverse_top_k`.

    Returns
    -------
    float64 array of shape (n_lists,)
        NaN for lists with fewer than two items. On the sphere it is from 0 to 2.

    Examples
    --------
    >>> points = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    >>> lists = np.array([[0, 1, -1], [0, 2, -1], [0, 1, 2]], np.int32)
    >>> intra_list_distances(lists, points, on_sphere=True).round(3).tolist()
    [0.0, 1.0, 0.667]
    """
    found = np.full(len(items), np.nan)
    points = np.ascontiguousarray(targets, np.float32)

    def work(start: int) -> int:
        part = slice(start, start + _BLOCK_LISTS)
        mean_distances(read_only(points), read_only(items[part]), on_sphere, found[part])
        return len(items[part])

    run_blocks(work, range(0, len(items), _BLOCK_LISTS), 1, _ignored)
    return found


@kernel
def similarity(targets: Float32, j: Int, s: Int, on_sphere: bool) -> Real:
    """Return 1 - D^2 / 2 of two items, on the sphere their product, in float64."""
    both = product(targets, j, targets, s)
    if on_sphere:
        return both
    own, other = product(targets, j, targets, j), product(targets, s, targets, s)
    return 1.0 - 0.5 * (own - 2.0 * both + other)


@kernel
def choose_apart(
    targets: Float32,
    items: Int32,
    scores: Float32,
    diversity: float,
    on_sphere: bool,
    lists: Int32,
    shown: Float32,
) -> None:
    """Choose items of each row of `items` for the places of `lists`, with their scores."""
    n, k = items.shape[1], lists.shape[1]
    for a in range(items.shape[0]):
        nearest, left = np.full(n, -np.inf), np.ones(n, np.bool_)
        chosen = 0
        for place in range(k):
            if items[a, chosen] < 0:
                break
            lists[a, place], shown[a, place] = items[a, chosen], scores[a, chosen]
            left[chosen] = False
            last, best, best_value = items[a, chosen], -1, -np.inf
            for b in range(n):
                j = items[a, b]
                if j < 0 or not left[b]:
                    continue
                nearest[b] = max(nearest[b], similarity(targets, j, last, on_sphere))
                value = (1.0 - diversity) * np.float64(scores[a, b]) - diversity * nearest[b]
                if best < 0 or value > best_value or (value == best_value and j < items[a, best]):
                    best, best_value = b, value
            if best < 0:
                break
            chosen = best


@kernel
def mean_distances(targets: Float32, items: Int32, on_sphere: bool, out: Float64) -> None:
    """Write the mean of 1 - sim over the pairs of each list of at least two items."""
    for a in range(items.shape[0]):
        total, pairs = 0.0, 0
        for b in range(items.shape[1]):
            for c in range(b):
                if items[a, b] >= 0 and items[a, c] >= 0:
                    total += 1.0 - similarity(targets, items[a, b], items[a, c], on_sphere)
                    pairs += 1
        if pairs > 0:
            out[a] = total / pairs
