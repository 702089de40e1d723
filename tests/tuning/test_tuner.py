"""`nf.tune`: what it finds, repeats, resumes and refuses."""

import sys

import numpy as np
import polars as pl
import pytest

import nearfar as nf
from conftest import checkerboard
from films import DATA as FILMS
from films import films
from nearfar.errors import MissingExtraError, OptionError
from nearfar.tuning.tuned import front_of

BOARD = checkerboard(24)
SHORT = {"epochs": 2, "every": 1, "k": 5, "progress": False}


def rows(tuned):
    """The table without the times."""
    return tuned.table.drop("seconds")


def test_the_best_is_the_trial_with_the_best_value_and_not_worse_than_the_start():
    tuned = nf.tune(BOARD, trials=4, **SHORT)
    assert tuned.table["trial"].to_list() == list(range(4))
    complete = tuned.table.filter(pl.col("state") == "complete")
    best = complete.sort("ndcg", descending=True, maintain_order=True)["trial"][0]
    assert (tuned.trial, tuned.options[0]) == (best, nf.Options())
    assert tuned.front["ndcg"][0] >= tuned.table["ndcg"][0]
    assert len({repr(one) for one in tuned.options.values()}) == 4


def test_the_winner_is_trained_again_to_the_same_figures():
    tuned = nf.tune(BOARD, trials=3, folds=2, **SHORT)
    model = tuned.fit()
    again = nf.CML(tuned.best).fit(
        BOARD, validation=0.1, epochs=2, k=5, seed=0, threads=1, progress=False
    )
    assert np.array_equal(model.item_vectors, again.item_vectors)
    other = nf.CML(tuned.best).fit(
        BOARD, validation=0.1, epochs=2, k=5, seed=1, threads=1, progress=False
    )
    values = [one.history["validation_ndcg"][one.best_epoch - 1] for one in (model, other)]
    assert tuned.front["ndcg"][0] == pytest.approx(np.mean(values))


def test_the_same_call_makes_the_same_study_and_another_seed_another():
    first, second = (nf.tune(BOARD, trials=3, **SHORT) for _ in range(2))
    assert rows(first).equals(rows(second))
    assert not rows(first).equals(rows(nf.tune(BOARD, trials=3, seed=1, **SHORT)))


def test_importances_come_with_ten_complete_trials():
    few, many = (nf.tune(BOARD, trials=n, objectives=["ndcg", "mmr"], **SHORT) for n in (3, 10))
    assert few.importance.is_empty()
    assert many.importance["importance"].sum() == pytest.approx(1.0)
    assert set(many.importance["option"]) == {one.path for one in many.job.space.dimensions}


def test_several_objectives_make_a_front_and_turn_the_dial():
    data = nf.Interactions.from_pairs(
        [(u, i) for u in range(30) for i in range(30) if (u + i) % 2 == 0 or i < 6]
    )
    tuned = nf.tune(data, trials=6, objectives=["ndcg", "mmr"], **SHORT)
    assert set(tuned.table["state"]) == {"complete"}  # nothing is pruned
    assert tuned.table["prior.popularity"].n_unique() == 6
    front = tuned.front
    assert front["ndcg"].is_sorted(descending=True)
    assert front["mmr"].is_sorted(descending=True)
    assert front.equals(front_of(tuned.table, ["ndcg", "mmr"]))


def test_hybrids_are_tuned_with_their_features():
    about = nf.Features.from_frame(films(0, 40), id="item_id", categories="genres")
    tuned = nf.tune(FILMS, space="hybrid", item_features=about, trials=2, **SHORT)
    assert tuned.options[0] == nf.Options(items=nf.Hybrid())
    assert tuned.options[1].items.id_dropout != 0.25
    assert tuned.options[1].items.encoder.decay != 0.03
    assert tuned.fit().options == tuned.best


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"trials": 0}, "`trials` must be a whole number from 1"),
        ({"seconds": 0}, "`seconds` must be a positive number"),
        ({"validation": None}, "`validation` must lie between 0 and 1.*judged by it alone"),
        ({"objectives": []}, "`objectives` must be one to three different metrics"),
        ({"objectives": ["ndcg", "ndcg"]}, "`objectives` must be one to three different metrics"),
        ({"objectives": "ndcg"}, "`objectives` must be a list of metrics"),
        ({"objectives": ["accuracy"]}, "`objectives` must be one of map, ndcg"),
        ({"validation": BOARD, "folds": 2}, "`folds` must be 1 with a validation part of your own"),
        ({"space": "everything"}, "`space` must be one of"),
        ({"workers": 0}, "`workers` must be a whole number from 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(changed, message):
    with pytest.raises(OptionError, match=message):
        nf.tune(BOARD, **SHORT | changed)


def test_a_validation_part_of_your_own_judges():
    train, part = nf.split.ratio(BOARD, 0.2, seed=3)
    tuned = nf.tune(train, validation=part, trials=1, **SHORT)
    model = nf.CML().fit(train, validation=part, epochs=2, k=5, threads=1, progress=False)
    assert tuned.table["ndcg"][0] == model.history["validation_ndcg"].max()
    assert len(tuned.settings["validation"]) == 64  # a checksum


def test_without_optuna_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'nearfar\[tune\]'"):
        nf.tune(BOARD, trials=1, **SHORT)


def test_a_line_is_printed_for_each_trial(capsys):
    nf.tune(BOARD, trials=2, **SHORT | {"progress": True})
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("trial 1 of 2: complete, ndcg 0.")
