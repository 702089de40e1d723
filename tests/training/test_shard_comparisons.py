"""Validation and calibration by ranks that share the items, against one process."""

import numpy as np
import polars as pl
import pytest

from conftest import plain, random_data
from nearfar import split
from nearfar.engine import Problem
from nearfar.engine.cluster.cluster_engine import ClusterEngine
from nearfar.evaluation.front import at_gammas
from nearfar.evaluation.ranking import evaluate
from nearfar.method.co_occurrence import CoOccurrence
from nearfar.method.optimiser import Adam
from nearfar.method.prior import Prior
from nearfar.method.sampling import Popularity
from nearfar.search.scoring import scorer_of
from nearfar.training.calibration import calibrated, calibrated_by
from nearfar.training.schedule import Schedule
from nearfar.training.shard_comparisons import over_shards
from ranks import on_ranks

TRAIN, HELD_OUT = split.ratio(random_data(120, 90, 0.15, seed=4), test=0.25, seed=0)
FEW = HELD_OUT.subset(HELD_OUT.pair_users() < 5)
"""Users of one rank only."""
SCHEDULE = Schedule(k=7)


def problem_of(**options):
    chosen = {"dim": 6, "batch": 32, "sampler": Popularity(0.5), "negatives": 3}
    return Problem(TRAIN, plain(**chosen | {"optimiser": Adam(0.03)} | options), 3)


def ranked(problem, size, ask, validation=HELD_OUT):
    """Return all points, and what each rank answers."""

    def work(group):
        engine = ClusterEngine(problem, group=group)
        engine.run(40)
        engine.settle()
        points, own = engine.points(), engine.own_points()
        assert own.tobytes() == points[engine.own_rows].tobytes()
        found = ask(over_shards(engine, own, validation, SCHEDULE, 1))
        engine.close()
        return points, found

    found = on_ranks(size, work)
    return found[0][0], [answer for _, answer in found]


def scorer(problem, points):
    n = problem.n_users
    return scorer_of(points[:n], points[n:], problem.options.geometry)


@pytest.mark.parametrize("geometry", ["sphere", "free"])
@pytest.mark.parametrize("validation", [HELD_OUT, FEW], ids=["all", "few"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_metrics_are_those_of_one_process(size, validation, geometry):
    problem = problem_of(geometry=geometry)
    weight = np.linspace(-0.3, 0.3, problem.n_items).astype(np.float32)
    points, found = ranked(problem, size, lambda c: c.metrics(weight), validation)
    points = scorer(problem, points).weighted(weight)
    expected = evaluate(points, TRAIN, validation, k=SCHEDULE.k).metrics
    for metrics in found:
        assert metrics == found[0]
        assert list(metrics) == list(expected)
        for name, value in expected.items():
            assert metrics[name] == pytest.approx(value, rel=1e-13), name
    assert found[0]["ndcg"] > 0.0


def test_a_front_is_that_of_one_process():
    problem, gammas = problem_of(), (0.0, 0.05, 0.2)
    points, found = ranked(problem, 3, lambda c: c.front(gammas))
    expected = at_gammas(scorer(problem, points), TRAIN, HELD_OUT, gammas, k=SCHEDULE.k)
    for front in found:
        assert front.n_users == expected.n_users
        assert front.frame.columns == expected.frame.columns
        assert np.allclose(front.frame.to_numpy(), expected.frame.to_numpy(), rtol=1e-13, atol=0)
    joined = [pl.concat([front.per_user[g] for front in found]) for g in range(3)]
    for each, whole in zip(joined, expected.per_user, strict=True):
        assert each.equals(whole)


@pytest.mark.parametrize(
    "options",
    [
        {"prior": Prior()},
        {"prior": Prior(one_error=True)},
        {"prior": Prior(), "neighbours": CoOccurrence(5)},
        {"neighbours": CoOccurrence(5)},
    ],
    ids=str,
)
def test_gamma_and_lambda_are_those_of_one_process(options):
    problem, n = problem_of(**options), TRAIN.n_users
    points, found = ranked(problem, 2, lambda c: calibrated_by(c, problem))
    expected = calibrated(problem, points[:n], points[n:], HELD_OUT, SCHEDULE, 1)
    for each in found:
        assert (each.gamma, each.weight) == (expected.gamma, expected.weight)
        assert (each.table is None) == (expected.table is None)
        if each.table is not None:
            table = expected.table.to_numpy()
            assert np.allclose(each.table.to_numpy(), table, rtol=1e-13, atol=0)
    assert expected.gamma > 0.0 or expected.weight > 0.0


def test_a_rank_holds_the_points_of_its_own_items_only():
    problem = problem_of()
    _, found = ranked(problem, 3, lambda c: (c.search.points.targets, c.ranking.queries))
    held = [len(targets) for targets, _ in found]
    assert sum(held) == problem.n_items
    assert max(held) == -(-problem.n_items // 3)
    assert sum(len(queries) for _, queries in found) == problem.n_users
