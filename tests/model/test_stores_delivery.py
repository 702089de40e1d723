"""Export to stores: one contract for all, each against the real thing."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import nearfar as nf
from conftest import PLAIN, import_path
from nearfar.errors import (
    DataError,
    MissingExtraError,
    NearfarWarning,
    NotFittedError,
    OptionError,
    StoreError,
)
from nearfar.model.stores import delivery
from nearfar.model.stores.delivery import STORES, Delivered, export_to
from nearfar.model.stores.outgoing_rows import version_of
from stored import KINDS, check_rows, fitted, pairs_of


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("geometry", ["sphere", "ball"])
def test_a_table_has_the_rows_of_the_model(place, kind, geometry):
    model = fitted(KINDS[kind], titles=True, geometry=geometry)
    width = 4 + 1 + (geometry == "ball")
    version = version_of(model)
    for what, n in (("items", 30), ("users", 12)):
        done = export_to(model, place.store, place.where, what=what, batch=7)
        assert done == Delivered(f"nearfar_{what}", version, width, n, n, 0, 0)
        assert check_rows(place, f"nearfar_{what}", model, what) == version


def test_a_model_without_a_prior_has_its_points_alone(place):
    model = fitted(prior=None)
    assert export_to(model, place.store, place.where).width == 4
    check_rows(place, "nearfar_items", model)


def test_a_second_export_writes_nothing(place):
    model = fitted(titles=True)
    first = export_to(model, place.store, place.where, table="films", batch=11)
    again = export_to(model, place.store, place.where, table="films")
    assert (first.n_written, again.n_written, again.n_removed) == (30, 0, 0)
    assert again == replace(first, n_written=0)


def test_the_next_version_replaces_adds_and_removes(place):
    first = fitted(titles=True, n_items=30)
    pairs = [(u, i + 5) for u, i in pairs_of(KINDS["int"], n_items=33)]
    data = nf.Interactions.from_pairs(pairs)
    second = nf.CML(first.options).fit(data, epochs=1, seed=3)
    old, new = (set(m.interactions.item_ids.to_list()) for m in (first, second))
    assert old - new
    assert new - old
    assert old & new
    export_to(first, place.store, place.where, batch=9)
    done = export_to(second, place.store, place.where, batch=9)
    assert (done.n_rows, done.n_written, done.n_removed) == (len(new), len(new), len(old - new))
    assert check_rows(place, "nearfar_items", second) == version_of(second) != version_of(first)


def test_other_titles_are_another_version(place):
    model, titled = fitted(), fitted(titles=True)
    np.testing.assert_array_equal(model.item_vectors, titled.item_vectors)
    export_to(model, place.store, place.where)
    assert export_to(titled, place.store, place.where).n_written == 30
    check_rows(place, "nearfar_items", titled)


def test_rows_that_someone_removed_are_written_again(place):
    model = fitted()
    export_to(model, place.store, place.where, batch=8)
    place.remove("nearfar_items", 5)
    done = export_to(model, place.store, place.where, batch=8)
    assert (done.n_written, done.n_rows) == (1, 30)
    check_rows(place, "nearfar_items", model)


def test_items_and_users_without_a_point_are_left_out(place):
    whole = nf.Interactions.from_pairs(pairs_of(KINDS["int"]))
    users, items = whole._pair_users, whole.items
    train = whole.subset((items > 2) & (users != 0))
    model = nf.CML(PLAIN, dim=4).fit(train, epochs=1)
    done = export_to(model, place.store, place.where)
    assert (done.n_rows, done.n_left_out) == (27, 3)
    check_rows(place, "nearfar_items", model)
    assert export_to(model, place.store, place.where, what="users").n_left_out == 1
    check_rows(place, "nearfar_users", model, "users")


NASTY = [
    "it's",
    'say "hi"',
    "back\\slash",
    "line\nbreak",
    "",
    "{}%s",
    "日本",
    "a,b",
    "\\'",
    "--",
    "$1",
]


def test_ids_and_titles_of_any_text_come_back(place):
    model = fitted(lambda n: NASTY[n] if n < len(NASTY) else str(n))
    data = model.interactions
    table = pl.DataFrame({"item_id": NASTY, "title": NASTY[::-1]})
    model._fitted = model._fitted._replace(interactions=data.with_item_table(table))
    export_to(model, place.store, place.where, batch=6)
    check_rows(place, "nearfar_items", model)
    place.remove("nearfar_items", "日本")
    assert export_to(model, place.store, place.where).n_written == 1  # it asks for all others
    check_rows(place, "nearfar_items", model)


@pytest.mark.parametrize("largest", [2**63 - 1, -(2**63)])
def test_integers_of_64_bits_are_kept(place, largest):
    model = fitted(lambda n: largest if n == 3 else n)
    export_to(model, place.store, place.where)
    assert export_to(model, place.store, place.where).n_written == 0
    check_rows(place, "nearfar_items", model)


# -------------------------------------------------------------------------------------- faults

CHILD = """
import os, signal, sys
import nearfar as nf
from nearfar.model.stores import {module}
store, where, folder, method, calls = sys.argv[1:]
real, left = getattr({module}.{name}, method), [int(calls)]
def killed(*args):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args)
setattr({module}.{name}, method, killed)
nf.export_to(nf.CML.load(folder), store, where, batch=4)
"""
CLASSES = {"pgvector": "PgvectorTable", "milvus": "MilvusCollection", "lancedb": "LancedbTable"}
MODULES = {"pgvector": "pgvector_table", "milvus": "milvus_collection", "lancedb": "lancedb_table"}


def run_killed(place, model_folder, method, calls):
    text = CHILD.format(module=MODULES[place.store], name=CLASSES[place.store])
    words = [sys.executable, "-c", text, place.store, place.where, str(model_folder), method]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([import_path(__file__), *sys.path])}
    done = subprocess.run(
        [*words, str(calls)], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("moment", [("upsert", 1), ("upsert", 4), ("remove_others", 1),
                                    ("finish", 1)])  # fmt: skip
def test_a_killed_export_continues(place, moment, tmp_path):
    first, second = fitted(titles=True), fitted(titles=True, seed=4, n_items=27)
    second.save(tmp_path / "model")
    export_to(first, place.store, place.where, batch=4)
    if place.store == "milvus":
        place.release()
    run_killed(place, tmp_path / "model", *moment)
    written = {("upsert", 1): 0, ("upsert", 4): 12}.get(moment, 27)
    done = export_to(second, place.store, place.where, batch=5)
    assert done.n_written == 27 - written
    assert done.n_removed == (0 if moment == ("finish", 1) else 3)
    assert check_rows(place, "nearfar_items", second) == version_of(second)


def test_a_table_of_another_width_is_unchanged(place):
    model = fitted()
    export_to(model, place.store, place.where)
    for other, said in (
        (fitted(dim=6), r"has another layout \(dim=4 instead of dim=6\); it is unchanged\. Choose"),
        (fitted(geometry="ball", prior=None), "norm=False, weight=True instead of norm=True, wei"),
        (fitted(KINDS["str"]), "ids='integer' instead of ids='text'"),
    ):
        with pytest.raises(StoreError, match=rf"'nearfar_items' of .*{said}"):
            export_to(other, place.store, place.where)
    with pytest.raises(StoreError, match="what='items' instead of what='users'"):
        export_to(model, place.store, place.where, what="users", table="nearfar_items")
    check_rows(place, "nearfar_items", model)


def test_a_table_that_holds_something_else_is_unchanged(place):
    place.make_foreign("mine")
    with pytest.raises(StoreError, match=r"'mine' of .* exists and was not made by nearfar; it is"):
        export_to(fitted(), place.store, place.where, table="mine")
    assert place.foreign_rows("mine")


def test_a_row_that_is_written_meanwhile_is_reported(place, monkeypatch):
    model, other = fitted(), fitted(seed=1)
    export_to(other, place.store, place.where, table="other")
    real = delivery._write

    def disturbed(opened, out, size, progress):
        done = real(opened, out, size, progress)
        opened.upsert(next(delivery.outgoing(other, "items").batches(3)))
        return done

    monkeypatch.setattr(delivery, "_write", disturbed)
    with pytest.raises(StoreError, match=r"has 30 rows, 27 of this version; it must have 30\. An"):
        export_to(model, place.store, place.where)
    monkeypatch.undo()
    assert export_to(model, place.store, place.where).n_written == 3
    check_rows(place, "nearfar_items", model)


# ------------------------------------------------------------------------------------- options


def test_what_cannot_be_stored_is_refused_before_there_is_a_table(place):
    pairs = pl.DataFrame({"u": [1, 2, 1], "i": pl.Series([2**63, 5, 6], dtype=pl.UInt64)})
    huge = nf.CML(PLAIN, dim=2).fit(nf.Interactions.from_frame(pairs), epochs=1)
    for model, said in (
        (huge, "The item id 9223372036854775808 has more than 63 bits"),
        (fitted(lambda n: "x" * 1025 if n == 4 else str(n)), "The item id 'xxx.* at most 1,024 b"),
        (fitted(lambda n: "a\0b" if n == 4 else str(n)), r"The item id 'a\\x00b'.* no NUL"),
    ):
        with pytest.raises(DataError, match=said):
            export_to(model, place.store, place.where)
    model = fitted()
    long = pl.DataFrame({"item_id": [0], "title": ["é" * 32768]})
    model._fitted = model._fitted._replace(interactions=model.interactions.with_item_table(long))
    with pytest.raises(DataError, match=r"The title 'é.* must have at most 65,535 bytes"):
        export_to(model, place.store, place.where)
    assert export_to(fitted(), place.store, place.where).n_written == 30


def test_wrong_options_are_named(tmp_path):
    model = fitted()
    for changes, said in (
        ({"store": "redis"}, r"`store` must be one of pgvector, milvus, lancedb; got 'redis'\."),
        ({"what": "both"}, r"`what` must be one of items, users; got 'both'\."),
        ({"table": "a b"}, r"`table` must be a name of up to 63 letters.* got 'a b'"),
        ({"table": "a.b"}, r"`table` must be a name"),
        ({"table": "x" * 64}, r"`table` must be a name"),
        ({"where": ""}, r"`where` must be a text"),
        ({"batch": 0}, r"`batch` must be a whole number between 1 and 100000|`batch` must be"),
    ):
        with pytest.raises(OptionError, match=said):
            export_to(model, **{"store": "lancedb", "where": str(tmp_path / "x"), **changes})
    with pytest.raises(NotFittedError, match="has not been fitted"):
        export_to(nf.CML(), "lancedb", tmp_path / "x")
    assert not (tmp_path / "x").exists()


MISSING = {"pgvector": ["psycopg"], "milvus": ["pymilvus", "milvus_lite"],
           "lancedb": ["lancedb", "pyarrow"]}  # fmt: skip


@pytest.mark.parametrize(("store", "module"), [(s, m) for s, ms in MISSING.items() for m in ms])
def test_a_missing_client_names_its_extra(store, module, monkeypatch, tmp_path):
    where = {"pgvector": "postgresql://localhost/x", "milvus": str(tmp_path / "x.db"),
             "lancedb": str(tmp_path / "x")}[store]  # fmt: skip
    model = fitted()
    monkeypatch.setitem(sys.modules, module, None)
    said = rf"needs {module.replace('_', '-')}, which is not installed: .*nearfar\[{store}\]"
    with pytest.raises(MissingExtraError, match=said):
        export_to(model, store, where)


def test_the_term_of_neighbours_is_left_out_with_a_warning(tmp_path):
    pytest.importorskip("lancedb")
    data = nf.Interactions.from_pairs(pairs_of(KINDS["int"]))
    near = nf.CML(PLAIN, dim=4, neighbours=nf.CoOccurrence(nearest=3, weight=0.5))
    near.fit(data, epochs=1)
    with pytest.warns(NearfarWarning, match=r"The co-occurrence term of .* not in the tab"):
        export_to(near, "lancedb", tmp_path / "x")


def test_the_version_is_of_all_that_is_exported():
    model = fitted()
    versions = {version_of(one) for one in (
        model, fitted(seed=1), fitted(titles=True), fitted(prior=nf.Prior(0.6, gamma=0.3)),
        fitted(prior=nf.Prior(0.5, gamma=0.2)), fitted(KINDS["str"]))}  # fmt: skip
    assert len(versions) == 6
    assert version_of(fitted()) == version_of(model)
    assert all(len(one) == 16 and set(one) <= set("0123456789abcdef") for one in versions)


def test_a_batch_has_about_a_million_coordinates(tmp_path, monkeypatch):
    pytest.importorskip("lancedb")
    sizes = []
    real = delivery.Outgoing.batches
    monkeypatch.setattr(
        delivery.Outgoing, "batches", lambda self, size: sizes.append(size) or real(self, size)
    )
    export_to(fitted(dim=64), "lancedb", tmp_path / "x")
    export_to(fitted(), "lancedb", tmp_path / "y")
    export_to(fitted(), "lancedb", tmp_path / "z", batch=3)
    assert sizes == [2**20 // 65, 100_000, 3]
    assert [*STORES] == ["pgvector", "milvus", "lancedb"]
