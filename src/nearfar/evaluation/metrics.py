"""Metrics of ranked lists: pure functions of arrays, and `REGISTRY`, which names them.

To add a metric, write its function and give it an entry there: `nearfar.evaluate`, its printed
table, the history of a run, ``metric=`` of `CML.fit`, the model card, reports and the command line
know it from then on.

Accuracy is per user and takes

- `hits`, bool, (n_users, k): whether the item at each rank is relevant, rank 1 first; False where a
  list is shorter than k;
- `n_relevant`, int, (n_users,): how many relevant items the user has at all.

The result is float64, (n_users,), and NaN for a user without relevant items, who has no place in a
mean. Let h_r be the hit at rank r and R the number of relevant items.

Popularity takes the recommended items themselves, int, (n_users, k), padded with -1 where a list is
short, and the *training* interaction count of every item. Padding is ignored; an empty list is NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from nearfar.runtime.arrays import Bool, Float64, Int64, Integers


def average_precision(hits: Bool, n_relevant: Integers) -> Float64:
    """AP@k: ``sum_r h_r * (h_1 + ... + h_r) / r / min(R, k)``. Its mean over users is MAP@k.

    Source: Tran et al., SIGIR 2019. TREC's ``map_cut`` divides by R instead, so there a
    list of k < R items cannot reach 1.

    Examples
    --------
    >>> average_precision(np.array([[True, False, True]]), np.array([2])).round(4)
    array([0.8333])
    """
    rank = np.arange(1, hits.shape[1] + 1)
    precisions = np.where(hits, np.cumsum(hits, axis=1) / rank, 0.0)
    return _ratio(precisions.sum(axis=1), np.minimum(n_relevant, hits.shape[1]), n_relevant)


def ndcg(hits: Bool, n_relevant: Integers) -> Float64:
    """NDCG@k of binary gain: ``sum_r h_r / log2(r + 1)``, divided by its largest possible value.

    That is ``1 / log2(r + 1)`` summed over the ranks up to ``min(R, k)``. Source: Järvelin and
    Kekäläinen, TOIS 2002, with the discount that Tran et al. use.

    Examples
    --------
    >>> ndcg(np.array([[True, False, True]]), np.array([2])).round(4)
    array([0.9197])
    """
    discount = 1.0 / np.log2(np.arange(2, hits.shape[1] + 2))
    ideal = np.concatenate([np.zeros(1), np.cumsum(discount)])
    reachable = np.minimum(n_relevant, hits.shape[1])
    return _ratio(np.where(hits, discount, 0.0).sum(axis=1), ideal[reachable], n_relevant)


def recall(hits: Bool, n_relevant: Integers) -> Float64:
    """Recall@k: ``sum_r h_r / R``. At most ``k / R``."""
    return _ratio(hits.sum(axis=1), n_relevant, n_relevant)


def precision(hits: Bool, n_relevant: Integers) -> Float64:
    """Precision@k: ``sum_r h_r / k``. A list with fewer than k items is divided by k as well."""
    return _ratio(hits.sum(axis=1), np.full(len(hits), hits.shape[1]), n_relevant)


def reciprocal_rank(hits: Bool, n_relevant: Integers) -> Float64:
    """``1 / r`` of the first hit, 0 without one. Its mean over users is MRR@k."""
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

    Its mean over users is MMR, "mean of median rank": despite the name a popularity count, low for
    a model that is not biased to popular items. Of an even number of items it is the mean of the
    middle two. Source: Tran et al., SIGIR 2019.

    Examples
    --------
    >>> median_popularity(np.array([[0, 1, 2], [2, 0, -1]]), np.array([5, 7, 100]))
    array([ 7. , 52.5])
    """
    listed = items >= 0
    counts = np.where(listed, item_counts[items], np.iinfo(np.int64).max)
    counts.sort(axis=1)
    n_listed = listed.sum(axis=1)
    middle = np.stack([np.maximum(n_listed - 1, 0) // 2, n_listed // 2], axis=1)
    medians = np.take_along_axis(counts, middle, axis=1).mean(axis=1)
    return np.where(n_listed > 0, medians, np.nan)


def mean_popularity(items: Integers, item_counts: Integers) -> Float64:
    """Mean, over a user's recommended items, of the item's training interaction count."""
    listed = items >= 0
    return _ratio(
        np.where(listed, item_counts[items], 0).sum(axis=1),
        listed.sum(axis=1),
        listed.sum(axis=1),
    )


def exposure(items: Integers, n_items: int) -> Int64:
    """Count the lists that hold each item: int64, (n_items,). The sum over parts is the whole."""
    return np.bincount(items[items >= 0], minlength=n_items).astype(np.int64)


def median_popularity_distinct(exposed: Int64, item_counts: Integers) -> float:
    """Median training interaction count of the *distinct* items recommended to anybody.

    The variant of MMR in the authors' 2021 follow-up code; an item counts once however many lists
    it is in. NaN if nothing was recommended.

    Parameters
    ----------
    exposed : int64 array of shape (n_items,)
        From `exposure`.
    item_counts : int array of shape (n_items,)
    """
    recommended = item_counts[exposed > 0]
    return float(np.median(recommended)) if recommended.size else float("nan")


def coverage(exposed: Int64) -> float:
    """Share of the catalogue that is recommended to at least one user; NaN without a catalogue."""
    return float(np.mean(exposed > 0)) if exposed.size else float("nan")


def gini(exposed: Int64) -> float:
    """Gini coefficient of exposure over the whole catalogue of M items.

    ``sum_i (2 i - M - 1) x_i / (M sum_i x_i)`` with the exposures x_1 <= ... <= x_M. 0 when every
    item is recommended equally often, ``1 - 1/M`` when one item takes all; NaN without exposure.

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
    # not a product of BLAS, whose threads spin for a while after it
    return float(np.sum(weight * np.sort(exposed)) / (m * total))


@dataclass(frozen=True)
class Metric:
    """An entry of `REGISTRY`."""

    name: str
    """What it is called in results, options and files."""
    title: str
    """What it is called in tables for readers."""
    of: Literal["hits", "items", "exposure"]
    """What `measure` is a function of: (hits, n_relevant) or (items, item_counts), with one number
    a user as the result, whose mean is the metric; or (exposed, item_counts), with one number."""
    measure: Callable[[Any, Any], Any]
    """The function."""
    lower_is_better: bool = False
    """Whether training keeps the epoch with the smallest."""
    is_count: bool = False
    """Whether it counts users; otherwise it is a share."""
    shown: Literal["short", "card", "full"] = "short"
    """The shortest table that has it: those of the demo and of folds, the model card, or all."""

    @property
    def is_per_user(self) -> bool:
        """Whether each user has a value of it."""
        return self.of != "exposure"


def _popular(name: str, title: str, measure: Callable[[Any, Any], Any], **how: Any) -> Metric:
    return Metric(name, title, measure=measure, lower_is_better=True, is_count=True, **how)


REGISTRY: Final[dict[str, Metric]] = {
    metric.name: metric
    for metric in (
        Metric("map", "MAP", "hits", average_precision),
        Metric("ndcg", "NDCG", "hits", ndcg),
        Metric("recall", "recall", "hits", recall),
        Metric("precision", "precision", "hits", precision, shown="card"),
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
"""Every metric, by name; those that have a value for each user come first."""


def per_user() -> tuple[str, ...]:
    """List the metrics that are means over users."""
    return tuple(name for name, metric in REGISTRY.items() if metric.is_per_user)


def overall() -> tuple[str, ...]:
    """List the metrics of all lists together, without a value for each user."""
    return tuple(name for name, metric in REGISTRY.items() if not metric.is_per_user)


def names(shown: Literal["short", "card", "full"] = "full") -> tuple[str, ...]:
    """List the metrics that a table has: all, those of the card, or those of short tables."""
    lengths = ("short", "card", "full")
    fit = lengths[: lengths.index(shown) + 1]
    return tuple(name for name in (*per_user(), *overall()) if REGISTRY[name].shown in fit)
