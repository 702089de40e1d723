r"""Columns of a table that become columns of features; an error names the id and the column.

- *Categories* are text, integers or booleans, or lists of them. Each counts once for a row; null
  and the empty text are none.
- A *text* becomes its words: the runs of two or more letters, digits or underscores (``\w\w+``) of
  the text in lower case.
- *Numbers* are finite; null means that there is none. Text is parsed.
- *Vectors* are lists or arrays of finite numbers, all of one width; null means that there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import numpy as np
import polars as pl
import scipy.sparse as sp

from nearfar.data.feature_columns import (
    FeatureColumn,
    NumberColumn,
    TermColumn,
    VectorColumn,
    assembled,
)
from nearfar.data.id_values import label, shown
from nearfar.errors import DataError, first_line
from nearfar.runtime.arrays import Int32, Int64

MOST_CHARACTERS: Final = 10_000_000
"""The longest text that is taken; a longer one is probably a whole file by mistake."""
_WORD: Final = r"\w\w+"
_TEXT_BYTES: Final = 2**26
"""Texts are cut into words so many bytes at a time, which bounds the memory."""
_VALUES: Final = 2**22
"""As many categories are looked up at a time."""
_NULLS: Final = frozenset({"NoneType", "NAType", "NaTType"})
_WIDE: Final = "Use the same number of values for every id, and null where there is no vector"


def column_of(kind: str, values: pl.Series, ids: pl.Series) -> FeatureColumn:
    """Check a column of a table and convert it to a column of features.

    Parameters
    ----------
    kind : str
        "categories", "text", "numbers" or "vectors".
    values : Series, n of them
        The column; its name is used in messages.
    ids : Series, n of them
        The id of each row, for messages; its name is that of the axis.

    Raises
    ------
    DataError
        If the type of the column does not fit, or at the first value that cannot be used.
    """
    plain = _from_objects(kind, values) if values.dtype == pl.Object else values
    if isinstance(plain.dtype, pl.Array):
        plain = plain.arr.to_list()
    converters: dict[str, Callable[[pl.Series, pl.Series], FeatureColumn]] = {
        "categories": _categories,
        "text": _texts,
        "numbers": _numbers,
        "vectors": _vectors,
    }
    return converters[kind](plain, ids)


def _from_objects(kind: str, values: pl.Series) -> pl.Series:
    """Convert Python objects, such as pandas has them, to a column of one type."""
    found = [_plain(value) for value in values.to_list()]
    try:
        made = pl.Series(values.name, found, strict=False)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"Column {values.name!r} of `{kind}` has values that are not of one type:"
            f" {first_line(error)}. Convert them all to text, to numbers or to lists of these."
        ) from error
    lost = made.is_null().to_numpy() & np.array([value is not None for value in found], np.bool_)
    if lost.any():  # such as integers of more than 128 bits
        raise DataError(
            f"Column {values.name!r} of `{kind}` has values that are not of one type, or too large:"
            f" {shown(found[int(lost.argmax())])} is not {made.dtype}. Convert them all to text, to"
            " numbers or to lists of these."
        )
    return made


def _plain(value: Any) -> Any:
    if type(value).__name__ in _NULLS or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return list(value) if isinstance(value, (tuple, set, frozenset)) else value


def _categories(values: pl.Series, ids: pl.Series) -> TermColumn:
    inner = _inner(values)
    known = isinstance(inner, (pl.Categorical, pl.Enum)) or inner in {pl.String, pl.Boolean}
    if not (known or inner.is_integer() or inner == pl.Null):
        raise _mistyped(values, ids, "categories", "text, integers or booleans, or lists of them",
                        "Convert whole floats to integers, and divide numbers into classes or pass"
                        " them as `numbers`")  # fmt: skip
    lists = isinstance(values.dtype, pl.List)
    sizes = values.list.len() if lists else values.is_not_null()
    lengths = sizes.fill_null(0).to_numpy().astype(np.int64)
    chunks = (
        (_exploded(values.slice(start, size)), size) for start, size in _slices(lengths, _VALUES)
    )
    counts, terms = _counted(chunks)
    counts.data[:] = 1.0
    return TermColumn("categories", counts, terms, weighted=True)


def _texts(values: pl.Series, ids: pl.Series) -> TermColumn:
    inner = _inner(values)
    if not (inner in {pl.String, pl.Null} or isinstance(inner, (pl.Categorical, pl.Enum))):
        raise _mistyped(values, ids, "text", "text or lists of texts", "Pass integers and booleans"
                        " as `categories`, and numbers as `numbers`")  # fmt: skip
    if isinstance(values.dtype, pl.List):
        joined = values.cast(pl.List(pl.String)).list.join("\n", ignore_nulls=True)
    else:
        joined = values.cast(pl.String)
    sizes = joined.str.len_bytes().fill_null(0)
    long = (sizes > MOST_CHARACTERS) & (joined.str.len_chars().fill_null(0) > MOST_CHARACTERS)
    if long.any():
        _refuse(long, joined, ids, f"texts of at most {MOST_CHARACTERS:,} characters",
                "Check that the column has no whole files, and cut long texts")  # fmt: skip
    lengths = sizes.to_numpy().astype(np.int64)
    chunks = (
        (_exploded(joined.slice(start, size).str.to_lowercase().str.extract_all(_WORD)), size)
        for start, size in _slices(lengths, _TEXT_BYTES)
    )
    counts, terms = _counted(chunks)
    return TermColumn("text", counts, terms, weighted=True)


def _numbers(values: pl.Series, ids: pl.Series) -> NumberColumn:
    dtype = values.dtype
    if dtype == pl.String:
        values = values.str.strip_chars().replace("", None)
    elif not (dtype.is_numeric() or dtype in {pl.Boolean, pl.Null}):
        raise _mistyped(values, ids, "numbers", "numbers", "Convert dates to numbers, such as"
                        " years, and pass text as `text` or `categories`")  # fmt: skip
    numbers = values.cast(pl.Float64, strict=False)
    bad = values.is_not_null() & ~numbers.is_finite().fill_null(False)
    _refuse(bad, values, ids, "finite numbers, or null where there is none", "Replace NaN by null:"
            " `.fill_nan(None)` (polars), `.convert_dtypes()` (pandas); correct the"
            " others")  # fmt: skip
    return NumberColumn(numbers.fill_null(float("nan")).to_numpy().copy())


def _vectors(values: pl.Series, ids: pl.Series) -> VectorColumn:
    inner = _inner(values)
    number = inner.is_numeric() or inner in {pl.Boolean, pl.String, pl.Null}
    if values.dtype != pl.Null and not (isinstance(values.dtype, pl.List) and number):
        raise _mistyped(values, ids, "vectors", "lists or arrays of numbers",
                        "Pass single numbers as `numbers`")  # fmt: skip
    there = values.is_not_null()
    lists = values.filter(there)
    if not lists.len():
        raise DataError(f"Column {values.name!r} of `vectors` has no vector: all values are null.")
    sizes, width = values.list.len(), lists.list.len()[0]
    if not width:
        _refuse(sizes == 0, values, ids, "vectors of at least one number", _WIDE)
    _refuse(there & (sizes != width), values, ids, f"vectors of {width:,} numbers, as the first"
            " one has", _WIDE)  # fmt: skip
    flat = lists.explode().cast(pl.Float32, strict=False)
    bad = ~flat.is_finite().fill_null(False).to_numpy().reshape(-1, width).all(axis=1)
    rows = np.flatnonzero(there.to_numpy())
    wrong = np.zeros(values.len(), np.bool_)
    wrong[rows[bad]] = True
    _refuse(pl.Series(wrong), values, ids, "vectors of finite numbers of 32 bits, without nulls",
            "Write null in place of a vector that is not known")  # fmt: skip
    made = np.full((values.len(), width), np.nan, np.float32)
    made[rows] = flat.to_numpy().reshape(-1, width)
    return VectorColumn(made)


def _inner(values: pl.Series) -> pl.DataType:
    """Return the type of the values, or of the values of lists."""
    dtype = values.dtype
    found: pl.DataType = dtype.inner if isinstance(dtype, pl.List) else dtype  # type: ignore[assignment]
    return found


def _mistyped(values: pl.Series, ids: pl.Series, kind: str, must: str, remedy: str) -> DataError:
    known = values.is_not_null()
    row = int(known.arg_max() or 0)
    return DataError(
        f"Column {values.name!r} of `{kind}` must hold {must}; its type is {values.dtype}:"
        f" {label(ids.name)} {shown(ids[row])} has {shown(values[row])}. {remedy}."
    )


def _refuse(bad: pl.Series, values: pl.Series, ids: pl.Series, must: str, remedy: str) -> None:
    """Raise an error for the first bad value; a null in `bad` is none."""
    if not bad.any():
        return
    row = int(bad.fill_null(False).arg_max() or 0)
    n = int(bad.sum())
    more = f" ({n:,} ids have such values)" if n > 1 else ""
    raise DataError(
        f"Column {values.name!r} must hold {must}; {label(ids.name)} {shown(ids[row])} has"
        f" {shown(values[row])}{more}. {remedy}."
    )


# ---------------------------------------------------------------------------------- terms


def _slices(lengths: Int64, most: int) -> Iterator[tuple[int, int]]:
    """Cut rows into runs of at most `most` values, but at least one row: (start, rows)."""
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    start = 0
    while start < lengths.size:
        end = int(np.searchsorted(before, before[start] + most, side="right")) - 1
        end = max(end, start + 1)
        yield start, end - start
        start = end


def _exploded(values: pl.Series) -> pl.DataFrame:
    """Return one row for each value: row (of `values`) and term; without nulls and empty texts."""
    table = pl.DataFrame({"term": values}).with_row_index("row")
    if isinstance(values.dtype, pl.List):
        table = table.explode("term")
    text = table.with_columns(pl.col("term").cast(pl.String))
    return text.filter(pl.col("term") != "")  # null != "" is null, which is left out


def _counted(chunks: Iterable[tuple[pl.DataFrame, int]]) -> tuple[sp.csr_array, pl.Series]:
    """Count the terms of each row.

    Parameters
    ----------
    chunks : iterable of (DataFrame, int)
        What `_exploded` makes of each run of rows, and the number of rows of the run.

    Returns
    -------
    csr_array, float32, shape (n_rows, n_terms)
    Series of text
        The distinct terms, sorted.
    """
    dtype = pl.Categorical(pl.Categories.random())
    lengths, codes = [np.zeros(0, np.int64)], [np.zeros(0, np.uint32)]
    found = [pl.Series([], dtype=dtype)]  # polars keeps the codes as long as this is there
    for chunk, n in chunks:
        terms = chunk["term"].cast(dtype)
        lengths.append(np.bincount(chunk["row"].to_numpy(), minlength=n))
        codes.append(terms.to_physical().to_numpy())
        found.append(terms.unique())
    terms, place = _sorted_terms(pl.concat(found).unique())
    indices = np.concatenate([place[code] for code in codes])
    counts = assembled(
        np.ones(indices.size, np.float32), indices, np.concatenate(lengths), terms.len()
    )
    counts.sum_duplicates()
    return counts, terms


def _sorted_terms(terms: pl.Series) -> tuple[pl.Series, Int32]:
    """Return the text of distinct categories, sorted, and the place of each by its code."""
    text, codes = terms.cast(pl.String), terms.to_physical().to_numpy()
    order = text.arg_sort().to_numpy()
    place = np.zeros(int(codes.max(initial=0)) + 1, np.int32)
    place[codes[order]] = np.arange(order.size)
    return text.gather(order), place


def places(values: pl.Series, among: pl.Series) -> Int32:
    """Return where each value is among distinct values of the same type, int32; -1 if nowhere.

    >>> places(pl.Series(["b", "x", "a"]), pl.Series(["a", "b"])).tolist()
    [1, -1, 0]
    """
    left, right = pl.DataFrame({"value": values}), pl.DataFrame({"value": among})
    found = left.join(right.with_row_index("place"), on="value", how="left", maintain_order="left")[
        "place"
    ]
    return found.cast(pl.Int32).fill_null(-1).to_numpy().copy()
