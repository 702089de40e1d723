"""Tables as they come: CSV, TSV and Parquet files, polars, pandas and Arrow frames.

Everything becomes one lazy frame with the columns ``user``, ``item`` and, where asked for,
``value`` and ``time``. The values of text files are strings, exactly as written: ids such as
``007`` or an ISBN never turn into numbers. Row numbers in messages count the rows of data from 1,
without a header.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from nearfar.errors import DataError, MissingColumnError, MissingExtraError
from nearfar.id_values import as_column

Column = str | int
"""A column by its name, or by its place counted from 0."""

_SEPARATORS: Final = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".inter": "\t"}
_PARQUET: Final = {".parquet", ".pq"}
_KNOWN_NAMES: Final = {
    "user": {"user", "userid", "uid"},
    "item": {"item", "itemid", "iid"},
}


def is_parquet(path: str | PathLike[str]) -> bool:
    """Tell from its suffix whether a file is Parquet."""
    return Path(fspath(path)).suffix.lower() in _PARQUET


def scan(
    path: str | PathLike[str], *, separator: str | None = None, has_header: bool = True
) -> pl.LazyFrame:
    """Open a table on disk, to be read lazily.

    Parameters
    ----------
    path : path
        ``.parquet``, ``.pq``, ``.csv``, ``.tsv``, ``.tab``, ``.inter``; text also with ``.gz``
        after it. With `separator`, any other name is read as text.
    separator : str, optional
        One character between the fields of a text file; by default what the suffix says.
    has_header : bool
        Whether a text file starts with its column names. Without, they are ``column_1``, ...

    Returns
    -------
    LazyFrame
        Of a text file, every column is a string.

    Raises
    ------
    DataError
        If the file is missing, of an unknown kind, or cannot be read.
    """
    file = Path(fspath(path))
    if not file.is_file():
        raise DataError(f"There is no file {str(file)!r}; check the path.")
    with reading(file):
        if is_parquet(file):
            frame = pl.scan_parquet(file)
            frame.collect_schema()
            return frame
        mark = separator or _separator(file)
        frame = pl.scan_csv(file, separator=mark, has_header=has_header, infer_schema=False)
        names = frame.collect_schema().names()
    if has_header:
        return frame
    return frame.rename({name: f"column_{i}" for i, name in enumerate(names, start=1)})


def _separator(file: Path) -> str:
    suffixes = [suffix.lower() for suffix in file.suffixes]
    last = suffixes[-2:-1] if suffixes[-1:] == [".gz"] else suffixes[-1:]
    if not last or last[0] not in _SEPARATORS:
        known = ", ".join([*_SEPARATORS, *sorted(_PARQUET)])
        raise DataError(
            f"What is in {str(file)!r} cannot be told from its suffix; known are {known} (text "
            "also with .gz after it). For any other text file say `separator`."
        )
    return _SEPARATORS[last[0]]


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Turn what polars raises while it reads `file` into a `DataError`."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        if isinstance(error, DataError):
            raise
        reason = str(error).strip().splitlines()[0]
        kind = "Parquet" if is_parquet(file) else "UTF-8 text with the same fields in each line"
        raise DataError(
            f"{str(file)!r} cannot be read: {reason}. It must be {kind}; check `separator` and "
            "`has_header`, or save it again."
        ) from error


def as_lazy(frame: Any) -> pl.LazyFrame:
    """Take a polars, pandas or Arrow table as a lazy polars frame.

    Parameters
    ----------
    frame : DataFrame, LazyFrame, pandas.DataFrame, pyarrow.Table or Arrow stream
        Anything else is accepted if it has the Arrow PyCapsule interface.

    Raises
    ------
    DataError
        If it is none of these.
    """
    if isinstance(frame, pl.LazyFrame):
        return frame
    if isinstance(frame, pl.DataFrame):
        return frame.lazy()
    if type(frame).__module__.split(".")[0] == "pandas" and hasattr(frame, "columns"):
        columns = {str(name): _from_pandas(frame.iloc[:, i]) for i, name in enumerate(frame)}
        return pl.DataFrame(columns).lazy()
    if hasattr(frame, "__arrow_c_stream__"):
        return pl.DataFrame(frame).lazy()
    raise DataError(
        f"A {type(frame).__name__} is not a table; pass a polars, pandas or Arrow table, or use "
        "`Interactions.from_pairs`, `from_csr` or `read`."
    )


def _from_pandas(column: Any) -> pl.Series:
    if column.dtype == object:
        return as_column(column.to_list())
    if isinstance(column.dtype, np.dtype):
        return pl.Series(column.to_numpy())
    try:
        return pl.Series(column)
    except ImportError as error:
        raise MissingExtraError(
            f"The pandas column {column.name!r} of type {column.dtype} needs pyarrow to be read: "
            "`pip install pyarrow`, or convert it with `.astype(object)`."
        ) from error


def select(
    frame: pl.LazyFrame,
    *,
    user: Column | None = None,
    item: Column | None = None,
    value: Column | None = None,
    time: Column | None = None,
) -> pl.LazyFrame:
    """Keep the columns that say who did what, under the names user, item, value and time.

    Parameters
    ----------
    frame : LazyFrame
        Any table.
    user, item : str or int, optional
        The columns. By default the only one called ``user``, ``user_id``, ``userID``, ``uid`` and
        the like (``user_id:token`` of RecBole too), or the two columns of a table that has just
        two.
    value, time : str or int, optional
        More columns to keep; by default there are none.

    Raises
    ------
    MissingColumnError
        If a column is not there, or none or several could be meant; lists those there are.
    """
    names = frame.collect_schema().names()
    asked = {"user": user, "item": item, "value": value, "time": time}
    chosen: dict[str, str] = {}
    for part, column in asked.items():
        if column is not None:
            chosen[part] = _named(names, column, part)
        elif part in _KNOWN_NAMES:
            chosen[part] = _recognised(names, part)
    return frame.select(pl.col(name).alias(part) for part, name in chosen.items())


def _named(names: Sequence[str], column: Column, part: str) -> str:
    if isinstance(column, int) and 0 <= column < len(names):
        return names[column]
    if column in names:
        return str(column)
    raise MissingColumnError(
        f"There is no column {column!r} for `{part}`; the columns are {', '.join(names)}."
    )


def _recognised(names: Sequence[str], part: str) -> str:
    known = _KNOWN_NAMES[part]
    plain = [name.split(":")[0].lower().replace("_", "").replace("-", "") for name in names]
    found = [name for name, bare in zip(names, plain, strict=True) if bare in known]
    if len(found) == 1:
        return found[0]
    if not found and len(names) == 2 and not any(bare in _every_name() for bare in plain):
        return names[list(_KNOWN_NAMES).index(part)]
    many = "More than one column" if found else "No column"
    raise MissingColumnError(
        f"{many} is recognised as the {part}; say which with `{part}=`. The columns are "
        f"{', '.join(names)}."
    )


def _every_name() -> set[str]:
    return set().union(*_KNOWN_NAMES.values())


def numeric(frame: pl.LazyFrame, column: str, called: Column | None = None) -> pl.LazyFrame:
    """Check that a column holds finite numbers, and make it Float64 or, if it is whole, Int64.

    Text is read as numbers; dates and times become microseconds since 1970.

    Parameters
    ----------
    frame : LazyFrame
        Read once to check; what comes back is still lazy.
    column : str
        The column to check.
    called : str or int, optional
        What the caller calls it, for the message.

    Raises
    ------
    DataError
        At the first null, NaN, infinity or text that is not a number; names its row and value.
    """
    dtype = frame.collect_schema()[column]
    if dtype == pl.Object:
        frame, dtype = _as_text(frame, column), pl.String()
    source = pl.col(column)
    name = repr(called if called is not None else column)
    if dtype == pl.String:
        source = source.str.strip_chars()
        number = source.cast(pl.Float64, strict=False)
    elif isinstance(dtype, (pl.Date, pl.Datetime)):
        number = source.cast(pl.Datetime("us")).cast(pl.Int64)
    elif dtype.is_numeric() or dtype in {pl.Boolean, pl.Null}:
        number = source.cast(pl.Int64 if dtype.is_integer() else pl.Float64, strict=False)
    else:
        raise DataError(f"Column {name} must hold numbers; its type is {dtype}.")
    bad = number.is_null() | ~number.cast(pl.Float64).is_finite()
    whole = source.cast(pl.Int64, strict=False) if dtype == pl.String else number
    found = frame.select(
        bad=bad.any(),
        row=bad.arg_max(),
        value=source.gather(bad.arg_max()).first(),
        whole=whole.is_not_null().all(),
    ).collect().row(0, named=True)  # fmt: skip
    if found["bad"]:
        raise DataError(
            f"Column {name} must hold finite numbers; row {found['row'] + 1:,} (the first is 1) "
            f"has {found['value']!r}. Correct or drop such rows."
        )
    return frame.with_columns((whole if found["whole"] else number).alias(column))


def _as_text(frame: pl.LazyFrame, column: str) -> pl.LazyFrame:
    """Write the Python objects of a column as text: numbers of mixed types become of one."""
    table = frame.collect()
    text = [None if value is None else str(value) for value in table[column].to_list()]
    return table.with_columns(pl.Series(column, text, dtype=pl.String)).lazy()


def check_ids(frame: pl.LazyFrame, column: str) -> None:
    """Check in one pass over a lazy frame that no id is null, NaN or a fraction.

    Raises
    ------
    DataError
        Otherwise; names the first offending row.
    """
    source = pl.col(column)
    bad = source.is_null()
    if frame.collect_schema()[column].is_float():
        fits = (source == source.round()) & source.is_finite()
        bad |= ~fits.fill_null(True)
    found = frame.select(bad=bad.any(), row=bad.arg_max()).collect().row(0, named=True)
    if found["bad"]:
        raise DataError(
            f"The {column} id of row {found['row'] + 1:,} (the first is 1) is null, NaN or a "
            "fraction. Drop the rows without an id."
        )
