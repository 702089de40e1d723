"""A table of LanceDB, in a folder or in the storage of a cloud.

Each batch is one new version of the table, so it is written completely or not at all. The index of
the items is IVF-Flat with the inner product (``dot``): scores are exact, and the only approximation
is which lists are searched. LanceDB does not keep it complete by itself, so it is rebuilt at the
end. The layout is in the metadata of the schema.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from contextlib import contextmanager
from typing import Any, Final

import polars as pl

from nearfar.errors import OptionError, StoreError, first_line
from nearfar.model.stores.vector_store import Layout, VectorRows, VectorStore, explained, foreign
from nearfar.runtime.checks import local_path
from nearfar.runtime.extras import load_extra

KEY: Final = b"nearfar.layout"
"""The key of the schema's metadata that has the layout."""
ERRORS: Final = (RuntimeError, ValueError, OSError)
"""What LanceDB raises."""
_REMOTE: Final = ("s3://", "gs://", "az://", "db://")
_MISSING: Final = (
    "The export to LanceDB needs {module}, which is not installed:"
    ' `pip install "nearfar[lancedb]"`.'
)


@contextmanager
def open_lancedb(where: str, table: str, layout: Layout) -> Iterator[VectorStore]:
    """Open a table by a folder or an address.

    Raises
    ------
    MissingExtraError
        lancedb is not installed.
    OptionError
        `where` is neither a path nor an address that LanceDB reads.
    StoreError
        The folder cannot be opened.
    """
    lancedb = load_extra("lancedb", _MISSING.format(module="lancedb"))
    pyarrow = load_extra("pyarrow", _MISSING.format(module="pyarrow"))
    folder = _place(where)
    try:
        database = lancedb.connect(folder)
    except ERRORS as error:
        raise StoreError(
            f"LanceDB cannot open {folder!r}: {first_line(error)}. Check the path and the"
            " permissions."
        ) from error
    yield LancedbTable(lancedb, pyarrow, database, f"table {table!r} of {folder!r}", table,
                       layout)  # fmt: skip


def _place(where: str) -> str:
    if where.startswith(_REMOTE):
        return where
    if "://" in where:
        raise OptionError(
            f"`where` must be a folder, or an address that begins with {', '.join(_REMOTE)}; got"
            f" {where.partition('://')[0]}://..."
        )
    folder = local_path(where, "where")
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{str(folder)!r} is a file; `where` must be the folder of LanceDB.")
    return str(folder)


class LancedbTable:
    """A table of a database; see `nearfar.model.stores.vector_store.VectorStore`."""

    def __init__(
        self, lancedb: Any, pyarrow: Any, database: Any, place: str, table: str, layout: Layout
    ) -> None:
        self.place = place
        self._lancedb, self._arrow, self._database = lancedb, pyarrow, database
        self._name, self._layout = table, layout
        self._table: Any = None

    def found(self) -> Layout | None:
        """Return the layout of the table; None if there is none."""
        with explained(self.place, "Reading", *ERRORS):
            if self._name not in self._names():
                return None
            self._table = self._database.open_table(self._name)
            text = (self._table.schema.metadata or {}).get(KEY, b"").decode()
        layout = Layout.from_text(text)
        if layout is None:
            raise foreign(self.place)
        return layout

    def _names(self) -> Iterator[str]:
        """Return the names of all tables, which come in pages."""
        token: str | None = None
        while True:
            page = self._database.list_tables(page_token=token)
            yield from page.tables
            token = page.page_token
            if not token:
                return

    def create(self) -> None:
        """Create the table, with its layout in the schema."""
        with explained(self.place, "Creating", *ERRORS):
            self._table = self._database.create_table(self._name, schema=self._schema())

    def _schema(self) -> Any:
        arrow = self._arrow
        kind = arrow.string() if self._layout.ids == "text" else arrow.int64()
        fields = [
            arrow.field("id", kind, nullable=False),
            arrow.field("vector", arrow.list_(arrow.float32(), self._layout.width)),
        ]
        if self._layout.titled:
            fields.append(arrow.field("title", arrow.string()))
        fields.append(arrow.field("version", arrow.string()))
        return arrow.schema(fields, metadata={KEY: self._layout.to_text().encode()})

    def count(self, version: str | None = None) -> int:
        """Return the number of rows."""
        of = None if version is None else f"version = {quoted_sql(version)}"
        with explained(self.place, "Reading", *ERRORS):
            return int(self._table.count_rows(of))

    def present(self, ids: pl.Series, version: str) -> Set[Any]:
        """Return which ids have a row of a version."""
        asked = ids.to_list()
        of = f"version = {quoted_sql(version)} AND id IN ({', '.join(map(quoted_sql, asked))})"
        with explained(self.place, "Reading", *ERRORS):
            query = self._table.search().where(of).select(["id"]).limit(len(asked))
            return set(query.to_arrow()["id"].to_pylist())

    def upsert(self, rows: VectorRows) -> None:
        """Insert or replace rows, as one version of the table."""
        arrow = self._arrow
        columns = [
            arrow.array(rows.ids.to_list()),
            arrow.FixedSizeListArray.from_arrays(
                arrow.array(rows.vectors.reshape(-1)), self._layout.width
            ),
        ]
        if rows.titles is not None:
            columns.append(arrow.array(rows.titles, arrow.string()))
        columns.append(arrow.array([rows.version] * len(rows.ids)))
        made = arrow.table(columns, schema=self._schema())
        with explained(self.place, "Writing", *ERRORS):
            merge = self._table.merge_insert("id").when_matched_update_all()
            merge.when_not_matched_insert_all().execute(made)

    def remove_others(self, version: str) -> None:
        """Remove the rows of other versions."""
        with explained(self.place, "Writing", *ERRORS):
            self._table.delete(f"version <> {quoted_sql(version)}")

    def finish(self, version: str) -> None:
        """Join small files, and rebuild the indexes unless they have all rows."""
        index = self._lancedb.index
        with explained(self.place, "Indexing", *ERRORS):
            self._table.optimize()
            if self._stale("id"):
                self._table.create_index("id", config=index.BTree(), replace=True)
            if self._layout.what == "items" and self._stale("vector"):
                lists = index.IvfFlat(distance_type="dot")
                self._table.create_index("vector", config=lists, replace=True)

    def _stale(self, column: str) -> bool:
        """Return whether a column has no index, or one that lacks rows."""
        for one in self._table.list_indices():
            if one.columns == [column]:
                stats = self._table.index_stats(one.name)
                return stats is None or stats.num_unindexed_rows > 0
        return True


def quoted_sql(value: Any) -> str:
    """Return an id as a literal of SQL.

    Examples
    --------
    >>> quoted_sql(3), quoted_sql("it's")
    ('3', "'it''s'")
    """
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    # a literal is read without its sign, and 2^63 is no integer of 64 bits
    return str(value) if value != -(2**63) else f"CAST('{value}' AS BIGINT)"
