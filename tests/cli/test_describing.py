"""Features on the command line: files, flags, and items that are added later."""

import json

import numpy as np
import polars as pl
import pytest

import nearfar as nf
from films import DATA, films
from nearfar.cli import app as commands


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("described")
    DATA.save(place / "data")
    flat = films(0, 40).with_columns(pl.col("genres").list.join("|"))
    flat.write_csv(place / "films.csv")
    films(0, 40).write_parquet(place / "films.parquet")
    films(40, 44).with_columns(pl.col("genres").list.join("|")).write_csv(place / "new.csv")
    return place


LEARN = ("--dim", 8, "--batch", 32, "--negatives", 8, "--learning-rate", 0.02, "--epochs", 8,
         "--no-progress")  # fmt: skip
ABOUT = ("--categories", "genres", "--text", "plot")


@pytest.fixture(scope="module")
def fitted(folder):
    out = folder / "model"
    how = ("--item-features", folder / "films.csv", *ABOUT, "--list-separator", "|")
    words = ("fit", folder / "data", "-o", out, *how, *LEARN, "--id-dropout", 0.4)
    with pytest.raises(SystemExit) as ended:
        commands([str(word) for word in words])
    assert not ended.value.code
    return out


def test_files_of_both_kinds_give_the_same_model(folder, fitted, run):
    out = folder / "other"
    how = ("--item-features", folder / "films.parquet", *ABOUT, "--id-dropout", 0.4)
    code, _, err = run("fit", folder / "data", "-o", out, *how, *LEARN)
    assert code == 0, err
    one, two = nf.CML.load(fitted), nf.CML.load(out)
    assert one.options.items == nf.Hybrid(id_dropout=0.4)
    assert np.array_equal(one.item_vectors, two.item_vectors)


def test_the_decay_of_the_encoder_is_a_flag(folder, fitted, run):
    out = folder / "decayed"
    how = ("--item-features", folder / "films.parquet", *ABOUT, "--id-dropout", 0.4)
    code, _, err = run("fit", folder / "data", "-o", out, *how, *LEARN, "--encoder-decay", 0.3)
    assert code == 0, err
    model = nf.CML.load(out)
    assert model.options.items == nf.Hybrid(nf.Linear(0.3), id_dropout=0.4)
    assert not np.array_equal(nf.CML.load(fitted).item_vectors, model.item_vectors)
    code, _, err = run("fit", folder / "data", "-o", out, *LEARN, "--encoder-decay", 0.3)
    assert (code, "`--encoder-decay` is only used with --item-features" in err) == (2, True)


def test_items_are_added(folder, fitted, run):
    out = folder / "more"
    words = (folder / "new.csv", "-o", out, "--list-separator", "|")
    code, said, err = run("add-items", fitted, *words)
    assert (code, err) == (0, "")
    assert said == f"4 items added to 40; saved in {out}.\n"
    code, said, _ = run("add-items", fitted, *words, "--json")
    assert json.loads(said)["n_items"] == {"before": 40, "now": 44}
    code, said, _ = run("recommend", out, "--user", 3, "--k", 2, "--allow", f"@{ids(folder)}",
                        "--json")  # fmt: skip
    (one,) = json.loads(said)["recommendations"]
    assert {entry["item_id"] for entry in one["nearest"]} == {41, 43}
    code, _, err = run("add-items", out, *words)
    assert code == 1
    assert "the model has 4 of the 4 items already" in err


def ids(folder):
    file = folder / "ids.txt"
    file.write_text("\n".join(map(str, range(40, 44))))
    return file


def test_training_goes_on_with_features(folder, fitted, run):
    nf.Interactions.from_pairs([(0, 40), (2, 40)]).save(folder / "later")
    words = ("-o", folder / "updated", "--item-features", folder / "new.csv", "--epochs", 1)
    code, _, err = run("update", fitted, folder / "later", *words, "--list-separator", "|")
    assert code == 0, err
    assert nf.CML.load(folder / "updated").interactions.n_items == 41


def test_cold_and_warm_items_are_reported(folder, fitted, run):
    pairs = DATA.to_frame().rows() + [(u, 30 + u % 2) for u in range(20)] + [(0, 1), (1, 0)]
    nf.Interactions.from_pairs(pairs).save(folder / "test")
    code, said, err = run("evaluate", fitted, folder / "test", "--k", 5)
    assert code == 0, err
    assert "CML, warm" in said
    assert "CML, cold" in said
    _, said, _ = run("evaluate", fitted, folder / "test", "--k", 5, "--json", "--baselines")
    figures = json.loads(said)
    assert figures["candidates"] == "all"
    assert set(figures["baselines"]) == {"popularity", "random"}
    assert {"CML, warm", "CML, cold", "popularity, cold"} <= set(figures["by_candidates"])
    nf.CML(dim=4).fit(DATA, epochs=1).save(folder / "no-content")
    _, said, _ = run("evaluate", folder / "no-content", folder / "test", "--k", 5)
    assert "cold" not in said
    _, said, _ = run("evaluate", fitted, folder / "test", "--k", 5, "--candidates", "cold",
                     "--json")  # fmt: skip
    only = json.loads(said)
    assert only["candidates"] == "cold"
    assert "by_candidates" not in only
    assert only["metrics"] == figures["by_candidates"]["CML, cold"]["metrics"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--categories", "genres"), "`--categories` is only used with --item-features"),
        (("--user-text", "x"), "`--user-text` is only used with --user-features"),
        (("--id-decay", "0.1"), "`--id-decay` is only used with --item-features or"),
    ],
)
def test_flags_without_a_file_are_refused(folder, run, words, told):
    code, _, err = run("fit", folder / "data", "-o", folder / "none", *words)
    assert code == 2
    assert told in err


def test_a_file_that_lacks_a_column_is_named(folder, run):
    how = ("--item-features", folder / "films.csv", "--text", "story")
    code, _, err = run("fit", folder / "data", "-o", folder / "none", *how)
    assert code == 1
    assert "story" in err


def test_a_model_without_features_takes_none(folder, run):
    out = folder / "plain"
    run("fit", folder / "data", "-o", out, *LEARN)
    code, _, err = run("add-items", out, folder / "new.csv")
    assert code == 2
    assert "trained without features" in err


def test_what_a_module_encodes_is_in_no_file(folder, run, tmp_path):
    from model.test_modules import SHORT, contents

    nf.CML(**SHORT).fit(DATA, item_features=contents(), epochs=1).save(tmp_path / "m")
    code, _, err = run("add-items", tmp_path / "m", folder / "new.csv")
    assert code == 2
    assert "'content' is of the kind 'array of shape (1, 4, 6)'" in " ".join(err.split())
    code, said, _ = run("recommend", tmp_path / "m", "--user", 3, "--k", 2, "--json")
    assert code == 0
    assert len(json.loads(said)["recommendations"][0]["nearest"]) == 2
