"""`nearfar tune`: the study, its report, and the command that trains the winner."""

import csv
import shlex

import numpy as np
import polars as pl
import pytest

import nearfar as nf
from conftest import checkerboard
from films import DATA, films
from nearfar.cli.trying import command_of

BUDGET = ("--trials", 3, "--epochs", 2, "--every", 1, "--k", 5, "--no-progress")


@pytest.fixture
def data(tmp_path):
    checkerboard(24).save(tmp_path / "data")
    return tmp_path / "data"


def fitted(command, out, run):
    """The model that a printed command trains."""
    program, *words = shlex.split(command)
    assert program == "nearfar"
    words[words.index("-o") + 1] = out
    code, _, err = run(*words, "--threads", 1, "--no-progress")
    assert code == 0, err
    return nf.CML.load(out)


def test_the_command_of_the_winner_makes_its_options_and_figures(data, tmp_path, as_json, run):
    study = tmp_path / "study"
    found = as_json("tune", data, "-o", study, "--holdout", 0.25, "--seed", 3, *BUDGET)
    model = fitted(found["command"], tmp_path / "model", run)
    assert model.options == nf.Options.from_dict(found["options"])
    best = found["front"][0]
    assert best["trial"] == found["trial"]
    at = model.best_epoch - 1
    assert model.history["validation_ndcg"][at] == best["ndcg"]
    everything = checkerboard(24)
    train, _ = nf.split.ratio(everything, 0.25, seed=3)
    assert model.interactions == train  # what is held out was not seen


@pytest.mark.parametrize("space", ["uniform", "popularity", "two-stage"])
def test_every_space_has_commands(data, tmp_path, as_json, run, space):
    words = (*BUDGET, "--objectives", "ndcg", "--objectives", "mmr", "--space", space)
    found = as_json("tune", data, "-o", tmp_path / "study", *words)
    model = fitted(found["command"], tmp_path / "model", run)
    assert model.options == nf.Options.from_dict(found["options"])


def test_a_hybrid_has_a_command_too(tmp_path, as_json, run):
    DATA.save(tmp_path / "data")
    file = tmp_path / "films.csv"
    films(0, 40).with_columns(pl.col("genres").list.join("|")).write_csv(file)
    about = ("--item-features", file, "--categories", "genres", "--list-separator", "|")
    words = ("--space", "hybrid", *about, *BUDGET)
    found = as_json("tune", tmp_path / "data", "-o", tmp_path / "study", *words)
    model = fitted(found["command"], tmp_path / "model", run)
    assert model.options == nf.Options.from_dict(found["options"])
    tuned = nf.Options.from_dict(found["options"])
    assert tuned.items is not None


def test_the_report_has_every_trial_and_the_command(data, tmp_path, run):
    study = tmp_path / "study"
    words = ("tune", data, "-o", study, *BUDGET, "--objectives", "ndcg", "--objectives", "mmr")
    code, said, err = run(*words)
    assert (code, err) == (0, "")
    command = said.splitlines()[-1].removeprefix("Next: ")
    page, text = (study / "report.html").read_text(), (study / "report.md").read_text()
    assert command in text
    assert page.count("<circle") == 3
    for title in ("The winner", "The front", "Importance", "All trials", "What was searched"):
        assert f"## {title}" in text
        assert f"<h2>{title}</h2>" in page
    with open(study / "trials.csv") as file:
        assert [row["trial"] for row in csv.DictReader(file)] == ["0", "1", "2"]
    front = pl.read_csv(study / "front.csv")
    assert f"| {front['trial'][0]} | {front['ndcg'][0]:.4f} | {front['mmr'][0]:.1f} |" in text
    before = (study / "trials.csv").read_text()
    assert run(*words)[0] == 0  # nothing is left to do
    assert (study / "trials.csv").read_text() == before


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--trials", 0], 1, "`trials` must be a whole number"),
        (["--objectives", "luck"], 1, "`objectives` must be one of"),
        (["--validation", 0], 1, "`validation` must lie between 0 and 1"),
        (["--holdout", 1], 1, "`--holdout` must lie between 0 and 1"),
        (["--space", "hybrid"], 2, "`--space hybrid` and --item-features"),
        (["--item-features", "films.csv"], 2, "`--space hybrid` and --item-features"),
        (["--space", "luck"], 2, "luck"),
    ],
)
def test_what_cannot_be_used_is_refused(data, tmp_path, run, words, code, message):
    ended, _, err = run("tune", data, "-o", tmp_path / "study", *words)
    assert ended == code
    assert message in err
    assert not (tmp_path / "study").exists()


def test_a_training_that_was_cut_by_time_has_as_many_epochs_in_its_command():
    tuned = nf.tune(checkerboard(24), trials=1, epochs=5, k=5, trial_seconds=1e-9, every=2)
    assert "--epochs 2 --every 2" in command_of(tuned, "data", None, {})
    assert np.array_equal(tuned.table["epochs"], [2])
