"""The rows of a model for a table of a store: ids, vectors, titles and a version."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from nearfar.data.ids import Ids
from nearfar.errors import DataError
from nearfar.model.cml import CML
from nearfar.model.stores.coordinates import item_coordinates, on_sphere, queries
from nearfar.model.stores.vector_store import Layout, VectorRows
from nearfar.runtime.arrays import Float32
from nearfar.runtime.checks import said
from nearfar.search.item_index import digest_of

ID_BYTES: Final = 1024
"""The longest id: PostgreSQL's index of keys takes up to 2,704 bytes a row."""
TITLE_BYTES: Final = 65_535
"""The longest title: that of Milvus."""


class Outgoing(NamedTuple):
    """The rows of a model for a table, n of them, in the order of the ids."""

    ids: pl.Series
    vectors: Float32
    titles: list[str | None] | None
    layout: Layout
    version: str
    n_left_out: int

    def batches(self, size: int) -> Iterator[VectorRows]:
        """Cut the rows into batches."""
        for start in range(0, len(self.ids), size):
            end = start + size
            titles = None if self.titles is None else self.titles[start:end]
            vectors = self.vectors[start:end]
            yield VectorRows(self.ids.slice(start, size), vectors, titles, self.version)


def outgoing(model: CML, what: str) -> Outgoing:
    """Return the rows of a model.

    Raises
    ------
    DataError
        An id or a title cannot be stored.
    """
    data = model.interactions
    if what == "items":
        axis, vectors = data.item_ids, item_coordinates(model)
        rows = np.flatnonzero(model.placed_items)
    else:
        axis, vectors = data.user_ids, queries(model, model.user_vectors)
        rows = np.flatnonzero(model.placed_users)
    ids = _storable(axis, rows)
    titles = _checked_titles(data.titles(axis.take(rows).to_list())) if what == "items" else None
    kind = "text" if ids.dtype == pl.String else "integer"
    layout = Layout(
        what, kind, model.item_vectors.shape[1], not on_sphere(model), model.gamma != 0.0
    )
    return Outgoing(ids, vectors[rows], titles, layout, version_of(model), len(axis) - len(rows))


def version_of(model: CML) -> str:
    """Return the version of a model: 16 hexadecimal digits, equal for its items and users.

    It depends on everything that is exported: the points, the weights, the ids and the titles.
    """
    data, digest = model.interactions, sha256()
    parts = [
        digest_of(model.user_vectors, model.item_vectors, model.weights.log_popularity),
        data.fingerprint,
        repr((model.options.geometry, model.gamma, model.dial(None))),
        repr(data.titles(data.item_ids.to_list())),
    ]
    for part in parts:
        digest.update(sha256(part.encode()).digest())
    return digest.hexdigest()[:16]


def _storable(axis: Ids, rows: Any) -> pl.Series:
    """Return ids as text or as integers of 64 bits."""
    ids = axis.take(rows)
    if ids.dtype == pl.String:
        _check_text(f"The {axis.name} id", ids, ID_BYTES)
        return ids
    largest: Any = ids.max()
    if len(ids) and largest >= 2**63:
        raise DataError(
            f"The {axis.name} id {largest} has more than 63 bits, which stores cannot take;"
            " train with ids that are text."
        )
    return ids.cast(pl.Int64)


def _checked_titles(titles: list[str | None]) -> list[str | None]:
    _check_text("The title", pl.Series(titles, dtype=pl.String).drop_nulls(), TITLE_BYTES)
    return titles


def _check_text(name: str, texts: pl.Series, most: int) -> None:
    wrong = texts.filter((texts.str.len_bytes() > most) | texts.str.contains("\0", literal=True))
    if len(wrong):
        raise DataError(
            f"{name} {said(wrong[0])} cannot be stored: it must have at most {most:,} bytes and no"
            " NUL. Shorten or clean it before training."
        )
