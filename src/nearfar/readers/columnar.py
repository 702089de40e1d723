"""Files that polars reads directly, Parquet and Arrow, and the translation of its errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Final

import polars as pl

from nearfar.errors import DataError, EmptyDataError, NearfarError, first_line
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
        raise DataError(
            f"{fspath(path)!r} cannot be read: {first_line(error)}. It is damaged or cut off, or"
            " its suffix is wrong; get the file again, or save it again."
        ) from error


def scan_folder(folder: Path) -> Raw:
    """Open the Parquet or Arrow files of a folder, as Spark and Dask write it, as one table.

    Folders in it whose names are ``key=value`` add a column of text; files and folders whose names
    start with ``_`` or ``.`` are ignored, as Spark ignores them.

    Raises
    ------
    DataError
        If it has no such files, or any others; or if a file has other columns than the first.
    """
    files = parts(folder)
    suffixes = sorted({file.suffix.lower() for file in files})
    if (folder / "_delta_log").is_dir():
        raise DataError(
            f"{str(folder)!r} is a Delta table, whose files include deleted rows. Read it with"
            " `polars.read_delta` and pass the frame."
        )
    if not files:
        raise DataError(f"The folder {str(folder)!r} has no files of data; check the path.")
    is_parquet = set(suffixes) <= set(PARQUET)
    if not is_parquet and not set(suffixes) <= set(ARROW):
        raise DataError(
            f"The folder {str(folder)!r} has files that are not Parquet: {files[0].name!r}"
            f" ({', '.join(suffixes)}). Write Parquet instead, or join the files into one."
        )
    with reading(folder):
        if is_parquet:
            keys = dict.fromkeys(_keys(files[0].relative_to(folder)), pl.String)
            rows = pl.scan_parquet(
                files, glob=False, hive_partitioning=bool(keys), hive_schema=keys or None
            )
        else:
            rows = pl.scan_ipc(files, glob=False, hive_partitioning=False)
        rows.collect_schema()
        rows.select(pl.len()).collect(engine="streaming")
    return Raw(rows, lambda row: f"row {row + 1:,} of the files of {str(folder)!r}")


def parts(folder: Path) -> list[Path]:
    """Return the files of data in a folder and the folders in it, in the order of their names."""
    found = [file for file in folder.rglob("*") if file.is_file()]
    return sorted(
        file for file in found if not any(map(_is_hidden, file.relative_to(folder).parts))
    )


def is_parts(folder: Path) -> bool:
    """Return whether a folder looks like one that Spark or Dask wrote."""
    if not folder.is_dir():
        return False
    names = [file.name for file in folder.iterdir()]
    return any(name.startswith("part") or name == "_SUCCESS" or "=" in name for name in names)


def _keys(file: Path) -> list[str]:
    return [part.split("=")[0] for part in file.parts[:-1] if "=" in part]


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


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
