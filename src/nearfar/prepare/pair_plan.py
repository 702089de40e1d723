"""The plan: from rows to the pairs that the rules leave, in expressions of narwhals.

Nothing here names an engine. What narwhals cannot express is asked of a `PlanEngine`; polars'
streaming engine is one (`nearfar.prepare.polars_plan`). The plan:

1. users and items get numbers, in the order of their sorted ids;
2. the rows of a pair become one row: `merged`;
3. users, items and pairs are filtered by the rules: `Survivors`.

The ids of a side are replaced by their numbers once, so everything after works on two integers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Protocol

import narwhals.stable.v2 as nw
import numpy as np

from nearfar.errors import DataError
from nearfar.prepare.rules import Rules

Frame = nw.LazyFrame[Any]

SIDES: Final = ("user", "item")
_OTHER: Final = {"user": "item", "item": "user"}
_SHIFT: Final = 2**32
"""A pair as one number: the user's number times this, plus the item's."""


class PlanEngine(Protocol):
    """What the plan needs of an engine beyond narwhals."""

    def keep(self, frame: Frame) -> Frame:
        """Compute a frame and store it outside the memory, so that nothing is computed twice."""

    def number(self, rows: Frame, name: str, *, cut: bool = False) -> Frame:
        """Return the distinct values of a column, sorted, with their places.

        Columns: `name`; ``row``, the place of the value, from 0 without a gap; and with `cut`
        ``n``, the number of rows with it, and ``part``, a number that does not decrease with
        ``row``: where `split` cuts.
        """

    def split(self, rows: Frame, by: str) -> Iterable[Frame]:
        """Cut rows by their column ``part``; each part sorted by `by`, and the parts in order."""


def changed() -> DataError:
    """Return the error for a table that is another one when it is read again."""
    return DataError(
        "The table has changed while it was read: its rows are not the same in two passes. "
        "Wait until it is written, or copy it first."
    )


def weighed(rows: Frame, rules: Rules) -> tuple[Frame, float]:
    """Apply the threshold to the rows if it comes first, or make a column ``weight`` of it.

    Returns
    -------
    LazyFrame
        Without value. Where the best row of a pair decides, rows below the threshold have no time.
    float
        The least weight of a pair that reaches the threshold; -inf if there is no weight.
    """
    if rules.min_value is None:
        return rows, -np.inf
    least = np.nextafter(rules.min_value, np.inf) if rules.strictly else rules.min_value
    names = rows.collect_schema().names()
    value = nw.col("value")
    if rules.repeats == "sum":
        weight = value if "value" in names else nw.lit(1)
        return rows.with_columns(weight=weight).drop("value", strict=False), float(least)
    reached = value > rules.min_value if rules.strictly else value >= rules.min_value
    if rules.steps[0] == "value":
        return rows.filter(reached).drop("value"), -np.inf
    timed = {"time": nw.when(reached).then(nw.col("time"))} if "time" in names else {}
    return rows.with_columns(weight=reached.cast(nw.Int64), **timed).drop("value"), 1.0


def numbered(rows: Frame, users: Frame, items: Frame) -> Frame:
    """Replace the ids of both sides by one number, ``key``; rows of unknown ids are dropped."""
    more = [name for name in ("time", "weight") if name in rows.collect_schema().names()]
    by_user = users.select("user", "part", user_row=nw.col("row").cast(nw.Int64) * _SHIFT)
    by_item = items.select("item", item_row=nw.col("row").cast(nw.Int64))
    joined = rows.join(by_user, on="user").join(by_item, on="item")
    return joined.select(*more, "part", key=nw.col("user_row") + nw.col("item_row"))


def merged(rows: Frame, *, add: bool) -> Frame:
    """Make one row of the rows of each pair.

    Columns: ``user`` and ``item`` (numbers, int32), ``rows`` (how many there were), the earliest
    ``time``, and the ``weight``: the sum (`add`) or the greatest.
    """
    types = rows.collect_schema()
    if add and not types["weight"].is_integer():
        pairs = _added_in_order(rows, timed="time" in types)
    else:
        weight = nw.col("weight").cast(nw.Float64)
        asked = {"rows": nw.len()}
        asked |= {"time": earliest()} if "time" in types else {}
        asked |= {"weight": weight.sum() if add else weight.max()} if "weight" in types else {}
        pairs = rows.group_by("key").agg(**asked)
    key = nw.col("key")
    user, item = key // _SHIFT, key % _SHIFT
    return pairs.with_columns(user=user.cast(nw.Int32), item=item.cast(nw.Int32)).drop("key")


def earliest() -> nw.Expr:
    """Return the time of a pair, of those of its rows."""
    return nw.col("time").min()


def _added_in_order(rows: Frame, *, timed: bool) -> Frame:
    """Add fractions in the order of their times, then values: sums depend on the order."""
    order = ["time", "weight"] if timed else ["weight"]
    weight, more = nw.col("weight"), {"time": earliest().over("key")} if timed else {}
    running = rows.with_columns(
        weight=weight.cum_sum().over("key", order_by=order),
        place=weight.cum_count().over("key", order_by=order),
        rows=nw.len().over("key"),
        **more,
    )
    return running.filter(nw.col("place") == nw.col("rows")).drop("place")


def total(frame: Frame, column: str) -> int:
    """Add up a column of integers."""
    return _numbers(frame, nw.col(column).sum())[0]


def _numbers(frame: Frame, *asked: nw.Expr) -> list[int]:
    return [int(number or 0) for number in frame.select(*asked).collect().row(0)]


class Survivors:
    """Which pairs are left, how many each user and item has, and the filters that remove some.

    A filter removes whole users or whole items, so a pair is left exactly if both of its ends are.
    Counts are kept up to date by the pairs of those just removed; the pairs stay where they are.

    Parameters
    ----------
    engine : PlanEngine
    parts : list of LazyFrame
        What `merged` returns, kept; no user is in two of them.
    """

    def __init__(self, engine: PlanEngine, parts: list[Frame]) -> None:
        self._engine = engine
        self.parts = parts
        self._pairs = nw.concat(parts)
        self.counts = {"user": self._users_counted(), "item": self._items_counted()}
        """For each side the columns user or item, and ``n``, the number of its pairs that are left;
        without those that a filter has removed."""

    def _users_counted(self) -> Frame:
        """Count part by part, as no user is in two of them; with ``rows``, for `check`."""
        asked = {"n": nw.len().cast(nw.Int64), "rows": nw.col("rows").sum().cast(nw.Int64)}
        counted = [part.group_by("user").agg(**asked) for part in self.parts]
        return self._engine.keep(nw.concat(counted))

    def _items_counted(self) -> Frame:
        return self._engine.keep(self._pairs.group_by("item").agg(n=nw.len().cast(nw.Int64)))

    def check(self, users: Frame) -> None:
        """Compare the rows of each user with those that were counted when users got numbers.

        Raises
        ------
        DataError
            They differ: the table has changed in between. To be called before any filter.
        """
        counted = users.select("n", user=nw.col("row").cast(nw.Int32))
        both = self.counts["user"].select("user", "rows").join(counted, on="user")
        other = (nw.col("n") != nw.col("rows")).cast(nw.Int64).sum().alias("other")
        n_other, n_rows = _numbers(both, other, nw.col("rows").sum())
        if n_other or n_rows != total(users, "n"):
            raise changed()

    def filter(self, side: str, least: int) -> int:
        """Remove users with less than `least` items, or items; return how many."""
        counts, other, few = self.counts[side], _OTHER[side], nw.col("n") < least
        gone = self._engine.keep(counts.filter(few).select(side))
        (n_gone,) = _numbers(gone, nw.len())
        if n_gone:
            self.counts[side] = self._engine.keep(counts.filter(~few))
            their = self._pairs.select(*SIDES).join(gone, on=side, how="semi")
            lost = their.group_by(other).agg(lost=nw.len().cast(nw.Int64))
            left = nw.col("n") - nw.col("lost").fill_null(0)
            joined = self.counts[other].join(lost, on=other, how="left")
            self.counts[other] = self._engine.keep(joined.select(other, n=left))
        return n_gone

    def reaching(self, least: float) -> Survivors:
        """Return the pairs of at least this weight, of those that the filters have left."""
        heavy = (part.filter(nw.col("weight") >= least).drop("weight") for part in self.parts)
        return Survivors(self._engine, [self._engine.keep(self._left(part)) for part in heavy])

    def _left(self, pairs: Frame) -> Frame:
        for side in SIDES:
            pairs = pairs.join(self.counts[side].select(side), on=side, how="semi")
        return pairs

    def size(self) -> tuple[int, int, int]:
        """Count the pairs, and the users and items that have some."""
        some = (nw.col("n") > 0).cast(nw.Int64).sum().alias("some")
        n_pairs, n_users = _numbers(self.counts["user"], nw.col("n").sum(), some)
        return n_pairs, n_users, _numbers(self.counts["item"], some)[0]
