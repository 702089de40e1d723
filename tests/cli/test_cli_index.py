"""``nearfar index``, ``batch`` and ``export``, and ``--index`` where items are looked for."""

import json

import polars as pl
import pytest

import nearfar as nf
from conftest import random_data

pytest.importorskip("faiss")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("indexed") / "model"
    nf.CML(dim=8, batch=32).fit(random_data(), epochs=2).save(path)
    return path


def test_an_index_is_made_shown_and_used(run, model, tmp_path):
    out = tmp_path / "index"
    code, said, err = run("index", model, "-o", out, "--recall", "0.6", "--k", "5", "--json")
    assert code == 0, err
    figures = json.loads(said)
    fitted = nf.CML.load(model)
    made = nf.ItemIndex.load(out, fitted)
    assert figures["recall"] == made.recall
    assert (figures["k"], figures["wanted"], figures["n_items"]) == (5, 0.6, 60)
    assert figures["n_probed"] < figures["n_lists"] == 8

    _, said, _ = run("recommend", model, "--user", 3, "--k", 4, "--index", out, "--json")
    (found,) = json.loads(said)["recommendations"]
    expected = fitted.recommend(3, 4, index=made)
    assert [one["item_id"] for one in found["nearest"]] == expected["item_id"].to_list()
    _, said, _ = run("similar", model, "--item", 7, "--k", 4, "--index", out, "--json")
    (found,) = json.loads(said)["neighbours"]
    expected = fitted.similar_items(7, 4, index=made)
    assert [one["item_id"] for one in found["nearest"]] == expected["item_id"].to_list()


def test_what_was_measured_is_printed(run, model, tmp_path):
    _, said, _ = run("index", model, "-o", tmp_path / "i", "--recall", "0.6", "--threads", 1)
    made = nf.ItemIndex.load(tmp_path / "i", nf.CML.load(model))
    assert f"60 items in 8 lists; a query searches {made.figures.n_probed} of them." in said
    assert (
        f"Recall at 10 at popularity 1: {made.recall:.4f}, measured on 15 users (target: 0.6)."
        in said
    )
    _, said, _ = run("index", model, "-o", tmp_path / "i", "--recall", "1")
    assert "searches all, so the search is exact." in said
    _, said, _ = run("index", model, "-o", tmp_path / "i", "--recall", "0.6", "--seed", "8")
    assert nf.ItemIndex.load(tmp_path / "i", nf.CML.load(model)).figures != made.figures


def test_what_does_not_go_is_a_line(run, model, tmp_path):
    code, _, err = run("index", model, "-o", tmp_path / "i", "--recall", "2")
    assert (code, err) == (
        1,
        "nearfar: `recall` must be a finite number above 0 and at most 1; got 2.0.\n",
    )
    code, _, err = run("index", tmp_path / "no", "-o", model)
    assert code == 1
    assert "holds a nearfar model, not an index" in err  # before the model is looked for
    code, _, err = run("similar", model, "--user", 3, "--index", tmp_path / "i")
    assert (code, err) == (2, "nearfar: `--index` is an index of items and needs `--item`.\n")
    code, _, err = run("recommend", model, "--user", 3, "--index", tmp_path / "i")
    assert code == 1
    assert "does not exist; give a folder that nearfar has saved" in err


# --------------------------------------------------------------------------- batch and export


def test_batch_gives_the_library_s_lists(run, model, tmp_path):
    fitted, out = nf.CML.load(model), tmp_path / "lists"
    (tmp_path / "users.txt").write_text("5\n3\n\n5\n9\n")
    words = ("batch", model, "-o", out, "--k", 4, "--users", tmp_path / "users.txt", "--deny", 7)
    code, said, err = run(*words, "--include-seen", "--json")
    assert code == 0, err
    counts = {"n_users": 3, "n_skipped": 0, "n_parts": 1, "n_made": 1}
    assert json.loads(said) == {"folder": str(out), **counts}
    expected = fitted.recommend([5, 3, 9], 4, deny=[7], exclude_seen=False)
    assert pl.read_parquet(out / "part-*.parquet").equals(expected)
    code, said, _ = run(*words, "--include-seen")
    assert code == 0
    assert said == f"Lists of 3 users written to {out}, 1 part; 1 existed already.\n"
    code, _, err = run(*words)
    assert code == 1
    assert "of other settings (other exclude_seen)" in err


def test_batch_with_an_index_allowed_items_and_a_bar(run, model, tmp_path):
    run("index", model, "-o", tmp_path / "i", "--recall", "0.6")
    fitted, out = nf.CML.load(model), tmp_path / "lists"
    words = ("batch", model, "-o", out, "--index", tmp_path / "i", "--threads", 1, "--progress")
    code, said, err = run(*words, *(word for i in range(40) for word in ("--allow", i)))
    assert code == 0, err
    assert "recommending" in err
    assert said == f"Lists of 30 users written to {out}, 1 part.\n"
    index = nf.ItemIndex.load(tmp_path / "i", fitted)
    expected = fitted.recommend_all(allow=range(40), index=index)
    assert pl.read_parquet(out / "part-*.parquet").equals(expected)
    code, _, err = run("batch", model, "-o", tmp_path / "x", "--users", tmp_path / "no")
    assert (code, err) == (2, f"nearfar: `--users` must be a file of ids, one per line; got"
                              f" '{tmp_path / 'no'}'.\n")  # fmt: skip


def test_export_writes_and_says_what(run, model, tmp_path):
    fitted = nf.CML.load(model)
    code, said, err = run("export", model, "-o", tmp_path / "items.parquet")
    assert code == 0, err
    assert said == (
        "60 items in 8 dimensions, with their weights at popularity 1, written to"
        f" {tmp_path / 'items.parquet'}.\n"
    )
    read = pl.read_parquet(tmp_path / "items.parquet")
    assert (read["vector"].to_numpy() == fitted.item_vectors).all()
    words = ("-o", tmp_path / "u.npy", "--format", "numpy", "--what", "users", "--json")
    _, said, _ = run("export", model, *words)
    files = [str(tmp_path / "u.ids.parquet"), str(tmp_path / "u.npy")]
    assert json.loads(said) == {"files": files, "n": 30, "dim": 8}
    code, _, err = run("export", model, *words)
    assert code == 1
    assert "exists; remove it first or choose another path" in err
