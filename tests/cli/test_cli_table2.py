"""``nearfar table2``: what makes docs/results, in small, and how it ends when something fails."""

import json

import polars as pl
import pytest

from conftest import random_data
from nearfar.evaluation import metrics
from nearfar.experiment import cells, table2, worker

SMALL = ["--dim", 4, "--epochs", 2, "--k", 10, "--folds", 2, "--tested-folds", 1,
         "--learning-rate", 0.01, "--no-progress"]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "small"
    random_data(30, 40, share=0.3, seed=1).save(path)
    return path


@pytest.mark.full  # long
def test_all_rows_are_computed_and_reported(data, as_json, tmp_path):
    found = as_json("table2", data, "-o", tmp_path, *SMALL, "--workers", 0)
    assert found["failures"] == {}
    outcomes = cells.load_all(tmp_path)
    names = {outcome.cell["setting"]["name"] for outcome in outcomes}
    assert names == {row.name for row in table2.rows()}
    assert {o.cell["schedule"]["every"] for o in outcomes} == {2}
    page = (tmp_path / "index.html").read_text()
    assert found["report"].endswith("index.html")
    for name in ("two-stage", "uniform", "popularity"):
        assert name in page or name.replace("two", "2") in page
    table = pl.read_csv(tmp_path / "small.csv", infer_schema_length=None)
    assert {len(part) for _, part in table.group_by("which")} == {15 * len(metrics.names())}
    assert set(table["which"]) == {"best", "prior", "last"}
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "cells").rglob("nearfar.json")}
    as_json("table2", data, "-o", tmp_path, *SMALL, "--workers", 0)  # goes on where it was: the end
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "cells").rglob("nearfar.json")} == before


@pytest.mark.full
def test_presets_come_together_in_one_report(data, as_json, tmp_path):
    words = ["table2", data, "-o", tmp_path, *SMALL, "--workers", 0]
    one = ["--negatives", 5, "--batch", 256]
    as_json(*words, *one, "--sampler", "two-stage", "--sampler", "uniform")
    as_json(*words, *one, "--sampler", "two-stage", "--preset", "released_2019")
    as_json(*words, *one, "--sampler", "two-stage", "--candidates", 20, "--beta", 0.5)
    as_json(*words, "--preset", "cml_2017")
    assert {outcome.cell["setting"]["name"] for outcome in cells.load_all(tmp_path)} == {
        "uniform, 5 negatives, batch 256", "two-stage, 5 negatives, batch 256",
        "released two-stage, 5 negatives, batch 256", "CML 2017, 20 negatives, batch 50000",
        "two-stage (beta 0.5, candidates 20), 5 negatives, batch 256",
    }  # fmt: skip
    table = pl.read_csv(tmp_path / "small.csv", infer_schema_length=None)
    assert set(table["method"]) == {"uniform", "2-stage", "released 2-stage", "CML 2017",
                                    "2-stage (beta 0.5, candidates 20)"}  # fmt: skip


def test_a_failed_cell_ends_in_an_exit_code_and_a_report(
    data, run, as_json, tmp_path, monkeypatch
):  # fmt: skip
    compute = worker.compute

    def broken(cell, *rest, **more):
        if cell.setting.name.startswith("two-stage, 2"):
            raise RuntimeError("no such luck")
        return compute(cell, *rest, **more)

    words = ["table2", data, "-o", tmp_path, *SMALL, "--workers", 0, "--batch", 256]
    with monkeypatch.context() as patch:
        patch.setattr(worker, "compute", broken)
        code, out, err = run(*words)
    assert code == 1
    assert "failed: RuntimeError: no such luck" in err
    assert "index.html" in out
    page = (tmp_path / "index.html").read_text()
    assert "small: two-stage, 2 negatives, batch 256, fold 1, learning rate 0.01" in page
    assert "At the best epoch, with the popularity prior" in page
    assert len(cells.load_all(tmp_path)) == 8
    assert as_json(*words)["failures"] == {}
    assert "no such luck" not in (tmp_path / "index.html").read_text()


def test_bad_words_are_refused_and_nothing_is_made(data, run, tmp_path):
    words = ["-o", tmp_path / "r", *SMALL, "--workers", 0]
    for more, code, message in (
        ([data, data], 2, "DATA must be folders with distinct names"),
        ([data / "none"], 1, "does not exist"),
        ([data, "--negatives", 3], 1, "No row of the table has"),
        ([data, "--folds", 1], 1, "`folds` must be at least 2"),
        ([data, "--sampler", "uniform", "--candidates", 9], 1, "there is no such row"),
        ([data, "--candidates", 0], 1, "`candidates` must be"),
    ):
        found, _, err = run("table2", *words, *more)
        assert (found, message in err) == (code, True), err
        assert not (tmp_path / "r").exists()


@pytest.mark.data
@pytest.mark.full
def test_movielens_in_small(ml_100k, as_json, tmp_path):
    """One fold, few epochs: popularity with one negative is far less biased than uniform."""
    ml_100k.save(tmp_path / "ml-100k")
    words = ["--dim", 16, "--epochs", 3, "--tested-folds", 1, "--learning-rate", 0.003]
    found = as_json("table2", tmp_path / "ml-100k", "-o", tmp_path / "r", *words, "--no-progress",
                    "--workers", 0, "--threads", 2)  # fmt: skip
    assert found["failures"] == {}
    mmr = {
        outcome.cell["setting"]["name"]: outcome.metrics["last"]["mmr"]
        for outcome in cells.load_all(tmp_path / "r")
    }
    one = mmr["popularity, 5 negatives, batch 256"], mmr["uniform, 5 negatives, batch 256"]
    assert len(mmr) == 15
    assert one[0] < one[1]
    assert json.loads(json.dumps(found)) == found
