"""From a raw table to interactions: the threshold, the filters, and what each step left.

The steps:

1. rows that the recipe leaves out;
2. pairs whose value reaches ``min_value``, and each (user, item) once: if the value comes first in
   the ``order``, rows below it are gone before anything else is looked at;
3. users with at least ``min_user_items`` items and items with at least ``min_item_users`` users, in
   the ``order`` that the rules say; once, or again and again until nothing changes
   (``core="fixed-point"``: the k-core, which does not depend on which side is first).

Filtering one side shortens the other, so after ``core="once"`` the side that was filtered first may
hold some below its threshold.

All of it is one plan of narwhals expressions (`nearfar.prepare.pair_plan`) on polars' streaming
engine (`nearfar.prepare.polars_plan`). The table is read four times and never held. In memory are
the distinct ids, a part of the rows at a time, and the result; the rows lie as Parquet files in a
temporary folder meanwhile, 16 bytes each, with weights 24.

A DataFrame of PySpark or Daft is prepared where it lies, by the same plan
(`nearfar.prepare.remote_plan`), with the same result.

The package can be called: ``nearfar.prepare(table, rules)`` is `prepare`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, Any

import narwhals.stable.v2 as nw
import numpy as np
import polars as pl

from nearfar.data import table_columns
from nearfar.data.ids import Ids
from nearfar.data.interactions import Interactions
from nearfar.errors import EmptyDataError
from nearfar.prepare.checking import Checked, checked
from nearfar.prepare.compressed import compressed
from nearfar.prepare.daft_plan import DaftEngine, is_daft_frame
from nearfar.prepare.pair_plan import (
    Frame,
    PlanEngine,
    Survivors,
    merged,
    numbered,
    total,
    weighed,
)
from nearfar.prepare.polars_plan import PolarsPlan
from nearfar.prepare.preparation_report import Report, Step, reported, step
from nearfar.prepare.remote_checking import remote_checked
from nearfar.prepare.remote_plan import RemoteEngine, RemotePlan
from nearfar.prepare.rules import Rules
from nearfar.prepare.spark_plan import SparkEngine, is_spark_frame
from nearfar.readers.raw import Raw
from nearfar.runtime.arrays import Int64
from nearfar.runtime.checks import an_instance, local_folder, plain_text
from nearfar.runtime.forks import check_fork
from nearfar.runtime.progress import Stages

if TYPE_CHECKING:
    from daft import DataFrame as DaftFrame
    from pyspark.sql import DataFrame as SparkFrame

__all__ = ["Report", "Rules", "Step", "prepare"]


def prepare(
    table: Raw | pl.LazyFrame | pl.DataFrame | SparkFrame | DaftFrame,
    rules: Rules | None = None,
    *,
    scratch: Path | str | None = None,
    progress: bool | None = None,
) -> tuple[Interactions, Report]:
    """Binarise and filter a raw table.

    Parameters
    ----------
    table : Raw, LazyFrame or DataFrame, or a DataFrame of PySpark or Daft
        The columns user and item, and value and time if there are such
        (`nearfar.data.table_columns.select` and the recipes return it). In PySpark and Daft ids are
        integers or text, and values numbers.
    rules : Rules, optional
        By default every row is an interaction.
    scratch : Path, optional
        Where the folder of temporary files is made, which is removed at the end; by default where
        the system has such. For PySpark and Daft, the address of a folder that every executor can
        write to; not needed if they run on this machine alone.
    progress : bool, optional
        Show what is being done; where the error stream is a terminal if None.

    Returns
    -------
    Interactions
        With times if the table has them, and with what a `Raw` knows about the items.
    Report
        What each step left; ``print`` it.

    Raises
    ------
    OptionError
        If `rules.min_value` is given and the table has no value, `rules` is not `Rules`, or
        `scratch` is not an existing folder.
    DataError
        If an id is null, or a value or a time is not a number; names column and row.
    EmptyDataError
        If a step leaves nothing; names it.
    StoreError
        If there is no space for the temporary files.

    Examples
    --------
    >>> table = pl.DataFrame({"user": ["a", "a", "b"], "item": [1, 2, 1], "value": [5, 3, 4]})
    >>> data, report = prepare(table, Rules(min_value=4))
    >>> data, [(step.name, step.n_pairs) for step in report.steps]
    (Interactions(2 users, 1 items, 2 pairs, density 100%),
     [('read', 3), ('value >= 4', 2), ('each pair once', 2)])
    """
    check_fork()
    rules = an_instance("rules", Rules() if rules is None else rules, Rules)
    if (remote := _remote_engine(table)) is not None:
        return _where_it_lies(remote, table, rules, scratch, progress)
    scratch = None if scratch is None else local_folder("scratch", scratch)
    raw = table if isinstance(table, Raw) else Raw(table_columns.as_lazy(table))
    with TemporaryDirectory(prefix="nearfar-", dir=scratch) as folder, Stages(progress) as stages:
        stages.begin("checking the table")
        clean = checked(raw, rules)
        steps = _as_read(clean)
        engine = PolarsPlan(steps[-1].n_pairs, Path(folder))
        data = _planned(nw.from_native(clean.rows), rules, engine, steps, stages)
    return data if raw.items is None else data.with_item_table(raw.items), reported(data, steps)


def _remote_engine(table: Any) -> RemoteEngine | None:
    """Return what computes a frame that is not in this process."""
    if is_spark_frame(table):
        return SparkEngine(table.sparkSession)
    if is_daft_frame(table):
        return DaftEngine()
    return None


def _where_it_lies(
    engine: RemoteEngine,
    table: Any,
    rules: Rules,
    scratch: Path | str | None,
    progress: bool | None,
) -> tuple[Interactions, Report]:
    where = None if scratch is None else plain_text("scratch", str(scratch))
    with engine.scratch(where) as folder, Stages(progress) as stages:
        stages.begin("checking the table")
        rows, n_rows = remote_checked(nw.from_native(engine.moments(table)), rules)
        steps = _as_read(Checked(pl.LazyFrame(), n_rows, {}))
        plan = RemotePlan(engine, n_rows, folder)
        data = _planned(rows, rules, plan, steps, stages)
    return data, reported(data, steps)


def _planned(
    checked_rows: Frame, rules: Rules, engine: PlanEngine, steps: list[Step], stages: Stages
) -> Interactions:
    """Run the plan; adds to `steps`."""
    rows, least = weighed(checked_rows, rules)
    stages.begin("finding the users")
    users = engine.number(rows, "user", cut=True)
    stages.begin("finding the items")
    items = engine.number(rows, "item")
    n_rows = total(users, "n")
    if rules.min_value is not None and least == -np.inf:
        steps.append(step(_threshold(rules), n_rows))
    stages.begin("reading the pairs", n_rows)
    parts = []
    for part in engine.split(numbered(rows, users, items), "key"):
        parts.append(engine.keep(merged(part, add=rules.repeats == "sum")))
        stages.advance(total(parts[-1], "rows"))
    stages.begin("filtering")
    left = Survivors(engine, parts)
    left.check(users)
    left = _filtered(left, rules, least, steps)
    by_user, by_item = (side.collect("polars").sort("row").to_native() for side in (users, items))
    pairs = compressed(left, (by_user.height, by_item.height))
    user_ids = _ids(by_user, pairs.user_rows, "user")
    item_ids = _ids(by_item, pairs.item_rows, "item")
    return Interactions(pairs.indptr, pairs.items, pairs.times, user_ids, item_ids)


def _as_read(clean: Checked) -> list[Step]:
    left = clean.n_rows
    if not left:
        raise EmptyDataError("The table has the names of columns, but no rows.")
    steps = [step("read", left)]
    for reason, n in clean.dropped.items():
        left -= n
        steps.append(step(f"without: {reason}", left))
    return steps


def _threshold(rules: Rules) -> str:
    what = "value" if rules.repeats == "any" else "sum of the values"
    return f"{what} {'>' if rules.strictly else '>='} {rules.min_value:g}"


def _filtered(left: Survivors, rules: Rules, least: float, steps: list[Step]) -> Survivors:
    """Apply the rules to pairs that are each there once; adds to `steps`."""
    together = rules.core == "fixed-point" and rules.min_user_items + rules.min_item_users > 2
    few = {"users": ("user", rules.min_user_items, "items"),
           "items": ("item", rules.min_item_users, "users")}  # fmt: skip
    steps.append(step("each pair once", *left.size()))
    for name in rules.steps:
        if name == "value" and least > -np.inf:
            left = left.reaching(least)
            steps.append(step(_threshold(rules), *left.size()))
        elif name != "value" and together:
            while left.filter(*few["users"][:2]) + left.filter(*few["items"][:2]):
                pass
            core = f"users with at least {rules.min_user_items}, items with at least"
            steps.append(step(f"{core} {rules.min_item_users}, to the fixed point", *left.size()))
            together = False
        elif name != "value" and rules.core == "once" and few[name][1] > 1:
            side, at_least, of = few[name]
            left.filter(side, at_least)
            steps.append(step(f"{name} with at least {at_least} {of}", *left.size()))
    return left


def _ids(table: pl.DataFrame, rows: Int64, name: str) -> Ids:
    """Return the ids of these rows of a side."""
    values = table[name].gather(rows)
    return Ids.from_sorted(values, name)


class _Callable(ModuleType):
    """The package, which can be called: ``nearfar.prepare(table, rules)``."""

    def __call__(self, *args: Any, **options: Any) -> tuple[Interactions, Report]:
        return prepare(*args, **options)


sys.modules[__name__].__class__ = _Callable
