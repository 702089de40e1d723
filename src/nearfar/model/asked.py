"""The subject of a request: conversion of the caller's ids to rows.

Three kinds of ids do not lead to a point that has been learned: those that the model does not know,
those of another type than the model's, and those of users and items without training interactions,
whose points are still where they started, at random. A list that only restricts (`allow`, `deny`)
ignores the first kind and the last, with a warning. Everything else refuses all three, or skips
them if the caller asks for that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from nearfar.data.id_values import first_few, label
from nearfar.data.ids import Ids
from nearfar.errors import EmptyDataError, OptionError, UnknownIdError
from nearfar.runtime.arrays import Bool, Float32, Int32, Int64
from nearfar.runtime.caller import warn
from nearfar.runtime.checks import listed, one_of, said

UNKNOWN: Final = ("error", "skip")
"""What to do with users that the model does not know."""


class Asked(NamedTuple):
    """The users or items whose nearest are asked for."""

    one: bool
    """Whether a single id was requested: then the result has no column of requested ids."""
    rows: Int32
    """(n,) rows of `queries`."""
    queries: Float32
    """(N, d) points."""
    hidden: tuple[Int64, Int32]
    """What the list of each row leaves out, such as the items that a user has: the ``indptr`` and
    ``indices`` of a CSR matrix."""


class Axis(NamedTuple):
    """The users or the items of a model."""

    ids: Ids
    placed: Bool
    """Which of them have a point, learned from interactions or content."""
    remedy: str
    """What to do about one that has none."""

    def untrained(self, rows: Int32) -> UnknownIdError | None:
        """Return the error for rows without training interactions; None if there are none."""
        without = rows[~self.placed[rows]]
        if not len(without):
            return None
        named = first_few(self.ids.take(without).to_list())
        many = "s" if len(without) > 1 else ""
        return UnknownIdError(
            f"The model has no training interactions of {label(self.ids.name)}{many} {named}, so"
            f" it has learned nothing about them. {self.remedy}"
        )


def known_rows(axis: Axis, asked: Any, unknown: str) -> tuple[bool, Int32, list[Any]]:
    """Return whether `asked` is a single id, the rows of its known ids, and the ids left out.

    Raises
    ------
    OptionError
        `unknown` is neither "error" nor "skip".
    UnknownIdError
        With "error": an id is unknown or has no training interactions.
    """
    one_of("unknown", unknown, UNKNOWN)
    if isinstance(asked, np.ndarray) and asked.ndim == 0:
        asked = asked.item()
    one = isinstance(asked, str | bytes) or not isinstance(asked, Iterable)
    rows, missing = axis.ids.known([asked] if one else asked)
    if unknown == "error":
        if missing:
            axis.ids.rows(missing)  # it raises
        if (error := axis.untrained(rows)) is not None:
            raise error
    trained = axis.placed[rows]
    return one, rows[trained], [*missing, *axis.ids.take(rows[~trained]).to_list()]


def distinct_rows(axis: Axis, asked: Iterable[Any], name: str, unknown: str = "error") -> Int32:
    """Return the distinct rows of ids, in increasing order.

    Raises
    ------
    OptionError
        `unknown` is neither "error" nor "skip".
    DataError
        `asked` is a single id.
    EmptyDataError
        `asked` is empty, or all of its ids were skipped.
    UnknownIdError
        With "error": an id is unknown or has no training interactions.
    """
    _, rows, skipped = known_rows(axis, several(name, asked), unknown)
    if not len(rows):
        why = f"has no id that the model knows ({first_few(skipped)})" if skipped else "is empty"
        raise EmptyDataError(f"`{name}` {why}; at least one id is needed to compute a point.")
    warn_of_skipped(name, skipped, len(rows) + len(skipped))
    return np.unique(rows)


def filter_rows(ids: Ids, asked: Iterable[Any], name: str) -> Int32:
    """Return the rows of the ids of a filter; unknown ids are ignored, with a warning.

    Raises
    ------
    DataError
        `asked` is a single id.
    UnknownIdError
        A value cannot be an id, or is of another type than the model's ids and would be known after
        conversion: to ignore it would change the lists.
    """
    rows, missing = ids.known(several(name, asked))
    mistyped = [one for one in missing if ids.mistyped(one)]
    if mistyped:
        ids.rows(mistyped)  # it raises, and names the conversion
    if missing:
        warn(ignored(f"`{name}`", missing, len(rows) + len(missing)))
    return rows


def warn_of_skipped(name: str, skipped: Sequence[Any], n: int) -> None:
    """Warn of skipped ids, if there are any."""
    if skipped:
        warn(left_out(f"`{name}`", skipped, n))


def ignored(name: str, unknown: Sequence[Any], n: int) -> str:
    """Return the message that some of the n ids of a filter are ignored."""
    return (
        f"{len(unknown):,} of the {n:,} ids in {name} are unknown to the model and are ignored:"
        f" {first_few(unknown)}."
    )


def left_out(name: str, skipped: Sequence[Any], n: int) -> str:
    """Return the message that some of n ids are skipped."""
    return (
        f"{len(skipped):,} of the {n:,} ids in {name} are unknown to the model or have no training"
        f" interactions, and are skipped: {first_few(skipped)}."
    )


def several(name: str, asked: Any) -> Any:
    """Return several ids as a list; a Series is returned unchanged, because it is faster.

    Raises
    ------
    DataError
        `asked` is a single id, such as text.
    """
    if isinstance(asked, pl.Series):
        return asked
    remedy = f"Write [{asked!r}]." if isinstance(asked, str | int) else ""
    return listed(name, asked, "ids", remedy)


def checked_index(index: Any) -> Any:
    """Return an index; refuse the path of one, or another object.

    Raises
    ------
    OptionError
        It is not an index.
    """
    if hasattr(index, "check") and hasattr(index, "scorer") and not isinstance(index, type):
        return index
    raise OptionError(
        f"`index` must be a nearfar.ItemIndex; got {said(index)}. Build one with"
        " ItemIndex.build(model), or read one with ItemIndex.load(path, model)."
    )
