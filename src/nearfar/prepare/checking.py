"""The first pass over a raw table: all columns that are needed are checked in one query."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import polars as pl

from nearfar.data import frames, table_columns
from nearfar.errors import OptionError
from nearfar.prepare.rules import Rules
from nearfar.readers.raw import Raw

_SIDES: Final = ("user", "item")


@dataclass(frozen=True)
class Checked:
    """A table that can be relied on."""

    rows: pl.LazyFrame
    """user, item, and time and value where they are there and asked for."""
    n_rows: int
    """Rows, those included that the recipe leaves out."""
    dropped: dict[str, int]
    """Rows that the recipe leaves out, by its reason."""


def check_threshold(rules: Rules, columns: Iterable[str], example: str = "") -> None:
    """Raise `OptionError` if the threshold needs a column of values that is not there."""
    names = list(columns)
    if rules.min_value is not None and rules.repeats == "any" and "value" not in names:
        raise OptionError(
            f"`min_value` is {rules.min_value:g}, but the table has no column 'value'; it has "
            f"{', '.join(names)}. Rename the column of values{example}. With `repeats` 'sum' each "
            "row is worth 1."
        )


def checked(raw: Raw, rules: Rules) -> Checked:
    """Check the columns that are needed, all in one pass.

    Raises
    ------
    MissingColumnError
        There is no user or item.
    OptionError
        `rules.min_value` needs a value that is not there.
    DataError
        An id, a value or a time cannot be used; names column, place and value.
    """
    columns = raw.rows.collect_schema().names()
    check_threshold(rules, columns, ", such as with `.rename({'stars': 'value'})`")
    numbers = ["time"] if "time" in columns else []
    if rules.min_value is not None and "value" in columns:
        numbers.append("value")
    table_columns.select(raw.rows, user="user", item="item")
    picked = raw.rows.select(*_SIDES, *numbers, *(["dropped"] if "dropped" in columns else []))
    named = {name: name for name in numbers}
    clean, n_rows = frames.cleaned(picked, ids=_SIDES, numbers=named, where=raw.where)
    dropped: dict[str, int] = {}
    if "dropped" in columns:
        reasons = clean.group_by("dropped").len().sort("dropped").collect(engine="streaming")
        dropped = {reason: n for reason, n in reasons.rows() if reason is not None}
        clean = clean.filter(pl.col("dropped").is_null()).drop("dropped")
    return Checked(clean, n_rows, dropped)
