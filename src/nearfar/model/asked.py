"""What a request is about: ids as a caller gives them become rows of a table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from nearfar.data.ids import Ids
from nearfar.errors import DataError, EmptyDataError
from nearfar.runtime.arrays import Float32, Int32, Int64


class Asked(NamedTuple):
    """Whom to recommend to."""

    one: bool
    """Whether a single user was asked for: then no column tells the lists apart."""
    rows: Int32
    """(n,) rows of `queries`."""
    queries: Float32
    """(N, d) points."""
    seen: tuple[Int64, Int32]
    """The items each row has already, as the ``indptr`` and ``indices`` of a CSR matrix."""


def rows_of(ids: Ids, asked: Any) -> tuple[bool, Int32]:
    """Return whether `asked` is one id, and the rows of it or of many."""
    if isinstance(asked, str | bytes) or not isinstance(asked, Iterable):
        return True, np.array([ids.row(asked)], np.int32)
    return False, ids.rows(asked)


def distinct_rows(ids: Ids, asked: Iterable[Any], name: str) -> Int32:
    """Return the rows of ids, increasing, each once.

    Raises
    ------
    DataError
        `asked` is text, which is one id.
    EmptyDataError
        There is none.
    UnknownIdError
        One of them is not in `ids`.
    """
    if isinstance(asked, str | bytes):
        raise DataError(
            f"`{name}` must be a list of ids; got the single {asked!r}. Write [{asked!r}]."
        )
    rows = ids.rows(asked)
    if not len(rows):
        raise EmptyDataError(f"`{name}` names nothing; a point needs at least one id to go by.")
    return np.unique(rows)
