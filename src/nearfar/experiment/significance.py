"""Significance of the difference of two settings: paired tests over users and over folds.

The two tests answer different questions about the same metrics.

*Over users x folds*: do these trained models differ for users like these? The differences of all
users in all folds are the sample (n is in the thousands), so even a small difference is found. But
a user occurs in every fold, and all users of a fold share the same two models, with the random
variation of their training: as a statement about the *methods*, these p-values are too small.

*Over folds*: would the methods differ again if they were trained on another part of the data? Each
fold contributes one difference of means (n is the number of folds), which includes this variation.
Few folds have little power; and because their training sets overlap, this p-value is also somewhat
too small.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np
import polars as pl
from scipy import special

from nearfar.errors import DataError, EmptyDataError, MissingColumnError, OptionError
from nearfar.runtime.arrays import Float64
from nearfar.runtime.checks import plain_text, said
from nearfar.runtime.forks import check_fork

CONFIDENCE: Final = 0.95
"""The confidence level of the intervals of mean differences."""
KEYS: Final = ("fold", "user_id")
"""The columns that identify a row."""
P_VALUES: Final = ("wilcoxon_p", "t_p", "fold_p")
"""The three p-values of a `Comparison`."""


@dataclass(frozen=True)
class Comparison:
    """The difference a - b of a metric between two settings a and b.

    Statistics that are undefined for so few values, such as the interval of a single one, are NaN.
    """

    metric: str
    n: int
    """Number of pairs of values: users x folds in which both settings have one."""
    folds: int
    """Number of folds on which both were tested."""
    mean_a: float
    mean_b: float
    """Means over the n pairs."""
    difference: float
    """Mean difference over the n pairs: the effect size, in units of the metric."""
    low: float
    high: float
    """Limits of the 95% t interval of `difference`."""
    wilcoxon_p: float
    """p-value of the two-sided Wilcoxon signed-rank test over the n pairs."""
    t_p: float
    """p-value of the two-sided paired t-test over the n pairs."""
    fold_difference: float
    """Mean, over folds, of the mean difference in the fold."""
    fold_low: float
    fold_high: float
    """Limits of the 95% t interval of `fold_difference`."""
    fold_p: float
    """p-value of the two-sided paired t-test over folds."""


def paired(a: pl.DataFrame, b: pl.DataFrame, metric: str) -> Comparison:
    """Compare two settings by a metric of each user in each fold.

    Parameters
    ----------
    a, b : DataFrame
        Columns ``fold`` and ``user_id``, in distinct pairs, and the metric. Folds of only one
        setting are left out; a fold of both must have the same users. Users for whom the metric is
        NaN or null in either setting are left out.
    metric : str
        The column to compare.

    Returns
    -------
    Comparison

    Raises
    ------
    MissingColumnError
        A column is missing.
    DataError
        A user occurs twice, or users or the types of their ids differ.
    EmptyDataError
        The settings have no fold or no value in common.

    Notes
    -----
    Wilcoxon's test is that of scipy with ``zero_method="wilcox"``: zero differences are left out,
    and if no others remain, p is 1. The p-value of the t-tests is also 1 if all differences are
    zero. Differences are rounded to 12 decimal places before ranking, so that ties that differ only
    by rounding errors are ties.

    Examples
    --------
    >>> a = pl.DataFrame({"fold": [0, 0, 0], "user_id": [7, 8, 9], "map": [0.5, 0.25, 0.75]})
    >>> b = a.with_columns(map=pl.Series([0.25, 0.25, 0.25]))
    >>> found = paired(a, b, "map")
    >>> found.difference, found.wilcoxon_p
    (0.25, 0.5)
    """
    check_fork()
    both = _joined(a, b, plain_text("metric", metric))
    x, y = both["a"].to_numpy(), both["b"].to_numpy()
    difference = x - y
    by_fold = both.group_by("fold", maintain_order=True).agg((pl.col("a") - pl.col("b")).mean())
    of_folds = by_fold["a"].to_numpy()
    mean, low, high, t_p = _t_test(difference)
    fold_mean, fold_low, fold_high, fold_p = _t_test(of_folds)
    return Comparison(
        metric, len(x), len(of_folds), float(x.mean()), float(y.mean()), mean, low, high,
        _wilcoxon(difference), t_p, fold_mean, fold_low, fold_high, fold_p,
    )  # fmt: skip


def holm(p_values: Sequence[float] | Float64) -> Float64:
    """Correct p-values for their number, by Holm's step-down procedure (1979).

    With p_1 <= ... <= p_m the adjusted value of p_i is max over j <= i of min(1, (m - j + 1) p_j).
    If all hypotheses with adjusted values below 0.05 are rejected, the probability of any false
    rejection among the m tests is at most 0.05.

    Parameters
    ----------
    p_values : sequence of float
        A NaN stands for a test that is undefined: it stays NaN and does not count in m.

    Returns
    -------
    float64 array
        In the given order.

    Raises
    ------
    OptionError
        A value is not between 0 and 1.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, np.float64)
    made = np.flatnonzero(~np.isnan(p))
    if ((p[made] < 0) | (p[made] > 1)).any():
        raise OptionError(f"`p_values` must lie between 0 and 1; got {p[made].tolist()}.")
    order = made[np.argsort(p[made], kind="stable")]
    scaled = p[order] * np.arange(len(order), 0, -1)
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def all_pairs(users: Mapping[str, pl.DataFrame], metrics: Sequence[str]) -> pl.DataFrame:
    """Compare all pairs of settings, and correct for the number of pairs, separately by metric.

    Parameters
    ----------
    users : mapping of str to DataFrame
        For each setting a frame as in `paired`.
    metrics : sequence of str

    Returns
    -------
    DataFrame
        A row for each metric and pair: ``a`` and ``b``, the names, in the order of `users`; the
        fields of `Comparison`; and ``wilcoxon_p_holm``, ``t_p_holm`` and ``fold_p_holm``. Undefined
        statistics are null, and all statistics of a pair without a common fold or value.

    Raises
    ------
    MissingColumnError, DataError
        As `paired`.
    """
    pairs = combinations(users.items(), 2)
    return _corrected([(*one, *other) for one, other in pairs], metrics)


def each_setting(
    a: Mapping[str, pl.DataFrame], b: Mapping[str, pl.DataFrame], metrics: Sequence[str]
) -> pl.DataFrame:
    """Compare two versions of each setting, and correct for the number of settings.

    Parameters
    ----------
    a, b : mapping of str to DataFrame
        For each setting a frame as in `paired`; settings of only one of them are left out.
    metrics : sequence of str

    Returns
    -------
    DataFrame
        As that of `all_pairs`; ``a`` and ``b`` are the same name.

    Raises
    ------
    MissingColumnError, DataError
        As `paired`.
    """
    return _corrected([(name, a[name], name, b[name]) for name in a if name in b], metrics)


def _corrected(
    pairs: Sequence[tuple[str, pl.DataFrame, str, pl.DataFrame]], metrics: Sequence[str]
) -> pl.DataFrame:
    """Compare pairs of (name, frame, name, frame), and correct for their number."""
    check_fork()
    parts = []
    for metric in metrics:
        rows = [
            {"a": one, "b": other, **_compared(of_one, of_other, metric)}
            for one, of_one, other, of_other in pairs
        ]
        found = pl.DataFrame(rows, schema=_SCHEMA)
        corrected = {
            f"{name}_holm": holm(found[name].fill_null(np.nan).to_numpy()) for name in P_VALUES
        }
        parts.append(found.hstack(pl.DataFrame(corrected)))
    return pl.concat(parts).fill_nan(None)


_SCHEMA: Final = {
    "a": pl.String(), "b": pl.String(), "metric": pl.String(), "n": pl.Int64(), "folds": pl.Int64(),
} | dict.fromkeys(
    ("mean_a", "mean_b", "difference", "low", "high", "wilcoxon_p", "t_p",
     "fold_difference", "fold_low", "fold_high", "fold_p"),
    pl.Float64(),
)  # fmt: skip


def _compared(a: pl.DataFrame, b: pl.DataFrame, metric: str) -> dict[str, Any]:
    try:
        return asdict(paired(a, b, metric))
    except EmptyDataError:  # an unfinished run
        return {"metric": metric, "n": 0, "folds": 0}


def _joined(a: pl.DataFrame, b: pl.DataFrame, metric: str) -> pl.DataFrame:
    """Return fold, user and both values, in the order of a, without NaN."""
    for name, frame in (("a", a), ("b", b)):
        if not isinstance(frame, pl.DataFrame):
            raise DataError(f"`{name}` must be a polars DataFrame; got {said(frame)}.")
        _check(name, frame, metric)
    if a["user_id"].dtype != b["user_id"].dtype:
        raise DataError(
            f"The user ids of `a` and `b` must be of one type; got {a['user_id'].dtype} and "
            f"{b['user_id'].dtype}. Compare settings on the same data."
        )
    folds = sorted(set(a["fold"]) & set(b["fold"]))
    if not folds:
        raise EmptyDataError("`a` and `b` have no fold in common; test both on the same folds.")
    left, right = (
        frame.filter(pl.col("fold").is_in(folds)).select(
            *KEYS, pl.col(metric).cast(pl.Float64).alias(name)
        )
        for name, frame in (("a", a), ("b", b))
    )
    both = left.join(right, on=list(KEYS), how="inner", maintain_order="left")
    if not both.height == left.height == right.height:
        raise DataError(
            f"`a` and `b` must have the same users in each fold; got {left.height} and "
            f"{right.height} rows, of which {both.height} are in both. Compare settings on the "
            "same data, split in the same way."
        )
    valued = both.fill_nan(None).drop_nulls()
    if valued.height == 0:
        raise EmptyDataError(f"No user has a value of {metric!r} in both `a` and `b`.")
    return valued


def _check(name: str, frame: pl.DataFrame, metric: str) -> None:
    missing = [column for column in (*KEYS, metric) if column not in frame.columns]
    if missing:
        raise MissingColumnError(
            f"`{name}` must have the columns fold, user_id and {metric!r}; {missing[0]!r} is not "
            f"among {', '.join(frame.columns)}."
        )
    if not frame[metric].dtype.is_numeric() or frame["user_id"].dtype == pl.Object:
        raise DataError(
            f"`{name}` must have numbers in {metric!r} and ids of one type in 'user_id'; got "
            f"{frame[metric].dtype} and {frame['user_id'].dtype}."
        )
    twice = frame.select(KEYS).is_duplicated()
    if twice.any():
        fold, user = frame.select(KEYS).filter(twice).row(0)
        raise DataError(
            f"`{name}` must have each user once in a fold; got user {user!r} more than once in "
            f"fold {fold}. Pass the metrics of a single setting."
        )


def _t_test(values: Float64) -> tuple[float, float, float, float]:
    """Return the mean, its interval and the p-value of a t-test against 0."""
    n, mean = len(values), float(values.mean())
    if n < 2:
        return mean, np.nan, np.nan, np.nan
    error = float(np.std(values, ddof=1)) / np.sqrt(n)
    half = float(special.stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * error
    if error == 0.0:
        return mean, mean, mean, float(mean == 0.0)
    p = 2.0 * float(special.stdtr(n - 1, -abs(mean) / error))
    return mean, mean - half, mean + half, p


def _wilcoxon(differences: Float64) -> float:
    from scipy import stats  # slow to import, and only reports need it

    rounded = np.round(differences, 12)
    if not rounded.any():
        return 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # older versions of scipy warn about small samples
        return float(stats.wilcoxon(rounded, zero_method="wilcox").pvalue)
