"""`Interactions`: which users interacted with which items.

An immutable, sorted list of (user, item) pairs by row number, in compressed form (CSR), together
with the external ids of users and items. Ids are converted to rows only here; the rest of nearfar
works on rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from hashlib import sha256
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from nearfar import readers
from nearfar.data import frames, table_columns
from nearfar.data import pairs as pair_lists
from nearfar.data.id_values import as_column, label
from nearfar.data.ids import Ids, encode
from nearfar.data.pairs import Times
from nearfar.data.table_columns import Column
from nearfar.errors import (
    DataError,
    EmptyDataError,
    OptionError,
    StoreError,
    UnknownIdError,
    first_line,
)
from nearfar.runtime import store
from nearfar.runtime.arrays import Array, Bool, Int32, Int64
from nearfar.runtime.checks import (
    an_instance,
    as_array,
    listed,
    local_path,
    one_of,
    real,
    said,
    switch,
    whole,
)
from nearfar.runtime.forks import check_fork

if TYPE_CHECKING:
    import scipy.sparse as sp

KIND = "interactions"
"""The kind of a saved folder, as its manifest names it."""


@dataclass(frozen=True, eq=False, repr=False)
class Interactions:
    """A set of (user, item) pairs, sorted, with the ids of both axes.

    Created by `from_pairs`, `from_frame`, `read`, `from_csr`, `from_rows` or `load`. All arrays are
    read-only. A repeated pair is kept once, with its earliest time.

    Examples
    --------
    >>> data = Interactions.from_pairs([("ann", "tea"), ("bob", "tea"), ("ann", "jam")])
    >>> data
    Interactions(2 users, 2 items, 3 pairs, density 75%)
    >>> data.items[data.indptr[0] : data.indptr[1]], data.item_ids.to_list()
    (array([0, 1], dtype=int32), ['jam', 'tea'])
    """

    indptr: Int64
    """Where each user's items start, shape (n_users + 1,)."""
    items: Int32
    """Item rows, shape (n_pairs,), strictly increasing within a user."""
    times: Times | None
    """When each pair happened, shape (n_pairs,), int64 or float64; None if unknown."""
    user_ids: Ids
    """External ids of the user rows."""
    item_ids: Ids
    """External ids of the item rows."""
    item_table: pl.DataFrame | None = None
    """Metadata of items, such as titles; see `with_item_table`. Subsets and splits keep it, and
    comparisons ignore it."""

    def __post_init__(self) -> None:
        for array in (self.indptr, self.items, self.times):
            if array is not None:
                array.flags.writeable = False

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, part.name) for part in fields(self))

    # ---------------------------------------------------------------- constructors

    @classmethod
    def from_rows(
        cls,
        users: npt.ArrayLike,
        items: npt.ArrayLike,
        user_ids: Ids,
        item_ids: Ids,
        times: npt.ArrayLike | None = None,
    ) -> Self:
        """Create interactions from row numbers and the ids of both axes.

        Parameters
        ----------
        users, items : array_like of int, shape (n,)
            Rows, in any order; repeated pairs are kept once. n may be 0.
        user_ids, item_ids : Ids
            The axes; ids without any interaction are kept.
        times : array_like of int, float or datetime64, shape (n,), optional
            The time of each pair; a datetime becomes microseconds since 1970.

        Raises
        ------
        DataError
            If the lengths differ, a row is out of range, or a time is not a finite number.
        """
        for name, axis in (("user_ids", user_ids), ("item_ids", item_ids)):
            an_instance(name, axis, Ids, "Make them with nearfar.data.ids.Ids(values).")
        by_user = pair_lists.checked_rows(users, len(user_ids), "user")
        by_item = pair_lists.checked_rows(items, len(item_ids), "item")
        when = None if times is None else pair_lists.checked_times(times)
        lengths = {len(part) for part in (by_user, by_item, when) if part is not None}
        if len(lengths) > 1:
            raise DataError(
                f"Users, items and times must have the same length; got {sorted(lengths)}."
            )
        return cls(*pair_lists.compressed(by_user, by_item, when, (len(user_ids), len(item_ids))),
                   user_ids, item_ids)  # fmt: skip

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[Any, ...]]) -> Self:
        """Create interactions from (user, item) or (user, item, time) tuples of external ids.

        Raises
        ------
        EmptyDataError
            If there are no pairs.
        DataError
            If a tuple has another length, an id is neither an integer nor text, or a time is
            neither a number nor a date (`from_frame`).
        """
        columns = pair_lists.columns(pairs)
        times = None
        if len(columns) == 3:
            frame = pl.DataFrame({"time": as_column(columns[2])}).lazy()
            checked, _ = frames.cleaned(frame, numbers={"time": "time"})
            times = checked.collect()["time"]
        return cls._from_columns(columns[0], columns[1], times, "`pairs`")

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        user: Column | None = None,
        item: Column | None = None,
        value: Column | None = None,
        min_value: float | None = None,
        time: Column | None = None,
    ) -> Self:
        """Create interactions from a table with one row per interaction.

        Parameters
        ----------
        frame : DataFrame, LazyFrame, pandas.DataFrame, pyarrow.Table or Arrow stream
            The table.
        user, item : str or int, optional
            The columns of ids, by name or position; by default recognised by names such as
            ``user_id`` or ``itemID``, or the two columns of a table of exactly two columns. An
            integer is the label of a column if the labels of the table include integers, as those
            of a pandas table can; otherwise it is a position, counted from 0.
        value : str or int, optional
            The column of a rating or count: only rows of at least `min_value` are interactions.
        min_value : float, optional
            The threshold; required with `value`.
        time : str or int, optional
            The column of times: numbers, which are kept; or dates, datetimes or ISO text, which
            become microseconds since 1970 in UTC (`nearfar.data.moments`).

        Raises
        ------
        MissingColumnError
            If a column does not exist or cannot be recognised.
        EmptyDataError
            If no row is left.
        DataError
            If an id is null or neither an integer nor text, or a value or time is not a number;
            the message names column and row. Also if `frame` is not a table, or has two columns of
            one name.
        """
        if (value is None) != (min_value is None):
            raise OptionError(f"`value` and `min_value` go together; got {value!r}, {min_value!r}.")
        min_value = None if min_value is None else real("min_value", min_value)
        lazy = table_columns.select(frame, user=user, item=item, value=value, time=time)
        numbers = {
            part: name for part, name in (("value", value), ("time", time)) if name is not None
        }
        computed: pl.DataFrame = table_columns.computed(lazy.collect)
        table = frames.cleaned(computed.lazy(), numbers=numbers)[0].collect()
        keep = None if value is None else (table["value"] >= min_value).to_numpy()
        times = None if time is None else table["time"]
        where = f"with {value!r} >= {min_value!r}" if keep is not None else "in the table"
        return cls._from_columns(table["user"], table["item"], times, where, keep)

    @classmethod
    def read(
        cls,
        path: str | PathLike[str],
        user: Column | None = None,
        item: Column | None = None,
        value: Column | None = None,
        min_value: float | None = None,
        time: Column | None = None,
        *,
        separator: str | None = None,
        has_header: bool = True,
        encoding: str | None = None,
        quotes: bool | None = None,
    ) -> Self:
        """Create interactions from a file: CSV, TSV, JSON lines, Parquet or Arrow.

        Ids of a text file are strings, exactly as written (``007`` is not ``7``); in the other
        formats they have the type of the file.

        Parameters
        ----------
        path : path
            The file; its suffix determines the format. Text may be compressed (``.csv.gz``). Also a
            pipe, or a folder of Parquet files, as Spark writes it.
        user, item, value, min_value, time
            As in `from_frame`; without a header, users and items are the first two columns by
            default. A text file with a header of which no name is known needs `user` and `item`,
            because its first line may be data.
        separator, has_header, encoding, quotes
            As in `nearfar.readers.scan`.

        Raises
        ------
        EmptyDataError
            If the file has no rows, and as in `from_frame`.
        DataError
            If the file cannot be read, and as in `from_frame`.
        """
        path, has_header = local_path(path), switch("has_header", has_header)
        if not has_header:
            user, item = 0 if user is None else user, 1 if item is None else item
        named = {"value": value, "time": time}
        given = {part: column for part, column in named.items() if column is not None}
        with TemporaryDirectory(prefix="nearfar-") as scratch, readers.reading(path):
            raw = readers.scan(path, Path(scratch), separator=separator, has_header=has_header,
                               encoding=encoding, quotes=quotes)  # fmt: skip
            picked = table_columns.select(
                raw.rows, user=user, item=item, **named, headed=raw.headed
            )
            clean, n_rows = frames.cleaned(
                picked, ids=("user", "item"), numbers=given, where=raw.where
            )
            if not n_rows:
                raise EmptyDataError(f"{str(path)!r} has the names of columns, but no rows.")
            return cls.from_frame(
                clean, "user", "item", min_value=min_value, **{part: part for part in given}
            )

    @classmethod
    def from_csr(
        cls,
        matrix: Any,
        user_ids: Iterable[Any] | None = None,
        item_ids: Iterable[Any] | None = None,
    ) -> Self:
        """Create interactions from a scipy sparse matrix of users x items.

        Positive entries are interactions, stored zeros are not; negative entries and NaN are
        refused, because their meaning is unknown.

        Parameters
        ----------
        matrix : scipy sparse array or matrix, any format
            The matrix; it is not modified.
        user_ids, item_ids : iterable, optional
            The ids of rows and columns; by default 0, 1, .... Rows of the result are in the order
            of the sorted ids, which may differ from the order of the matrix. Ids without entries
            are kept.

        Raises
        ------
        EmptyDataError
            If there is no positive entry.
        DataError
            If `matrix` is not sparse, is too large or has negative or NaN entries, or the ids do
            not fit its shape.
        """
        rows, columns, (n_users, n_items) = pair_lists.positive_entries(matrix)
        user_axis, user_of = pair_lists.axis(user_ids, n_users, "user")
        item_axis, item_of = pair_lists.axis(item_ids, n_items, "item")
        return cls.from_rows(user_of[rows], item_of[columns], user_axis, item_axis)

    @classmethod
    def _from_columns(
        cls, users: Any, items: Any, times: pl.Series | None, where: str, keep: Any = None
    ) -> Self:
        """Encode both columns; drop rows that `keep` excludes, then ids without pairs."""
        axes = []
        for values, name in ((users, "user"), (items, "item")):
            ids, rows = encode(values, name)
            if keep is None:
                axes.append((ids, rows.astype(np.int64)))
            else:
                used, dense = np.unique(rows[keep], return_inverse=True)
                axes.append((ids.subset(used), dense))
        (user_ids, by_user), (item_ids, by_item) = axes
        if not by_user.size:
            raise EmptyDataError(f"There is no interaction {where}; at least one is needed.")
        when = None if times is None else times.to_numpy()
        if when is not None and keep is not None:
            when = when[keep]
        return cls.from_rows(by_user, by_item, user_ids, item_ids, when)

    # ---------------------------------------------------------------- contents

    @property
    def n_users(self) -> int:
        """Number of users, including those without any pair."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Number of items, including those without any pair."""
        return len(self.item_ids)

    @property
    def n_pairs(self) -> int:
        """Number of distinct (user, item) pairs."""
        return self.items.size

    def __len__(self) -> int:
        return self.n_pairs

    @property
    def density(self) -> float:
        """Pairs as a share of users x items; 0 if there are no users or items."""
        return self.n_pairs / max(self.n_users * self.n_items, 1)

    @cached_property
    def user_counts(self) -> Int64:
        """Number of items of each user, int64, shape (n_users,)."""
        return _frozen(np.diff(self.indptr))

    @cached_property
    def item_counts(self) -> Int64:
        """Number of users of each item, int64, shape (n_items,): f(j) of the popularity sampler."""
        return _frozen(np.bincount(self.items, minlength=self.n_items).astype(np.int64))

    def pair_users(self) -> Int32:
        """Return the user row of every pair, int32, shape (n_pairs,), in the order of `items`."""
        return self._pair_users

    @cached_property
    def _pair_users(self) -> Int32:
        return _frozen(self._repeated_users())

    def _repeated_users(self) -> Int32:
        return np.repeat(np.arange(self.n_users, dtype=np.int32), np.diff(self.indptr))

    @cached_property
    def _keys(self) -> Int64:
        return _frozen(self._pair_users.astype(np.int64) * self.n_items + self.items)

    def positives(self, user: int) -> Int32:
        """Return the item rows of one user, in increasing order, as a view."""
        user = whole("user", user, least=None)
        if not 0 <= user < self.n_users:
            raise UnknownIdError(f"user row {user} is not in 0..{self.n_users - 1}.")
        return self.items[self.indptr[user] : self.indptr[user + 1]]

    def contains(self, user: npt.ArrayLike, item: npt.ArrayLike) -> Bool:
        """Return whether each (user row, item row) is a pair, by binary search.

        Parameters
        ----------
        user, item : array_like of int
            Broadcast against each other.

        Returns
        -------
        bool array
            Of the broadcast shape.

        Raises
        ------
        DataError
            If a row is not a whole number.
        UnknownIdError
            If a row is out of range.
        """
        parts = []
        for rows_of, n, name in ((user, self.n_users, "user"), (item, self.n_items, "item")):
            part = as_array(rows_of)
            if part.size and part.dtype.kind not in "iu":
                raise DataError(f"`{name}` must be row numbers; got {said(rows_of)}.")
            if part.size and (part.min() < 0 or part.max() >= n):
                raise UnknownIdError(f"`{name}` must be rows in 0..{n - 1}; got {said(rows_of)}.")
            parts.append(part.astype(np.int64))
        rows, columns = parts
        wanted = rows * self.n_items + columns
        at = np.minimum(np.searchsorted(self._keys, wanted), max(self.n_pairs - 1, 0))
        if self.n_pairs == 0:
            return np.zeros(wanted.shape, np.bool_)
        found: Bool = np.asarray(self._keys[at] == wanted)
        return found

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the pairs, times and ids, in hexadecimal; equal if the contents are equal."""
        digest = sha256(self.user_ids.digest() + self.item_ids.digest())
        digest.update(self.indptr.astype("<i8").tobytes())
        digest.update(self.items.astype("<i4").tobytes())
        if self.times is not None:
            little = self.times.astype(self.times.dtype.newbyteorder("<"))
            digest.update(self.times.dtype.name.encode() + little.tobytes())
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Interactions) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        timed = "" if self.times is None else ", with times"
        size = f"{self.n_users:,} users, {self.n_items:,} items, {self.n_pairs:,} pairs"
        return f"Interactions({size}, density {100 * self.density:.3g}%{timed})"

    # ---------------------------------------------------------------- derived data

    def subset(self, mask: npt.ArrayLike) -> Interactions:
        """Keep the pairs where `mask`, bool of shape (n_pairs,), is true; the axes do not change.

        Raises
        ------
        OptionError
            If `mask` is not a bool array of that shape.
        """
        keep = as_array(mask)
        if keep.dtype != np.bool_ or keep.shape != (self.n_pairs,):
            raise OptionError(
                f"`mask` must be bool with one entry for each of the {self.n_pairs:,} pairs; "
                f"got {keep.dtype} of shape {keep.shape}."
            )
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(keep, dtype=np.int64)])
        times = None if self.times is None else self.times[keep]
        axes = (self.user_ids, self.item_ids, self.item_table)
        return Interactions(before[self.indptr], self.items[keep], times, *axes)

    def aligned(self, user_ids: Ids, item_ids: Ids, *, unknown: str = "drop") -> Interactions:
        """Move the pairs to other axes, such as those of the training interactions.

        Parameters
        ----------
        user_ids, item_ids : Ids
            The other axes.
        unknown : {"drop", "error"}
            What to do with pairs of users or items that these axes lack.

        Raises
        ------
        OptionError
            `unknown` is something else.
        UnknownIdError
            With "error": a user or an item is not on the axes.
        DataError
            If the ids of an axis are text here and integers there; see `with_ids_like`.

        Examples
        --------
        >>> data = Interactions.from_pairs([("ann", "tea"), ("bob", "tea"), ("ann", "jam")])
        >>> train = Interactions.from_pairs([("ann", "tea"), ("eve", "jam")])
        >>> data.aligned(train.user_ids, train.item_ids).without(train).to_frame().rows()
        [('ann', 'jam')]
        """
        for name, axis in (("user_ids", user_ids), ("item_ids", item_ids)):
            an_instance(name, axis, Ids, f"Pass `other.{name}` of the interactions to align with.")
        for mine, other in ((self.user_ids, user_ids), (self.item_ids, item_ids)):
            if len(mine) and len(other) and mine.kind != other.kind:
                raise DataError(
                    f"The {label(mine.name)}s are {mine.kind} ({mine.dtype}), such as"
                    f" {mine.id(0)!r}, and those of the other axis {other.kind} ({other.dtype}),"
                    f" such as {other.id(0)!r}. Convert them first: `data.with_ids_like(train)`."
                )
        users = user_ids.places(self.user_ids)[self._pair_users]
        items = item_ids.places(self.item_ids)[self.items]
        known = (users >= 0) & (items >= 0)
        if one_of("unknown", unknown, ("drop", "error")) == "error" and not known.all():
            user_ids.rows(self.user_ids.take(np.unique(self._pair_users[users < 0])))
            item_ids.rows(self.item_ids.take(np.unique(self.items[items < 0])))
        times = None if self.times is None else self.times[known]
        moved = Interactions.from_rows(users[known], items[known], user_ids, item_ids, times)
        return replace(moved, item_table=self.item_table)

    def with_ids_like(self, other: Interactions) -> Interactions:
        """Convert ids between text and integers, to the kinds that `other` has, if nothing is lost.

        Integers become their text. Text becomes integers if each id is written as an integer is
        printed: "7", but not "007" or "7.0".

        Raises
        ------
        DataError
            If a text is not an integer; the message names both types and the text.

        Examples
        --------
        >>> train = Interactions.from_pairs([(1, 7), (2, 8)])
        >>> Interactions.from_pairs([("1", "8")]).with_ids_like(train).to_frame().rows()
        [(1, 8)]
        """
        checked_interactions("other", other)
        users, user_row = self.user_ids.converted(other.user_ids)
        items, item_row = self.item_ids.converted(other.item_ids)
        if users is self.user_ids and items is self.item_ids:
            return self
        rows = user_row[self._pair_users], item_row[self.items]
        made = Interactions.from_rows(*rows, users, items, self.times)
        if self.item_table is None:
            return made
        table = frames.about(self.item_table, self.item_ids)
        at = item_row[self.item_ids.rows(table["item_id"])]
        return made.with_item_table(table.with_columns(items.take(at).alias("item_id")))

    def has_axes_of(self, other: Interactions) -> bool:
        """Return whether both have the same users and items in the same rows."""
        checked_interactions("other", other)
        same_users = self.user_ids.matches(other.user_ids)
        return same_users and self.item_ids.matches(other.item_ids)

    def without(self, other: Interactions) -> Interactions:
        """Drop the pairs that are also in `other`, which must have the same axes.

        Raises
        ------
        DataError
            If the axes differ.
        """
        if not self.has_axes_of(other):
            raise DataError(
                "`without` needs interactions on the same axes; move one to the axes of the other "
                "with `aligned`."
            )
        return self.subset(~other.contains(self._pair_users, self.items))

    def union(self, other: Interactions) -> Interactions:
        """Return the pairs of both, on axes that have the ids of both.

        Times are kept if both have them. For an item in both item tables, the row of `self` is
        kept. Integers of two widths become the wider one.

        Raises
        ------
        DataError
            If one has integers as ids and the other text (see `with_ids_like`), if one has
            fractions as times and the other integers beyond 2^53, or if the item tables do not fit
            together.

        Examples
        --------
        >>> data = Interactions.from_pairs([("ann", "tea"), ("bob", "jam")])
        >>> data.union(Interactions.from_pairs([("ann", "jam"), ("eve", "tea")])).to_frame().rows()
        [('ann', 'jam'), ('ann', 'tea'), ('bob', 'jam'), ('eve', 'tea')]
        """
        check_fork()
        checked_interactions("other", other)
        users, items = self.user_ids.union(other.user_ids), self.item_ids.union(other.item_ids)
        parts = (self.aligned(users, items), other.aligned(users, items))
        times = [part.times for part in parts if part.times is not None]
        joined = Interactions.from_rows(
            np.concatenate([part.pair_users() for part in parts]),
            np.concatenate([part.items for part in parts]),
            users,
            items,
            pair_lists.joined_times(times) if len(times) == len(parts) else None,
        )
        tables = [
            frames.about(part.item_table, items) for part in parts if part.item_table is not None
        ]
        if not tables:
            return joined
        try:
            table = pl.concat(tables, how="diagonal_relaxed")
        except pl.exceptions.PolarsError as error:
            raise DataError(
                "The tables about items have columns of one name whose types cannot be combined:"
                f" {first_line(error)}. Rename or drop one of them."
            ) from error
        return joined.with_item_table(table.unique("item_id", keep="first"))

    def compact(self) -> Interactions:
        """Drop the users and items that have no pair, and renumber the rest."""
        users, items = np.flatnonzero(self.user_counts), np.flatnonzero(self.item_counts)
        item_row = np.zeros(self.n_items, np.int32)
        item_row[items] = np.arange(items.size)
        indptr = np.append(self.indptr[users], self.n_pairs)
        return Interactions(
            indptr,
            item_row[self.items],
            self.times,
            self.user_ids.subset(users),
            self.item_ids.subset(items),
            self.item_table,
        )

    def with_item_table(self, table: Any) -> Interactions:
        """Add a table of metadata of the items.

        Parameters
        ----------
        table : DataFrame, LazyFrame, pandas.DataFrame, pyarrow.Table or Arrow stream
            ``item_id``, of the kind of the ids (integers of any width, or text), without
            duplicates; and any other columns. Lists of items are printed with ``title``. Rows of
            unknown items are dropped, and an item may have no row.

        Raises
        ------
        MissingColumnError
            If there is no column ``item_id``.
        DataError
            If the column has another kind than the ids, or contains a null or a repeated id.

        Examples
        --------
        >>> data = Interactions.from_pairs([("ann", "t"), ("bob", "t"), ("ann", "j")])
        >>> titles = pl.DataFrame({"item_id": ["j", "t", "x"], "title": ["jam", "tea", "salt"]})
        >>> data.with_item_table(titles).titles(["t", "j", "?"])
        ['tea', 'jam', None]
        """
        known: pl.DataFrame = table_columns.computed(table_columns.as_lazy(table).collect)
        return replace(self, item_table=frames.about(known, self.item_ids))

    def titles(self, item_ids: Iterable[Any]) -> list[str | None]:
        """Return the title of each item in `item_table`, or None."""
        return [self._title_of.get(one) for one in listed("item_ids", item_ids, "ids")]

    @cached_property
    def _title_of(self) -> dict[Any, str | None]:
        table = self.item_table
        if table is None or "title" not in table.columns:
            return {}
        return dict(zip(table["item_id"], table["title"].cast(pl.String), strict=True))

    def to_csr(self) -> sp.csr_array:
        """Return a scipy matrix, users x items, with ones (float32) at the pairs."""
        import scipy.sparse as sp

        ones = np.ones(self.n_pairs, np.float32)
        return sp.csr_array(
            (ones, self.items.copy(), self.indptr.copy()), (self.n_users, self.n_items)
        )

    def to_frame(self) -> pl.DataFrame:
        """Return a table with the columns user_id, item_id and, if known, time; external ids."""
        columns = {
            "user_id": self.user_ids.take(self._pair_users),
            "item_id": self.item_ids.take(self.items),
        }
        if self.times is not None:
            columns["time"] = pl.Series(self.times)
        return pl.DataFrame(columns)

    # ---------------------------------------------------------------- on disk

    def to_store(self) -> tuple[dict[str, Any], dict[str, pl.DataFrame]]:
        """Return metadata and frames for `nearfar.runtime.store` to write.

        The frames are pairs (user, item, time; users and items by row, sorted), users and items
        (id), and item_table if there is one.
        """
        # not the cached property, which would stay in memory
        pairs = {"user": pl.Series(self._repeated_users()), "item": pl.Series(self.items)}
        if self.times is not None:
            pairs["time"] = pl.Series(self.times)
        meta = {"n_users": self.n_users, "n_items": self.n_items, "n_pairs": self.n_pairs}
        frames = {
            "pairs": pl.DataFrame(pairs),
            "users": self.user_ids.to_store(),
            "items": self.item_ids.to_store(),
        }
        if self.item_table is not None:
            frames["item_table"] = self.item_table
        return meta, frames

    @classmethod
    def from_store(cls, meta: Mapping[str, Any], frames: Mapping[str, pl.DataFrame]) -> Self:
        """Read back what `to_store` returned; additional entries of either are ignored.

        Pairs that are already sorted, as `to_store` writes them, are not sorted again.

        Raises
        ------
        StoreError
            If the contents do not have the form that `to_store` returns.
        """
        try:
            user_ids = Ids.from_store(frames["users"], "user")
            item_ids = Ids.from_store(frames["items"], "item")
            pairs = frames["pairs"]
            times = pairs["time"].to_numpy() if "time" in pairs.columns else None
            made = cls.from_rows(
                pairs["user"].to_numpy(), pairs["item"].to_numpy(), user_ids, item_ids, times
            )
        except (KeyError, ValueError, pl.exceptions.PolarsError) as error:
            raise StoreError(f"The saved interactions are not readable: {error!r}.") from error
        if "item_table" in frames:
            made = replace(made, item_table=frames["item_table"])
        if made.n_pairs != meta.get("n_pairs"):
            raise StoreError(
                f"The saved interactions must have {meta.get('n_pairs')} pairs; {made.n_pairs} "
                "were found. Save them again."
            )
        return made

    def save(
        self,
        path: str | PathLike[str],
        *,
        made: Mapping[str, Any] | None = None,
        more: Mapping[str, pl.DataFrame] | None = None,
    ) -> None:
        """Write the interactions to the folder `path`, atomically: Parquet and a JSON manifest.

        Parameters
        ----------
        path : path
            The folder.
        made : mapping, optional
            How they were made, as JSON values. It is kept in the manifest and not read back.
        more : mapping of str to DataFrame, optional
            Additional tables to write to the folder; not read back either.

        Raises
        ------
        StoreError
            If the folder cannot be written or contains something else.
        """
        path = local_path(path)
        for name, given in (("made", made), ("more", more)):
            an_instance(name, {} if given is None else given, Mapping)
        for name, table in (more or {}).items():
            an_instance(f"more[{name!r}]", table, pl.DataFrame)
        meta, frames = self.to_store()
        meta |= {} if made is None else {"made": made}
        store.save_folder(path, kind=KIND, meta=meta, frames={**frames, **(more or {})})

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        StoreError
            If the folder is missing or damaged, or contains something else.
        """
        folder = store.load_folder(path, kind=KIND)
        return cls.from_store(folder.meta, folder.frames)


def checked_interactions(name: str, value: Any) -> Interactions:
    """Return interactions that a caller passed.

    Raises
    ------
    DataError
        It is something else; the message says how to create them.
    """
    if isinstance(value, Interactions):
        return value
    raise DataError(
        f"`{name}` must be nearfar.Interactions; got {said(value)}. Create them with"
        " Interactions.from_pairs, from_frame, from_csr or read; `aligned` moves them to other"
        " axes, such as those of the training interactions."
    )


def _frozen(array: Array) -> Array:
    array.flags.writeable = False
    return array
