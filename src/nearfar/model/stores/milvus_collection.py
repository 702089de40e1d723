"""A collection of Milvus: of a server, or of Milvus Lite in a file.

The index is HNSW with the inner product; a collection of users, which are looked up and not
searched, has the exact one (FLAT), because Milvus wants an index for each vector. The layout is in
the properties of the collection.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import polars as pl

from nearfar.errors import OptionError, StoreError, first_line
from nearfar.model.stores.vector_store import Layout, VectorRows, VectorStore, explained, foreign
from nearfar.runtime.checks import cut, local_path
from nearfar.runtime.extras import load_extra

PROPERTY: Final = "nearfar.layout"
"""The property of a collection that has its layout."""
LONGEST_TEXT: Final = 65_535
"""The longest text of Milvus, in bytes."""
SECONDS: Final = 10
"""How long to wait for a server."""
_MISSING: Final = (
    'The export to Milvus needs {module}, which is not installed: `pip install "nearfar[milvus]"`.'
)


@contextmanager
def open_milvus(where: str, table: str, layout: Layout) -> Iterator[VectorStore]:
    """Open a collection by the address of a server, or by the path of a file of Milvus Lite.

    Raises
    ------
    MissingExtraError
        pymilvus is not installed, or milvus-lite for a file.
    OptionError
        `where` is neither an address nor the path of a file ``.db``.
    StoreError
        The server cannot be reached, or the file cannot be opened or made.
    """
    pymilvus = load_extra("pymilvus", _MISSING.format(module="pymilvus"))
    address, shown = _address(where)
    try:
        client = pymilvus.MilvusClient(address, timeout=SECONDS)
    except pymilvus.MilvusException as error:
        raise StoreError(
            f"Milvus cannot be reached at {shown!r}: {cut(first_line(error))}. Start the server or"
            " check `where`; a file of Milvus Lite must not be open in another process."
        ) from error
    try:
        place = f"collection {table!r} of {shown!r}"
        yield MilvusCollection(pymilvus, client, place, table, layout)
    finally:
        client.close()


def _address(where: str) -> tuple[str, str]:
    """Return the address for the client, and the one for messages, without a password."""
    if where.startswith(("http://", "https://")):
        parts = urlsplit(where)
        if parts.hostname:
            return where, parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    elif "://" not in where and where.endswith(".db"):
        load_extra("milvus_lite", _MISSING.format(module="milvus-lite"))
        file = local_path(where, "where")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"The folder of {str(file)!r} cannot be made: {error.strerror}. Check the path and"
                " the permissions."
            ) from error
        return str(file), str(file)
    raise OptionError(
        "`where` must be an address of Milvus, such as http://localhost:19530, or the path of a"
        " file of Milvus Lite, which ends in .db; the one given is neither (it is not shown,"
        " because it may contain a password)."
    )


class MilvusCollection:
    """A collection of a client; see `nearfar.model.stores.vector_store.VectorStore`."""

    def __init__(self, pymilvus: Any, client: Any, place: str, table: str, layout: Layout) -> None:
        self.place = place
        self._errors, self._types = pymilvus.MilvusException, pymilvus.DataType
        self._client, self._table, self._layout = client, table, layout

    def found(self) -> Layout | None:
        """Return the layout of the collection; None if there is none."""
        with explained(self.place, "Reading", self._errors):
            if not self._client.has_collection(self._table):
                return None
            known = self._client.describe_collection(self._table)
            layout = Layout.from_text(known.get("properties", {}).get(PROPERTY))
            if layout is None:
                raise foreign(self.place)
            self._client.load_collection(self._table)
        return layout

    def create(self) -> None:
        """Create the collection with its index."""
        layout, types = self._layout, self._types
        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        if layout.ids == "text":
            schema.add_field("id", types.VARCHAR, is_primary=True, max_length=LONGEST_TEXT)
        else:
            schema.add_field("id", types.INT64, is_primary=True)
        schema.add_field("vector", types.FLOAT_VECTOR, dim=layout.width)
        if layout.titled:
            schema.add_field("title", types.VARCHAR, max_length=LONGEST_TEXT, nullable=True)
        schema.add_field("version", types.VARCHAR, max_length=64)
        with explained(self.place, "Creating", self._errors):
            self._client.create_collection(
                self._table,
                schema=schema,
                index_params=self._index(),
                consistency_level="Strong",
                properties={PROPERTY: layout.to_text()},
            )

    def _index(self) -> Any:
        index = self._client.prepare_index_params()
        if self._layout.what == "items":
            params = {"M": 16, "efConstruction": 200}
            index.add_index("vector", index_type="HNSW", metric_type="IP", params=params)
        else:
            index.add_index("vector", index_type="FLAT", metric_type="IP")
        return index

    def count(self, version: str | None = None) -> int:
        """Return the number of rows."""
        of = "" if version is None else f"version == {literal(version)}"
        with explained(self.place, "Reading", self._errors):
            found = self._client.query(self._table, filter=of, output_fields=["count(*)"])
        return int(found[0]["count(*)"])

    def present(self, ids: pl.Series, version: str) -> Set[Any]:
        """Return which ids have a row of a version."""
        of = f"version == {literal(version)} and id in {literal(ids.to_list())}"
        with explained(self.place, "Reading", self._errors):
            found = self._client.query(self._table, filter=of, output_fields=["id"])
        return {row["id"] for row in found}

    def upsert(self, rows: VectorRows) -> None:
        """Insert or replace rows, in one request."""
        columns: dict[str, Iterable[Any]] = {"id": rows.ids.to_list(), "vector": rows.vectors}
        if rows.titles is not None:
            columns["title"] = rows.titles
        made = [
            {**dict(zip(columns, row, strict=True)), "version": rows.version}
            for row in zip(*columns.values(), strict=True)
        ]
        with explained(self.place, "Writing", self._errors):
            self._client.upsert(self._table, made)

    def remove_others(self, version: str) -> None:
        """Remove the rows of other versions."""
        with explained(self.place, "Writing", self._errors):
            self._client.delete(self._table, filter=f"version != {literal(version)}")

    def finish(self, version: str) -> None:
        """Let Milvus store and index what was written."""
        with explained(self.place, "Indexing", self._errors):
            self._client.flush(self._table)


def literal(value: str | list[Any]) -> str:
    r"""Return a text, or a list of ids, as an expression of Milvus.

    Examples
    --------
    >>> print(literal([1, 2]), literal('say "hi"'))
    [1, 2] "say \"hi\""
    """
    return json.dumps(value, ensure_ascii=False)
