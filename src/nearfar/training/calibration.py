"""Calibration of the score: gamma, the factor of log f_j, and lambda, that of co-occurrence.

With a validation part, gamma is the one of `gammas` that is best on it by a metric, all tried in
one pass over the products; without, it follows from beta and T (`nearfar.method.prior`). Before
that, with gamma by the rule, lambda is the best of `nearfar.method.co_occurrence.WEIGHTS`, and
without a validation part its usual value. The epochs of a run are compared without the term of
co-occurrence, which does not depend on the points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Protocol

import numpy as np
import polars as pl

from nearfar.data.interactions import Interactions
from nearfar.engine import Problem
from nearfar.evaluation import metrics
from nearfar.evaluation.averages import ALONE, Averages
from nearfar.evaluation.front import Front, at_gammas
from nearfar.evaluation.ranking import evaluate
from nearfar.method.co_occurrence import DEFAULT_WEIGHT, WEIGHTS
from nearfar.method.prior import ItemWeights, gamma_by_rule
from nearfar.runtime.arrays import Float32
from nearfar.search.item_item import NearItems, Terms, near_items
from nearfar.search.neighbours import Points
from nearfar.search.scoring import scorer_of
from nearfar.training.schedule import Schedule

STEP: Final = 0.01
"""Between two values of gamma that are tried."""
USUAL, MOST = 15, 60
"""The largest value that is tried, in steps: always, and at most."""


def gammas(rule: float) -> tuple[float, ...]:
    """Return the values that are tried: 0, .01, ... to .15, or to 1.5 times gamma by the rule.

    Scores on the sphere lie between -1 and 1, and log f_j seldom exceeds 10. T is larger with few
    items, and so is gamma.

    Examples
    --------
    >>> gammas(0.02)[-2:], gammas(0.2)[-1], gammas(7.0)[-1]
    ((0.14, 0.15), 0.3, 0.6)
    """
    last = min(max(USUAL, math.ceil(round(1.5 * rule / STEP, 6))), MOST)
    return tuple(round(n * STEP, 6) for n in range(last + 1))


def expected_gamma(problem: Problem) -> float:
    """Return gamma before it is calibrated: that of the options, or the rule's; 0 without prior."""
    prior = problem.options.prior
    if prior is None:
        return 0.0
    return by_rule(problem) if prior.gamma is None else prior.gamma


def by_rule(problem: Problem) -> float:
    """Return gamma by the rule for the sampler and the temperature."""
    counts, temperature = problem.interactions.item_counts, problem.triplet.known_temperature
    return gamma_by_rule(problem.options.sampler, counts, temperature, problem.n_negatives)


def expected_weight(problem: Problem) -> Float32 | None:
    """Return b_j by `expected_gamma` at the prior's own setting, float32 (M,); None if it is 0."""
    prior = problem.options.prior
    gamma = 0.0 if prior is None else expected_gamma(problem) * prior.popularity
    return None if gamma == 0.0 else ItemWeights(gamma, problem.log_popularity).at(1.0)


class Calibration(NamedTuple):
    """The factors of a score, and how they were found."""

    gamma: float
    table: pl.DataFrame | None = None
    """The front on the validation part, a row for each of `gammas`: the columns of `Front.frame`,
    popularity being the setting of the dial that has this gamma, and ``k``. None if gamma is 0 or
    was not found on a validation part."""
    weight: float = 0.0
    """lambda, the factor of the term of co-occurrence."""
    near: NearItems | None = None
    """The neighbours of the items of the model; None if lambda is 0."""


def uncalibrated(problem: Problem) -> Calibration:
    """Return gamma and lambda without a validation part."""
    return Calibration(expected_gamma(problem), weight=expected_lambda(problem))


def calibrated(
    problem: Problem,
    users: Float32,
    items: Float32,
    validation: Interactions | None,
    schedule: Schedule,
    threads: int | None,
) -> Calibration:
    """Return gamma and lambda of a trained model, and the front from which gamma was chosen.

    Parameters
    ----------
    problem : Problem
    users, items : float32 arrays of shape (N, d) and (M, d)
        The points.
    validation : Interactions or None
    schedule : Schedule
        Its metric and k are those by which both are chosen.
    threads : int, optional
    """
    if validation is None:
        return uncalibrated(problem)
    points = scorer_of(users, items, problem.options.geometry)
    return calibrated_by(Rankings(points, problem, validation, schedule, threads), problem, threads)


class Comparisons(Protocol):
    """Rankings of the validation part by a model's points, in one process or in several."""

    @property
    def schedule(self) -> Schedule:
        """Its metric and k are those of the comparisons."""
        ...

    @property
    def pool(self) -> Averages:
        """Where the users are."""
        ...

    def near(self, near: NearItems, weight: float) -> Comparisons:
        """Return comparisons of scores with the term of co-occurrence."""
        ...

    def metric(self, weight: Float32 | None) -> float:
        """Return the schedule's metric with a weight (M,) on the items."""
        ...

    def front(self, gammas: Sequence[float]) -> Front:
        """Return the front of the weights gamma log f_j for several gamma."""
        ...


@dataclass(frozen=True, eq=False)
class Rankings:
    """Comparisons in one process, which has all points."""

    points: Points
    problem: Problem
    validation: Interactions
    schedule: Schedule
    threads: int | None
    pool: Averages = ALONE

    def near(self, near: NearItems, weight: float) -> Rankings:
        """Add the term of co-occurrence; see `Comparisons.near`."""
        train = self.problem.interactions
        terms = Terms(near, weight, (train.indptr, train.items))
        return replace(self, points=self.points.near(terms))

    def metric(self, weight: Float32 | None) -> float:
        """Evaluate; see `Comparisons.metric`."""
        train, k, threads = self.problem.interactions, self.schedule.k, self.threads
        points = self.points.weighted(weight)
        found = evaluate(points, train, self.validation, k=k, threads=threads)
        return found[self.schedule.metric]

    def front(self, gammas: Sequence[float]) -> Front:
        """Evaluate at several gamma; see `Comparisons.front`."""
        return at_gammas(
            self.points,
            self.problem.interactions,
            self.validation,
            gammas,
            k=self.schedule.k,
            log_counts=self.problem.log_popularity,
            threads=self.threads,
        )


def calibrated_by(
    compared: Comparisons, problem: Problem, threads: int | None = None
) -> Calibration:
    """Return gamma and lambda by the comparisons of a trained model's points; see `calibrated`."""
    prior, neighbours = problem.options.prior, problem.options.neighbours
    expected, train = uncalibrated(problem), problem.interactions
    gamma, weight = expected.gamma, expected.weight
    finds_gamma = prior is not None and prior.gamma is None
    finds_weight = neighbours is not None and neighbours.weight is None
    if not (finds_gamma or finds_weight):
        return expected
    if neighbours is not None and weight > 0.0:
        own = (train.indptr, train.items)
        near = near_items(own, train.n_items, neighbours.nearest, threads=threads)
        if finds_weight:
            expects = expected_weight(problem)
            tried = [compared.near(near, one).metric(expects) for one in WEIGHTS]
            weight = WEIGHTS[_best_of(tried, compared.schedule.metric)]
        compared = compared.near(near, weight) if weight > 0.0 else compared
    if prior is None or not finds_gamma:
        return Calibration(gamma, weight=weight)
    return _gamma_by(compared, problem, one_error=prior.one_error)._replace(weight=weight)


def found_on(
    points: Points,
    problem: Problem,
    validation: Interactions,
    schedule: Schedule,
    threads: int | None,
    *,
    one_error: bool = False,
) -> Calibration:
    """Return the one of `gammas` that is best on the validation part; see `chosen`.

    Parameters
    ----------
    points : Points
        Users and items, without a weight.
    problem : Problem
        f_j is counted in its interactions, and these are left out of the lists.
    validation : Interactions
    schedule : Schedule
        Its metric and k are those by which gamma is chosen.
    threads : int, optional
    one_error : bool
        As in `chosen`.
    """
    compared = Rankings(points, problem, validation, schedule, threads)
    return _gamma_by(compared, problem, one_error=one_error)


def _gamma_by(compared: Comparisons, problem: Problem, *, one_error: bool) -> Calibration:
    """Return the best one of `gammas`, and the front that shows it."""
    tried, metric = gammas(by_rule(problem)), compared.schedule.metric
    found = compared.front(tried)
    gamma = chosen(found, tried, metric, one_error=one_error, pool=compared.pool)
    if gamma == 0.0:
        return Calibration(gamma)
    setting = pl.Series("popularity", [one / gamma for one in tried])
    table = found.frame.insert_column(0, setting).with_columns(k=pl.lit(found.k))
    return Calibration(gamma, table)


def expected_lambda(problem: Problem) -> float:
    """Return lambda before it is calibrated: that of the options, or the usual one; 0 for none."""
    neighbours = problem.options.neighbours
    if neighbours is None:
        return 0.0
    return DEFAULT_WEIGHT if neighbours.weight is None else neighbours.weight


def _best_of(values: Sequence[float], metric: str) -> int:
    """Return which of several values of a metric is best; the first of equals."""
    sign = -1.0 if metrics.REGISTRY[metric].lower_is_better else 1.0
    return int(np.argmax([sign * value for value in values]))


def chosen(
    front: Front,
    gammas: Sequence[float],
    metric: str,
    *,
    one_error: bool = False,
    pool: Averages = ALONE,
) -> float:
    """Return the gamma whose metric is best; the smallest of equals.

    With `one_error` it is the smallest gamma whose metric is within one standard error of the best,
    the error being that of the difference between the two, user by user; with one user it is the
    best. The front's users may be divided among processes, see `nearfar.evaluation.averages`.
    """
    sign = -1.0 if metrics.REGISTRY[metric].lower_is_better else 1.0
    values = sign * front.frame[metric].to_numpy()
    best = int(np.argmax(values))
    if one_error and metrics.REGISTRY[metric].is_per_user:
        top = sign * front.per_user[best][metric].to_numpy()
        for g in range(best):
            lost = top - sign * front.per_user[g][metric].to_numpy()
            lost = lost[np.isfinite(lost)]
            if pool.mean(lost) <= pool.error(lost):
                return float(gammas[g])
    return float(gammas[best])
