"""Metrics of ranked lists: pure functions of arrays, and `REGISTRY`, which lists them by name.

To add a metric, write its function and add an entry to `REGISTRY`. `nearfar.evaluate`, its printed
table, the history of a run, ``metric=`` of `CML.fit`, the model card, reports and the command line
then include it.

Accuracy metrics are computed per user and take

- `hits`, bool, (n_users, k): whether the item at each rank is relevant, rank 1 first; False where a
  list is shorter than k;
- `n_relevant`, int, (n_users,): the total number of relevant items of the user.

The result is float64, (n_users,), and NaN for a user without relevant items, who is left out of the
mean. Let h_r be the hit at rank r and R the number of relevant items.

Popularity metrics take the recommended items, int, (n_users, k), padded with -1 where a list is
short, and the *training* interaction count of every item. Padding is ignored; the value for an
empty list is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from nearfar.runtime.arrays import Bool, Float64, Int64, Integers

MOST_K: Final = 2**62
"""The largest length of a list that can be asked for."""


def average_precision(hits: Bool, n_relevant: Integers) -> Float64:
    """AP@k: ``sum_r h_r * (h_1 + ... + h_r) / r / min(R, k)``. Its mean over users is MAP@k.

    Source: Tran et al., SIGIR 2019. TREC's ``map_cut`` divides by R instead, so with it a
    list of k < R items cannot reach 1.

    Examples
    --------
    >>> average_precision(np.array([[True, False, True]]), np.array([2])).round(4)
    array([0.8333])
    """
    rank = np.arange(1, hits.shape[1] + 1)
    precisions = np.cumsum(hits, axis=1, dtype=np.int32) / rank
    return _ratio(
        (hits * precisions).sum(axis=1), np.minimum(n_relevant, hits.shape[1]), n_relevant
    )


def ndcg(hits: Bool, n_relevant: Integers) -> Float64:
    """NDCG@k with binary gain: ``sum_r h_r / log2(r + 1)``, divided by its largest possible value.

    The largest possible value is ``1 / log2(r + 1)`` summed over the ranks up to ``min(R, k)``.
    Source: Järvelin and Kekäläinen, TOIS 2002, with the discount that Tran et al. use.

    Examples
    --------
    >>> ndcg(np.array([[True, False, True]]), np.array([2])).round(4)
    array([0.9197])
    """
    discount = 1.0 / np.log2(np.arange(2, hits.shape[1] + 2))
    ideal = np.concatenate([np.zeros(1), np.cumsum(discount)])
    reachable = np.minimum(n_relevant, hits.shape[1])
    return _ratio((hits * discount).sum(axis=1), ideal[reachable], n_relevant)


def recall(hits: Bool, n_relevant: Integers) -> Float64:
    """Recall@k: ``sum_r h_r / R``, at most ``k / R``."""
    return _ratio(hits.sum(axis=1), n_relevant, n_relevant)


def precision(hits: Bool, n_relevant: Integers, k: int | None = None) -> Float64:
    """Precision@k: ``sum_r h_r / k``. A list with fewer than k items is divided by k as well.

    `hits` may have fewer than k columns, if there are fewer than k items; k is their number if
    None.
    """
    length = hits.shape[1] if k is None else k
    return _ratio(hits.sum(axis=1), np.full(len(hits), length), n_relevant)


def reciprocal_rank(hits: Bool, n_relevant: Integers) -> Float64:
    """``1 / r`` for the first hit at rank r, 0 without a hit. Its mean over users is MRR@k."""
    first = np.where(np.any(hits, axis=1), 1.0 / (np.argmax(hits, axis=1) + 1), 0.0)
    return _ratio(first, np.ones(len(hits)), n_relevant)


def hit_rate(hits: Bool, n_relevant: Integers) -> Float64:
    """1 if there is any hit, else 0."""
    return _ratio(np.any(hits, axis=1), np.ones(len(hits)), n_relevant)


def _ratio(
    numerator: npt.NDArray[np.generic], denominator: npt.NDArray[np.generic], n_relevant: Integers
) -> Float64:
    """Divide per user; NaN for those without relevant items."""
    ratio = np.full(len(n_relevant), np.nan)
    np.divide(numerator, denominator, out=ratio, where=n_relevant > 0)
    return ratio


def median_popularity(items: Integers, item_counts: Integers) -> Float64:
    """Median, over a user's recommended items, of the item's training interaction count.

    Its mean over users is MMR, "mean of median rank". Despite the name it is a popularity count,
    low for a model without a bias towards popular items. For an even number of items the median is
    the mean of the middle two. Source: Tran et al., SIGIR 2019.

    Examples
    --------
    >>> median_popularity(np.array([[0, 1, 2], [2, 0, -1]]), np.array([5, 7, 100]))
    array([ 7. , 52.5])
    """
    counts, n_listed = _listed_counts(items, item_counts, np.iinfo(np.int64).max)
    counts.sort(axis=1)
    middle = np.stack([np.maximum(n_listed - 1, 0) // 2, n_listed // 2], axis=1)
    medians = np.take_along_axis(counts, middle, axis=1).mean(axis=1)
    return np.where(n_listed > 0, medians, np.nan)


def mean_popularity(items: Integers, item_counts: Integers) -> Float64:
    """Mean, over a user's recommended items, of the item's training interaction count."""
    counts, n_listed = _listed_counts(items, item_counts, 0)
    return _ratio(counts.sum(axis=1), n_listed, n_listed)


def _listed_counts(items: Integers, item_counts: Integers, missing: int) -> tuple[Int64, Int64]:
    """Return the count of each listed item, `missing` for padding, and the length of each list."""
    counts, padding = item_counts[items].astype(np.int64, copy=False), items < 0
    np.putmask(counts, padding, missing)
    return counts, items.shape[1] - np.count_nonzero(padding, axis=1)


def exposure(items: Integers, n_items: int) -> Int64:
    """Count the lists that contain each item: int64, (n_items,). Counts of parts can be added."""
    return np.bincount(items[items >= 0], minlength=n_items).astype(np.int64)


DECILES: Final = 10


def deciles(item_counts: Integers) -> Int64:
    """Return the decile of popularity of each item, from 0, the most popular tenth; int64 (M,).

    Ties are broken by the smaller row. Decile t, from 0, has the items at the positions
    ``M t / 10 <= position < M (t + 1) / 10``.
    """
    decile = np.empty(len(item_counts), np.int64)
    order = np.argsort(-item_counts, kind="stable")
    decile[order] = np.arange(len(order)) * DECILES // max(len(order), 1)
    return decile


def decile_shares(decile: Int64, count: Integers) -> Float64:
    """Return the share of each decile in a count of each item, (10,); NaN if there are none."""
    total = int(count.sum())
    if total == 0:
        return np.full(DECILES, np.nan)
    return np.bincount(decile, weights=count, minlength=DECILES) / total


def median_popularity_distinct(exposed: Int64, item_counts: Integers) -> float:
    """Median training interaction count of the *distinct* items recommended to any user.

    This is the variant of MMR in the authors' 2021 follow-up code: an item counts once regardless
    of how many lists contain it. NaN if nothing was recommended.

    Parameters
    ----------
    exposed : int64 array of shape (n_items,)
        From `exposure`.
    item_counts : int array of shape (n_items,)
    """
    recommended = item_counts[exposed > 0]
    return float(np.median(recommended)) if recommended.size else float("nan")


def coverage(exposed: Int64) -> float:
    """Share of the items that are recommended to at least one user; NaN if there are no items."""
    return float(np.mean(exposed > 0)) if exposed.size else float("nan")


def gini(exposed: Int64) -> float:
    """Gini coefficient of exposure over the whole catalogue of M items.

    ``sum_i (2 i - M - 1) x_i / (M sum_i x_i)`` with the exposures x_1 <= ... <= x_M. It is 0 if
    every item is recommended equally often, ``1 - 1/M`` if only one item is recommended, and NaN
    if none is.

    Examples
    --------
    >>> gini(np.array([0, 0, 0, 12]))
    0.75
    """
    total = int(exposed.sum())
    if total == 0:
        return float("nan")
    m = len(exposed)
    weight = 2.0 * np.arange(1, m + 1) - m - 1
    # not a BLAS product, because the BLAS threads would busy-wait for a while afterwards
    return float(np.sum(weight * np.sort(exposed)) / (m * total))


@dataclass(frozen=True)
class Metric:
    """An entry of `REGISTRY`."""

    name: str
    """Its name in results, options and files."""
    title: str
    """Its name in printed tables."""
    of: Literal["hits", "hits and k", "items", "exposure"]
    """The arguments of `measure`: (hits, n_relevant), (hits, n_relevant, k) or (items,
    item_counts), which return one value for each user, averaged to the metric; or (exposed,
    item_counts), which return one."""
    measure: Callable[..., Any]
    """The function that computes it."""
    lower_is_better: bool = False
    """Whether the best epoch is the one with the smallest value."""
    is_count: bool = False
    """Whether it counts users; otherwise it is a ratio."""
    shown: Literal["short", "card", "full"] = "short"
    """The shortest table that contains it: those of the demo and of folds, the model card, or the
    full table."""

    @property
    def is_per_user(self) -> bool:
        """Whether it has a value for each user."""
        return self.of != "exposure"


def _popular(name: str, title: str, measure: Callable[[Any, Any], Any], **how: Any) -> Metric:
    return Metric(name, title, measure=measure, lower_is_better=True, is_count=True, **how)


REGISTRY: Final[dict[str, Metric]] = {
    metric.name: metric
    for metric in (
        Metric("map", "MAP", "hits", average_precision),
        Metric("ndcg", "NDCG", "hits", ndcg),
        Metric("recall", "recall", "hits", recall),
        Metric("precision", "precision", "hits and k", precision, shown="card"),
        Metric("mrr", "MRR", "hits", reciprocal_rank, shown="full"),
        Metric("hit_rate", "hit rate", "hits", hit_rate, shown="full"),
        _popular("mmr", "MMR", median_popularity, of="items"),
        _popular("mean_popularity", "mean popularity", mean_popularity, of="items", shown="full"),
        _popular(
            "mmr_distinct", "distinct MMR", median_popularity_distinct, of="exposure", shown="full"
        ),
        Metric("coverage", "coverage", "exposure", lambda exposed, _: coverage(exposed)),
        Metric(
            "gini",
            "Gini",
            "exposure",
            lambda exposed, _: gini(exposed),
            lower_is_better=True,
            shown="card",
        ),
    )
}
"""All metrics, by name; those with a value for each user come first."""


def per_user() -> tuple[str, ...]:
    """Return the names of the metrics that are means over users."""
    return tuple(name for name, metric in REGISTRY.items() if metric.is_per_user)


def overall() -> tuple[str, ...]:
    """Return the names of the metrics of all lists together, without a value for each user."""
    return tuple(name for name, metric in REGISTRY.items() if not metric.is_per_user)


def names(shown: Literal["short", "card", "full"] = "full") -> tuple[str, ...]:
    """Return the names of the metrics in a table: all, those of the card, or of short tables."""
    lengths = ("short", "card", "full")
    fit = lengths[: lengths.index(shown) + 1]
    return tuple(name for name in (*per_user(), *overall()) if REGISTRY[name].shown in fit)
