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
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from nearfar.data.interactions import Interactions
from nearfar.engine import Problem
from nearfar.evaluation import metrics
from nearfar.evaluation.front import Front, at_gammas
from nearfar.evaluation.ranking import evaluate
from nearfar.evaluation.result import standard_error
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
    prior, neighbours = problem.options.prior, problem.options.neighbours
    expected = uncalibrated(problem)
    gamma, weight = expected.gamma, expected.weight
    finds_gamma = prior is not None and prior.gamma is None
    finds_weight = neighbours is not None and neighbours.weight is None
    if validation is None or not (finds_gamma or finds_weight):
        return expected
    points, train = scorer_of(users, items, problem.options.geometry), problem.interactions
    if neighbours is not None and weight > 0.0:
        own = (train.indptr, train.items)
        near = near_items(own, train.n_items, neighbours.nearest, threads=threads)
        if finds_weight:
            tried = [
                points.weighted(expected_weight(problem)).near(Terms(near, one, own))
                for one in WEIGHTS
            ]
            weight = WEIGHTS[_best_of(tried, train, validation, schedule, threads)]
        points = points.near(Terms(near, weight, own) if weight > 0.0 else None)
    if prior is None or not finds_gamma:
        return Calibration(gamma, weight=weight)
    found = found_on(points, problem, validation, schedule, threads, one_error=prior.one_error)
    return found._replace(weight=weight)


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
    tried = gammas(by_rule(problem))
    found = at_gammas(points, problem.interactions, validation, tried, k=schedule.k,
                      log_counts=problem.log_popularity, threads=threads)  # fmt: skip
    gamma = chosen(found, tried, schedule.metric, one_error=one_error)
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


def _best_of(
    tried: Sequence[Points],
    train: Interactions,
    validation: Interactions,
    schedule: Schedule,
    threads: int | None,
) -> int:
    """Return which of several scorers is best on the validation part; the first of equals."""
    sign = -1.0 if metrics.REGISTRY[schedule.metric].lower_is_better else 1.0
    found = (evaluate(one, train, validation, k=schedule.k, threads=threads) for one in tried)
    return int(np.argmax([sign * one[schedule.metric] for one in found]))


def chosen(front: Front, gammas: Sequence[float], metric: str, *, one_error: bool = False) -> float:
    """Return the gamma whose metric is best; the smallest of equals.

    With `one_error` it is the smallest gamma whose metric is within one standard error of the best,
    the error being that of the difference between the two, user by user; with one user it is the
    best.
    """
    sign = -1.0 if metrics.REGISTRY[metric].lower_is_better else 1.0
    values = sign * front.frame[metric].to_numpy()
    best = int(np.argmax(values))
    if one_error and metrics.REGISTRY[metric].is_per_user:
        top = sign * front.per_user[best][metric].to_numpy()
        for g in range(best):
            lost = top - sign * front.per_user[g][metric].to_numpy()
            lost = lost[np.isfinite(lost)]
            if lost.mean() <= standard_error(lost):
                return float(gammas[g])
    return float(gammas[best])
