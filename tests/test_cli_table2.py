"""``nearfar table2``: what makes docs/results, in small, and how it ends when something fails."""

import json

import polars as pl
import pytest

from conftest import random_data
from nearfar.experiment import cells, table2
from test_cli import as_json, ok, run  # noqa: F401

SMALL = ["--dim", 4, "--epochs", 2, "--k", 10, "--folds", 2, "--tested-folds", 1,
         "--learning-rate", 0.01, "--no-progress"]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "small"
    random_data(30, 40, share=0.3, seed=1).save(path)
    return path


def test_all_rows_are_computed_and_reported(data, as_json, tmp_path):  # noqa: F811
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
    assert table.height > 0
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "cells").rglob("nearfar.json")}
    as_json("table2", data, "-o", tmp_path, *SMALL, "--workers", 0)  # goes on where it was: the end
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "cells").rglob("nearfar.json")} == before


def test_a_failed_cell_ends_in_an_exit_code_and_a_report(data, run, tmp_path):  # noqa: F811
    words = [*SMALL[:-3], "--learning-rate", 1e-5, "--no-progress", "--workers", 0]
    code, _, err = run("table2", data, data, "-o", tmp_path / "twice", *words)
    assert code == 2
    assert "DATA must be folders with distinct names" in err
    code, _, err = run("table2", data / "none", "-o", tmp_path / "none", *words)
    assert code == 1
    assert "does not exist" in err
    assert not (tmp_path / "none").exists()


@pytest.mark.data
def test_movielens_in_small(ml_100k, as_json, tmp_path):  # noqa: F811
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
