"""The passes over a raw table: check it, find who is there, put every pair in its place.

Each is one streaming query of polars, so no more of the table is in memory than a few batches; what
stays is the distinct ids and `Lists`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from nearfar.data import frames
from nearfar.data.ids import Ids, check_axis
from nearfar.errors import DataError, OptionError
from nearfar.prepare.rules import Rules
from nearfar.prepare.spilled_lists import SpilledLists
from nearfar.readers.raw import Raw
from nearfar.runtime.arrays import Int64

_BATCH: Final = 2**20
"""Rows that are put in their place at a time."""
_GROUPED: Final = 2**27
"""Rows whose distinct ids are found at a time: it bounds the memory of a table of groups."""

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


@dataclass(frozen=True)
class Axis:
    """The distinct ids of one side."""

    ids: pl.Series
    """Sorted."""
    counts: Int64
    """Rows of each."""


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
    if rules.min_value is not None and rules.repeats == "any" and "value" not in columns:
        raise OptionError(
            f"`min_value` is {rules.min_value!r}, but the table has no column 'value'; it has "
            f"{', '.join(columns)}. With `repeats` 'sum' each row is worth 1."
        )
    numbers = ["time"] if "time" in columns else []
    if rules.min_value is not None and "value" in columns:
        numbers.append("value")
    frames.select(raw.rows, user="user", item="item")
    picked = raw.rows.select(*_SIDES, *numbers, *(["dropped"] if "dropped" in columns else []))
    named = {name: name for name in numbers}
    clean, n_rows = frames.cleaned(picked, ids=_SIDES, numbers=named, where=raw.where)
    dropped: dict[str, int] = {}
    if "dropped" in columns:
        reasons = clean.group_by("dropped").len().sort("dropped").collect(engine="streaming")
        dropped = {reason: n for reason, n in reasons.rows() if reason is not None}
        clean = clean.filter(pl.col("dropped").is_null()).drop("dropped")
    return Checked(clean, n_rows, dropped)


def weighed(rows: pl.LazyFrame, rules: Rules) -> tuple[pl.LazyFrame, float]:
    """Apply the threshold to the rows if it comes first, or make a column ``weight`` of it.

    Returns
    -------
    LazyFrame
        Without value.
    float
        The least weight of a pair that reaches the threshold; -inf if there is no weight.
    """
    if rules.min_value is None:
        return rows, -np.inf
    least = np.nextafter(rules.min_value, np.inf) if rules.strictly else rules.min_value
    if rules.repeats == "sum":
        timed = "value" in rows.collect_schema()
        value = pl.col("value").cast(pl.Float64) if timed else pl.lit(1.0)
        return rows.with_columns(weight=value).drop("value", strict=False), float(least)
    value = pl.col("value")
    reached = value > rules.min_value if rules.strictly else value >= rules.min_value
    if rules.steps[0] == "value":
        return rows.filter(reached).drop("value"), -np.inf
    return rows.with_columns(weight=reached.cast(pl.Float64)).drop("value"), 1.0


def axis_of(rows: pl.LazyFrame, name: str, n_rows: int) -> Axis:
    """Find the distinct ids of a side, sorted, and how many rows each has."""
    parts, id_ = 1 + n_rows // _GROUPED, pl.col(name)
    found = [
        (rows if parts == 1 else rows.filter(id_.hash() % parts == part))
        .select(name)
        .group_by(name)
        .len()
        .collect(engine="streaming")
        for part in range(parts)
    ]
    table = pl.concat(found).sort(name)
    del found
    check_axis(table.height, name)
    return Axis(table[name], table["len"].cast(pl.Int64).to_numpy())


def placed(
    rows: pl.LazyFrame, users: Axis, items: Axis, progress: Callable[[int], None]
) -> SpilledLists:
    """Put every pair into the list of its user, by row numbers.

    Raises
    ------
    DataError
        The table is not the one that `axis_of` saw: it changes while it is read.
    """
    schema = rows.collect_schema()
    times = None
    if "time" in schema:
        times = np.int64 if schema["time"] == pl.Int64 else np.float64
    lists = SpilledLists(users.counts, items.counts.size, times, weighted="weight" in schema)
    numbered = rows
    for name, axis in zip(_SIDES, (users, items), strict=True):
        row = pl.int_range(axis.ids.len(), dtype=pl.Int32)
        table = pl.LazyFrame({name: axis.ids}).select(name, row.alias(f"{name} row"))
        numbered = numbered.join(table, on=name, how="inner").drop(name)
    none, whole = {"time": lists.times[:0], "weight": lists.weights[:0]}, True
    for batch in numbered.collect_batches(
        chunk_size=_BATCH, maintain_order=False, engine="streaming"
    ):
        by = {name: batch[name].to_numpy() for name in batch.columns}
        whole = lists.put(by["user row"], by["item row"],
                          *(by.get(name, empty) for name, empty in none.items()))  # fmt: skip
        progress(batch.height)
        if not whole:
            break
    if not (whole and lists.full()):
        raise DataError(
            "The table has changed while it was read: its rows are not the same in two passes. "
            "Wait until it is written, or copy it first."
        )
    return lists


def ids_of(axis: Axis, rows: Int64, name: str) -> Ids:
    """Return the ids of these rows of an axis."""
    return Ids.from_sorted(axis.ids.gather(rows), name)
