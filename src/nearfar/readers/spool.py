"""Rows that were parsed in Python, written to disk in batches and read back lazily."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final

import polars as pl

from nearfar.errors import DataError, NearfarError, StoreError
from nearfar.readers.lines import beginning, opened

_BINARY: Final = {b"PAR1": ".parquet", b"ARROW1": ".arrow"}
_LINE: Final = 2**16
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


def from_pipe(path: Path, scratch: Path, suffix: str) -> Path:
    """Copy a pipe, such as /dev/stdin, to a file whose suffix is that of its format.

    Parameters
    ----------
    path : Path
        Read once, to its end.
    scratch : Path
        A folder for the file; it must exist as long as the result is in use.
    suffix : str
        The suffix for text; "" to look at the first line.

    Raises
    ------
    DataError
        If the pipe cannot be read, or the separator is not obvious.
    StoreError
        If `scratch` cannot be written.
    """
    copy = scratch / f"{uuid.uuid4().hex}"
    try:
        with path.open("rb") as pipe:
            _written(pipe, copy)
    except OSError as error:
        if isinstance(error, NearfarError):
            raise
        raise DataError(f"{str(path)!r} cannot be read: {error}.") from error
    head = beginning(copy)
    known = next((end for start, end in _BINARY.items() if head.startswith(start)), "")
    if not known:
        try:
            with opened(copy) as file:
                known = suffix or _of_line(file.readline(_LINE), path)
        except DataError as error:
            raise DataError(str(error).replace(str(copy), str(path))) from error
    return copy.rename(copy.with_suffix(known))


def _written(pipe: IO[bytes], copy: Path) -> None:
    while block := pipe.read(2**20):
        try:
            with copy.open("ab") as file:
                file.write(block)
        except OSError as error:
            raise unwritable(copy, error) from error
    copy.touch()


def _of_line(line: bytes, path: Path) -> str:
    """Return the suffix of the format whose first line this is."""
    if line.lstrip().startswith(b"{") or not line:
        return ".json"
    if line.lower().startswith((b"sep=", b"\xef\xbb\xbfsep=")):
        return ".csv"
    found = [suffix for mark, suffix in ((b",", ".csv"), (b"\t", ".tsv")) if mark in line]
    if len(found) == 1:
        return found[0]
    raise DataError(
        f"The format of {str(path)!r} is not obvious from its first line. For text pass"
        " `separator`; otherwise write it to a file with a suffix."
    )


def unwritable(file: Path, error: OSError) -> StoreError:
    """Return the error that a file of `scratch` cannot be written."""
    return StoreError(
        f"The scratch file {str(file)!r} cannot be written: {error}. Free some space there, or set "
        "TMPDIR to another folder."
    )


def _batches(rows: Iterator[Sequence[Any]]) -> Iterator[list[Sequence[Any]]]:
    while batch := list(islice(rows, BATCH)):
        yield batch
