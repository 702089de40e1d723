"""What is particular to PostgreSQL: connections, the extension, the index, schemas."""

import socket

import numpy as np
import pytest

from nearfar.errors import NearfarWarning, OptionError, StoreError
from nearfar.model.stores.delivery import export_to
from nearfar.model.stores.pgvector_table import as_texts
from stored import Postgres, check_rows, fitted

pytest.importorskip("psycopg")


@pytest.fixture
def place(postgres):
    return Postgres(postgres())


def unused_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_no_server_is_an_error_without_the_password():
    where = f"postgresql://shop:s3cret@127.0.0.1:{unused_port()}/shop"
    with pytest.raises(
        StoreError, match=r"PostgreSQL cannot be reached: .*127\.0\.0\.1.* Start t"
    ) as e:
        export_to(fitted(), "pgvector", where)
    assert "s3cret" not in str(e.value)


@pytest.mark.parametrize("where", ["nonsense", "s3://bucket/x", "host=x passwort=s3cret", "  ",
                                   "postgresql://shop:s3cret@host:port/x?a=1"])  # fmt: skip
def test_a_bad_connection_string_is_refused_without_showing_it(where):
    with pytest.raises(
        (OptionError, StoreError), match=r"`where` must be a connection string"
    ) as e:
        export_to(fitted(), "pgvector", where)
    assert "s3cret" not in str(e.value)


def test_an_unknown_database_is_named(postgres):
    with pytest.raises(StoreError, match=r'cannot be reached: .*database "nowhere" does not exist'):
        export_to(fitted(), "pgvector", postgres.uri(database="nowhere"))


def test_the_extension_is_created_if_the_user_may(postgres):
    place, model = Postgres(postgres()), fitted()
    place.ask("CREATE DATABASE plain TEMPLATE template0")
    place.ask("CREATE ROLE weak LOGIN")
    plain = Postgres(postgres.uri(database="plain"))
    weak = plain.where.replace("postgres:@", "weak@")
    with pytest.raises(StoreError, match=r"lacks .* pgvector: .*ermission denied.* let an adm"):
        export_to(model, "pgvector", weak)
    assert export_to(model, "pgvector", plain.where).n_written == 30
    check_rows(plain, "nearfar_items", model)
    with pytest.raises(StoreError, match=r"permission denied for table nearfar_items"):
        export_to(model, "pgvector", weak)


def test_items_have_an_index_for_inner_products_and_users_have_none(place):
    model = fitted()
    for what in ("items", "users"):
        export_to(model, "pgvector", place.where, what=what)
        export_to(model, "pgvector", place.where, what=what)
    asked = "SELECT indexdef FROM pg_indexes WHERE tablename = %s AND schemaname = current_schema()"
    items, users = (
        [one for (one,) in place.ask(asked + " ORDER BY indexname", f"nearfar_{what}")]
        for what in ("items", "users")
    )
    assert [one.split(" USING ")[1] for one in items] == [
        "btree (id)",
        "hnsw (vector vector_ip_ops)",
    ]
    assert [one.split(" USING ")[1] for one in users] == ["btree (id)"]


INDEXES = (
    "SELECT relname, indisvalid, pg_relation_filenode(oid) FROM pg_index"
    " JOIN pg_class ON oid = indexrelid"
    " WHERE indrelid = to_regclass('nearfar_items') ORDER BY relname"
)


def test_an_index_is_built_anew_for_the_next_version_alone(place):
    export_to(fitted(), "pgvector", place.where)
    (_, first) = place.ask(INDEXES)
    export_to(fitted(), "pgvector", place.where)
    assert place.ask(INDEXES)[1] == first
    export_to(fitted(seed=2), "pgvector", place.where)
    (_, second) = place.ask(INDEXES)
    assert (second[0], second[1]) == ("nearfar_items_vector_idx", True)
    assert second[2] != first[2]
    export_to(fitted(seed=2), "pgvector", place.where)
    assert place.ask(INDEXES)[1] == second


def test_what_a_killed_build_left_is_removed(place):
    export_to(fitted(), "pgvector", place.where)
    place.ask('CREATE INDEX "nearfar_items_vector_idx_ccnew" ON nearfar_items'
              " USING hnsw (vector vector_ip_ops)")  # fmt: skip
    place.ask("UPDATE pg_index SET indisvalid = false WHERE indexrelid ="
              " to_regclass('nearfar_items_vector_idx_ccnew')")  # fmt: skip
    export_to(fitted(seed=2), "pgvector", place.where)
    assert [name for name, valid, _ in place.ask(INDEXES) if valid] == [
        "nearfar_items_pkey",
        "nearfar_items_vector_idx",
    ]
    assert len(place.ask(INDEXES)) == 2


def test_an_index_of_your_own_is_kept(place):
    export_to(fitted(), "pgvector", place.where)
    place.ask("DROP INDEX nearfar_items_vector_idx")
    place.ask('CREATE INDEX "my {own} %s" ON nearfar_items USING ivfflat (vector vector_ip_ops)')
    export_to(fitted(seed=2), "pgvector", place.where)
    assert [name for name, _, _ in place.ask(INDEXES)] == ["my {own} %s", "nearfar_items_pkey"]


def test_a_table_may_have_a_schema(place):
    model = fitted(titles=True)
    place.ask("CREATE SCHEMA IF NOT EXISTS shop")
    assert export_to(model, "pgvector", place.where, table="shop.Films").table == "shop.Films"
    check_rows(place, 'shop."Films"', model)
    assert export_to(model, "pgvector", place.where, table="shop.Films").n_written == 0
    with pytest.raises(
        StoreError, match=r'Creating the table .* failed: schema "nowhere" does not'
    ):
        export_to(model, "pgvector", place.where, table="nowhere.films")


def test_a_view_of_the_name_is_refused(place):
    place.ask("CREATE VIEW seen AS SELECT 1 AS id")
    with pytest.raises(StoreError, match=r"'seen' of .* was not made by nearfar"):
        export_to(fitted(), "pgvector", place.where, table="seen")


@pytest.mark.parametrize("dim", [1999, 2000])
def test_vectors_of_more_than_2000_coordinates_have_no_index(place, dim):
    model = fitted(dim=dim)
    if dim == 1999:
        export_to(model, "pgvector", place.where)
    else:
        with pytest.warns(NearfarWarning, match="has no index: vectors have 2,001 coordinates"):
            export_to(model, "pgvector", place.where)
    found = place.ask("SELECT count(*) FROM pg_indexes WHERE tablename = 'nearfar_items'"
                      " AND schemaname = current_schema()")  # fmt: skip
    assert found == [(1 + (dim == 1999),)]


def test_the_text_of_a_vector_keeps_every_bit():
    rows = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    read = np.array([[float(one) for one in text[1:-1].split(",")] for text in as_texts(rows)])
    np.testing.assert_array_equal(read.astype(np.float32), rows)


def test_a_batch_that_fails_leaves_the_table_as_it_was(place):
    first, second = fitted(), fitted(seed=1)
    version = export_to(first, "pgvector", place.where).version
    place.ask(f"ALTER TABLE nearfar_items ADD CHECK (id <> 20 OR version = '{version}')")
    with pytest.raises(StoreError, match=r"Writing the table .* failed: .*check constraint"):
        export_to(second, "pgvector", place.where)
    check_rows(place, "nearfar_items", first)  # one batch has all rows
