"""`Features`: what items, or users, are: their categories, texts, numbers and vectors, by id.

An immutable table of raw values, keyed by the caller's ids. Nothing in it is fitted:
`nearfar.data.feature_space` makes rows of numbers of it, with weights, means and scales that are
learned from the training items.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import polars as pl

from nearfar import readers
from nearfar.data import table_columns
from nearfar.data.feature_columns import FeatureColumn
from nearfar.data.feature_matrix import matrix_column
from nearfar.data.feature_values import column_of
from nearfar.data.id_values import first_few, label
from nearfar.data.ids import Ids, encode
from nearfar.data.table_columns import Column
from nearfar.errors import DataError, EmptyDataError, OptionError
from nearfar.runtime.arrays import Int32
from nearfar.runtime.checks import (
    an_instance,
    is_integer,
    listed,
    local_path,
    plain_text,
    said,
    switch,
)
from nearfar.runtime.forks import check_fork

Columns = Column | Iterable[Column]
"""One column or several, by name or position."""
_LISTS: Final = ("categories", "vectors")
"""What a field of a text file can hold several of."""


@dataclass(frozen=True, eq=False, repr=False)
class Features:
    """What is known about items or users, by id.

    Created by `from_frame`, `from_matrix` or `read`; `joined` puts several together. Items of the
    training data need not be in it, and it can have items that the training data lack.

    Examples
    --------
    >>> films = pl.DataFrame({"item_id": [7, 3], "genres": [["drama"], ["war", "drama"]],
    ...                       "plot": ["Two friends meet.", None], "year": [1994, 1970]})
    >>> features = Features.from_frame(films, categories="genres", text="plot", numbers="year")
    >>> features
    Features(2 items: genres (categories, 2 of them), plot (text, 3 words), year (number))
    >>> features.ids.to_list(), dict(features.fields)
    ([3, 7], {'genres': 'categories', 'plot': 'text', 'year': 'numbers'})
    """

    ids: Ids
    """The ids, sorted."""
    columns: Mapping[str, FeatureColumn] = field(default_factory=dict)
    """The fields by name; row i of each is of ``ids.id(i)``."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", MappingProxyType(dict(self.columns)))

    def __reduce__(self) -> tuple[Any, ...]:
        return Features, (self.ids, dict(self.columns))

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        *,
        id: Column | None = None,  # noqa: A002
        categories: Columns = (),
        text: Columns = (),
        numbers: Columns = (),
        vectors: Columns = (),
    ) -> Features:
        r"""Create features from a table with one row for each id.

        Parameters
        ----------
        frame : DataFrame, LazyFrame, pandas.DataFrame, pyarrow.Table or Arrow stream
            The table. Columns that are not asked for are ignored.
        id : str or int, optional
            The column of ids; by default the only one named ``item_id``, ``user_id``, ``item``,
            ``user`` or ``id``, or similarly.
        categories : str or list of str
            Columns of text, integers or booleans, or of lists of these; each counts once for an id.
            Null and the empty text are none.
        text : str or list of str
            Columns of text, or of lists of texts; null is no text. Words are the runs of two or
            more letters, digits or underscores (``\w\w+``) of the text in lower case.
        numbers : str or list of str
            Columns of finite numbers; null where there is none.
        vectors : str or list of str
            Columns of lists or arrays of finite numbers, of one width; null where there is none.

        Raises
        ------
        OptionError
            If no column is asked for, or columns are not given by name or position.
        MissingColumnError
            If a column does not exist, or that of the ids cannot be recognised.
        EmptyDataError
            If the table has no rows.
        DataError
            If an id is null, repeated, or neither an integer nor text; if a value is NaN, infinite,
            of a wrong type or of a wrong width: the message names the id and the column; or if
            `frame` is not a table.
        """
        parts = _asked(categories=categories, text=text, numbers=numbers, vectors=vectors)
        lazy, key, kinds = table_columns.keyed(frame, id, parts)
        table: pl.DataFrame = table_columns.computed(lazy.collect)
        return cls._of_table(table, key, kinds)

    @classmethod
    def read(
        cls,
        path: str | PathLike[str],
        *,
        id: Column | None = None,  # noqa: A002
        categories: Columns = (),
        text: Columns = (),
        numbers: Columns = (),
        vectors: Columns = (),
        list_separator: str | None = None,
        separator: str | None = None,
        has_header: bool = True,
        encoding: str | None = None,
        quotes: bool | None = None,
    ) -> Features:
        """Create features from a file: CSV, TSV, JSON lines, Parquet or Arrow.

        Ids of a text file are strings, exactly as written, as `Interactions.read` reads them.

        Parameters
        ----------
        path : path
            The file; its suffix determines the format.
        id, categories, text, numbers, vectors
            As in `from_frame`. Without a header, the ids are the first column by default.
        list_separator : str, optional
            What separates several categories, or the numbers of a vector, in one column of text:
            "|" for ``drama|war``. By default the whole text is one category.
        separator, has_header, encoding, quotes
            As in `nearfar.readers.scan`.

        Raises
        ------
        NearfarError
            As in `from_frame`; also if the file cannot be read.
        """
        path, has_header = local_path(path), switch("has_header", has_header)
        if list_separator is not None:
            list_separator = plain_text("list_separator", list_separator)
        parts = _asked(categories=categories, text=text, numbers=numbers, vectors=vectors)
        key = 0 if id is None and not has_header else id
        with TemporaryDirectory(prefix="nearfar-") as scratch, readers.reading(path):
            raw = readers.scan(path, Path(scratch), separator=separator, has_header=has_header,
                               encoding=encoding, quotes=quotes)  # fmt: skip
            lazy, name, kinds = table_columns.keyed(raw.rows, key, parts, headed=raw.headed)
            table = lazy.collect()
            if list_separator is not None:
                lists = [one for one, kind in kinds.items()
                         if kind in _LISTS and table[one].dtype == pl.String]  # fmt: skip
                split = pl.col(lists).replace("", None).str.split(list_separator)
                table = table.with_columns(split.list.eval(pl.element().str.strip_chars()))
            return cls._of_table(table, name, kinds)

    @classmethod
    def from_matrix(
        cls,
        matrix: Any,
        ids: Iterable[Any],
        *,
        name: str = "features",
        columns: Iterable[str] | None = None,
        weight: str | None = None,
    ) -> Features:
        """Create features from a matrix with one row for each id.

        Parameters
        ----------
        matrix : scipy sparse array, or array_like, shape (n, n_columns)
            Finite numbers, of which float32 is kept; zeros are not stored.
        ids : iterable or Ids, n of them
            The id of each row, all different, in the order of the rows.
        name : str
            The name of the field.
        columns : iterable of str, optional
            The names of the columns, all different. With them, matrices are matched by name, and
            without them by position.
        weight : {"tf-idf", "centre"}, optional
            "tf-idf": the matrix has counts (each 0 or at least 1), such as of words, to be weighted
            as those of `from_frame` are. "centre": the rows of a dense matrix are vectors, whose
            mean is subtracted, as `from_frame` does with ``vectors=``. By default the values are
            used as they are.

        Raises
        ------
        OptionError
            If `name` or `weight` is not one of those.
        EmptyDataError
            If the matrix has no rows or no columns.
        DataError
            If it is not a matrix of finite numbers, `ids` or `columns` do not fit its shape or have
            duplicates, or with "tf-idf" a count is between 0 and 1 or negative.

        Examples
        --------
        >>> Features.from_matrix([[0, 2], [1, 0]], ["b", "a"], name="tags", weight="tf-idf")
        Features(2 ids: tags (matrix, 2 columns))
        """
        check_fork()
        name = plain_text("name", name)
        values = ids.values if isinstance(ids, Ids) else ids
        axis, rows = encode(values, ids.name if isinstance(ids, Ids) else "")
        column = matrix_column(matrix, axis.take(rows), name, columns, weight)
        _refuse_repeated(axis, rows)
        return cls(axis, {name: column.placed(np.argsort(rows))})

    @classmethod
    def _of_table(cls, table: pl.DataFrame, key: str, kinds: Mapping[str, str]) -> Features:
        check_fork()
        if not table.height:
            raise EmptyDataError(f"The table of features, with the ids in {key!r}, has no rows.")
        axis, rows = encode(table[key], table_columns.axis_of(key))
        _refuse_repeated(axis, rows)
        named = axis.take(rows)
        order = np.argsort(rows)
        made = {
            name: column_of(kind, table[name], named).placed(order) for name, kind in kinds.items()
        }
        return cls(axis, made)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def fields(self) -> Mapping[str, str]:
        """The kind of each field by name: categories, text, numbers, vectors or matrix."""
        return MappingProxyType({name: column.kind for name, column in self.columns.items()})

    def __repr__(self) -> str:
        fields = ", ".join(f"{name} ({column.about})" for name, column in self.columns.items())
        return f"Features({len(self):,} {self.ids.name or 'id'}s: {fields})"

    def with_ids_like(self, ids: Ids) -> Features:
        """Convert the ids between text and integers, to the kind of `ids`, if nothing is lost.

        Raises
        ------
        DataError
            As `Interactions.with_ids_like`.
        """
        made, row = self.ids.converted(an_instance("ids", ids, Ids))
        if made is self.ids:
            return self
        order = np.argsort(row)
        columns = {name: column.placed(order) for name, column in self.columns.items()}
        return Features(made, columns)

    def of(self, ids: Iterable[Any]) -> Features:
        """Return the features of some of the ids only.

        Raises
        ------
        UnknownIdError
            An id that is not among them.
        DataError
            `ids` is a single id.
        """
        rows = np.unique(self.ids.rows(listed("ids", ids, "ids")))
        columns = {name: column.placed(rows) for name, column in self.columns.items()}
        return Features(Ids(self.ids.take(rows), self.ids.name), columns)

    def joined(self, *others: Features) -> Features:
        """Return the fields of all, by id; an id that one of them lacks has no values there.

        Raises
        ------
        DataError
            If two of them have a field of one name, or some ids are integers and others text.

        Examples
        --------
        >>> tags = Features.from_matrix([[1], [1]], [3, 7], name="tags")
        >>> tags.joined(Features.from_matrix([[1]], [5], name="colour")).ids.to_list()
        [3, 5, 7]
        """
        ids, fields = self.ids, dict.fromkeys(self.columns)
        for other in others:
            checked_features("others", other)
            twice = [name for name in other.columns if name in fields]
            if twice:
                raise DataError(
                    f"Several of the features have a field {twice[0]!r}; rename it in one of them."
                )
            fields |= dict.fromkeys(other.columns)
            ids = ids.union(other.ids)
        made: dict[str, FeatureColumn] = {}
        for part in (self, *others):
            rows = part.ids.places(ids)
            made |= {name: column.placed(rows) for name, column in part.columns.items()}
        return Features(ids, made)


def checked_features(name: str, value: Any) -> Features:
    """Return features that a caller passed.

    Raises
    ------
    OptionError
        It is something else; the message says how to create them.
    """
    remedy = "Create them with Features.from_frame, from_matrix or read."
    found: Features = an_instance(name, value, Features, remedy)
    return found


def _asked(**parts: Columns) -> dict[str, Sequence[Column]]:
    """Return the columns asked for as lists."""
    asked: dict[str, Sequence[Column]] = {}
    for part, columns in parts.items():
        single = isinstance(columns, str) or is_integer(columns)
        iterable = isinstance(columns, Iterable) and not isinstance(columns, (bytes, Mapping))
        found: list[Any] = [columns] if single else list(columns) if iterable else [None]  # type: ignore[arg-type]
        if not all(isinstance(one, str) or is_integer(one) for one in found):
            raise OptionError(
                f"`{part}` must be the name of a column, or a list of names; got {said(columns)}."
            )
        asked[part] = found
    if not any(asked.values()):
        raise OptionError(
            "No column of features is asked for: pass their names as `categories`, `text`,"
            " `numbers` or `vectors`."
        )
    return asked


def _refuse_repeated(axis: Ids, rows: Int32) -> None:
    """Refuse ids that occur in more than one row."""
    if len(axis) == rows.size:
        return
    twice = np.flatnonzero(np.bincount(rows) > 1)
    raise DataError(
        f"Each {label(axis.name)} must have one row of features; {twice.size:,} have more:"
        f" {first_few(axis.take(twice).to_list())}. Keep one row for each, or join their values"
        " into lists."
    )
