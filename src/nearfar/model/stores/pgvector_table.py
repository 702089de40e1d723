"""A table of PostgreSQL with the extension pgvector.

Each batch is one statement, so it is written completely or not at all. The index is HNSW with the
inner product (``vector_ip_ops``, the operator ``<#>``). PostgreSQL keeps it complete, but a graph
in which all vectors were replaced one by one finds less, so after an update it is built anew, while
the old one serves. It takes up to 2,000 coordinates; longer vectors are searched without one. A
table of users has the key alone, because users are looked up and not searched.

The comment of the table has its layout, and in a second line the version that the index is of.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from contextlib import contextmanager
from typing import Any, Final

import polars as pl

from nearfar.errors import OptionError, StoreError, first_line
from nearfar.model.stores.vector_store import Layout, VectorRows, VectorStore, explained, foreign
from nearfar.runtime.arrays import Float32
from nearfar.runtime.caller import warn
from nearfar.runtime.extras import load_extra

LONGEST_INDEXED: Final = 2000
"""The most coordinates of an index of type ``vector``."""
SECONDS: Final = 10
"""How long to wait for a server, unless the connection string says ``connect_timeout``."""
_TYPES: Final = {"integer": "bigint", "text": "text"}
_MISSING: Final = (
    "The export to pgvector needs psycopg, which is not installed:"
    ' `pip install "nearfar[pgvector]"`.'
)
_RELATION: Final = (
    "SELECT relkind::text, obj_description(oid, 'pg_class') FROM pg_class"
    " WHERE oid = to_regclass({name})"
)
_INDEXES: Final = (
    "SELECT nspname, relname, indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid"
    " JOIN pg_am ON pg_am.oid = relam JOIN pg_namespace ON pg_namespace.oid = relnamespace"
    " WHERE indrelid = to_regclass({name}) AND amname IN ('hnsw', 'ivfflat')"
)


@contextmanager
def open_pgvector(where: str, table: str, layout: Layout) -> Iterator[VectorStore]:
    """Open a table by a connection string.

    Raises
    ------
    MissingExtraError
        psycopg is not installed.
    OptionError
        `where` is not a connection string.
    StoreError
        The server cannot be reached, or it does not have pgvector.
    """
    psycopg = load_extra("psycopg", _MISSING)
    given = _parsed(psycopg, where)
    try:
        connection = psycopg.connect(**{"connect_timeout": SECONDS, **given}, autocommit=True)
    except psycopg.Error as error:
        raise StoreError(
            f"PostgreSQL cannot be reached: {first_line(error)}. Start the server, or check the"
            " host, the port, the database and the user in `where`."
        ) from error
    with connection:
        place = f"table {table!r} of the database {connection.info.dbname!r}"
        opened = PgvectorTable(psycopg, connection, place, table, layout)
        opened.check_extension()
        yield opened


def _parsed(psycopg: Any, where: str) -> dict[str, Any]:
    """Return the parts of a connection string, which is not shown: it may have a password."""
    try:
        given: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(where)
    except psycopg.Error:
        given = {}
    if not given:
        raise OptionError(
            "`where` must be a connection string of PostgreSQL, such as"
            " postgresql://user@host:5432/database; the one given cannot be read (it is not shown,"
            " because it may contain a password)."
        )
    return given


class PgvectorTable:
    """A table of a connection; see `nearfar.model.stores.vector_store.VectorStore`."""

    def __init__(
        self, psycopg: Any, connection: Any, place: str, table: str, layout: Layout
    ) -> None:
        self.place = place
        self._errors, self._sql, self._connection = psycopg.Error, psycopg.sql, connection
        self._table, self._layout = psycopg.sql.Identifier(*table.split(".")), layout
        self._indexed = ""
        self._known: dict[str, Any] = {
            "table": self._table,
            "name": psycopg.sql.Literal(self._table.as_string(connection)),
        }

    def check_extension(self) -> None:
        """Create the extension if the database lacks it.

        Raises
        ------
        StoreError
            The server does not have it, or the user may not create it.
        """
        try:
            if not self._one("SELECT count(*) FROM pg_extension WHERE extname = 'vector'"):
                self._do("CREATE EXTENSION IF NOT EXISTS vector")
        except self._errors as error:
            raise StoreError(
                f"The database lacks the extension pgvector: {first_line(error)}. Install pgvector"
                " on the server, and let an administrator run CREATE EXTENSION vector."
            ) from error

    def found(self) -> Layout | None:
        """Return the layout of the table; None if there is none."""
        with explained(self.place, "Reading", self._errors):
            row = self._do(_RELATION).fetchone()
        if row is None:
            return None
        text, _, self._indexed = (row[1] or "").partition("\n")
        layout = Layout.from_text(text) if row[0] == "r" else None
        if layout is None:
            raise foreign(self.place)
        return layout

    def create(self) -> None:
        """Create the table, with its layout as the comment."""
        title = "title text, " if self._layout.titled else ""
        with explained(self.place, "Creating", self._errors), self._connection.transaction():
            self._do(
                f"CREATE TABLE {{table}} (id {_TYPES[self._layout.ids]} PRIMARY KEY, vector"
                f" vector({self._layout.width}) NOT NULL, {title}version text NOT NULL)"
            )
            self._describe("")

    def _describe(self, version: str) -> None:
        """Write the comment of the table."""
        text = f"{self._layout.to_text()}\n{version}".rstrip()
        self._do("COMMENT ON TABLE {table} IS {text}", text=text)
        self._indexed = version

    def count(self, version: str | None = None) -> int:
        """Return the number of rows."""
        of = "" if version is None else " WHERE version = {version}"
        with explained(self.place, "Reading", self._errors):
            return int(self._one("SELECT count(*) FROM {table}" + of, version=version))

    def present(self, ids: pl.Series, version: str) -> Set[Any]:
        """Return which ids have a row of a version."""
        query = (
            f"SELECT id FROM {{table}} WHERE id = ANY(%s::{_TYPES[self._layout.ids]}[])"
            " AND version = {version}"
        )
        with explained(self.place, "Reading", self._errors):
            found = self._do(query, [ids.to_list()], version=version).fetchall()
        return {one for (one,) in found}

    def upsert(self, rows: VectorRows) -> None:
        """Insert or replace rows, in one statement."""
        names = "id, vector, title" if self._layout.titled else "id, vector"
        values: list[Any] = [rows.ids.to_list(), as_texts(rows.vectors)]
        if self._layout.titled:
            values.append(rows.titles)
        arrays = ", ".join(["%s::text[]"] * (len(values) - 1))
        statement = (
            f"INSERT INTO {{table}} ({names}, version)"
            f" SELECT {names.replace('vector', 'vector::vector')}, {{version}}"
            f" FROM unnest(%s::{_TYPES[self._layout.ids]}[], {arrays}) AS new({names})"
            " ON CONFLICT (id) DO UPDATE SET"
            f" ({names}, version) = ROW({_excluded(names)}, excluded.version)"
        )
        with explained(self.place, "Writing", self._errors):
            self._do(statement, values, version=rows.version)

    def remove_others(self, version: str) -> None:
        """Remove the rows of other versions."""
        with explained(self.place, "Writing", self._errors):
            self._do("DELETE FROM {table} WHERE version <> {version}", version=version)

    def finish(self, version: str) -> None:
        """Build the index of the items anew if it is not of this version; gather statistics."""
        with explained(self.place, "Indexing", self._errors):
            if self._layout.what == "items":
                self._index(version)
            self._do("ANALYZE {table}")

    def _index(self, version: str) -> None:
        width = self._layout.width
        if width > LONGEST_INDEXED:
            warn(
                f"The {self.place} has no index: vectors have {width:,} coordinates, and an index"
                f" of pgvector takes {LONGEST_INDEXED:,}. Searches are exact, and slow."
            )
            return
        indexes = self._do(_INDEXES).fetchall()
        for schema, name, valid in indexes:
            if not valid and "_ccnew" in name:  # left by a REINDEX that was killed
                self._do(f"DROP INDEX {self._named(schema, name)}")
        usable = [self._named(schema, name) for schema, name, valid in indexes if valid]
        if not usable:
            self._do("CREATE INDEX ON {table} USING hnsw (vector vector_ip_ops)")
        elif self._indexed != version:
            for one in usable:
                self._do(f"REINDEX INDEX CONCURRENTLY {one}")
        if self._indexed != version:
            self._describe(version)

    def _named(self, schema: str, name: str) -> str:
        """Return a name as SQL, for a statement with no other values."""
        text: str = self._sql.Identifier(schema, name).as_string(self._connection)
        return text.replace("{", "{{").replace("}", "}}")

    def _do(self, query: str, values: list[Any] | None = None, **literals: Any) -> Any:
        """Run a statement with the table's name and literals put into it."""
        known = {name: self._sql.Literal(one) for name, one in literals.items() if one is not None}
        return self._connection.execute(self._sql.SQL(query).format(**self._known, **known), values)

    def _one(self, query: str, **literals: Any) -> Any:
        return self._do(query, **literals).fetchone()[0]


def _excluded(names: str) -> str:
    return ", ".join(f"excluded.{name}" for name in names.split(", "))


def as_texts(vectors: Float32) -> list[str]:
    """Return vectors as pgvector reads them, exactly.

    Examples
    --------
    >>> import numpy as np
    >>> as_texts(np.array([[0.1, -1.0]], np.float32))
    ['[0.100000001,-1]']
    """
    line = f"[{','.join(['%.9g'] * vectors.shape[1])}]"  # nine digits distinguish all float32
    return [line % tuple(row) for row in vectors.tolist()]
