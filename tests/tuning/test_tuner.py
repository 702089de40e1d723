"""`nf.tune`: what it finds, repeats, resumes and refuses."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest

import nearfar as nf
from conftest import checkerboard, import_path
from films import DATA as FILMS
from films import films
from nearfar.errors import MissingExtraError, NotFittedError, OptionError, StoreError
from nearfar.tuning import attempts, study, tuner
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


def test_a_study_goes_on_as_if_it_had_never_ended(tmp_path):
    for trials in (2, 4):
        tuned = nf.tune(BOARD, trials=trials, study=tmp_path / "study", **SHORT)
        assert tuned.table.height == trials
    assert rows(tuned).equals(rows(nf.tune(BOARD, trials=4, **SHORT)))


def test_a_trial_that_was_killed_is_tried_again(tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    folder = tmp_path / "study"
    nf.tune(BOARD, trials=1, study=folder, **SHORT)
    monkeypatch.setattr(study, "attempt", killed)
    with pytest.raises(KeyboardInterrupt):
        nf.tune(BOARD, trials=3, study=folder, **SHORT)
    monkeypatch.undo()
    tuned = nf.tune(BOARD, trials=3, study=folder, **SHORT)
    assert tuned.table["trial"].to_list() == [0, 2, 3]  # 1 was killed
    assert rows(tuned).drop("trial").equals(rows(nf.tune(BOARD, trials=3, **SHORT)).drop("trial"))


def test_two_workers_make_all_trials():
    tuned = nf.tune(BOARD, trials=3, workers=2, **SHORT)
    assert sorted(tuned.table["trial"]) == [0, 1, 2]
    assert set(tuned.table["state"]) <= {"complete", "pruned"}
    assert tuned.options[0] == nf.Options()


def test_curves_below_the_median_are_pruned():
    tuned = nf.tune(BOARD, trials=10, **SHORT | {"epochs": 4})
    pruned = tuned.table.filter(pl.col("state") == "pruned")
    assert 0 < pruned.height < 9
    assert pruned["epochs"].max() < 4
    assert pruned["ndcg"].max() < tuned.front["ndcg"][0]
    complete = tuned.table.filter(pl.col("state") == "complete")
    assert set(complete["epochs"]) == {4}


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


def test_a_limit_of_time_ends_every_training_and_begins_no_trial():
    tuned = nf.tune(BOARD, trials=2, trial_seconds=1e-9, **SHORT)
    assert tuned.table["epochs"].to_list() == [1, 1]
    assert tuned.fit().history.height == 1
    with pytest.raises(NotFittedError, match=r"No trial was completed, of 0 that ended\. Allow"):
        nf.tune(BOARD, seconds=1e-9, **SHORT)


def test_a_training_that_diverges_fails_its_trial_alone(monkeypatch):
    def trained(job, options, *args, **how):
        if options != nf.Options():
            raise nf.errors.DivergedError("the loss is inf")
        return right(job, options, *args, **how)

    right = attempts.trained
    monkeypatch.setattr(attempts, "trained", trained)
    tuned = nf.tune(BOARD, trials=3, **SHORT)
    assert tuned.table["state"].to_list() == ["complete", "failed", "failed"]
    assert tuned.table["error"].to_list() == [None, "the loss is inf", "the loss is inf"]
    assert tuned.best == nf.Options()


def test_other_errors_are_raised(monkeypatch):
    def broken(*_, **__):
        raise OptionError("broken")

    monkeypatch.setattr(study, "attempt", broken)
    with pytest.raises(OptionError, match="broken"):
        nf.tune(BOARD, trials=2, **SHORT)


def test_hybrids_are_tuned_with_their_features():
    about = nf.Features.from_frame(films(0, 40), id="item_id", categories="genres")
    tuned = nf.tune(FILMS, space="hybrid", item_features=about, trials=2, **SHORT)
    assert tuned.options[0] == nf.Options(items=nf.Hybrid())
    assert tuned.options[1].items.id_dropout != 0.25
    assert tuned.options[1].items.encoder.decay != 0.03
    assert tuned.fit().options == tuned.best


def test_a_study_of_other_data_or_settings_is_refused(tmp_path):
    folder = tmp_path / "study"
    nf.tune(BOARD, trials=1, study=folder, **SHORT)
    for changed, message in (
        ({"train": checkerboard(26)}, "its data is '"),
        ({"epochs": 3}, "its epochs is 2, and that of this call is 3"),
        ({"space": "uniform"}, "its space is 'shared'"),
        ({"objectives": ["map"]}, r"its objectives is \['ndcg'\]"),
        ({"validation": 0.2}, "its validation is 0.1"),
    ):
        with pytest.raises(StoreError, match=message):
            nf.tune(**{"train": BOARD, "trials": 1, "study": folder, **SHORT, **changed})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(StoreError, match="has no study and is not empty"):
        nf.tune(BOARD, trials=1, study=tmp_path / "full", **SHORT)
    (folder / "study.json").write_text("{")
    with pytest.raises(StoreError, match="is damaged"):
        nf.tune(BOARD, trials=1, study=folder, **SHORT)


def test_features_are_data_too(tmp_path):
    one, two = (
        nf.Features.from_frame(films(0, 40), id="item_id", categories="genres") for _ in range(2)
    )
    how = {"space": "hybrid", "trials": 1, "study": tmp_path / "study", **SHORT}
    nf.tune(FILMS, item_features=one, **how)
    nf.tune(FILMS, item_features=two, **how)
    other = nf.Features.from_frame(films(0, 39), id="item_id", categories="genres")
    with pytest.raises(StoreError, match="its features is"):
        nf.tune(FILMS, item_features=other, **how)


def test_a_study_that_is_running_is_refused(tmp_path):
    folder = tmp_path / "study"
    nf.tune(BOARD, trials=1, study=folder, **SHORT)
    with study.only_here(folder), pytest.raises(StoreError, match="run by another process"):
        nf.tune(BOARD, trials=2, study=folder, **SHORT)


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


def test_a_worker_ends_when_there_is_nobody_to_work_for():
    job = tuner.TuningJob.of(tuner.TuningPlan(epochs=2), BOARD, {})
    with pytest.raises(attempts.AbandonedError):
        attempts.attempt(None, job, nf.Options(), parent=os.getppid() + 1)


CODE = """
import nearfar as nf
from conftest import checkerboard
nf.tune(checkerboard(24), trials=6, epochs=3000, every=100, k=5, study={folder!r}, progress=True)
"""


@pytest.mark.slow
def test_a_study_that_was_killed_goes_on(tmp_path):
    folder = tmp_path / "study"
    code = CODE.format(folder=str(folder))
    path = os.pathsep.join([import_path(__file__), *sys.path])
    how = {"env": {**os.environ, "PYTHONPATH": path}, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **how) as process:
        assert process.stderr.readline().startswith("trial 1 of 6")
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
    left = subprocess.run([sys.executable, "-c", code], check=True, **how).stderr.splitlines()
    assert len(left) == 5
    with study.opened(folder) as found:
        assert len(study.ended(found)) == 6
        states = [one.state.name for one in found.get_trials()]
    assert states.count("FAIL") == 1
