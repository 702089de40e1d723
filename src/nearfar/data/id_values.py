"""Which values can be ids, in which order, and how ids of mixed types are written on disk.

Columns of one type (integers, strings, bytes, booleans, dates) stay polars columns. Everything else
is a list of Python objects. Their order is a function of the set of ids alone: by the name of the
type, then by value for the types that have a total order, tuples entry by entry, and by ``repr``
for every other type. On disk such an id is a JSON array of a tag and a value, ``["i", 196]`` or
``["t", [["s", "a"], ["i", 1]]]``; nothing is ever pickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, cast
from uuid import UUID

import numpy as np
import polars as pl

from nearfar.errors import DataError
from nearfar.runtime.arrays import Int32

Key = tuple[Any, ...]

_ORDERED: Final = frozenset(
    {bool, int, float, str, bytes, date, timedelta, Decimal, Fraction, UUID}
)
EXACT_FLOAT: Final = 2.0**53
"""Above it, neighbouring whole numbers become one float."""
ID_TYPES: Final = frozenset({pl.String, pl.Binary, pl.Boolean, pl.Date})
"""Types of columns, beside the integers, that can hold ids as they are."""
_NULLS: Final = frozenset({"NoneType", "NAType", "NaTType"})


def as_column(values: Iterable[Any]) -> pl.Series:
    """One polars type for values that are all of one Python or numpy type, else Object."""
    if isinstance(values, pl.Series):
        return values
    listed = values.tolist() if isinstance(values, np.ndarray) else list(values)
    types = set(map(type, listed))
    try:
        if isinstance(values, np.ndarray) and values.dtype.kind in "iufUSb":
            return pl.Series(values)
        if not listed:
            return pl.Series(listed, dtype=pl.Int64)
        if types in ({int}, {str}, {bytes}, {bool}, {date}, {float}):
            return pl.Series(listed)
        if len(types) == 1 and issubclass(next(iter(types)), np.generic):
            return pl.Series(np.array(listed))
    except (TypeError, OverflowError, ValueError):
        pass  # integers beyond 64 bits, lone surrogates: kept as Python objects
    return pl.Series(listed, dtype=pl.Object)


def id_column(series: pl.Series, name: str) -> pl.Series:
    """Check a column that holds ids and bring it to the type they are kept in.

    Raises
    ------
    DataError
        For nulls, NaN, fractions and types that cannot be ids; names the first offending row.
    """
    dtype = series.dtype
    if dtype.is_float():
        return _whole(series, name)
    if dtype == pl.Null or series.null_count():
        raise _bad_row(series.is_null(), name, "null", "Drop the rows without an id")
    if isinstance(dtype, (pl.Categorical, pl.Enum)):
        return series.cast(pl.String)
    if dtype.is_integer() or dtype in ID_TYPES:
        return series
    raise DataError(
        f"{label(name).capitalize()}s of type {dtype} are not supported; convert to str."
    )


def _whole(series: pl.Series, name: str) -> pl.Series:
    wide = series.cast(pl.Float64)
    bad = (wide.is_null() | wide.is_nan()).fill_null(True)
    if bad.any():
        raise _bad_row(bad, name, "null or NaN", "Drop the rows without an id")
    bad = (wide != wide.round()) | (wide.abs() > EXACT_FLOAT)
    if bad.any():
        value = wide[int(cast(int, bad.arg_max()))]
        raise _bad_row(bad, name, f"the float {value!r}", "Convert the ids to integers or strings")
    return wide.cast(pl.Int64)


def _bad_row(bad: pl.Series, name: str, what: str, remedy: str) -> DataError:
    row = int(cast(int, bad.arg_max())) + 1 if bad.len() else 1
    return DataError(f"The {label(name)} of row {row:,} (the first is 1) is {what}. {remedy}.")


def label(name: str) -> str:
    """Say "user id", or just "id" where the ids have no name."""
    return f"{name} id".strip()


def plain(value: Any) -> Any:
    """Turn a numpy scalar into the Python value that it is equal to."""
    return value.item() if isinstance(value, np.generic) else value


def sort_key(value: Any) -> Key:
    """Give the place of an id among others.

    Two ids are the same exactly when their keys are, so ``True`` is not ``1``.

    Raises
    ------
    TypeError
        If `value` cannot be an id; says why.
    """
    kind = type(value).__name__
    if kind in _NULLS:
        raise TypeError("it is null; drop the rows without an id")
    if isinstance(value, tuple):
        return (kind, tuple(sort_key(entry) for entry in value))
    if type(value).__hash__ is None:
        raise TypeError(f"{value!r} of type {kind} is not hashable; convert it to a tuple or str")
    if value != value:
        raise TypeError("it is NaN; drop the rows without an id")
    if type(value) in _ORDERED:
        return (kind, value)
    shown: object = type(value).__repr__
    if shown is object.__repr__:
        raise TypeError(f"an object of type {kind} has no order and no repr; convert it to str")
    return (kind, repr(value))


def encode_objects(values: Sequence[Any], name: str) -> tuple[list[Any], Int32]:
    """Find the distinct ids among `values`, in order, and the row of each value.

    Raises
    ------
    DataError
        If a value cannot be an id, or two of them cannot be told apart for certain.
    """
    key_of: dict[Any, Key] = {}
    keys = []
    for row, value in enumerate(map(plain, values), start=1):
        try:
            key = sort_key(value)
            known = key_of.setdefault(value, key)
        except TypeError as error:
            message = f"The {label(name)} of row {row:,} (the first is 1) cannot be used: {error}."
            raise DataError(message) from None
        if known != key:
            raise DataError(
                f"The {label(name)} {value!r} of row {row:,} (the first is 1) equals an "
                "earlier one that is written differently or of another type; convert all to str."
            )
        keys.append(key)
    ordered = sorted(key_of.items(), key=lambda pair: pair[1])
    row_of = {key: row for row, (_, key) in enumerate(ordered)}
    if len(row_of) < len(ordered):
        raise DataError(f"Two different {label(name)}s have the same repr; convert the ids to str.")
    return [value for value, _ in ordered], np.array([row_of[key] for key in keys], dtype=np.int32)


def to_text(values: Iterable[Any], name: str) -> list[str]:
    """Write each id as tagged JSON.

    Raises
    ------
    DataError
        If an id is neither str, int, float, bool nor a tuple of these.
    """
    return [json.dumps(_tagged(value, name)) for value in values]


def from_text(texts: Iterable[str]) -> list[Any]:
    """Read back what `to_text` wrote.

    Raises
    ------
    ValueError
        If a text is not one of its own.
    """
    return [_untagged(json.loads(text)) for text in texts]


def _tagged(value: Any, name: str) -> list[Any]:
    if type(value) is tuple:
        return ["t", [_tagged(entry, name) for entry in value]]
    if type(value) is float:
        return ["f", value.hex()]
    tag = {str: "s", int: "i", bool: "b"}.get(type(value))
    if tag is None:
        raise DataError(
            f"The {label(name)} {value!r} is of type {type(value).__name__}, which "
            "cannot be saved; convert the ids to str (or int, float, bool, or tuples of these)."
        )
    return [tag, value]


def _untagged(entry: Any) -> Any:
    match entry:
        case ["t", list(entries)]:
            return tuple(_untagged(inner) for inner in entries)
        case ["f", str(text)]:
            return float.fromhex(text)
        case ["s", str(value)] | ["b", bool(value)] | ["i", int(value)]:
            return value
    raise ValueError(f"{entry!r} is not a saved id")
