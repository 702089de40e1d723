"""`nearfar update`, `project`, `evaluate --keep` and `recommend --liked`."""

import sys

import numpy as np
import pytest

import nearfar as nf
from conftest import checkerboard

SMALL = ["--sampler", "uniform", "--dim", 8, "--batch", 16, "--learning-rate", 0.03]


@pytest.fixture
def model(ok, tmp_path):
    checkerboard().save(tmp_path / "data")
    words = ["--holdout", 0.25, "--epochs", 30, *SMALL]
    ok("fit", tmp_path / "data", "-o", tmp_path / "model", *words)
    return tmp_path / "model"


def test_update_learns_from_new_interactions(ok, as_json, model, tmp_path):
    new = nf.Interactions.from_pairs([(77, i) for i in range(0, 16, 2)])
    new.save(tmp_path / "new")
    before = nf.CML.load(model)
    words = ["-o", tmp_path / "grown", "--epochs", 20]
    found = as_json("update", model, tmp_path / "new", *words)
    assert found["n_users"] == {"before": 20, "now": 21}
    assert found["n_pairs"]["now"] == before.interactions.n_pairs + 8
    grown = nf.CML.load(tmp_path / "grown")
    assert grown.recommend(77, k=2)["item_id"].to_list() in ([16, 18], [18, 16])
    same = nf.CML.load(model).partial_fit(new, epochs=20)
    np.testing.assert_allclose(grown.item_vectors, same.item_vectors, atol=1e-6)
    assert np.array_equal(nf.CML.load(model).item_vectors, before.item_vectors)
    assert "interactions" in ok("update", model, tmp_path / "new")
    assert nf.CML.load(model).interactions == grown.interactions


def test_update_refuses_a_folder_of_something_else_before_it_trains(run, model, tmp_path):
    code, _, err = run("update", model, tmp_path / "data", "-o", tmp_path / "data")
    assert code == 1
    assert "not a model" in err


def test_evaluate_keeps_its_figures_if_asked(ok, as_json, model, tmp_path):
    found = as_json("evaluate", model, tmp_path / "data", "--k", 5)
    assert "test" not in nf.CML.load(model).metrics
    ok("evaluate", model, tmp_path / "data", "--k", 5, "--keep")
    kept = nf.CML.load(model).metrics["test"]
    assert kept["ndcg"] == pytest.approx(found["metrics"]["ndcg"])
    assert kept["k"] == 5


def test_somebody_unknown_gets_what_goes_with_what_they_like(run, ok, as_json, model, tmp_path):
    found = as_json("recommend", model, "--liked", 2, "--liked", 4, "--k", 3)
    (one,) = found["recommendations"]
    expected = nf.CML.load(model).recommend(liked=[2, 4], k=3)
    assert [entry["item_id"] for entry in one["nearest"]] == expected["item_id"].to_list()
    assert one["liked"] == "2, 4"
    assert all(entry["item_id"] % 2 == 0 for entry in one["nearest"])
    (tmp_path / "liked.txt").write_text("2\n4\n")
    said = ok("recommend", model, "--liked", f"@{tmp_path}/liked.txt")
    assert "Recommended to a user who likes 2, 4" in " ".join(said.split())
    for words in ([], ["--user", 1, "--liked", 2]):
        code, _, err = run("recommend", model, *words)
        assert code == 2
        assert "Give either `--user` or `--liked`" in err


def test_project_draws_the_items_anew(run, as_json, model, monkeypatch):
    first = nf.CML.load(model).projection
    found = as_json("project", model)
    assert (found["method"], found["n_items"]) == ("pca", 20)
    assert np.array_equal(nf.CML.load(model).projection.points, first.points)
    monkeypatch.setitem(sys.modules, "umap", None)
    code, _, err = run("project", model, "--method", "umap")
    assert code == 1
    assert 'pip install "nearfar[umap]"' in err
