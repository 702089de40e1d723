"""Lists of (user, item) pairs by row: checks, sorting, deduplication, compression to CSR."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from nearfar.data.id_values import EXACT_FLOAT
from nearfar.data.ids import Ids, check_axis, encode
from nearfar.data.moments import as_microseconds
from nearfar.errors import DataError, EmptyDataError
from nearfar.runtime.arrays import Bool, Float64, Int32, Int64, Integers
from nearfar.runtime.checks import an_array, as_array, is_integer, listed

Times = Int64 | Float64


def compressed(
    users: Integers, items: Integers, times: Times | None, shape: tuple[int, int]
) -> tuple[Int64, Int32, Times | None]:
    """Sort pairs by user, then item; keep a repeated pair once, with its earliest time.

    Parameters
    ----------
    users, items : int64 array, shape (n,)
        Integers, in any order.
    times : int64 or float64 array, shape (n,), optional
        The time of each pair.
    shape : (int, int)
        Number of users and of items.

    Returns
    -------
    indptr : int64 array, shape (n_users + 1,)
    items : int32 array, shape (n_distinct,)
    times : of the given type, shape (n_distinct,), or None
    """
    n_users, n_items = shape
    if _in_order(users, items):
        counts = np.bincount(users, minlength=n_users)
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
        return indptr, items.astype(np.int32), times
    keys = users.astype(np.int64) * n_items + items  # below 2^62, because either axis is below 2^31
    kept = None
    if times is None:
        keys.sort()  # np.unique hashes first, which takes 70 times as long
        distinct = keys[_is_first(keys)]
    else:
        order = np.lexsort((times, keys))
        first = _is_first(keys[order])
        distinct, kept = keys[order[first]], times[order[first]]
    counts = np.bincount(distinct // max(n_items, 1), minlength=n_users)
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
    return indptr, (distinct % max(n_items, 1)).astype(np.int32), kept


def _in_order(users: Integers, items: Integers) -> bool:
    """Return whether the pairs increase strictly, by user and then item, as saved pairs do."""
    same = users[1:] == users[:-1]
    return bool(np.all(np.where(same, items[1:] > items[:-1], users[1:] > users[:-1])))


def _is_first(ordered: Int64) -> Bool:
    """Return whether each of the sorted keys differs from the one before it."""
    first = np.ones(ordered.size, np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return first


def checked_rows(rows: npt.ArrayLike, n: int, name: str) -> Integers:
    """Check that `rows` are integers in 0..n-1; return them as int32 if they are int32, else int64.

    Raises
    ------
    DataError
        Otherwise; the message names the first offending row.
    """
    array = an_array(f"{name}s", rows, 1, "iu")
    wrong = np.flatnonzero((array < 0) | (array >= n))
    if wrong.size:
        raise DataError(
            f"{name.capitalize()} row {array[wrong[0]]} (entry {wrong[0]:,}) is not among the "
            f"{n:,} {name}s; rows count from 0."
        )
    return array if array.dtype == np.int32 else array.astype(np.int64)


def checked_times(times: npt.ArrayLike) -> Times:
    """Check that `times` are finite numbers; return int64 if they are integers, else float64.

    An array of datetime64 becomes microseconds since 1970.

    Raises
    ------
    DataError
        Otherwise; the message names the first offending time. Also if one time is a fraction and
        another an integer beyond 2^53, which would lose digits.
    """
    array = as_array(times)
    if array.ndim == 1 and array.dtype.kind == "M":
        _check_each("dates, none of them missing", array, ~np.isnat(array))
        return as_microseconds(array)
    array = an_array("times", array, 1, "iubf")
    if array.dtype.kind == "u":
        _check_each("below 2^63", array, array <= np.iinfo(np.int64).max)
    if array.dtype.kind in "iub" or not array.size:
        return array.astype(np.int64)
    _check_each("finite", array, np.isfinite(array))
    given = times if isinstance(times, (list, tuple)) else ()
    _check_digits([t for t in given if is_integer(t) and abs(int(t)) > EXACT_FLOAT])
    return array.astype(np.float64)


def _check_each(must: str, times: Any, right: Bool) -> None:
    wrong = np.flatnonzero(~right)
    if wrong.size:
        raise DataError(f"Times must be {must}; entry {wrong[0]:,} is {times[wrong[0]]}.")


def joined_times(parts: list[Times]) -> Times:
    """Concatenate times.

    Raises
    ------
    DataError
        If some are fractions and others integers beyond 2^53, which would lose digits.
    """
    joined = cast(Times, np.concatenate(parts))
    for part in parts:
        if joined.dtype == np.float64 and part.dtype == np.int64:
            _check_digits(part[(part > EXACT_FLOAT) | (part < -EXACT_FLOAT)])
    return joined


def _check_digits(long: Sequence[Any] | Times) -> None:
    """Refuse integers beyond 2^53, which are to become floats."""
    if len(long):
        raise DataError(
            "Times must be all whole numbers if some are beyond 2^53, where floats lose digits; got"
            f" {long[0]} and fractions."
        )


def columns(pairs: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    """Turn (user, item) or (user, item, time) tuples into two or three lists.

    Raises
    ------
    EmptyDataError
        If there are no tuples.
    DataError
        If they are not all of the same length, 2 or 3.
    """
    found = listed("pairs", pairs, "(user, item) tuples")
    if not found:
        raise EmptyDataError("`pairs` must have at least one (user, item); got none.")
    usual = len(found[0]) if isinstance(found[0], (tuple, list)) else 0
    for place, pair in enumerate(found):
        if not isinstance(pair, (tuple, list)) or len(pair) != usual or usual not in {2, 3}:
            raise DataError(
                "`pairs` must be (user, item) or (user, item, time) tuples, all of one length; "
                f"entry {place:,} is {pair!r}."
            )
    return [list(column) for column in zip(*found, strict=True)]


def positive_entries(matrix: Any) -> tuple[Int64, Int64, tuple[int, int]]:
    """Return the positive entries of a scipy sparse matrix: rows, columns and the shape.

    Raises
    ------
    EmptyDataError
        If no entry is positive.
    DataError
        If `matrix` is not a two-dimensional sparse matrix, an axis is too long, or an entry is NaN
        or negative.
    """
    import scipy.sparse as sp

    if not sp.issparse(matrix) or getattr(matrix, "ndim", 0) != 2:
        raise DataError(
            "`matrix` must be a two-dimensional scipy sparse matrix; got "
            f"{type(matrix).__name__}. Convert a dense one with `scipy.sparse.csr_array(...)`."
        )
    entries: Any = sp.coo_array(cast(Any, matrix))
    n_users, n_items = entries.shape
    check_axis(n_users, "user")
    check_axis(n_items, "item")
    wrong = np.flatnonzero(~(entries.data >= 0))
    if wrong.size:
        at = wrong[0]
        raise DataError(
            f"Entry ({entries.row[at]}, {entries.col[at]}) of `matrix` is {entries.data[at]}; "
            "entries must be 0 or positive. Keep only the interactions, such as `matrix > 0`."
        )
    keep = entries.data > 0
    if not keep.any():
        raise EmptyDataError("`matrix` has no positive entry, so it contains no interaction.")
    users, items = entries.row[keep].astype(np.int64), entries.col[keep].astype(np.int64)
    return users, items, (n_users, n_items)


def axis(given: Iterable[Any] | None, n: int, name: str) -> tuple[Ids, Int32]:
    """Return the sorted ids of an axis of n rows, and the position of each row among them.

    Raises
    ------
    DataError
        If the number of ids differs from n, or an id is repeated.
    """
    if given is None:
        return Ids.numbered(n, name), np.arange(n, dtype=np.int32)
    ids, place = encode(given, name)
    if place.size != n:
        raise DataError(f"`{name}_ids` must be {n:,}, one per row of the axis; got {place.size:,}.")
    if len(ids) != n:
        repeated = ids.id(int(np.bincount(place).argmax()))
        raise DataError(f"`{name}_ids` must be distinct; {repeated!r} occurs more than once.")
    return ids, place
