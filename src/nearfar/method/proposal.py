"""Draws of items by a fixed weight: the popularity weight (eq. 4), and the alias table.

A draw is a function of (stream, position, attempt), see `nearfar.runtime.counter`. `proposed` and
`different` specify the draws for whole arrays; the engines' kernels return the same integers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nearfar.errors import OptionError
from nearfar.runtime.arrays import Float64, Int, Int32, Int64
from nearfar.runtime.counter import uniform, uniform_at
from nearfar.runtime.jit import kernel

SPARE = 4
"""Draws for each distinct item wanted, before the method that scans all items is used."""


def popularity_weight(item_counts: npt.ArrayLike, beta: float) -> Float64:
    """Return f(j)^beta, scaled so that the largest is 1 (eq. 4).

    Parameters
    ----------
    item_counts : array_like of int of shape (M,)
        f(j), training interactions of each item.
    beta : float
        Any real number.

    Returns
    -------
    float64 array of shape (M,)
        1 for all items if beta is 0; otherwise 0 where f(j) = 0.

    Raises
    ------
    OptionError
        No item has a positive weight.

    Examples
    --------
    >>> popularity_weight([4, 2, 0], beta=1.0).tolist()
    [1.0, 0.5, 0.0]
    >>> popularity_weight([4, 2, 0], beta=0.0).tolist()
    [1.0, 1.0, 1.0]
    """
    f = np.asarray(item_counts, np.float64)
    if beta == 0.0:
        return np.ones_like(f)
    seen = f > 0
    if not seen.any():
        raise OptionError(
            f"no item has a training interaction, so no item can be drawn by popularity with"
            f" `beta`={beta!r}; use Uniform() or beta=0."
        )
    log_weight = beta * np.log(f, where=seen, out=np.full_like(f, -np.inf))
    log_weight[~seen] = -np.inf
    weight: Float64 = np.exp(log_weight - log_weight[seen].max())
    return weight


class AliasTable(NamedTuple):
    """A table for draws from a discrete distribution in constant time (Walker 1977, Vose 1991).

    Column j of n yields its own item with probability ``keep[j]`` and ``other[j]`` otherwise.
    Both arrays are empty for the uniform distribution, which needs no table.
    """

    n: int
    keep: Float64
    other: Int32
    weight: Float64


def alias_table(weight: Float64) -> AliasTable:
    """Build the table for probabilities proportional to `weight` (M,), in time O(M)."""
    n = weight.shape[0]
    if (weight == weight[0]).all():
        return AliasTable(n, np.empty(0), np.empty(0, np.int32), weight)
    keep = weight * (n / weight.sum())
    other = np.arange(n, dtype=np.int32)
    _pair_columns(keep, other)
    return AliasTable(n, keep, other, weight)


@kernel
def _pair_columns(keep: Float64, other: Int32) -> None:
    """Fill each column below 1 from one above 1, by Vose's method."""
    n = keep.shape[0]
    small = np.empty(n, np.int32)
    large = np.empty(n, np.int32)
    n_small = n_large = 0
    scaled = keep.copy()
    for j in range(n):
        if scaled[j] < 1.0:
            small[n_small] = j
            n_small += 1
        else:
            large[n_large] = j
            n_large += 1
    while n_small > 0 and n_large > 0:
        n_small -= 1
        poor, rich = small[n_small], large[n_large - 1]
        keep[poor] = scaled[poor]
        other[poor] = rich
        scaled[rich] -= 1.0 - scaled[poor]
        if scaled[rich] < 1.0:
            n_large -= 1
            small[n_small] = rich
            n_small += 1
    for i in range(n_large):
        keep[large[i]] = 1.0
    for i in range(n_small):  # left only by rounding; a weight of zero still cannot be drawn
        if scaled[small[i]] > 0.5:
            keep[small[i]] = 1.0
    return


@kernel
def draw_at(table: AliasTable, key: np.uint64, position: Int, attempt: Int) -> Int:
    """Draw the item for (position, attempt) of the stream `key`.

    One uniform number, scaled by n, determines both: its integer part selects the column, and its
    fractional part decides between the column's two items.
    """
    x = uniform_at(key, position, attempt) * table.n
    column = np.int64(x)
    if table.keep.shape[0] == 0 or x - column < table.keep[column]:
        return column
    return np.int64(table.other[column])


def proposed(
    table: AliasTable, key: np.uint64, positions: npt.ArrayLike, attempt: int = 0
) -> Int64:
    """Draw an item for each position of the stream `key`: `draw_at` for arrays.

    Parameters
    ----------
    table : AliasTable
    key : uint64
        From `nearfar.runtime.counter.stream`.
    positions : array_like of int of shape (n,)
    attempt : int

    Returns
    -------
    int64 array of shape (n,)
    """
    x = uniform(key, positions, attempt) * table.n
    column = x.astype(np.int64)
    if not len(table.keep):
        return column
    return np.where(x - column < table.keep[column], column, table.other[column])


def different(table: AliasTable, support: Int32, key: np.uint64, count: int) -> Int64:
    """Draw `count` distinct items one after the other, by the weights of those not yet drawn.

    Independent draws, skipping repetitions, have exactly this distribution. If `SPARE` x count
    draws are not enough (few items left, or nearly all weight on a few), the rest are the items
    with the smallest exponential clocks -log(1 - U_j) / weight_j, with the same distribution.

    Parameters
    ----------
    table : AliasTable
    support : int32 array
        The items of positive weight, ascending; if there are at most `count`, all are drawn.
    key : uint64
        From `nearfar.runtime.counter.stream`.
    count : int

    Returns
    -------
    int64 array of shape (min(count, len(support)),)

    References
    ----------
    Efraimidis & Spirakis, Information Processing Letters 2006.
    """
    if count >= len(support):
        return support.astype(np.int64)
    for many in (count + count // 2, SPARE * count):  # the first number is usually enough
        tried = proposed(table, key, np.arange(many))
        _, first = np.unique(tried, return_index=True)
        drawn = tried[np.sort(first)[:count]]
        missing = count - len(drawn)
        if not missing:
            return drawn
    left = support[~np.isin(support, drawn)].astype(np.int64)
    clock = -np.log1p(-uniform(key, SPARE * count + left)) / table.weight[left]
    return np.concatenate([drawn, left[np.argsort(clock, kind="stable")[:missing]]])
