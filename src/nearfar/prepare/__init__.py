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

The table is read three times, streaming (`nearfar.prepare.passes`), and never held. What is: the
distinct ids, and 4 bytes for each pair that is left after the threshold, with times 12
(`nearfar.prepare.spilled_lists`).
"""

from __future__ import annotations

import numpy as np
import polars as pl

from nearfar.data import frames
from nearfar.data.interactions import Interactions
from nearfar.prepare.passes import Checked, axis_of, checked, ids_of, placed, weighed
from nearfar.prepare.preparation_report import Report, Step, reported, step
from nearfar.prepare.rules import Rules
from nearfar.prepare.spilled_lists import SpilledLists, Survivors
from nearfar.readers.raw import Raw
from nearfar.runtime.progress import Stages

__all__ = ["Report", "Rules", "Step", "prepare"]


def prepare(
    table: Raw | pl.LazyFrame | pl.DataFrame,
    rules: Rules | None = None,
    *,
    progress: bool | None = None,
) -> tuple[Interactions, Report]:
    """Binarise and filter a raw table.

    Parameters
    ----------
    table : Raw, LazyFrame or DataFrame
        The columns user and item, and value and time if there are such
        (`nearfar.data.frames.select` and the recipes give it).
    rules : Rules, optional
        By default every row is an interaction.
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
        If `rules.min_value` is given and the table has no value.
    DataError
        If an id is null, or a value or a time is not a number; names column and row.
    EmptyDataError
        If a step leaves nothing; names it.

    Examples
    --------
    >>> table = pl.DataFrame({"user": ["a", "a", "b"], "item": [1, 2, 1], "value": [5, 3, 4]})
    >>> data, report = prepare(table, Rules(min_value=4))
    >>> data, [(step.name, step.n_pairs) for step in report.steps]
    (Interactions(2 users, 1 items, 2 pairs, density 100%),
     [('read', 3), ('value >= 4', 2), ('each pair once', 2)])
    """
    rules = Rules() if rules is None else rules
    raw = table if isinstance(table, Raw) else Raw(frames.as_lazy(table))
    with Stages(progress) as stages:
        stages.begin("checking the table")
        clean = checked(raw, rules)
        steps = _as_read(clean)
        rows, least = weighed(clean.rows, rules)
        stages.begin("finding the users")
        users = axis_of(rows, "user", steps[-1].n_pairs)
        stages.begin("finding the items")
        items = axis_of(rows, "item", steps[-1].n_pairs)
        n_rows = int(users.counts.sum())
        if rules.min_value is not None and least == -np.inf:
            steps.append(step(_threshold(rules), n_rows))
        stages.begin("reading the pairs", n_rows)
        lists = placed(rows, users, items, stages.advance)
        stages.begin("sorting the pairs")
        lists.sort()
        lists.merge(add=rules.repeats == "sum")
        stages.begin("filtering")
        _filter(lists, rules, least, steps)
    user_ids = ids_of(users, lists.user_rows, "user")
    item_ids = ids_of(items, lists.item_rows, "item")
    times = lists.times if lists.timed else None
    data = Interactions(lists.indptr, lists.items, times, user_ids, item_ids)
    return data if raw.items is None else data.with_item_table(raw.items), reported(data, steps)


def _as_read(clean: Checked) -> list[Step]:
    left = clean.n_rows
    steps = [step("read", left)]
    for reason, n in clean.dropped.items():
        left -= n
        steps.append(step(f"without: {reason}", left))
    return steps


def _threshold(rules: Rules) -> str:
    what = "value" if rules.repeats == "any" else "sum of the values"
    return f"{what} {'>' if rules.strictly else '>='} {rules.min_value:g}"


def _filter(lists: SpilledLists, rules: Rules, least: float, steps: list[Step]) -> None:
    """Apply the rules to pairs that are each there once; adds to `steps`."""
    together = rules.core == "fixed-point" and rules.min_user_items + rules.min_item_users > 2
    left = Survivors(lists)
    steps.append(step("each pair once", *left.left()))
    for name in rules.steps:
        if name == "value" and least > -np.inf:
            left.apply()
            lists.squeeze(least=least)
            lists.drop_weights()
            left = Survivors(lists)
            steps.append(step(_threshold(rules), *left.left()))
        elif name != "value" and together:
            while left.filter_users(rules.min_user_items) + left.filter_items(rules.min_item_users):
                pass
            core = f"users with at least {rules.min_user_items}, items with at least"
            steps.append(step(f"{core} {rules.min_item_users}, to the fixed point", *left.left()))
            together = False
        elif name == "users" and rules.core == "once" and rules.min_user_items > 1:
            left.filter_users(rules.min_user_items)
            steps.append(step(f"users with at least {rules.min_user_items} items", *left.left()))
        elif name == "items" and rules.core == "once" and rules.min_item_users > 1:
            left.filter_items(rules.min_item_users)
            steps.append(step(f"items with at least {rules.min_item_users} users", *left.left()))
    left.apply()
