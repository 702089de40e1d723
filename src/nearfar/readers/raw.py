"""What a reader gives: the rows of a log, lazily, and what else was found beside or among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import polars as pl

REJECTED_SCHEMA: Final = pl.Schema({"line": pl.Int64, "reason": pl.String, "text": pl.String})
"""Columns of `Raw.rejected`."""
Where = Callable[[int], str]
"""Says in words where a row, counted from 0, came from: "line 8 of 'ratings.csv'"."""


def numbered(row: int) -> str:
    """Say where a row of a table in memory is.

    Examples
    --------
    >>> numbered(7)
    'row 8 (the first is 1)'
    """
    return f"row {row + 1:,} (the first is 1)"


def nothing_rejected() -> pl.DataFrame:
    """Give an empty frame of rejected lines."""
    return pl.DataFrame(schema=REJECTED_SCHEMA)


@dataclass(frozen=True)
class Raw:
    """A log as it came."""

    rows: pl.LazyFrame
    """The columns of the source; after a recipe user, item, and value and time where there are
    such. A row that the recipe leaves out is still there, with the reason as text in the column
    ``dropped``, which is null for all others. It is read more than once."""
    where: Where = numbered
    """Where a row came from, for messages."""
    items: pl.DataFrame | None = None
    """What is known about the items: ``item_id`` (distinct, of the type of the column item) and any
    others, such as ``title``; None if nothing."""
    rejected: pl.DataFrame = field(default_factory=nothing_rejected)
    """Lines that could not be read and were left out: their number, the reason, and the text."""
