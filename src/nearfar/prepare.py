"""From a raw table to interactions: the threshold, the filters, and what each step left.

The steps, in this order:

1. rows whose value reaches ``min_value``;
2. each (user, item) once, with its earliest time;
3. users with at least ``min_user_items`` items and items with at least ``min_item_users`` users,
   the side in ``first`` before the other; once, or again and again until nothing changes
   (``core="fixed-point"``: the k-core, which does not depend on ``first``).

Filtering one side shortens the other, so after ``core="once"`` the side that was filtered first may
hold some below its threshold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from nearfar import tables
from nearfar.errors import EmptyDataError, OptionError
from nearfar.interactions import Interactions

Core = Literal["once", "fixed-point"]
Side = Literal["users", "items"]

_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Rules:
    """What counts as an interaction, and who has enough of them."""

    min_value: float | None = None
    """Keep rows whose value is at least this; None keeps all, and needs no value."""
    strictly: bool = False
    """Keep only values above `min_value`, not those equal to it."""
    min_user_items: int = 1
    """Keep users with at least so many distinct items."""
    min_item_users: int = 1
    """Keep items with at least so many distinct users."""
    core: Core = "once"
    """Filter users and items "once", or to the "fixed-point" where both thresholds hold."""
    first: Side = "users"
    """Which side is filtered first; matters only for ``core="once"``."""

    def __post_init__(self) -> None:
        for name in ("min_user_items", "min_item_users"):
            least = getattr(self, name)
            if isinstance(least, bool) or not isinstance(least, (int, np.integer)) or least < 1:
                raise OptionError(f"`{name}` must be an integer of at least 1; got {least!r}.")
        if self.min_value is not None and not np.isfinite(self.min_value):
            raise OptionError(f"`min_value` must be a finite number; got {self.min_value!r}.")
        if self.strictly and self.min_value is None:
            raise OptionError("`strictly` does nothing without `min_value`; give both.")
        for name, known in (("core", get_args(Core)), ("first", get_args(Side))):
            if getattr(self, name) not in known:
                allowed = " or ".join(map(repr, known))
                raise OptionError(f"`{name}` must be {allowed}; got {getattr(self, name)!r}.")


@dataclass(frozen=True)
class Step:
    """What was left after one step."""

    name: str
    """What was done."""
    rows: int
    """Rows left."""


@dataclass(frozen=True)
class Report:
    """What `prepare` did: rows after each step, and the figures of the result."""

    steps: tuple[Step, ...]
    """The steps, in order."""
    n_users: int
    """Users of the result."""
    n_items: int
    """Items of the result."""
    n_pairs: int
    """Interactions of the result."""
    density: float
    """Share of all users x items that are interactions."""
    user_quantiles: tuple[float, ...]
    """Items of a user: minimum, quartiles and maximum over the users."""
    item_quantiles: tuple[float, ...]
    """Users of an item: minimum, quartiles and maximum over the items."""

    def __str__(self) -> str:
        lines = [f"{step.rows:>13,} rows  {step.name}" for step in self.steps]
        size = f"{self.n_users:,} users, {self.n_items:,} items, {self.n_pairs:,} interactions"
        lines.append(f"{size}, density {100 * self.density:.3g}%")
        for name, quantiles in (("items of a user", self.user_quantiles),
                                ("users of an item", self.item_quantiles)):  # fmt: skip
            lines.append(f"{name}: " + " / ".join(f"{q:g}" for q in quantiles)
                         + " (minimum, quartiles, maximum)")  # fmt: skip
        return "\n".join(lines)


def prepare(
    table: pl.LazyFrame | pl.DataFrame, rules: Rules | None = None
) -> tuple[Interactions, Report]:
    """Binarise and filter a raw table.

    Parameters
    ----------
    table : LazyFrame or DataFrame
        The columns user and item, and value and time if there are such (`nearfar.tables.select`
        and `nearfar.datasets.load_table` give it). Only rows that reach the threshold are ever
        held in memory.
    rules : Rules, optional
        By default every row is an interaction.

    Returns
    -------
    Interactions
        With times if the table has them.
    Report
        What each step left; ``print`` it.

    Raises
    ------
    OptionError
        If `rules.min_value` is given and the table has no value.
    DataError
        If an id is null, or a value or a time is not a number; names column and row.
    EmptyDataError
        If a step leaves nothing; names it.

    Examples
    --------
    >>> table = pl.DataFrame({"user": ["a", "a", "b"], "item": [1, 2, 1], "value": [5, 3, 4]})
    >>> data, report = prepare(table, Rules(min_value=4))
    >>> data, [step.rows for step in report.steps]
    (Interactions(2 users, 1 items, 2 pairs, density 100%), [3, 2, 2, 2, 2])
    """
    rules = Rules() if rules is None else rules
    lazy = _checked(tables.as_lazy(table), rules)
    steps = [_step("read", int(lazy.select(pl.len()).collect(engine="streaming").item()))]
    kept, threshold = _reaching(lazy, rules)
    steps.append(_step(threshold, kept.height))
    timed = "time" in kept.columns
    data = Interactions.from_frame(kept, "user", "item", time="time" if timed else None)
    steps.append(_step("each pair once", len(data)))
    result = data.subset(_enough(data, rules, steps)).compact()
    return result, _report(result, steps)


def _checked(table: pl.LazyFrame, rules: Rules) -> pl.LazyFrame:
    columns = table.collect_schema().names()
    if rules.min_value is not None and "value" not in columns:
        raise OptionError(
            f"`min_value` is {rules.min_value!r}, but the table has no column 'value'; it has "
            f"{', '.join(columns)}."
        )
    parts = [part for part in ("value", "time") if part in columns]
    picked = tables.select(table, user="user", item="item", **{part: part for part in parts})
    for part in parts:
        picked = tables.numeric(picked, part)
    for name in ("user", "item"):
        tables.check_ids(picked, name)
    return picked


def _reaching(table: pl.LazyFrame, rules: Rules) -> tuple[pl.DataFrame, str]:
    """Apply the threshold; give the rows without their value, and what was done in words."""
    named = "any value"
    if rules.min_value is not None:
        value = pl.col("value")
        reached = value > rules.min_value if rules.strictly else value >= rules.min_value
        table = table.filter(reached)
        named = f"value {'>' if rules.strictly else '>='} {rules.min_value:g}"
    return table.drop("value", strict=False).collect(engine="streaming"), named


def _enough(data: Interactions, rules: Rules, steps: list[Step]) -> npt.NDArray[np.bool_]:
    """Tell which pairs survive the filters of users and items; adds to `steps`."""
    sides = {
        "users": (data.pair_users(), rules.min_user_items, "items"),
        "items": (data.items, rules.min_item_users, "users"),
    }
    order = sorted(sides, key=lambda side: side != rules.first)
    keep = np.ones(len(data), np.bool_)
    before = -1
    while (left := int(keep.sum())) != before:
        before = left
        for side in order:
            rows, least, of = sides[side]
            keep &= np.bincount(rows[keep], minlength=int(rows.max()) + 1)[rows] >= least
            if rules.core == "once":
                steps.append(_step(f"{side} with at least {least} {of}", int(keep.sum())))
        if rules.core == "once":
            return keep
    core = f"users with at least {rules.min_user_items}, items with at least {rules.min_item_users}"
    steps.append(_step(f"{core}, to the fixed point", left))
    return keep


def _step(name: str, rows: int) -> Step:
    if rows == 0:
        raise EmptyDataError(f"Nothing is left after this step: {name}. Loosen the rules.")
    return Step(name, rows)


def _report(data: Interactions, steps: list[Step]) -> Report:
    by_user, by_item = (
        tuple(map(float, np.quantile(counts, _QUANTILES)))
        for counts in (data.user_counts, data.item_counts)
    )
    size = (data.n_users, data.n_items, data.n_pairs, data.density)
    return Report(tuple(steps), *size, by_user, by_item)
