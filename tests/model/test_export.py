"""Vectors in other programs' forms: what is written can be read back, and nothing half is left."""

import os
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import nearfar as nf
from conftest import PLAIN, random_data
from nearfar.cli.exporting import Format, What
from nearfar.errors import DataError, NotFittedError, OptionError, StoreError
from nearfar.model import export as module
from nearfar.model.export import FORMATS, WHAT, export

IDS = {
    "integers": lambda n: n - 3,
    "strings": lambda n: f"nö{n}",
}


def fitted(kind="integers", geometry="sphere", make=None):
    make = make or IDS[kind]
    pairs = [(make(u), make(i)) for u in range(6) for i in range(9) if (u + i) % 3]
    return nf.CML(PLAIN, dim=4, geometry=geometry).fit(nf.Interactions.from_pairs(pairs), epochs=1)


@pytest.fixture(scope="module")
def model():
    return fitted()


def axis(model, what):
    data = model.interactions
    if what == "items":
        return data.item_ids, model.item_vectors
    return data.user_ids, model.user_vectors


@pytest.mark.parametrize("kind", IDS)
@pytest.mark.parametrize("what", WHAT)
def test_parquet_and_numpy_keep_ids_and_vectors(kind, what, tmp_path):
    model = fitted(kind)
    ids, vectors = axis(model, what)
    (file,) = export(model, tmp_path / "new" / "v.parquet", "parquet", what=what)
    read = pl.read_parquet(file)
    assert read.columns == ["id", "vector"]
    assert read.schema["vector"] == pl.Array(pl.Float32, 4)
    assert read["id"].to_list() == ids.to_list()
    np.testing.assert_array_equal(read["vector"].to_numpy(), vectors)

    beside, file = export(model, tmp_path / "v.npy", "numpy", what=what)
    assert [beside.name, file.name] == ["v.ids.parquet", "v.npy"]
    loaded = np.load(file)
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, vectors)
    assert pl.read_parquet(beside)["id"].to_list() == ids.to_list()
    if kind == "integers":
        assert pl.read_parquet(beside)["id"].dtype == ids.dtype
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "v.ids.parquet", "v.npy"]


@pytest.mark.parametrize("kind", IDS)
def test_word2vec_is_a_line_for_each_and_keeps_every_bit(kind, tmp_path):
    model = fitted(kind)
    ids, vectors = axis(model, "items")
    (file,) = export(model, tmp_path / "v.txt", "word2vec")
    head, *lines = file.read_text("utf-8").split("\n")
    assert head == "9 4"
    assert lines.pop() == ""
    words, *numbers = zip(*(line.split(" ") for line in lines), strict=True)
    assert list(words) == [str(one) for one in ids]
    np.testing.assert_array_equal(np.array(numbers, np.float32).T, vectors)


@pytest.mark.parametrize("bad", ["two words", "tab\t", "line\nbreak", "no\u00a0break", ""])
def test_ids_that_would_break_word2vec_are_refused(bad, tmp_path):
    model = fitted(make=lambda n: bad if n == 4 else str(n))
    with pytest.raises(DataError, match=r"has white space or is empty.*another format"):
        export(model, tmp_path / "v.txt", "word2vec")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("geometry", ["sphere", "ball", "free"])
@pytest.mark.parametrize("kind", IDS)
def test_an_index_of_faiss_finds_what_the_model_finds(kind, geometry, tmp_path):
    faiss = pytest.importorskip("faiss")
    model = fitted(kind, geometry)
    *beside, file = export(model, tmp_path / "v.faiss", "faiss")
    index = faiss.read_index(str(file))
    _, found = index.search(model.user_vectors, 9)
    if kind == "integers":
        assert not beside
        ids = found
    else:
        assert beside == [tmp_path / "v.ids.parquet"]
        names = pl.read_parquet(beside[0])["id"].to_list()
        ids = [[names[row] for row in rows] for rows in found]
    for user, mine in zip(model.interactions.user_ids, ids, strict=True):
        expected = model.recommend(user, 9, exclude_seen=False)["item_id"].to_list()
        assert list(mine) == expected


@pytest.fixture(scope="module", params=["sphere", "ball"])
def weighted(request):
    """A model with a prior, and ids of text."""
    pairs = [(f"u{u}", f"i{i}") for u in range(6) for i in range(9) if (u + i) % 3 or i < u]
    options = replace(PLAIN, dim=4, geometry=request.param, prior=nf.Prior(0.5, gamma=0.3))
    return nf.CML(options).fit(nf.Interactions.from_pairs(pairs), epochs=1)


@pytest.mark.parametrize("popularity", [None, 0, 2])
def test_the_weights_of_a_prior_give_the_lists_of_the_setting(weighted, popularity, tmp_path):
    setting = 0.5 if popularity is None else float(popularity)
    (file,) = export(weighted, tmp_path / "v.parquet", popularity=popularity)
    beside, npy = export(weighted, tmp_path / "v.npy", "numpy", popularity=popularity)
    words, _ = export(weighted, tmp_path / "w.txt", "word2vec", popularity=popularity)
    frame = pl.read_parquet(file)
    assert frame.columns == ["id", "vector", "weight"]
    assert frame.schema["weight"] == pl.Float32
    vectors, weight = frame["vector"].to_numpy(), frame["weight"].to_numpy()
    counts = weighted.interactions.item_counts
    np.testing.assert_allclose(weight, setting * 0.3 * np.log(counts), rtol=1e-6)
    for other in (beside, words):
        assert pl.read_parquet(other).equals(frame.select("id", "weight"))
    for one in (file, beside, words):
        known = pl.read_parquet_metadata(one)
        assert (float(known["nearfar.gamma"]), float(known["nearfar.popularity"])) == (0.3, setting)
    (users,) = export(weighted, tmp_path / "u.parquet", what="users")
    assert pl.read_parquet(users).columns == ["id", "vector"]
    np.testing.assert_array_equal(np.load(npy), vectors)
    off = 0 if weighted.options.geometry == "sphere" else 0.5 * np.sum(vectors**2, axis=1)
    for user, point in pl.read_parquet(users).iter_rows():
        order = np.argsort(-(vectors @ np.array(point) + weight - off), kind="stable")
        listed = weighted.recommend(user, 9, exclude_seen=False, popularity=popularity)
        assert frame["id"].to_numpy()[order].tolist() == listed["item_id"].to_list()


@pytest.mark.parametrize("popularity", [None, 0, 2])
def test_faiss_has_the_weight_as_one_more_coordinate(weighted, popularity, tmp_path):
    faiss = pytest.importorskip("faiss")
    beside, file = export(weighted, tmp_path / "v.faiss", "faiss", popularity=popularity)
    index, names = faiss.read_index(str(file)), pl.read_parquet(beside)["id"]
    assert index.d == 5
    points = weighted.user_vectors
    _, found = index.search(np.column_stack([points, np.ones(len(points), np.float32)]), 9)
    for user, rows in zip(weighted.interactions.user_ids, found, strict=True):
        listed = weighted.recommend(user, 9, exclude_seen=False, popularity=popularity)
        assert names[rows].to_list() == listed["item_id"].to_list()


def test_only_items_of_a_prior_have_weights(weighted, model, tmp_path):
    with pytest.raises(OptionError, match=r"`popularity` is 1, but only items have weights; omit"):
        export(weighted, tmp_path / "v", what="users", popularity=1)
    with pytest.raises(OptionError, match=r"`popularity` is 1, but the dial .* no popularity p"):
        export(model, tmp_path / "v", popularity=1)
    assert not list(tmp_path.iterdir())


def test_integers_too_large_for_faiss_go_beside(tmp_path):
    pytest.importorskip("faiss")
    frame = pl.DataFrame({"u": [1, 2, 1], "i": pl.Series([2**63, 5, 6], dtype=pl.UInt64)})
    model = nf.CML(PLAIN, dim=2).fit(nf.Interactions.from_frame(frame), epochs=1)
    beside, _ = export(model, tmp_path / "v.faiss", "faiss")
    assert pl.read_parquet(beside)["id"].to_list() == [5, 6, 2**63]


def test_files_that_are_there_are_left_alone(model, tmp_path):
    for name in ("v.npy", "v.ids.parquet"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(
            StoreError, match=rf"{name}' exists; remove it first or choose another p"
        ):
            export(model, tmp_path / "v.npy", "numpy")
        assert [p.read_text() for p in tmp_path.iterdir()] == ["mine"]
        (tmp_path / name).unlink()


@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_write_that_fails_leaves_nothing(model, tmp_path, monkeypatch, name, call):
    left, real = [call], getattr(os, name)

    def full(*args):
        left[0] -= 1
        if left[0] == 0:
            raise OSError(28, "No space left on device")
        return real(*args)

    monkeypatch.setattr(os, name, full)
    with pytest.raises(StoreError, match=r"failed: .*No space left.* No file was left; check"):
        export(model, tmp_path / "v.npy", "numpy")
    assert not list(tmp_path.iterdir())


def test_an_interrupt_leaves_nothing_and_goes_on_up(tmp_path):
    def interrupted(path):
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        module.write_new({tmp_path / "x": interrupted})
    assert not list(tmp_path.iterdir())


def test_faiss_that_cannot_write_is_one_error(model, tmp_path):
    pytest.importorskip("faiss")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError, match=r"v.faiss' failed"):
        export(model, tmp_path / "file" / "v.faiss", "faiss")


def test_wrong_options_are_named(model, tmp_path):
    with pytest.raises(
        OptionError, match=r"`form` must be one of parquet, numpy, word2vec, faiss;"
    ):
        export(model, tmp_path / "v", "csv")
    with pytest.raises(OptionError, match=r"`what` must be one of items, users; got 'both'\."):
        export(model, tmp_path / "v", what="both")
    with pytest.raises(NotFittedError, match="has not been fitted"):
        export(nf.CML(), tmp_path / "v")


def test_the_command_line_knows_all_formats():
    assert [*Format] == [*FORMATS]
    assert [*What] == [*WHAT]


def test_random_data_is_exported_in_the_order_of_its_rows(tmp_path):
    data = random_data()
    model = nf.CML(PLAIN, dim=4).fit(data, epochs=1)
    (file,) = export(model, tmp_path / "v.parquet", what="users")
    assert pl.read_parquet(file)["id"].to_list() == data.user_ids.to_list()
