"""The export of a model to a store: in batches, resumable, and as an update of the last version.

Each row carries the version of the model that it is of. A run writes the rows that do not have its
version yet, then removes those of other versions, then completes the index. So a run that was
killed continues where it stopped, a second run of the same model writes nothing, and the export of
the next version updates rows, adds new ones and removes those of items that are no longer there.

Until it has finished, the table has rows of two models, whose points must not be compared. The rows
of a user and of the items to be compared have the same version, which a query can ask for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from os import PathLike
from typing import Any, Final

import numpy as np
import polars as pl

from nearfar.errors import OptionError, StoreError
from nearfar.model.cml import CML
from nearfar.model.export import WHAT
from nearfar.model.stores.lancedb_table import open_lancedb
from nearfar.model.stores.milvus_collection import open_milvus
from nearfar.model.stores.outgoing_rows import Outgoing, outgoing
from nearfar.model.stores.pgvector_table import open_pgvector
from nearfar.model.stores.vector_store import Layout, VectorRows, VectorStore
from nearfar.runtime.caller import warn
from nearfar.runtime.checks import an_instance, one_of, plain_text, said, whole
from nearfar.runtime.forks import check_fork
from nearfar.runtime.progress import Stages, shows

Opener = Callable[[str, str, Layout], AbstractContextManager[VectorStore]]

STORES: Mapping[str, Opener] = {
    "pgvector": open_pgvector,
    "milvus": open_milvus,
    "lancedb": open_lancedb,
}
"""The stores by name; each opens a table of a place for a layout."""
BATCH_VALUES: Final = 2**20
"""Approximate number of coordinates of a batch, 4 MiB; Milvus takes messages up to 64 MiB."""
MOST_ROWS: Final = 100_000
"""The largest batch."""
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


@dataclass(frozen=True)
class Delivered:
    """The result of a call of `export_to`."""

    table: str
    """The name of the table."""
    version: str
    """The version of its rows."""
    width: int
    """The number of coordinates of a vector."""
    n_rows: int
    """The number of rows, all of this version."""
    n_written: int
    """The number of rows that this call wrote; the others were there already."""
    n_removed: int
    """The number of rows of other versions that this call removed."""
    n_left_out: int
    """The number of items or users without a point, which have no row."""


def export_to(
    model: CML,
    store: str,
    where: str | PathLike[str],
    *,
    table: str | None = None,
    what: str = "items",
    batch: int | None = None,
    progress: bool | None = None,
) -> Delivered:
    """Write the vectors of a model, with their ids and titles, to a table of a store.

    The table is created, or updated if this function made it. The inner product of the vector of a
    user and the vector of an item orders the items as `CML.recommend`; see
    `nearfar.model.stores.coordinates`. A run that was killed continues where it stopped.

    Parameters
    ----------
    model : CML
        A fitted model.
    store : str
        One of `STORES`: "pgvector", "milvus" or "lancedb".
    where : str or path
        pgvector: a connection string, such as ``postgresql://user@host:5432/database``. milvus: an
        address, such as ``http://host:19530``, or the path of a file ``.db`` for Milvus Lite.
        lancedb: a folder, or an address, such as ``s3://bucket/folder``.
    table : str, optional
        The name of the table (Milvus: collection); by default ``nearfar_items`` or
        ``nearfar_users``. For pgvector it may have a schema: ``shop.films``.
    what : str
        "items" or "users".
    batch : int, optional
        The number of rows to write at once; by default about a million coordinates.
    progress : bool, optional
        Whether to show a progress bar; if None, only if standard error is a terminal.

    Returns
    -------
    Delivered

    Raises
    ------
    OptionError
        `model` is not a model, or another argument cannot be used.
    DataError
        An id or a title cannot be stored: a whole number of more than 64 bits, a text that is too
        long or contains a NUL.
    StoreError
        The store cannot be reached, the table holds something else or has another layout, or
        writing fails. What was there is unchanged, except for the rows written so far.
    MissingExtraError
        The client of the store is not installed.

    Warns
    -----
    NearfarWarning
        The model has neighbours, which are not in the table; or the store has no index for vectors
        of this length.

    Examples
    --------
    >>> import tempfile
    >>> import nearfar as nf
    >>> model = nf.CML(dim=2, batch=4, prior=nf.Prior(gamma=0.1))
    >>> model = model.fit(nf.Interactions.from_pairs([("a", 1), ("b", 2)]), epochs=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     items = export_to(model, "lancedb", folder)
    ...     again = export_to(model, "lancedb", folder)
    >>> items.table, items.width, items.n_written, again.n_written
    ('nearfar_items', 3, 2, 0)
    """
    check_fork()
    model, store = an_instance("model", model, CML), one_of("store", store, STORES)
    where, what = _checked_place(where), one_of("what", what, WHAT)
    table = _checked_name(f"nearfar_{what}" if table is None else table, store)
    size = None if batch is None else whole("batch", batch, 1, MOST_ROWS)
    progress, out = shows(progress), outgoing(model, what)
    with STORES[store](where, table, out.layout) as opened:
        _open(opened, out.layout)
        size = size or min(MOST_ROWS, max(1, BATCH_VALUES // out.layout.width))
        n_written = _write(opened, out, size, progress)
        n_removed = opened.count() - len(out.ids)
        if n_removed:
            opened.remove_others(out.version)
        opened.finish(out.version)
        if n_written or n_removed:
            _check_complete(opened, out)
    if model.neighbours:
        warn(
            f"The co-occurrence term of the model ({model.options.neighbours}) is not in the"
            " table: scores from it are those of the model without it."
        )
    return Delivered(
        table, out.version, out.layout.width, len(out.ids), n_written, n_removed, out.n_left_out
    )


# ------------------------------------------------------------------------------------ checks


def _checked_place(where: Any) -> str:
    return plain_text("where", os.fspath(where) if isinstance(where, PathLike) else where)


def _checked_name(table: Any, store: str) -> str:
    parts = plain_text("table", table).split(".")
    most = 2 if store == "pgvector" else 1
    if len(parts) > most or not all(map(_NAME.fullmatch, parts)):
        schema = ", with a schema before a dot if needed" if most == 2 else ""
        raise OptionError(
            "`table` must be a name of up to 63 letters, digits and underscores that does not begin"
            f" with a digit{schema}; got {said(table)}."
        )
    return str(table)


def _check_complete(opened: VectorStore, out: Outgoing) -> None:
    rows, current = opened.count(), opened.count(out.version)
    if (rows, current) != (len(out.ids), len(out.ids)):
        raise StoreError(
            f"The {opened.place} has {rows:,} rows, {current:,} of this version; it must have"
            f" {len(out.ids):,}. Another program has written to it meanwhile: run the export again."
        )


# ----------------------------------------------------------------------------------- writing


def _open(opened: VectorStore, layout: Layout) -> None:
    """Create the table, or check that it is one for these rows."""
    found = opened.found()
    if found is None:
        opened.create()
    elif found != layout:
        raise StoreError(
            f"The {opened.place} has another layout ({layout.differences(found)}); it is unchanged."
            " Choose another `table`, or drop this one first."
        )


def _write(opened: VectorStore, out: Outgoing, size: int, progress: bool) -> int:
    """Write the rows that are not there yet; return their number."""
    n_there, n_written = opened.count(out.version), 0
    if n_there == len(out.ids):  # the version is a hash of the ids, so these are all
        return 0
    with Stages(progress) as stages:
        stages.begin("exporting", len(out.ids))
        for rows in out.batches(size):
            missing = _missing(opened, rows) if n_there else rows
            if len(missing.ids):
                opened.upsert(missing)
            n_written += len(missing.ids)
            stages.advance(len(rows.ids))
    return n_written


def _missing(opened: VectorStore, rows: VectorRows) -> VectorRows:
    there = opened.present(rows.ids, rows.version)
    keep = np.array([one not in there for one in rows.ids.to_list()], np.bool_)
    titles = rows.titles
    if titles is not None:
        titles = [title for title, kept in zip(titles, keep, strict=True) if kept]
    return VectorRows(rows.ids.filter(pl.Series(keep)), rows.vectors[keep], titles, rows.version)
