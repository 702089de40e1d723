"""Rows that were parsed in Python, written to disk in batches and read back lazily."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import polars as pl

from nearfar.errors import StoreError

BATCH: Final = 2**18
"""Rows per batch; only the Python objects of one batch are in memory at a time."""


def spooled(rows: Iterable[Sequence[Any]], schema: pl.Schema, scratch: Path) -> pl.LazyFrame:
    """Write rows to disk as Parquet, one batch at a time, and return them as a lazy frame.

    Parameters
    ----------
    rows : iterable of tuples
        One value per column of `schema`; consumed once, in order.
    schema : Schema
        The columns. A value of a wrong type raises an error of polars.
    scratch : Path
        A folder for the files; it must exist as long as the result is in use.

    Returns
    -------
    LazyFrame
        The rows, in order.

    Raises
    ------
    StoreError
        If `scratch` cannot be written.
    """
    name = uuid.uuid4().hex
    parts = []
    for number, batch in enumerate(_batches(iter(rows))):
        part = scratch / f"{name}-{number:06}.parquet"
        frame = pl.DataFrame(batch, schema=schema, orient="row")
        try:
            frame.write_parquet(part)
        except OSError as error:
            raise unwritable(part, error) from error
        parts.append(part)
    if not parts:
        return pl.LazyFrame(schema=schema)
    return pl.scan_parquet(parts, glob=False, hive_partitioning=False)


def unwritable(file: Path, error: OSError) -> StoreError:
    """Return the error that a file of `scratch` cannot be written."""
    return StoreError(
        f"The scratch file {str(file)!r} cannot be written: {error}. Free some space there, or set "
        "TMPDIR to another folder."
    )


def _batches(rows: Iterator[Sequence[Any]]) -> Iterator[list[Sequence[Any]]]:
    while batch := list(islice(rows, BATCH)):
        yield batch
