"""The guide to stores: the code of its recipes gives the lists of `recommend`."""

import re
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import nearfar as nf
from conftest import random_data
from nearfar.model.stores.coordinates import queries
from stored import new_place

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "stores.md"
HEADINGS = {"pgvector": "PostgreSQL with pgvector", "milvus": "Milvus", "lancedb": "LanceDB"}
WHERE = {"pgvector": "postgresql://shop@localhost:5432/shop", "milvus": "http://localhost:19530",
         "lancedb": "vectors/"}  # fmt: skip


def blocks(store):
    """The Python of the section of a store."""
    section = GUIDE.read_text().split(f"\n## {HEADINGS[store]}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


EXACTLY = {
    "pgvector": ("SET LOCAL hnsw.ef_search = 200", "SET LOCAL enable_indexscan = off"),
    "lancedb": (".nprobes(20)", ".bypass_vector_index()"),
}
"""What the guide says to change for exact lists."""


@contextmanager
def recipe(store, model, where, change=("", "")):
    """Run the section with another address; yield its names."""
    export, query = blocks(store)
    assert change[0] in query
    query = query.replace(*change) if change[0] else query
    assert export.count(f'"{WHERE[store]}"') == 3
    names = {"nf": nf, "model": model}
    exec(export.replace(f'"{WHERE[store]}"', repr(where)), names)
    exec(query, names)
    yield names
    for name in {"connection", "client"} & set(names):
        names[name].close()


def named(kind):
    return {"int": lambda n: n, "str": lambda n: f"it's {n}"}[kind]


def trained(kind, geometry):
    make, drawn = named(kind), random_data(40, 400, 0.05)
    pairs = [(make(u), make(i)) for u, i in drawn.to_frame().select("user_id", "item_id").rows()]
    data = nf.Interactions.from_pairs(pairs)
    titles = pl.DataFrame({"item_id": data.item_ids.values})
    data = data.with_item_table(titles.with_columns(title="T" + pl.col("item_id").cast(pl.String)))
    options = {"dim": 16, "geometry": geometry, "prior": nf.Prior(0.7, gamma=0.05)}
    return nf.CML(**options).fit(data, epochs=3, progress=False)


@pytest.mark.parametrize("store", HEADINGS)
@pytest.mark.parametrize(("kind", "geometry"), [("int", "sphere"), ("str", "ball")])
def test_a_recipe_gives_the_top_ten_of_recommend(store, kind, geometry, request, tmp_path):
    model = trained(kind, geometry)
    with recipe(store, model, new_place(store, request, tmp_path).where) as names:
        for row in range(20):
            check_list(model, names["top"], row)
        user = model.interactions.user_ids.id(0)
        wanted = model.recommend(user, 10, exclude_seen=False)["item_id"].to_list()
        assert [one for one, _, _ in names["top"](user, [])] == wanted


@pytest.mark.parametrize("store", EXACTLY)
def test_the_exact_variant_of_a_recipe_gives_the_top_ten_too(store, request, tmp_path):
    model, where = trained("int", "sphere"), new_place(store, request, tmp_path).where
    with recipe(store, model, where, EXACTLY[store]) as names:
        for row in range(5):
            check_list(model, names["top"], row)
        if store == "pgvector":
            connection = names["connection"]
            connection.execute("SET enable_indexscan = off")
            asked = {"user": 3, "seen": [], "k": 10}
            plan = str(connection.execute("EXPLAIN " + names["QUERY"], asked).fetchall())
            assert "vector_idx" not in plan


def check_list(model, top, row):
    """Assert that a recipe returns the list of a user with titles and scores."""
    data = model.interactions
    user = data.user_ids.id(row)
    seen = data.item_ids.take(data.positives(row)).to_list()
    wanted = model.recommend(user, 10)
    ids, titles, scores = zip(*top(user, seen), strict=True)
    assert [*ids] == wanted["item_id"].to_list()
    assert [*titles] == [f"T{one}" for one in ids]
    sphere = model.options.geometry == "sphere"
    less = 0.0 if sphere else 1 - np.sum(model.user_vectors[row] ** 2) / 2
    np.testing.assert_allclose(scores, wanted["score"].to_numpy() - less, atol=2e-6)


@pytest.mark.parametrize("store", HEADINGS)
def test_a_recipe_lists_no_items_of_another_version(store, request, tmp_path):
    where = new_place(store, request, tmp_path).where
    first, second = trained("int", "sphere"), trained("int", "sphere")
    second.partial_fit(nf.Interactions.from_pairs([(0, 1)]), epochs=1)
    with recipe(store, first, where) as names:
        assert len(names["top"](0, [])) == 10
        nf.export_to(second, store, where, what="users")
        if store == "lancedb":  # an open table is of one version
            names["users"].checkout_latest()
        assert names["top"](0, []) == []
    with recipe(store, second, where) as names:
        wanted = second.recommend(0, 10, exclude_seen=False)["item_id"].to_list()
        assert [one for one, _, _ in names["top"](0, [])] == wanted


def test_the_query_of_pgvector_uses_the_index(request, tmp_path):
    model, asked = trained("int", "sphere"), {"user": 3, "seen": [1, 2], "k": 10}
    with recipe("pgvector", model, new_place("pgvector", request, tmp_path).where) as names:
        connection = names["connection"]
        connection.execute("SET enable_seqscan = off")  # 400 rows are read faster without an index
        plan = connection.execute("EXPLAIN " + names["QUERY"], asked).fetchall()
    assert "Index Scan using nearfar_items_vector_idx on nearfar_items" in str(plan)


@pytest.mark.parametrize("setting", [0.0, 2.0])
def test_the_dial_is_the_last_coordinate_of_the_query(setting):
    model = trained("int", "sphere")
    asked = queries(model, model.user_vectors, popularity=setting)
    usual = queries(model, model.user_vectors)
    np.testing.assert_array_equal(asked[:, :-1], usual[:, :-1])
    assert set(asked[:, -1]) == {setting}
    assert set(usual[:, -1]) == {np.float32(0.7)}
