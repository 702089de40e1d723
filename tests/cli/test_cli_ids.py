"""Ids on the command line: of files, of two types, and in files of ids."""

import polars as pl
import pytest

import nearfar as nf
from conftest import PLAIN, checkerboard

CHANGED = {"dim": 4, "batch": 8}


def fitted(folder, kind):
    """Save a model of most of the checkerboard, whose ids are of this type of polars."""
    frame = checkerboard().to_frame().cast(kind)
    train, _ = nf.split.ratio(nf.Interactions.from_frame(frame), 0.25, seed=0)
    nf.CML(PLAIN, **CHANGED).fit(train, epochs=1).save(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    kinds = {"whole": pl.Int64, "narrow": pl.Int32, "byte": pl.UInt8, "text": pl.String}
    folder = tmp_path_factory.mktemp("models")
    return {name: fitted(folder / name, kind) for name, kind in kinds.items()}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, frame = tmp_path_factory.mktemp("files"), checkerboard().to_frame()
    frame.write_csv(folder / "text.csv")
    for name, kind in (("whole", pl.Int64), ("narrow", pl.Int32), ("byte", pl.UInt8)):
        frame.cast(kind).write_parquet(folder / f"{name}.parquet")
    return {file.stem: file for file in folder.iterdir()}


@pytest.mark.parametrize("model", ["whole", "narrow", "byte", "text"])
@pytest.mark.parametrize("data", ["whole", "narrow", "byte", "text"])
def test_files_of_every_type_of_id_are_tested_on_and_learned_from(
    models, files, as_json, tmp_path, model, data
):
    left_out = 180 - nf.CML.load(models[model]).interactions.n_pairs
    found = as_json("evaluate", models[model], files[data], "--k", 5)
    assert (found["n_test_pairs"], found["n_unknown_pairs"]) == (left_out, 0)
    words = ["--epochs", 1, "-o", tmp_path / "grown"]
    grown = as_json("update", models[model], files[data], *words)
    assert grown["n_users"] == {"before": 20, "now": 20}
    assert grown["n_pairs"]["now"] == 180
    ids = nf.CML.load(tmp_path / "grown").interactions.user_ids
    assert (ids.dtype == pl.String) == (model == "text")


def test_ids_that_cannot_be_converted_are_named_with_both_types(models, run, tmp_path):
    for id_ in ("007", "7.0", "ann", "+7", "99999999999999999999"):
        (tmp_path / "new.csv").write_text(f"user,item\n{id_},4\n3,5\n")
        for command in ("evaluate", "update"):
            code, out, err = run(command, models["whole"], tmp_path / "new.csv")
            assert (code, out) == (1, "")
            assert "new.csv': The user ids are strings (String)" in err
            assert "are integers (Int64), such as 0" in err
            assert f"'{id_}' is not an integer as it is printed" in err


def test_data_of_others_is_not_said_to_be_trained_on(models, run, tmp_path):
    (tmp_path / "new.csv").write_text("user,item\nann,tea\n")
    code, _, err = run("evaluate", models["text"], tmp_path / "new.csv")
    assert code == 1
    assert "The model knows none of the 1 interactions: the users are such as 'ann'" in err
    assert "--holdout" not in err


def test_titles_are_found_by_ids_of_either_type(ok, tmp_path, files):
    pl.DataFrame({"item_id": [3, 5], "title": ["three", "five"]}).write_parquet(
        tmp_path / "whole.parquet"
    )
    (tmp_path / "text.csv").write_text("item_id,title\n3,three\n05,no\n5,five\n")
    for name in ("whole", "byte", "text"):
        for titles in ("whole.parquet", "text.csv"):
            ok("prepare", files[name], "-o", tmp_path / "d", "--items", tmp_path / titles)
            data = nf.Interactions.load(tmp_path / "d")
            assert data.titles(data.item_ids.typed(["3", "5"])) == ["three", "five"]


def test_a_file_of_ids_is_asked_for_with_an_at(models, ok, as_json, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "5").write_text("7\n")
    (tmp_path / "ids").write_bytes(b"\xef\xbb\xbf3\r\n\r\n 4 \n")
    model = models["whole"]
    found = as_json("recommend", model, "--liked", 5)["recommendations"]
    assert [one["liked"] for one in found] == ["5"]
    found = as_json("recommend", model, "--liked", "@ids", "--liked", 5)["recommendations"]
    assert [one["liked"] for one in found] == ["3, 4, 5"]
    found = as_json("recommend", model, "--user", "@ids", "--user", "@5")["recommendations"]
    assert [one["user_id"] for one in found] == [3, 4, 7]
    for what in ("item", "user"):
        found = as_json("similar", model, f"--{what}", "@ids", "--k", 1)["neighbours"]
        assert [one[f"{what}_id"] for one in found] == [3, 4]
    words = ["recommend", model, "--user", 5, "--k", 20, "--include-seen", "--allow", "@ids"]
    assert {one["item_id"] for one in as_json(*words)["recommendations"][0]["nearest"]} == {3, 4}
    nearest = as_json(*words, "--deny", 4)["recommendations"][0]["nearest"]
    assert [one["item_id"] for one in nearest] == [3]
    ok("batch", model, "-o", tmp_path / "lists", "--users", "ids", "--allow", "@ids", "--k", 1)
    lists = pl.read_parquet(tmp_path / "lists" / "*.parquet")
    assert sorted(lists["user_id"].unique()) == [3, 4]


def test_an_id_that_starts_with_an_at_is_written_with_two(ok, as_json, tmp_path):
    frame = checkerboard().to_frame().select(pl.format("@{}", "user_id").alias("user"), "item_id")
    nf.CML(PLAIN, **CHANGED).fit(nf.Interactions.from_frame(frame), epochs=1).save(tmp_path / "m")
    found = as_json("recommend", tmp_path / "m", "--user", "@@3")["recommendations"]
    assert [one["user_id"] for one in found] == ["@3"]


def test_files_of_ids_that_cannot_be_read_are_one_line(models, run, tmp_path):
    (tmp_path / "latin").write_bytes(b"caf\xe9\n")
    (tmp_path / "none").write_text("\n \r\n")
    for word, message in (
        (
            f"@{tmp_path}/missing",
            "missing' cannot be read: No such file or directory. Check the pa",
        ),
        (f"@{tmp_path}", "cannot be read: Is a directory"),
        (f"@{tmp_path}/latin", "latin' must be UTF-8 text, one id per line."),
        (f"@{tmp_path}/none", "There is no id in the files of `--user`"),
        ("@", "`@FILE` must be a path; got ''"),
        ("@s3://bucket/ids", "`@FILE` must be a path on this machine"),
    ):
        code, out, err = run("recommend", models["whole"], "--user", word)
        assert (code, out) == (1, ""), err
        assert message in err
        assert err.count("\n") == 1


def test_flags_are_named_where_a_header_is_missing(run, tmp_path):
    (tmp_path / "a.csv").write_text("196,242\n186,302\n")
    for words in (["prepare", tmp_path / "a.csv", "-o", tmp_path / "d"],
                  ["fit", tmp_path / "a.csv", "-o", tmp_path / "m"]):  # fmt: skip
        code, _, err = run(*words)
        assert code == 1
        assert "If the first line of the file is data, pass `--no-header`" in err
        assert "pass `--user` and `--item`" in err
        assert not (tmp_path / "d").exists()
    assert run("prepare", tmp_path / "a.csv", "-o", tmp_path / "d", "--no-header")[0] == 0
    assert nf.Interactions.load(tmp_path / "d").n_pairs == 2


def test_prepare_reads_iso_times_and_folders_of_spark(ok, as_json, tmp_path):
    (tmp_path / "a.csv").write_text("user,item,when\na,b,2019-05-01T02:00:00+02:00\n")
    ok("prepare", tmp_path / "a.csv", "-o", tmp_path / "d", "--time", "when")
    assert nf.Interactions.load(tmp_path / "d").times.tolist() == [1_556_668_800_000_000]
    parts = tmp_path / "spark"
    parts.mkdir()
    checkerboard().to_frame().write_parquet(parts / "part-0.parquet")
    assert as_json("prepare", parts, "-o", tmp_path / "e")["n_pairs"] == 180
    words = ["--epochs", 1, "--dim", 4, "--no-progress"]
    assert as_json("fit", parts, "-o", tmp_path / "m", *words)["n_pairs"] == 180
