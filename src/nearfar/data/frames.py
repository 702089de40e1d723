"""Tables in memory or opened by a reader: column recognition and checks of the values.

Polars, pandas and Arrow tables become one lazy frame with the columns ``user``, ``item`` and, if
requested, ``value`` and ``time``. Row numbers in messages count the rows of data from 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import polars as pl

from nearfar.data.id_values import (
    EXACT_FLOAT,
    as_column,
    id_column,
    is_id_type,
    label,
    shown,
    wrong_type,
)
from nearfar.data.ids import Ids
from nearfar.errors import DataError, MissingColumnError, MissingExtraError
from nearfar.readers.raw import Where, numbered

Column = str | int
"""A column, by its name or by its position counted from 0."""

_KNOWN_NAMES: Final = {
    "user": {"user", "userid", "uid"},
    "item": {"item", "itemid", "iid"},
}


def as_lazy(frame: Any) -> pl.LazyFrame:
    """Convert a polars, pandas or Arrow table to a lazy polars frame.

    Parameters
    ----------
    frame : DataFrame, LazyFrame, pandas.DataFrame, pyarrow.Table or Arrow stream
        Anything else is accepted if it has the Arrow PyCapsule interface.

    Raises
    ------
    DataError
        If `frame` is none of these.
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
    """Select the columns of an interaction and rename them to user, item, value and time.

    Parameters
    ----------
    frame : LazyFrame
        Any table.
    user, item : str or int, optional
        The columns of ids. By default the one column with a known name, such as ``user``,
        ``user_id``, ``userID``, ``uid`` or RecBole's ``user_id:token``; in a table of exactly two
        columns, these two.
    value, time : str or int, optional
        Further columns to keep; none by default.

    Raises
    ------
    MissingColumnError
        If a column does not exist, or if no column or several match; the message lists the columns.
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
        f"{many} is recognised as the {part}; pass its name as `{part}=`. The columns are "
        f"{', '.join(names)}."
    )


def _every_name() -> set[str]:
    return set().union(*_KNOWN_NAMES.values())


@dataclass(frozen=True)
class _Check:
    """How one column is checked and converted."""

    column: str
    bad: pl.Expr
    """True for values that cannot be used; never null."""
    must: str
    """The first part of the error message, before the position of the first bad value."""
    remedy: str
    number: pl.Expr
    """The converted column."""
    whole: pl.Expr | None = None
    """An integer version of the column, used instead if it has no null."""


def cleaned(
    frame: pl.LazyFrame,
    *,
    ids: Sequence[str] = (),
    numbers: Mapping[str, Column] = MappingProxyType({}),
    where: Where = numbered,
) -> tuple[pl.LazyFrame, int]:
    """Check columns of ids and of numbers in one pass, and convert them to the types used inside.

    Numbers become Int64 if they are all whole, else Float64; text is parsed as numbers; dates and
    times become microseconds since 1970. Ids are integers or text and keep their type; whole floats
    become Int64, and categories become their text.

    Parameters
    ----------
    frame : LazyFrame
        Read once, in streaming mode; the result is lazy.
    ids : sequence of str
        Columns of ids.
    numbers : mapping of str to str or int
        Columns of numbers, and the caller's name or position of each, for messages.
    where : callable, optional
        Returns the origin of a row (counted from 0), for messages.

    Returns
    -------
    LazyFrame
        All columns of `frame`.
    int
        Its number of rows.

    Raises
    ------
    DataError
        At the first id that is null or neither an integer nor text, and the first number that is
        null, NaN, infinite or not a number; the message names column, row and value.
    """
    schema = frame.collect_schema()
    for name in [name for name in (*ids, *numbers) if schema[name] == pl.Object]:
        frame = _ids_of_objects(frame, name) if name in ids else _as_text(frame, name)
    schema = frame.collect_schema()
    checks = [_id_check(frame, name, schema[name]) for name in ids]
    checks += [_number_check(name, schema[name], repr(called)) for name, called in numbers.items()]
    asked = [pl.len().alias("rows")]
    for check in checks:
        asked.append(check.bad.any().alias(f"bad {check.column}"))
        if check.whole is not None:
            asked.append(check.whole.is_not_null().all().alias(f"whole {check.column}"))
    found = frame.select(asked).collect(engine="streaming").row(0, named=True)
    for check in checks:
        if found[f"bad {check.column}"]:
            raise _first_bad(frame, check, where)
    made = []
    for check in checks:
        whole = check.whole if found.get(f"whole {check.column}") else None
        made.append((check.number if whole is None else whole).alias(check.column))
    return frame.with_columns(made), int(found["rows"])


def _first_bad(frame: pl.LazyFrame, check: _Check, where: Where) -> DataError:
    value = pl.col(check.column)
    row, found = (
        frame.select(value, bad=check.bad)
        .with_row_index("row")
        .filter("bad")
        .select("row", check.column)
        .head(1)
        .collect(engine="streaming")
        .row(0)
    )
    return DataError(f"{check.must}; {where(row)} has {shown(found)}. {check.remedy}.")


def _id_check(frame: pl.LazyFrame, column: str, dtype: pl.DataType) -> _Check:
    value = pl.col(column)
    bad, becomes = value.is_null(), value
    if dtype.is_float():
        fits = (value == value.round()) & (value.abs() <= EXACT_FLOAT)
        bad, becomes = bad | ~fits.fill_null(True), value.cast(pl.Int64)
    elif isinstance(dtype, (pl.Categorical, pl.Enum)):
        becomes = value.cast(pl.String)
    elif not (is_id_type(dtype) or dtype == pl.Null):
        some = frame.select(value.drop_nulls()).head(1).collect(engine="streaming")
        raise wrong_type(dtype, some[column], column)
    must = f"A {label(column)} must not be missing, NaN, a fraction or a float above 2^53"
    return _Check(column, bad, must, "Correct or drop such rows", becomes)


def _number_check(column: str, dtype: pl.DataType, called: str) -> _Check:
    value, whole = pl.col(column), None
    if dtype == pl.String:
        value = value.str.strip_chars()
        number, whole = value.cast(pl.Float64, strict=False), value.cast(pl.Int64, strict=False)
    elif isinstance(dtype, (pl.Date, pl.Datetime)):
        number = value.cast(pl.Datetime("us")).cast(pl.Int64)
    elif dtype.is_integer():
        number = value.cast(pl.Int64, strict=False)
    elif dtype.is_numeric() or dtype in {pl.Boolean, pl.Null}:
        number = value.cast(pl.Float64, strict=False)
    else:
        raise DataError(f"Column {called} must hold numbers; its type is {dtype}.")
    bad = number.is_null()
    if not dtype.is_integer():
        bad |= ~number.cast(pl.Float64).is_finite().fill_null(False)
    must = f"Column {called} must hold finite numbers"
    return _Check(column, bad, must, "Correct or drop such rows", number, whole)


def about(table: pl.DataFrame, ids: Ids) -> pl.DataFrame:
    """Check a table of metadata of items, and keep the rows of the items in `ids`.

    Raises
    ------
    MissingColumnError
        If it has no column ``item_id``.
    DataError
        If that column has another type than `ids`, or contains a null or a repeated id.
    """
    if "item_id" not in table.columns:
        raise MissingColumnError(
            f"A table about items needs a column 'item_id'; it has {', '.join(table.columns)}."
        )
    known = table["item_id"]
    if known.null_count():
        row = int(known.is_null().arg_max() or 0)
        raise DataError(f"The item id of {numbered(row)} of the table about items is null.")
    if known.dtype != ids.dtype and table.height:
        raise DataError(
            f"The column 'item_id' of the table about items is of type {known.dtype}; the item ids "
            f"are {ids.kind}, {ids.dtype}. Convert it."
        )
    twice = known.is_duplicated()
    if twice.any():
        raise DataError(
            f"The table about items has {known.filter(twice)[0]!r} more than once; keep one row an "
            "item."
        )
    return table.filter(known.is_in(ids.values.implode())).sort("item_id")


def _ids_of_objects(frame: pl.LazyFrame, column: str) -> pl.LazyFrame:
    table = frame.collect()
    return table.with_columns(id_column(table[column], column).alias(column)).lazy()


def _as_text(frame: pl.LazyFrame, column: str) -> pl.LazyFrame:
    """Write the Python objects of a column as text, to parse numbers of mixed types."""
    table = frame.collect()
    text = [None if value is None else str(value) for value in table[column].to_list()]
    return table.with_columns(pl.Series(column, text, dtype=pl.String)).lazy()
