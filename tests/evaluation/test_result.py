"""How sure the figures are, and how they are shown."""

import json
import math

import numpy as np
import polars as pl
import pytest

from nearfar.errors import OptionError
from nearfar.evaluation.metrics import overall, per_user
from nearfar.evaluation.result import Evaluation


def figures(values, **others):
    columns = dict.fromkeys(per_user(), values) | others
    frame = pl.DataFrame({"user_id": np.arange(len(values)), **columns})
    means = {name: float(np.nanmean(frame[name].to_numpy())) for name in per_user()}
    return Evaluation(
        k=5,
        n_users=len(values),
        n_skipped=2,
        metrics=means | {"mmr_distinct": 12.5, "coverage": 0.25, "gini": math.nan},
        per_user=frame,
    )


def test_standard_error_by_hand():
    # mean 2.5, squared gaps 2.25 + 0.25 + 0.25 + 2.25 = 5, s^2 = 5/3
    assert figures([1.0, 2, 3, 4]).standard_error("map") == pytest.approx(math.sqrt(5 / 3 / 4))


def test_users_without_a_value_do_not_count():
    assert figures([1.0, 2, 3, 4, math.nan]).standard_error("mmr") == pytest.approx(
        math.sqrt(5 / 3 / 4)
    )
    assert math.isnan(figures([1.0]).standard_error("map"))


def test_bootstrap_is_the_normal_interval_for_many_users():
    values = np.random.default_rng(0).exponential(size=2000)
    found = figures(values)
    low, high = found.bootstrap("ndcg", n=2000)
    half = 1.96 * found.standard_error("ndcg")
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_bootstrap_means_are_spread_like_the_standard_error():
    values = np.random.default_rng(1).normal(size=400)
    found = figures(values)
    low, high = found.bootstrap("map", n=4000, level=0.6827)  # one standard error to each side
    assert (high - low) / 2 == pytest.approx(found.standard_error("map"), rel=0.06)


def test_bootstrap_depends_on_seed_and_level_and_nothing_else():
    found = figures(np.random.default_rng(2).random(50))
    assert found.bootstrap("map", seed=1) == found.bootstrap("map", seed=1)
    assert found.bootstrap("map", seed=1) != found.bootstrap("map", seed=2)
    wide, narrow = found.bootstrap("map", level=0.99), found.bootstrap("map", level=0.5)
    assert wide[0] < narrow[0] < found["map"] < narrow[1] < wide[1]


def test_bootstrap_of_equal_values_is_that_value_and_of_none_is_nan():
    assert figures([0.25] * 9).bootstrap("recall") == (0.25, 0.25)
    found = figures([1.0, 2], mmr=[1.0, math.nan])
    assert found.bootstrap("mmr", n=3) == (1, 1)


def test_one_figure_by_name():
    assert figures([1.0, 2])["map"] == 1.5
    assert figures([1.0, 2])["coverage"] == 0.25


def test_the_printed_table():
    lines = str(figures([0.0, 1])).splitlines()
    assert lines[0] == "top 5 of 2 users; 2 without test items left out"
    assert lines[1] == "map                   0.5000 ± 0.5000"
    assert lines[-3] == "mmr_distinct         12.5000"
    assert [line.split()[0] for line in lines[1:]] == [*per_user(), *overall()]


def test_to_dict_is_json_without_nan():
    found = json.loads(json.dumps(figures([0.0, 1]).to_dict(), allow_nan=False))
    assert (found["k"], found["n_users"], found["n_skipped"]) == (5, 2, 2)
    assert found["metrics"]["map"] == 0.5
    assert found["metrics"]["gini"] is None
    assert found["standard_errors"]["map"] == 0.5
    assert set(found["standard_errors"]) == set(per_user())


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda e: e["auc"], r"`name` must be one of map, .*gini; got 'auc'\."),
        (lambda e: e.standard_error("auc"), r"must be one of map, .*mean_popularity; got 'auc'\."),
        (lambda e: e.standard_error("gini"), r"'gini' is a metric of all lists"),
        (lambda e: e.bootstrap("coverage"), r"'coverage' is a metric of all lists"),
        (lambda e: e.bootstrap("map", n=0), r"`n` must be a whole number from 1 .*; got 0\."),
        (lambda e: e.bootstrap("map", level=1), r"`level` must lie between 0 and 1, .*; got 1\."),
        (lambda e: e.bootstrap("map", level=0), r"`level` must lie between 0 and 1, .*; got 0\."),
    ],
)
def test_wrong_questions_are_named(ask, message):
    with pytest.raises(OptionError, match=message):
        ask(figures([0.0, 1]))
