"""The subject of a request: conversion of the caller's ids to rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from nearfar.data.ids import Ids
from nearfar.errors import DataError, EmptyDataError
from nearfar.runtime.arrays import Float32, Int32, Int64


class Asked(NamedTuple):
    """The users to recommend to."""

    one: bool
    """Whether a single user was requested: then the result has no column of user ids."""
    rows: Int32
    """(n,) rows of `queries`."""
    queries: Float32
    """(N, d) points."""
    seen: tuple[Int64, Int32]
    """The items of each row in training, as the ``indptr`` and ``indices`` of a CSR matrix."""


def rows_of(ids: Ids, asked: Any) -> tuple[bool, Int32]:
    """Return whether `asked` is a single id, and the rows of its ids."""
    if isinstance(asked, str | bytes) or not isinstance(asked, Iterable):
        return True, np.array([ids.row(asked)], np.int32)
    return False, ids.rows(asked)


def distinct_rows(ids: Ids, asked: Iterable[Any], name: str) -> Int32:
    """Return the distinct rows of ids, in increasing order.

    Raises
    ------
    DataError
        `asked` is text, which is a single id.
    EmptyDataError
        `asked` is empty.
    UnknownIdError
        An id is not in `ids`.
    """
    if isinstance(asked, str | bytes):
        raise DataError(
            f"`{name}` must be a list of ids; got the single {asked!r}. Write [{asked!r}]."
        )
    rows = ids.rows(asked)
    if not len(rows):
        raise EmptyDataError(f"`{name}` is empty; at least one id is needed to compute a point.")
    return np.unique(rows)
