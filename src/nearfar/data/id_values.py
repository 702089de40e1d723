"""Which values can be ids: 64-bit integers or text. Other types are refused.

The error message shows the conversion to write. Categories become their text. Whole floats become
Int64, because pandas turns an integer column with missing values into floats; whole floats above
2^53 (2^24 in floats of 32 bits) are refused, because several integers share one float there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

import numpy as np
import polars as pl

from nearfar.errors import DataError
from nearfar.runtime.checks import cut, listed

EXACT_FLOAT: Final = 2.0**53
"""Above this value, neighbouring integers share one float."""
_FEW: Final = 5
_KEPT: Final = ({int}, {str}, {float}, {bytes}, {bool})
"""Types from which polars makes a column directly, if all values have the same one."""
_SIGNED: Final[list[pl.DataType]] = [pl.Int8(), pl.Int16(), pl.Int32(), pl.Int64()]
_UNSIGNED: Final[list[pl.DataType]] = [pl.UInt8(), pl.UInt16(), pl.UInt32(), pl.UInt64()]
_DROP: Final = "Drop the rows without an id."
_NULLS: Final = frozenset({"NoneType", "NAType", "NaTType"})


def as_column(values: Iterable[Any]) -> pl.Series:
    """Return a column of one polars type if all values have one type, else of Object.

    Raises
    ------
    DataError
        `values` is a single value, such as text, or a mapping or a table.
    """
    if isinstance(values, pl.Series):
        return values
    try:
        if isinstance(values, np.ndarray) and values.dtype.kind in "iufUSbmM":
            return pl.Series(values)
    except (TypeError, ValueError):
        pass  # such as times in a unit that polars lacks
    found = listed("ids", values, "ids")
    types = set(map(type, found))
    try:
        if not found:
            return pl.Series(found, dtype=pl.Int64)
        if types in _KEPT:
            return pl.Series(found)
        if len(types) == 1 and issubclass(next(iter(types)), np.generic):
            return pl.Series(np.array(found))
    except (TypeError, OverflowError, ValueError):
        pass  # integers beyond 64 bits, lone surrogates
    return pl.Series(found, dtype=pl.Object)


def id_column(series: pl.Series, name: str) -> pl.Series:
    """Check a column of ids and convert it to the type in which ids are stored.

    Raises
    ------
    DataError
        For nulls, NaN, fractions and types that cannot be ids; the message names the first
        offending row, its value and type, and the conversion to write.
    """
    dtype = series.dtype
    if dtype == pl.Object:
        return _from_objects(series.to_list(), name)
    if dtype.is_float():
        return _whole(series, name)
    if dtype == pl.Null or series.null_count():
        raise _bad_row(series.is_null(), name, "null", _DROP)
    if isinstance(dtype, (pl.Categorical, pl.Enum)):
        return series.cast(pl.String)
    if is_id_type(dtype):
        return series
    raise wrong_type(dtype, series, name)


def exact_float(dtype: pl.DataType) -> float:
    """Return the largest whole number that can be an id in a column of floats."""
    if dtype == pl.Float64:
        return EXACT_FLOAT
    return 2.0**24 - 1 if dtype == pl.Float32 else 2.0**11 - 1


def is_id_type(dtype: pl.DataType) -> bool:
    """Return whether a column of this type can hold ids without conversion."""
    return dtype == pl.String or (dtype.is_integer() and dtype not in {pl.Int128, pl.UInt128})


def joined(one: pl.Series, other: pl.Series) -> pl.Series | None:
    """Return the ids of both columns, in the narrowest type that holds them; None if none does."""
    if one.dtype == other.dtype:
        return pl.concat([one, other])
    if one.dtype.is_integer() and other.dtype.is_integer():
        for dtype in (_wider(one.dtype, other.dtype), pl.UInt64()):
            both = [column.cast(dtype, strict=False) for column in (one, other)]
            if not any(column.null_count() for column in both):
                return pl.concat(both)
    return None


def _wider(one: pl.DataType, other: pl.DataType) -> pl.DataType:
    """Return the narrowest integer type that holds every value of both, at most Int64."""
    unsigned = one in _UNSIGNED and other in _UNSIGNED
    ranks = [
        _UNSIGNED.index(dtype) + (not unsigned) if dtype in _UNSIGNED else _SIGNED.index(dtype)
        for dtype in (one, other)
    ]
    return _UNSIGNED[max(ranks)] if unsigned else _SIGNED[min(max(ranks), len(_SIGNED) - 1)]


def converted(ids: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Convert integers to text or text to integers (64 bits); null where text is not exactly one.

    "007", "+7" and "7.0" are not the text of an integer.
    """
    if dtype == pl.String or ids.dtype != pl.String:
        return ids.cast(dtype, strict=False)
    found = [ids.cast(wide, strict=False) for wide in (pl.Int64, pl.UInt64)]
    numbers = min(found, key=lambda column: column.null_count())
    return pl.select(pl.when(numbers.cast(pl.String) == ids).then(numbers)).to_series()


def wrong_type(dtype: pl.DataType, some: pl.Series, name: str) -> DataError:
    """Return the error for a column whose type cannot hold ids.

    Parameters
    ----------
    dtype : DataType
        The type of the column.
    some : Series
        The column or its first rows; the message shows its first value.
    name : str
        What the ids are called.
    """
    known = some.drop_nulls()
    such = f", such as {shown(known[0])}," if len(known) else ""
    return DataError(
        f"{label(name).capitalize()}s of type {dtype}{such} are not supported. "
        f"{_remedy(known[0] if len(known) else None)}"
    )


def _from_objects(values: Sequence[Any], name: str) -> pl.Series:
    """Convert Python objects to one type; they must be all integers or all text."""
    found = [value.item() if isinstance(value, np.generic) else value for value in values]
    types = {_type_of(value, row, name) for row, value in enumerate(found, start=1)}
    if len(types) == 1:
        as_one = int if types == {int} else str.__str__  # a subclass may override `__str__`
        return id_column(pl.Series([as_one(value) for value in found]), name)
    number, text = (
        next(value for value in found if isinstance(value, str) == is_text)
        for is_text in (False, True)
    )
    raise DataError(
        f"The {label(name)}s are of mixed types: {shown(number)} is of type "
        f"{type(number).__name__}, {shown(text)} of type str. {_remedy(number)}"
    )


def _type_of(value: Any, row: int, name: str) -> type:
    """Return the type of id that a Python object is, int or str; a whole float is an integer.

    Raises
    ------
    DataError
        If it is neither.
    """
    which = f"The {label(name)} of row {row:,} (the first is 1) is"
    if type(value).__name__ in _NULLS or (isinstance(value, float) and value != value):
        raise DataError(f"{which} null or NaN. {_DROP}")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise DataError(f"{which} {shown(value)}, which is not valid UTF-8 text.") from None
        return str
    integer = isinstance(value, int) and not isinstance(value, bool)
    if integer and -(2**63) <= value < 2**64:
        return int
    if isinstance(value, float) and value.is_integer() and abs(value) <= EXACT_FLOAT:
        return int
    what = f"{shown(value)} of type {type(value).__name__}"
    raise DataError(f"{which} {what}{', beyond 64 bits' if integer else ''}. {_remedy(value)}")


def _remedy(value: Any) -> str:
    one = {bytes: "i.decode()", bool: "int(i)"}.get(type(value), "str(i)")
    return (
        f"Ids must be integers of 64 bits or text: convert them with `[{one} for i in ids]`, or a "
        "column with `.cast(pl.String)` (polars) or `.astype(str)` (pandas)."
    )


def _whole(series: pl.Series, name: str) -> pl.Series:
    wide = series.cast(pl.Float64)
    bad = (wide.is_null() | wide.is_nan()).fill_null(True)
    if bad.any():
        raise _bad_row(bad, name, "null or NaN", _DROP)
    bad = (wide != wide.round()) | (wide.abs() > exact_float(series.dtype))
    if bad.any():
        value = wide[int(cast(int, bad.arg_max()))]
        raise _bad_row(bad, name, f"the float {value!r}", _remedy(value))
    return wide.cast(pl.Int64)


def _bad_row(bad: pl.Series, name: str, what: str, remedy: str) -> DataError:
    row = int(cast(int, bad.arg_max())) + 1 if bad.len() else 1
    return DataError(f"The {label(name)} of row {row:,} (the first is 1) is {what}. {remedy}")


def label(name: str) -> str:
    """Return "user id", or just "id" if the ids have no name."""
    return f"{name} id".strip()


def shown(value: Any) -> str:
    """Format a value for a message, cut to at most 80 characters."""
    return cut(repr(value.to_list() if isinstance(value, pl.Series) else value))


def first_few(ids: Sequence[Any]) -> str:
    """Return the first few ids for a message, and the number of the others."""
    more = f" and {len(ids) - _FEW:,} more" if len(ids) > _FEW else ""
    return ", ".join(map(shown, ids[:_FEW])) + more
