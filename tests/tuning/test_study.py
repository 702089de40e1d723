"""A study: how it goes on, alone and in several processes, and what it refuses."""

import os
import signal
import subprocess
import sys
import time

import polars as pl
import pytest

import nearfar as nf
from conftest import checkerboard, import_path
from films import DATA as FILMS
from films import films
from nearfar.errors import OptionError, StoreError
from nearfar.tuning import study

BOARD = checkerboard(24)
SHORT = {"epochs": 2, "every": 1, "k": 5, "progress": False}


def rows(tuned):
    """The table without the times."""
    return tuned.table.drop("seconds")


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


def test_other_errors_are_raised(monkeypatch):
    def broken(*_, **__):
        raise OptionError("broken")

    monkeypatch.setattr(study, "attempt", broken)
    with pytest.raises(OptionError, match="broken"):
        nf.tune(BOARD, trials=2, **SHORT)


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
