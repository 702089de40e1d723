"""The metrics of a recommender: values for each user, means, and their uncertainty."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from nearfar.errors import OptionError
from nearfar.evaluation.metrics import names, overall, per_user
from nearfar.runtime.arrays import Float64
from nearfar.runtime.checks import checked_seed, one_of, share, whole
from nearfar.runtime.counter import Purpose, bits_at, stream_at, stream_base
from nearfar.runtime.jit import kernel


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The metrics of one recommender on one split; ``evaluation["ndcg"]`` returns one of them.

    Printing it shows a table of means with their standard errors.
    """

    k: int
    """Length of the lists."""
    n_users: int
    """Number of evaluated users: those with test items."""
    n_skipped: int
    """Number of users without test items, who are left out of all metrics."""
    metrics: dict[str, float]
    """Each metric of `nearfar.evaluation.metrics.REGISTRY`: map, ndcg, recall, precision, mrr,
    hit_rate, mmr, mean_popularity, mmr_distinct, coverage, gini."""
    per_user: pl.DataFrame = field(repr=False)
    """Columns user_id, n_relevant, and each metric that has a value for each user."""
    n_new_users: int = 0
    """Number of users with test items but without training interactions."""
    n_folded_in: int = 0
    """Number of these that were folded in and evaluated; the others are left out of all metrics."""
    popularity: float | None = None
    """The setting of the popularity dial that was asked for; None for the recommender's own."""
    candidates: str = "all"
    """The items that were ranked: "all", "warm" or "cold"."""

    def __getitem__(self, name: str) -> float:
        self._check(name, names())
        return self.metrics[name]

    def standard_error(self, name: str) -> float:
        """Return the standard error of a mean over users, ``s / sqrt(n)``, s with ddof = 1.

        NaN for fewer than two users.

        Raises
        ------
        OptionError
            There is no such metric, or it has no value for each user.
        """
        values = self._values(name)
        return standard_error(values)

    def bootstrap(
        self, name: str, n: int = 1000, *, seed: int = 0, level: float = 0.95
    ) -> tuple[float, float]:
        """Return a percentile bootstrap interval of a mean, resampling users with replacement.

        Parameters
        ----------
        name : str
            A metric that has a value for each user.
        n : int
            Number of bootstrap samples.
        seed : int
        level : float
            Share of the resampled means inside the interval.

        Returns
        -------
        (float, float)
            NaN if no user has a value.

        Raises
        ------
        OptionError
            There is no such metric, or `n` or `level` is out of range.
        """
        values = self._values(name)
        n, level, seed = whole("n", n, 1, 10**7), share("level", level), checked_seed(seed)
        if not len(values):
            return np.nan, np.nan
        means = np.empty(n)
        _resampled_means(values, stream_base(seed, Purpose.BOOTSTRAP), means)
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def to_dict(self) -> dict[str, Any]:
        """Return everything except the values of each user, for JSON; NaN becomes None."""
        errors = {name: self.standard_error(name) for name in per_user()}
        return {
            "k": self.k,
            "n_users": self.n_users,
            "n_skipped": self.n_skipped,
            "n_new_users": self.n_new_users,
            "n_folded_in": self.n_folded_in,
            "popularity": self.popularity,
            "candidates": self.candidates,
            "metrics": {name: _or_none(value) for name, value in self.metrics.items()},
            "standard_errors": {name: _or_none(value) for name, value in errors.items()},
        }

    def __str__(self) -> str:
        skipped = f"; {self.n_skipped:,} without test items left out" if self.n_skipped else ""
        new = f"; {self.new_users_in_words()}" if self.n_new_users else ""
        dial = "" if self.popularity is None else f" at popularity {self.popularity:g}"
        among = "" if self.candidates == "all" else f" among {self.candidates} items"
        lines = [f"top {self.k} of {self.n_users:,} users{dial}{among}{skipped}{new}"]
        for name in per_user():
            mean, error = self.metrics[name], self.standard_error(name)
            lines.append(f"{name:<16}{mean:>12.4f} ± {error:.4f}")
        lines += [f"{name:<16}{self.metrics[name]:>12.4f}" for name in overall()]
        return "\n".join(lines)

    def new_users_in_words(self) -> str:
        """Return what happened to users without training interactions, for a report."""
        left_out = self.n_new_users - self.n_folded_in
        parts = [f"{self.n_folded_in:,} folded in"] if self.n_folded_in else []
        parts += [f"{left_out:,} left out"] if left_out else []
        return f"{' and '.join(parts) or '0'} without training interactions"

    def _values(self, name: str) -> Float64:
        self._check(name, per_user())
        values = self.per_user[name].to_numpy()
        return np.asarray(values[~np.isnan(values)])

    @staticmethod
    def _check(name: str, known: tuple[str, ...]) -> None:
        if name not in known and name in overall():
            raise OptionError(
                f"`name` {name!r} is a metric of all lists; it has no per-user values."
            )
        one_of("name", name, known)


def standard_error(values: Float64) -> float:
    """Return ``s / sqrt(n)`` of values without NaN, s with ddof = 1; NaN for fewer than two."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.nan


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value


@kernel
def _resampled_means(values: Float64, base: np.uint64, out: Float64) -> None:
    n = values.shape[0]
    for sample in range(out.shape[0]):
        key = stream_at(base, sample)
        total = 0.0
        for position in range(n):
            total += values[bits_at(key, position, 0) % np.uint64(n)]
        out[sample] = total / n
