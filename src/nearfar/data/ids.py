"""External ids: the caller's names of users or items, and their row numbers.

Inside nearfar a user or an item is a row number. `Ids` maps ids to rows and back. It is sorted and
has no duplicates, so a row depends on the set of ids and never on their order in the input.

Ids are integers or text, and all ids of an axis have one type; `nearfar.data.id_values` lists what
else is converted to one of these. They are stored in a polars Series and keep its type: Int32 stays
Int32.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from nearfar.data.id_values import (
    as_column,
    converted,
    first_few,
    id_column,
    is_id_type,
    joined,
    label,
)
from nearfar.errors import DataError, UnknownIdError
from nearfar.runtime.arrays import Int32
from nearfar.runtime.checks import is_integer, listed
from nearfar.runtime.forks import check_fork, is_cut_off

MAX_ROWS: Final = 2**31 - 1
"""The largest number of rows of an axis, because rows are int32."""
_SHOWN: Final = 5
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,20}")


class Ids:
    """An immutable, sorted list of distinct external ids; the position of an id is its row.

    Parameters
    ----------
    values : iterable, Series or array
        The ids, in any order; duplicates are removed.
    name : str
        The name of the axis in error messages: "user" or "item".

    Raises
    ------
    DataError
        For an id that is null or neither an integer nor text, or for ids of both kinds.

    Examples
    --------
    >>> ids = Ids(["b", "a", "b"], name="item")
    >>> ids.to_list(), ids.row("b"), ids.rows(["b", "a"]).tolist()
    (['a', 'b'], 1, [1, 0])
    """

    __slots__ = ("__dict__", "_values", "name")
    _values: pl.Series
    name: str

    def __init__(self, values: Iterable[Any], name: str = "") -> None:
        distinct, _ = encode(values, name)
        self._set(distinct._values, name)

    def _set(self, values: pl.Series, name: str) -> None:
        object.__setattr__(self, "_values", values)
        object.__setattr__(self, "name", name)

    def __setattr__(self, key: str, value: object) -> None:
        raise AttributeError(f"`Ids` is immutable; `{key}` cannot be set.")

    @classmethod
    def from_sorted(cls, values: pl.Series, name: str = "") -> Ids:
        """Create `Ids` from a Series that is already sorted and has no duplicates."""
        made = cls.__new__(cls)
        made._set(values.alias(name), name)
        return made

    @classmethod
    def numbered(cls, n: int, name: str = "") -> Ids:
        """Create the ids 0, 1, ..., n - 1 (Int64), for data that has only row numbers."""
        return cls.from_sorted(pl.Series(name, np.arange(n, dtype=np.int64)), name)

    def subset(self, rows: npt.ArrayLike) -> Ids:
        """Keep the ids of `rows`, which must be in increasing order."""
        return self.from_sorted(self.take(rows), self.name)

    @property
    def dtype(self) -> pl.DataType:
        """The polars type of the ids: String or one of the integers."""
        return self._values.dtype

    @property
    def values(self) -> pl.Series:
        """All ids as a polars Series, in row order."""
        return self._values

    def __len__(self) -> int:
        return self._values.len()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.to_list())

    def __contains__(self, wanted: object) -> bool:
        try:
            self.row(wanted)
        except UnknownIdError:
            return False
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ids) and self.equals(other)

    def __hash__(self) -> int:
        return hash((len(self), str(self.dtype)))

    def __reduce__(self) -> tuple[Any, ...]:
        return Ids.from_sorted, (self._values, self.name)

    def __repr__(self) -> str:
        shown = ", ".join(repr(self.id(r)) for r in range(min(len(self), _SHOWN)))
        more = ", ..." if len(self) > _SHOWN else ""
        return f"Ids({len(self):,} of {self.kind}: [{shown}{more}])"

    def equals(self, other: Ids) -> bool:
        """Return whether both have the same ids, of the same type, in the same rows."""
        if self.dtype != other.dtype or len(self) != len(other):
            return False
        return bool((self._values == other._values).all())

    def matches(self, other: Ids) -> bool:
        """Return whether both have the same ids in the same rows, integers of any width."""
        typed = self._comparable(other._values)
        if typed is None or len(self) != len(other) or typed.null_count():
            return False
        return bool((typed == self._values).all())

    def to_list(self) -> list[Any]:
        """All ids as Python values, in row order."""
        return self._values.to_list()

    def id(self, row: int) -> Any:
        """Return the id of one row, as a Python value.

        Raises
        ------
        IndexError
            If there is no such row.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"{self.name} row {row} is not in 0..{len(self) - 1}.")
        return self._values[int(row)]

    def take(self, rows: npt.ArrayLike) -> pl.Series:
        """Return the ids of `rows` (integers, shape (n,)) in their original type."""
        return self._values[pl.Series(np.asarray(rows, dtype=np.int64))].alias(self.name)

    def row(self, wanted: object) -> int:
        """Return the row of one id.

        Raises
        ------
        UnknownIdError
            If there is no such id.
        """
        found = self._find(wanted)
        if found is None:
            raise self._unknown([wanted])
        return found

    def rows(self, ids: Iterable[Any]) -> Int32:
        """Return the row of each id, int32, in the order given.

        Raises
        ------
        DataError
            If `ids` is a single id.
        UnknownIdError
            If an id is unknown; the message names the first few and their number.
        """
        rows, missing = self.known(ids)
        if missing:
            raise self._unknown(missing)
        return rows

    def known(self, ids: Iterable[Any]) -> tuple[Int32, list[Any]]:
        """Return the row of each known id, int32, in the order given; and the unknown ids.

        Examples
        --------
        >>> rows, unknown = Ids([3, 5]).known([5, 7, 3])
        >>> rows.tolist(), unknown
        ([1, 0], [7])
        """
        typed = self._comparable(ids) if isinstance(ids, pl.Series) and not is_cut_off() else None
        if isinstance(ids, pl.Series) and typed is not None:
            found = _joined(typed, self._values)
            unknown = ids.filter(found.is_null()).to_list()
            return found.drop_nulls().to_numpy().astype(np.int32), unknown
        asked = listed(f"{self.name or 'id'}s", ids, "ids")
        rows = [self._find(wanted) for wanted in asked]
        missing = [one for one, row in zip(asked, rows, strict=True) if row is None]
        return np.array([row for row in rows if row is not None], dtype=np.int32), missing

    def mistyped(self, wanted: Any) -> bool:
        """Return whether an unknown value cannot be an id, or would be known after conversion.

        Examples
        --------
        >>> Ids([3, 5]).mistyped("5"), Ids([3, 5]).mistyped("7"), Ids([3, 5]).mistyped(None)
        (True, False, True)
        """
        if isinstance(wanted, str):
            number = self.dtype != pl.String and _INTEGER.fullmatch(wanted.strip())
            return bool(number) and self._find(int(wanted)) is not None
        if not _can_be_id(wanted):
            return True
        if isinstance(wanted, (float, np.floating)) and not float(wanted).is_integer():
            return True
        return self.dtype == pl.String and self._find(str(int(wanted))) is not None

    def union(self, others: Ids) -> Ids:
        """Return the ids of both; integers of two widths become the wider one.

        Raises
        ------
        DataError
            If one has integers and the other text.
        """
        if not len(others) or self == others:
            return self
        if not len(self):
            return others
        check_fork()
        both = joined(self._values, others._values.alias(self.name))
        if both is None:
            raise DataError(
                f"Ids of different types cannot be combined: {self.kind}, {self.dtype}, and"
                f" {others.kind}, {others.dtype}. Convert one of them, such as with"
                " `Interactions.with_ids_like`."
            )
        return encode(both, self.name)[0]

    def places(self, others: Ids) -> Int32:
        """Return the row in `self` of each id of `others`, int32; -1 for an unknown id."""
        if is_cut_off():
            found = [self._find(one) for one in others]
            return np.array([-1 if row is None else row for row in found], dtype=np.int32)
        typed = self._comparable(others._values)
        if typed is None:
            return np.full(len(others), -1, np.int32)
        return _joined(typed, self._values).fill_null(-1).to_numpy().astype(np.int32)

    def converted(self, other: Ids) -> tuple[Ids, Int32]:
        """Convert these ids to the kind of `other`, text or integers, if nothing is lost.

        Integers become their text. Text becomes integers if each is written as an integer is
        printed: "7", but not "007" or "7.0".

        Returns
        -------
        Ids
            The same ids of the other kind; `self` if the kinds are equal or one has no ids.
        int32 array, shape (len(self),)
            The row of each id of `self` in the result.

        Raises
        ------
        DataError
            If a text is not an integer; the message names both types and the text.

        Examples
        --------
        >>> ids, rows = Ids(["9", "10"]).converted(Ids([7]))
        >>> ids.to_list(), rows.tolist()
        ([9, 10], [1, 0])
        """
        if not len(self) or not len(other) or self.kind == other.kind:
            return self, np.arange(len(self), dtype=np.int32)
        check_fork()
        values = converted(self._values, other.dtype)
        if values.null_count():
            lost = self._values.filter(values.is_null())[0]
            raise DataError(
                f"The {label(self.name)}s are {self.kind} ({self.dtype}), and those to compare them"
                f" with are {other.kind} ({other.dtype}), such as {other.id(0)!r}. They cannot be"
                f" converted: {lost!r} is not an integer as it is printed. Write the ids in one"
                " form, or convert one of the two to the type of the other."
            )
        return encode(values, self.name)

    def _comparable(self, values: pl.Series) -> pl.Series | None:
        """Return integers in the type of these ids, null where they do not fit; None for others."""
        if values.dtype == self.dtype:
            return values
        if values.dtype.is_integer() and self.dtype.is_integer():
            return values.cast(self.dtype, strict=False)
        return None

    def typed(self, words: Iterable[str]) -> list[Any]:
        """Convert words typed on a command line to the type of these ids.

        A word that cannot be converted stays text, so that `rows` reports it as unknown.

        Examples
        --------
        >>> Ids([7, 196]).typed(["196", "x"]), Ids(["7", "196"]).typed(["196"])
        ([196, 'x'], ['196'])
        """
        if self.dtype == pl.String:
            return list(words)
        return [int(word) if _INTEGER.fullmatch(word) else word for word in words]

    def to_store(self) -> pl.DataFrame:
        """Return the frame in which the ids are saved; it has one column, ``id``."""
        return pl.DataFrame({"id": self._values})

    @classmethod
    def from_store(cls, frame: pl.DataFrame, name: str = "") -> Ids:
        """Read back what `to_store` returned.

        Raises
        ------
        ValueError
            If ids are missing, repeated, out of order, or neither integers nor text.
        """
        values = frame["id"]
        if not is_id_type(values.dtype):
            raise ValueError(f"the ids of the {name}s are of type {values.dtype}")
        if values.null_count() or not values.is_sorted() or values.n_unique() != values.len():
            raise ValueError(f"the ids of the {name}s have nulls or duplicates, or are not sorted")
        return cls.from_sorted(values, name)

    def digest(self) -> bytes:
        """Hash the ids and their type (SHA-256)."""
        return sha256(f"{self.dtype}{self.to_list()!r}".encode()).digest()

    @property
    def kind(self) -> str:
        """The type of the ids in words: "strings" or "integers"."""
        return "strings" if self.dtype == pl.String else "integers"

    @cached_property
    def _row_of(self) -> dict[Any, int]:
        return {key: row for row, key in enumerate(self)}

    def _find(self, wanted: object) -> int | None:
        return self._row_of.get(wanted) if _can_be_id(wanted) else None

    def _unknown(self, ids: Sequence[Any]) -> UnknownIdError:
        which = f"Unknown {label(self.name)}" + (f"s ({len(ids):,} of them)" if ids[1:] else "")
        return UnknownIdError(f"{which}: {first_few(ids)}. {self._hint(ids[0])}")

    def _hint(self, wanted: object) -> str:
        ids = f"{label(self.name)}s"
        if len(self) == 0:
            return f"There are no {ids}."
        text = self.dtype == pl.String
        if not (isinstance(wanted, str) if text else is_integer(wanted)):
            return (
                f"The {ids} are {self.kind}, such as {self.id(0)!r}; got "
                f"{type(wanted).__name__}. Convert it, such as with "
                f"`{'str' if text else 'int'}(id)`."
            )
        return f"There are {len(self):,} {ids}, such as {self.id(0)!r}."


def encode(values: Iterable[Any], name: str = "") -> tuple[Ids, Int32]:
    """Find the distinct ids of `values` and the row of each value.

    Parameters
    ----------
    values : iterable, Series or array, n of them
        The ids, with repetitions.
    name : str
        The name of the axis in error messages.

    Returns
    -------
    Ids
        The distinct ids, sorted.
    int32 array, shape (n,)
        The row of each value: ``ids.take(rows)`` equals `values`.

    Raises
    ------
    DataError
        As `Ids`.
    ForkError
        In a forked process; see `nearfar.runtime.forks`.
    """
    check_fork()
    series = id_column(as_column(values), name)
    distinct = series.unique().sort()
    check_axis(distinct.len(), name)
    rows = _joined(series, distinct).to_numpy().astype(np.int32)
    return Ids.from_sorted(distinct, name), rows


def check_axis(n: int, name: str) -> None:
    """Refuse an axis with more rows than int32 can count."""
    if n > MAX_ROWS:
        raise DataError(
            f"There are {n:,} {name}s; row numbers are int32, so there can be at most "
            f"{MAX_ROWS:,}. Filter the data first."
        )


def _can_be_id(wanted: object) -> bool:
    """Return whether a single id can be looked up; a whole float counts as the equal integer.

    True == Decimal(1) == 1 in Python, but neither is the id of user 1.
    """
    return isinstance(wanted, (str, float, np.floating)) or is_integer(wanted)


def _joined(series: pl.Series, distinct: pl.Series) -> pl.Series:
    left = pl.DataFrame({"id": series})
    right = pl.DataFrame({"id": distinct}).with_row_index("row")
    return left.join(right, on="id", how="left", maintain_order="left")["row"]
