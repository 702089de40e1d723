"""Checks and conversions of the columns of a table: ids, numbers, times, metadata of items.

Row numbers in messages count the rows of data from 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import polars as pl

from nearfar.data.id_values import (
    EXACT_FLOAT,
    exact_float,
    id_column,
    is_id_type,
    label,
    shown,
    wrong_type,
)
from nearfar.data.ids import Ids
from nearfar.data.moments import AS_ISO
from nearfar.data.table_columns import Column
from nearfar.data.times import LOOKS_ISO, microseconds
from nearfar.errors import DataError, MissingColumnError
from nearfar.readers.raw import Where, numbered
from nearfar.runtime.forks import check_fork

_DROP: Final = "Correct or drop such rows"
_COMMA: Final = re.compile(r"\s*[+-]?[0-9.]*,[0-9,.]*\s*")
"""A number with a decimal comma, or with commas between thousands."""


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
    rounded: pl.Expr | None = None
    """True for fractions, if any integer of the column is too long for a float."""


def cleaned(
    frame: pl.LazyFrame,
    *,
    ids: Sequence[str] = (),
    numbers: Mapping[str, Column] = MappingProxyType({}),
    where: Where = numbered,
) -> tuple[pl.LazyFrame, int]:
    """Check columns of ids and of numbers in one pass, and convert them to the types used inside.

    Numbers become Int64 if they are all whole, else Float64; text is parsed as numbers; dates and
    times, and ISO text in the column ``time``, become microseconds since 1970. Ids are integers or
    text and keep their type; whole floats become Int64, and categories become their text.

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
        null, NaN, infinite or not a number; the message names column, row and value. Also for times
        in text of which some are fractions and others integers beyond 2^53.
    """
    check_fork()
    schema = frame.collect_schema()
    for name in [name for name in (*ids, *numbers) if schema[name] == pl.Object]:
        frame = _ids_of_objects(frame, name) if name in ids else _as_text(frame, name)
    categories = [name for name in numbers if isinstance(schema[name], (pl.Categorical, pl.Enum))]
    frame = frame.with_columns(pl.col(categories).cast(pl.String))
    schema = frame.collect_schema()
    checks = [_id_check(frame, name, schema[name]) for name in ids]
    for name, called in numbers.items():
        timed = name == "time" and schema[name] == pl.String and _looks_iso(frame, name)
        make = _iso_check if timed else _number_check
        checks.append(make(name, schema[name], repr(called)))
    asked = [pl.len().alias("rows")]
    for check in checks:
        asked.append(check.bad.any().alias(f"bad {check.column}"))
        if check.whole is not None:
            asked.append(check.whole.is_not_null().all().alias(f"whole {check.column}"))
        if check.rounded is not None:
            asked.append(check.rounded.any().alias(f"rounded {check.column}"))
    found = frame.select(asked).collect(engine="streaming").row(0, named=True)
    for check in checks:
        if found[f"bad {check.column}"]:
            raise _first_bad(frame, check, where)
        if found.get(f"rounded {check.column}"):
            raise _first_bad(frame, _of_rounded(check), where)
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
    remedy = check.remedy
    if isinstance(found, str) and _COMMA.fullmatch(found):
        remedy = "Write numbers with a decimal point and nothing between thousands: 3.5, not 3,5"
    return DataError(f"{check.must}; {where(row)} has {shown(found)}. {remedy}.")


def _of_rounded(check: _Check) -> _Check:
    """Return the check that finds the first fraction among integers too long for floats."""
    assert check.rounded is not None
    must = f"{check.must}, all of them whole if some are beyond 2^53, where floats lose digits"
    return replace(check, bad=check.rounded, must=must, remedy="Write all of them as whole numbers")


def _id_check(frame: pl.LazyFrame, column: str, dtype: pl.DataType) -> _Check:
    value = pl.col(column)
    bad, becomes = value.is_null(), value
    if dtype.is_float():
        fits = (value == value.round()) & (value.abs() <= exact_float(dtype))
        bad, becomes = bad | ~fits.fill_null(True), value.cast(pl.Int64)
    elif isinstance(dtype, (pl.Categorical, pl.Enum)):
        becomes = value.cast(pl.String)
    elif not (is_id_type(dtype) or dtype == pl.Null):
        some = frame.select(value.drop_nulls()).head(1).collect(engine="streaming")
        raise wrong_type(dtype, some[column], column)
    must = f"A {label(column)} must not be missing, NaN, a fraction or a float above 2^53"
    return _Check(column, bad, must, _DROP, becomes)


def _looks_iso(frame: pl.LazyFrame, column: str) -> bool:
    """Return whether the first text of a column starts with a date."""
    first = frame.select(pl.col(column).drop_nulls()).head(1)
    looks = first.select(pl.col(column).str.contains(LOOKS_ISO).any())
    return bool(looks.collect(engine="streaming").item())


def _iso_check(column: str, dtype: pl.DataType, called: str) -> _Check:
    number = microseconds(pl.col(column))
    must = f"Column {called} must hold ISO dates or times, as its first value does"
    return _Check(column, number.is_null(), must, f"Write {AS_ISO}", number)


def _number_check(column: str, dtype: pl.DataType, called: str) -> _Check:
    value, whole, rounded, remedy = pl.col(column), None, None, _DROP
    if dtype == pl.String:
        value = value.str.strip_chars()
        number, whole = value.cast(pl.Float64, strict=False), value.cast(pl.Int64, strict=False)
        if column == "time":
            remedy = f"Write times as numbers, or as {AS_ISO}"
            long = (whole > int(EXACT_FLOAT)) | (whole < -int(EXACT_FLOAT))
            rounded = long.any() & whole.is_null()
    elif isinstance(dtype, (pl.Date, pl.Datetime)) and column == "time":
        number = value.dt.epoch("us")
    elif dtype.is_integer():
        number = value.cast(pl.Int64, strict=False)
    elif isinstance(dtype, pl.Decimal):
        number, cut = value.cast(pl.Float64, strict=False), value.cast(pl.Int64, strict=False)
        whole = pl.when(cut.cast(dtype, strict=False) == value).then(cut)
    elif dtype.is_numeric() or dtype in {pl.Boolean, pl.Null}:
        number = value.cast(pl.Float64, strict=False)
    else:
        raise DataError(f"Column {called} must hold numbers; its type is {dtype}.")
    bad = number.is_null()
    if not dtype.is_integer():
        bad |= ~number.cast(pl.Float64).is_finite().fill_null(False)
    must = f"Column {called} must hold finite numbers"
    return _Check(column, bad, must, remedy, number, whole, rounded)


def about(table: pl.DataFrame, ids: Ids) -> pl.DataFrame:
    """Check a table of metadata of items, and keep the rows of the items in `ids`.

    Raises
    ------
    MissingColumnError
        If it has no column ``item_id``.
    DataError
        If that column is of another kind than `ids` (text and integers), or contains a null or a
        repeated id.
    """
    check_fork()
    if "item_id" not in table.columns:
        raise MissingColumnError(
            f"A table about items needs a column 'item_id'; it has {', '.join(table.columns)}."
        )
    known = table["item_id"]
    if known.null_count():
        row = int(known.is_null().arg_max() or 0)
        raise DataError(f"The item id of {numbered(row)} of the table about items is null.")
    if isinstance(known.dtype, (pl.Categorical, pl.Enum)):
        known = known.cast(pl.String)
    integers = known.dtype.is_integer() and ids.dtype.is_integer()
    if not integers and known.dtype != ids.dtype and table.height:
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
    if integers:
        known = known.cast(ids.dtype, strict=False)  # what does not fit is none of the ids
    kept = known.is_in(ids.values.implode()) & known.is_not_null()
    return table.with_columns(known.alias("item_id")).filter(kept).sort("item_id")


def _ids_of_objects(frame: pl.LazyFrame, column: str) -> pl.LazyFrame:
    table = frame.collect()
    return table.with_columns(id_column(table[column], column).alias(column)).lazy()


def _as_text(frame: pl.LazyFrame, column: str) -> pl.LazyFrame:
    """Write the Python objects of a column as text, to parse numbers of mixed types."""
    table = frame.collect()
    text = [None if value is None else str(value) for value in table[column].to_list()]
    return table.with_columns(pl.Series(column, text, dtype=pl.String)).lazy()
