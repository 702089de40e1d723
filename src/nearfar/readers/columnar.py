"""Files that polars reads directly, Parquet and Arrow, and the translation of its errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Final

import polars as pl

from nearfar.errors import DataError, EmptyDataError, NearfarError
from nearfar.readers.raw import Raw

PARQUET: Final = (".parquet", ".pq")
"""Suffixes of Parquet files."""
ARROW: Final = (".arrow", ".feather", ".ipc")
"""Suffixes of Arrow files, which are the same as Feather version 2."""


@contextmanager
def reading(path: str | PathLike[str]) -> Iterator[None]:
    """Turn an error that polars raises while reading a file into a `DataError` that names the file.

    Polars reads lazily, so this must enclose every ``collect`` of the result of a reader. The file
    name is also added to nearfar's own errors about the table, such as a missing column.
    """
    try:
        yield
    except DataError as error:
        if isinstance(error, EmptyDataError) or fspath(path) in str(error):
            raise
        raise type(error)(f"{fspath(path)!r}: {error}") from error
    except NearfarError:
        raise
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{fspath(path)!r} cannot be read: {reason}. It is damaged or cut off, or its suffix "
            "is wrong; get the file again, or save it again."
        ) from error


def scan_columnar(path: Path) -> Raw:
    """Open a Parquet or Arrow file for lazy reading.

    Raises
    ------
    DataError
        If the file is missing or does not have the format of its suffix. Damage inside the file is
        detected when the rows are read (`reading`).
    EmptyDataError
        If the file has 0 bytes.
    """
    if not path.is_file():
        raise DataError(f"There is no file {str(path)!r}; check the path.")
    if path.stat().st_size == 0:
        raise EmptyDataError(f"{str(path)!r} is empty; get the file again.")
    is_parquet = path.suffix.lower() in PARQUET
    open_lazily = pl.scan_parquet if is_parquet else pl.scan_ipc
    with reading(path):
        if not is_parquet and not _is_arrow(path):
            raise DataError(
                f"{str(path)!r} is not an Arrow file: perhaps an Arrow stream, Feather of version "
                "1, or damaged. Save it again as an Arrow file or as Parquet."
            )
        rows = open_lazily(path, glob=False, hive_partitioning=False)
        rows.collect_schema()
        rows.select(pl.len()).collect(engine="streaming")
    return Raw(rows, lambda row: f"row {row + 1:,} of {str(path)!r}")


def _is_arrow(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(6) == b"ARROW1"
