"""Means over users, of one process or of several that have evaluated different users."""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np

from nearfar.evaluation.result import standard_error
from nearfar.runtime.arrays import Float64, Int64
from nearfar.search.shard_search import Ranks, parts_of


class Averages(Protocol):
    """Where values of users are averaged."""

    def parts(self, n: int, at_once: int) -> list[slice]:
        """Divide this process's n users; every process gets the same number of slices."""
        ...

    def mean(self, values: Float64) -> float:
        """Return the mean over all users, of whom this process has `values`; NaN if none."""
        ...

    def error(self, values: Float64) -> float:
        """Return the standard error of this mean, ``s / sqrt(n)``; NaN for fewer than two."""
        ...

    def added(self, counts: Int64) -> Int64:
        """Return the sums of counts over the processes."""
        ...


class Alone:
    """One process has all users."""

    def parts(self, n: int, at_once: int) -> list[slice]:
        """Divide the users; see `Averages.parts`."""
        return [slice(i, min(i + at_once, n)) for i in range(0, n, at_once)]

    def mean(self, values: Float64) -> float:
        """Average; see `Averages.mean`."""
        return float(values.mean()) if len(values) else np.nan

    def error(self, values: Float64) -> float:
        """Return the standard error; see `Averages.error`."""
        return standard_error(values)

    def added(self, counts: Int64) -> Int64:
        """Return the counts."""
        return counts


ALONE: Final = Alone()


class Joint:
    """Each of several ranks has users of its own.

    Sums are of each rank's sum, so a mean may differ from that of one process in its last bits.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks

    def parts(self, n: int, at_once: int) -> list[slice]:
        """Divide this rank's users; see `Averages.parts`."""
        return parts_of(self.ranks, n, at_once)

    def mean(self, values: Float64) -> float:
        """Average over the ranks; see `Averages.mean`."""
        total, n = self._total(values.sum(), len(values))
        return total / n if n else np.nan

    def error(self, values: Float64) -> float:
        """Return the standard error over the ranks; see `Averages.error`."""
        away = values - self.mean(values)
        squares, n = self._total(np.sum(away * away), len(values))
        return float(np.sqrt(squares / (n - 1) / n)) if n > 1 else np.nan

    def added(self, counts: Int64) -> Int64:
        """Add over the ranks; exact below 2^53."""
        return self.ranks.total(counts.astype(np.float64)).astype(np.int64)

    def _total(self, *values: float) -> list[float]:
        found: list[float] = self.ranks.total(np.array(values, np.float64)).tolist()
        return found
