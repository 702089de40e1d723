"""The plan of a study: how trials are judged, and what makes two studies the same."""

import numpy as np
import polars as pl
import pytest

import nearfar as nf
from conftest import checkerboard
from nearfar.errors import OptionError
from nearfar.tuning.tuning_plan import TuningJob, TuningPlan

BOARD = checkerboard(10)


def test_directions_are_those_of_the_metrics():
    plan = TuningPlan(objectives=("ndcg", "mmr", "gini"))
    assert plan.directions == ["maximize", "minimize", "minimize"]
    assert plan.schedule.metric == "ndcg"


def test_the_dial_is_searched_where_popularity_is_an_objective():
    for objectives, dial in ((("ndcg",), False), (("ndcg", "mmr"), True)):
        job = TuningJob.of(TuningPlan(objectives=objectives), BOARD, {})
        assert ("prior.popularity" in job.space.defaults) == dial


@pytest.mark.parametrize(
    ("kind", "one", "two"),
    [
        ("numbers", [1.0, 2.0], [1.0, 3.0]),
        ("text", ["a red hat", "a hat"], ["a hat", "a hat"]),
        ("categories", ["red", "blue"], ["red", "red"]),
        ("vectors", [[1.0, 2.0], [0.0, 1.0]], [[1.0, 2.0], [1.0, 1.0]]),
    ],
)
def test_features_are_told_apart_by_what_they_hold(kind, one, two):
    def printed(values):
        frame = {"item_id": [0, 1], "x": values}
        about = nf.Features.from_frame(pl.DataFrame(frame), **{kind: "x"})
        job = TuningJob.of(TuningPlan(space="hybrid"), BOARD, {"item_features": about})
        return job.settings()["features"]["item_features"]

    assert printed(one) == printed(one) != printed(two)


def test_features_are_told_apart_by_the_numbers_of_a_matrix():
    prints = set()
    for scale in (1.0, 2.0):
        about = nf.Features.from_matrix(np.eye(2) * scale, [0, 1])
        job = TuningJob.of(TuningPlan(space="hybrid"), BOARD, {"item_features": about})
        prints.add(job.settings()["features"]["item_features"])
    assert len(prints) == 2


def test_what_are_no_features_is_refused():
    with pytest.raises(OptionError, match="`item_features` must be of type Features"):
        TuningJob.of(TuningPlan(space="hybrid"), BOARD, {"item_features": BOARD})
