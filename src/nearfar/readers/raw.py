"""The result of a reader: the rows of a log (lazy), metadata of items, and rejected lines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import polars as pl

REJECTED_SCHEMA: Final = pl.Schema({"line": pl.Int64, "reason": pl.String, "text": pl.String})
"""Columns of `Raw.rejected`."""
Where = Callable[[int], str]
"""Returns the origin of a row (counted from 0) in words: "line 8 of 'ratings.csv'"."""


def numbered(row: int) -> str:
    """Describe the position of a row of a table in memory.

    Examples
    --------
    >>> numbered(7)
    'row 8 (the first is 1)'
    """
    return f"row {row + 1:,} (the first is 1)"


def nothing_rejected() -> pl.DataFrame:
    """Return an empty frame of rejected lines."""
    return pl.DataFrame(schema=REJECTED_SCHEMA)


@dataclass(frozen=True)
class Raw:
    """A log as it was read."""

    rows: pl.LazyFrame
    """The columns of the source; after a recipe, the columns user, item and, if known, value and
    time. Rows that the recipe leaves out are included, with the reason as text in the column
    ``dropped``, which is null for all others. The frame is read more than once."""
    where: Where = numbered
    """Describes the origin of a row, for messages."""
    items: pl.DataFrame | None = None
    """Metadata of the items: ``item_id`` (distinct, of the type of the column item) and any other
    columns, such as ``title``; None if there is none."""
    rejected: pl.DataFrame = field(default_factory=nothing_rejected)
    """Lines that could not be read and were left out: line number, reason and text."""
    headed: bool = False
    """Whether the names of the columns are the first line of a text file, which can be data by
    mistake."""
