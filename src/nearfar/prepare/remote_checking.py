"""The first pass over a table where it lies: the columns that are needed, all in one query."""

from __future__ import annotations

from typing import Any

import narwhals.stable.v2 as nw

from nearfar.errors import DataError, MissingColumnError
from nearfar.prepare.checking import check_threshold
from nearfar.prepare.pair_plan import SIDES, Frame
from nearfar.prepare.rules import Rules


def remote_checked(table: Frame, rules: Rules) -> tuple[Frame, int]:
    """Check the columns that are needed, and convert them.

    Ids are integers or text. Values and times are numbers; dates and timestamps are numbers already
    (`nearfar.prepare.remote_plan.RemoteEngine.moments`).

    Parameters
    ----------
    table : LazyFrame
    rules : Rules

    Returns
    -------
    LazyFrame
        user, item, and time and value where they are there and asked for.
    int
        The number of rows.

    Raises
    ------
    MissingColumnError
        There is no user or item.
    OptionError
        `rules.min_value` needs a value that is not there.
    DataError
        An id, a value or a time cannot be used; names column and value.
    """
    types = table.collect_schema()
    for side in SIDES:
        if side not in types:
            raise MissingColumnError(
                f"The table has no column {side!r}; it has {', '.join(types)}. Rename the column"
                f" of the {side}s."
            )
    check_threshold(rules, types)
    numbers = ["time"] if "time" in types else []
    if rules.min_value is not None and "value" in types:
        numbers.append("value")
    made = {side: _id(side, types[side]) for side in SIDES}
    made |= {name: _number(name, types[name]) for name in numbers}
    bad = {name: _is_bad(name, types[name]) for name in made}
    counted = _counted(table, bad)
    _check_rows(table, bad, counted, numbers)
    return table.select(**made), counted["rows"]


def _counted(table: Frame, bad: dict[str, nw.Expr]) -> dict[str, int]:
    """Count the rows, and for each column those that cannot be used."""
    asked = {f"{name} bad": wrong.cast(nw.Int64).sum() for name, wrong in bad.items()}
    found = table.select(rows=nw.len(), **asked).collect()
    return {name: int(found[name][0] or 0) for name in found.columns}


def _check_rows(
    table: Frame, bad: dict[str, nw.Expr], counted: dict[str, int], numbers: list[str]
) -> None:
    for name, wrong in bad.items():
        if counted[f"{name} bad"]:
            value = table.filter(wrong).select(name).head(1).collect()[name].to_list()[0]
            raise DataError(
                f"The column {name!r} must not be missing{', NaN or infinite' * (name in numbers)};"
                f" {counted[f'{name} bad']:,} of {counted['rows']:,} rows are, such as {value!r}."
                " Correct or drop such rows."
            )


def _id(name: str, kind: Any) -> nw.Expr:
    if kind.is_integer():
        return nw.col(name).cast(nw.Int64)
    if kind == nw.String:
        return nw.col(name)
    raise DataError(
        f"A {name} id must be an integer or text; the column {name!r} is of the type {kind}. Cast"
        " it to text."
    )


def _number(name: str, kind: Any) -> nw.Expr:
    if kind.is_integer():
        return nw.col(name).cast(nw.Int64)
    if kind.is_float():
        return nw.col(name).cast(nw.Float64)
    raise DataError(
        f"The column {name!r} must hold numbers{', dates or times' * (name == 'time')}; its type is"
        f" {kind}. Cast it first."
    )


def _is_bad(name: str, kind: Any) -> nw.Expr:
    value = nw.col(name)
    return value.is_null() | ~value.is_finite() if kind.is_float() else value.is_null()
