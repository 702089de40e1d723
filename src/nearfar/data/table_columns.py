"""Tables in memory or opened by a reader, and which of their columns hold users and items.

Polars, pandas and Arrow tables become one lazy frame with the columns ``user``, ``item`` and, if
requested, ``value`` and ``time``. A column is asked for by its label. An integer is a label as well
if the table has labels that are integers, as tables of pandas can; otherwise it is a position.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import polars as pl

from nearfar.data.id_values import as_column, shown
from nearfar.errors import DataError, MissingColumnError, MissingExtraError, first_line
from nearfar.runtime.checks import is_integer
from nearfar.runtime.forks import check_fork

Column = str | int
"""A column, by its label or by its position counted from 0."""

_KNOWN_NAMES: Final = {
    "user": {"user", "userid", "uid"},
    "item": {"item", "itemid", "iid"},
}
_EVERY_NAME: Final = set().union(*_KNOWN_NAMES.values())
_NUMBER: Final = re.compile(r"\s*[+-]?[0-9]+(\.[0-9]*)?\s*")
_HEADER: Final = (
    " If the first line of the file is data, pass `has_header=False`; if it has the names, pass"
    " `user=` and `item=`."
)


@dataclass(frozen=True)
class _Table:
    """The columns of a table, before any of them is converted."""

    labels: list[Any]
    """What the caller calls the columns."""
    names: list[str]
    """The labels as text, all different."""
    picked: Callable[[Mapping[str, int]], pl.LazyFrame]
    """Returns the columns at these positions, under these names."""
    index: tuple[str, ...] = ()
    """The names of the levels of the index, which is no column."""
    headed: bool = False
    """Whether the names are the first line of a text file, which may be data by mistake."""


def as_lazy(frame: Any) -> pl.LazyFrame:
    """Convert a polars, pandas or Arrow table to a lazy polars frame.

    Parameters
    ----------
    frame : DataFrame, LazyFrame, pandas.DataFrame, pyarrow.Table or Arrow stream
        Anything else is accepted if it has the Arrow PyCapsule interface.

    Raises
    ------
    DataError
        If `frame` is none of these, or has two columns of one name.
    """
    table = _opened(frame)
    return table.picked({name: place for place, name in enumerate(table.names)})


def select(
    frame: Any,
    *,
    user: Column | None = None,
    item: Column | None = None,
    value: Column | None = None,
    time: Column | None = None,
    headed: bool = False,
) -> pl.LazyFrame:
    """Select the columns of an interaction and rename them to user, item, value and time.

    Parameters
    ----------
    frame : table
        As in `as_lazy`.
    user, item : str or int, optional
        The columns of ids. By default the one column with a known name, such as ``user``,
        ``user_id``, ``userID``, ``uid`` or RecBole's ``user_id:token``; in a table of exactly two
        columns, these two.
    value, time : str or int, optional
        Further columns to keep; none by default.
    headed : bool
        Whether the names are the first line of a text file. Names of which none is known are
        refused then, because the line may be data.

    Raises
    ------
    MissingColumnError
        If a column does not exist, or if no column or several match; the message lists the columns.
    DataError
        As `as_lazy`; also if the users and the items are one column.
    """
    table = replace(_opened(frame), headed=headed)
    asked = {"user": user, "item": item, "value": value, "time": time}
    chosen: dict[str, int] = {}
    for part, column in asked.items():
        if column is not None:
            chosen[part] = _place(table, column, part)
        elif part in _KNOWN_NAMES:
            chosen[part] = _recognised(table, part)
    if chosen["user"] == chosen["item"]:
        raise DataError(
            f"The users and the items are both the column {table.names[chosen['user']]!r}; pass two"
            f" columns as `user=` and `item=`. The columns are {', '.join(table.names)}."
        )
    return table.picked(chosen)


def keyed(
    frame: Any, key: Column | None, parts: Mapping[str, Sequence[Column]], *, headed: bool = False
) -> tuple[pl.LazyFrame, str, dict[str, str]]:
    """Select a column of ids and further columns, which keep their names.

    Parameters
    ----------
    frame : table
        As in `as_lazy`.
    key : str or int, optional
        The column of ids. By default the one column, of those not in `parts`, with a known name:
        one that `select` knows, or ``id``.
    parts : mapping of str to sequence of str or int
        The other columns, by the name of the argument that asks for them.
    headed : bool
        As in `select`.

    Returns
    -------
    LazyFrame
        The columns.
    str
        The name of the column of ids.
    dict of str to str
        For the name of each other column, in the order given, the argument that asks for it.

    Raises
    ------
    MissingColumnError
        If a column does not exist, or the column of ids cannot be recognised.
    DataError
        As `as_lazy`; also if one column is asked for twice.
    """
    table = replace(_opened(frame), headed=headed)
    asked: dict[int, str] = {}
    for part, columns in parts.items():
        for column in columns:
            place = _place(table, column, part)
            if place in asked:
                raise DataError(
                    f"The column {table.names[place]!r} is in `{asked[place]}` and again in"
                    f" `{part}`; name each column once."
                )
            asked[place] = part
    at = _key(table, asked) if key is None else _place(table, key, "id")
    if at in asked:
        raise DataError(
            f"The column {table.names[at]!r} has the ids and is in `{asked[at]}` as well; an id is"
            " not a feature. Pass another column as `id=`."
        )
    chosen = {table.names[place]: place for place in (at, *asked)}
    return (
        table.picked(chosen),
        table.names[at],
        {table.names[i]: part for i, part in asked.items()},
    )


def _key(table: _Table, asked: Mapping[int, str]) -> int:
    """Return the position of the only column, not asked for, that has a known name for ids."""
    known = {*_EVERY_NAME, "id"}
    free = [place for place in range(len(table.names)) if place not in asked]
    found = [place for place in free if _bare(table.names[place]) in known]
    if len(found) == 1:
        return found[0]
    many = "More than one column" if found else "No column"
    raise MissingColumnError(
        f"{many} is recognised as the ids; pass its name as `id=`. The columns are"
        f" {', '.join(table.names)}.{_index(table)}"
    )


def axis_of(name: str) -> str:
    """Return what a column of ids is about by its name: "user", "item", or "" for another name.

    >>> axis_of("itemId"), axis_of("id")
    ('item', '')
    """
    return next((part for part, known in _KNOWN_NAMES.items() if _bare(name) in known), "")


def known_as(part: str, names: Iterable[str]) -> list[str]:
    """Return those of the names of columns by which users, or items, are recognised.

    >>> known_as("item", ["itemId", "title", "item_id:token"])
    ['itemId', 'item_id:token']
    """
    return [name for name in names if _bare(name) in _KNOWN_NAMES[part]]


def _bare(name: str) -> str:
    return name.split(":")[0].lower().replace("_", "").replace("-", "")


def _place(table: _Table, column: Any, part: str) -> int:
    """Return the position of the column that the caller asks for."""
    if isinstance(column, str) and column in table.names:
        return table.names.index(column)
    if is_integer(column):
        integers = {label: i for i, label in enumerate(table.labels) if is_integer(label)}
        if column in integers:
            return integers[column]
        if not integers and 0 <= column < len(table.names):
            return _of_header(table, int(column))
    raise MissingColumnError(
        f"There is no column {' '.join(shown(column).split())} for `{part}`; the columns are"
        f" {', '.join(table.names)}.{_index(table)}"
    )


def _of_header(table: _Table, place: int) -> int:
    """Refuse a column by its position if the line of names has a number there."""
    name = table.names[place]
    if table.headed and _NUMBER.fullmatch(name) and name.strip() != str(place):
        raise MissingColumnError(
            f"The first line has the number {name!r} where the name of column {place} is expected."
            f"{_HEADER}"
        )
    return place


def _recognised(table: _Table, part: str) -> int:
    plain = [_bare(name) for name in table.names]
    found = [place for place, bare in enumerate(plain) if bare in _KNOWN_NAMES[part]]
    if len(found) == 1:
        return found[0]
    two = not found and len(plain) == 2 and not _EVERY_NAME.intersection(plain)
    if two and not table.headed and not table.index:
        return list(_KNOWN_NAMES).index(part)
    many = "More than one column" if found else "No column"
    hint = _HEADER if table.headed and not _EVERY_NAME.intersection(plain) else ""
    hint = " It is a single column: check `separator`." if hint and len(plain) == 1 else hint
    raise MissingColumnError(
        f"{many} is recognised as the {part}; pass its name as `{part}=`. The columns are "
        f"{', '.join(table.names)}.{_index(table)}{hint}"
    )


def _index(table: _Table) -> str:
    levels = ", ".join(table.index)
    return f" The index has {levels}; `.reset_index()` makes columns of it." if levels else ""


def _opened(frame: Any) -> _Table:
    check_fork()
    if _is_a(frame, "pandas", "DataFrame"):
        return _of_pandas(frame)
    lazy = _of_arrow(frame)
    names = computed(lazy.collect_schema).names()
    return _Table(
        names,
        names,
        lambda places: lazy.select(pl.nth(place).alias(name) for name, place in places.items()),
    )


def computed(compute: Callable[[], Any]) -> Any:
    """Return what `compute` returns; an error of polars becomes a `DataError`."""
    try:
        return compute()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise DataError(
            f"The table cannot be computed: {first_line(error)}. Correct the query, or the files"
            " that it reads."
        ) from error


def _of_arrow(frame: Any) -> pl.LazyFrame:
    """Open a table of polars, or any other that has Arrow's interface."""
    if isinstance(frame, pl.LazyFrame):
        return frame
    if isinstance(frame, pl.DataFrame):
        return frame.lazy()
    is_column = _is_a(frame, "pandas", "Series") or isinstance(frame, pl.Series)
    if is_column or not hasattr(frame, "__arrow_c_stream__"):
        raise _no_table(frame)
    schema = getattr(frame, "schema", None)
    _refuse_repeated([str(name) for name in getattr(schema, "names", ())])
    try:
        return pl.DataFrame(frame).lazy()
    except Exception as error:  # whatever the library behind the interface raises
        raise DataError(
            f"The {type(frame).__name__} cannot be read as a table: {first_line(error)}. Convert"
            " it to a polars, pandas or Arrow table."
        ) from error


def _of_pandas(frame: Any) -> _Table:
    labels = list(frame.columns)
    if frame.columns.nlevels > 1:
        raise DataError(
            f"The columns of the table have {frame.columns.nlevels} levels, such as {labels[:1]}."
            " Make each a single name: `frame.columns = ['_'.join(map(str, c)) for c in"
            " frame.columns]`."
        )
    names = [str(label) for label in labels]
    _refuse_repeated(names)
    return _Table(
        labels,
        names,
        lambda places: pl.DataFrame(
            {
                name: _from_pandas(frame.iloc[:, place], names[place])
                for name, place in places.items()
            }
        ).lazy(),
        tuple(str(level) for level in frame.index.names if level is not None),
    )


def _from_pandas(column: Any, name: str) -> pl.Series:
    try:
        if column.dtype == "category" and column.dtype.categories.dtype != "str":
            column = column.astype(object)  # Arrow has no categories of several types
        if column.dtype == object:
            return as_column(column.to_list())
        if column.dtype == "datetime64[s]":  # polars has no such unit
            column = column.astype("datetime64[ms]")
        if isinstance(column.dtype, np.dtype):
            return pl.Series(column.to_numpy())
        return pl.Series("", column)
    except ImportError as error:
        raise MissingExtraError(
            f"The pandas column {name!r} of type {column.dtype} needs pyarrow to be read: "
            "`pip install pyarrow`, or convert it with `.astype(object)`."
        ) from error
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        return as_column(column.to_list())  # a type that polars does not know


def _refuse_repeated(names: list[str]) -> None:
    for place, name in enumerate(names):
        if name in names[:place]:
            raise DataError(
                f"The table has the column {name!r} more than once: columns {names.index(name)} and"
                f" {place}, counted from 0. Rename or drop one of them."
            )


def _no_table(frame: Any) -> DataError:
    kind = type(frame).__name__
    if _is_a(frame, "pandas", "Series"):
        levels = ", ".join(str(level) for level in frame.index.names if level is not None)
        of = f" and its index ({levels})" if levels else " and its index"
        return DataError(
            f"A Series of pandas is one column, not a table; `.reset_index()` makes a table of it"
            f"{of}."
        )
    if isinstance(frame, pl.Series):
        return DataError(
            "A Series of polars is one column, not a table; pass a DataFrame with a column of users"
            " and one of items, or use `.struct.unnest()` if it holds both."
        )
    way = "such as `polars.DataFrame(...)` makes of dicts, lists and arrays"
    if hasattr(frame, "toPandas"):
        way = "such as `.toPandas()` returns"
    return DataError(
        f"A {kind} is not a table; pass a polars, pandas or Arrow table, {way}, or use "
        "`Interactions.from_pairs`, `from_csr` or `read`."
    )


def _is_a(frame: Any, library: str, name: str) -> bool:
    """Return whether an object is of this class of a library, which need not be installed."""
    return any(
        kind.__name__ == name and kind.__module__.split(".")[0] == library
        for kind in type(frame).__mro__
    )
