"""`Contents`: images, spectrograms, vectors or token ids of items, read only when asked for.

An item's content is an array, of one shape for all items. Nothing is loaded before items are read:
the arrays stay in the caller's memory map, folder or function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nearfar.data.ids import Ids, encode
from nearfar.errors import DataError, EmptyDataError, first_line
from nearfar.runtime.arrays import Int64
from nearfar.runtime.checks import a_callable, an_instance, as_array, listed, local_folder

Loader = Callable[[list[Any]], Any]
"""From n ids to an array of shape (n, ...), in their order."""
_NUMBERS: Final = "biuf"


@dataclass(frozen=True, eq=False, repr=False)
class Contents:
    """Arrays by id, read in batches: what a `nearfar.Module` encodes.

    Created by `from_array`, `from_folder` or `from_callable`. Items of the training data need not
    be in it, and it can have items that the training data lack.

    Examples
    --------
    >>> images = Contents.from_array(np.arange(12.0).reshape(3, 2, 2), ids=["c", "a", "b"])
    >>> images, images.read(["a"]).tolist()
    (Contents(3 ids), [[[4.0, 5.0], [6.0, 7.0]]])
    """

    ids: Ids
    """The ids, sorted."""
    load: Loader
    """Reads the contents of a list of ids."""

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Contents({len(self):,} ids)"

    @classmethod
    def from_array(cls, array: Any, ids: Iterable[Any]) -> Contents:
        """Create contents from an array whose row i is of ``ids[i]``; it can be a memory map.

        Parameters
        ----------
        array : array_like of numbers, shape (n, ...)
        ids : iterable of n ids, all different

        Raises
        ------
        DataError
            The numbers of rows and ids differ, an id is given twice, or the array has one axis.
        """
        known, rows = _distinct(ids)
        values = array if isinstance(array, np.ndarray) else as_array(array)
        if values.ndim < 2 or len(values) != len(rows) or values.dtype.kind not in _NUMBERS:
            raise DataError(
                f"`array` must be of numbers, with one row for each of the {len(rows):,} ids and"
                f" two axes or more; got {values.dtype} of the shape {values.shape}."
            )
        place = np.empty(len(rows), np.int64)
        place[rows] = np.arange(len(rows))
        return cls(known, _OfArray(values, known, place))

    @classmethod
    def from_folder(cls, path: str | PathLike[str]) -> Contents:
        """Create contents from a folder of ``.npy`` files, each named by its id, which is text.

        Raises
        ------
        EmptyDataError
            The folder has no ``.npy`` file.
        """
        folder = local_folder("path", path)
        names = sorted(file.stem for file in folder.glob("*.npy"))
        if not names:
            raise EmptyDataError(f"{str(folder)!r} must have .npy files, named by id; it has none.")
        return cls(_distinct(names)[0], _OfFolder(folder))

    @classmethod
    def from_callable(cls, function: Loader, ids: Iterable[Any]) -> Contents:
        """Create contents that ``function(list of n ids)`` returns, of shape (n, ...).

        Raises
        ------
        DataError
            An id is given twice.
        """
        return cls(_distinct(ids)[0], a_callable("function", function))

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The shape of one content, that of the first id."""
        one = self.ids.id(0)
        return _numbers(self._from_loader([one]), [one]).shape[1:]

    def read(self, ids: Iterable[Any]) -> npt.NDArray[Any]:
        """Return the contents of some of the ids: float32 or integers, of shape (n, ...).

        Raises
        ------
        UnknownIdError
            An id that is not among them.
        DataError
            `ids` is a single id; or as `take`.
        """
        return self.take(self.ids.rows(listed("ids", ids, "ids")))

    def take(self, rows: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return the contents of rows of ``ids``: float32 or integers, of shape (n, ...).

        If a batch cannot be read, its items are tried one at a time to name the first at fault.

        Raises
        ------
        DataError
            The loader raises, or returns something else than finite numbers of one shape; the
            message names the first such id.
        """
        wanted = self.ids.take(rows).to_list()
        try:
            return self._loaded(wanted)
        except DataError as error:
            for one in wanted:
                self._try(one)
            raise DataError(
                f"The contents of the ids {wanted[0]!r} to {wanted[-1]!r} can be read alone but not"
                f" together: {first_line(error)}"
            ) from error

    def with_ids_like(self, ids: Ids) -> Contents:
        """Convert the ids between text and integers, to the kind of `ids`, if nothing is lost.

        Raises
        ------
        DataError
            As `Interactions.with_ids_like`.
        """
        made, row = self.ids.converted(an_instance("ids", ids, Ids))
        if made is self.ids:
            return self
        old = np.empty(len(row), np.int64)
        old[row] = np.arange(len(row))
        return Contents(made, _Renamed(self, made, old))

    def of(self, ids: Iterable[Any]) -> Contents:
        """Return the contents of some of the ids only.

        Raises
        ------
        UnknownIdError
            An id that is not among them.
        DataError
            `ids` is a single id.
        """
        rows = np.unique(self.ids.rows(listed("ids", ids, "ids")))
        return Contents(Ids(self.ids.take(rows), self.ids.name), self.load)

    def updated(self, newer: Contents) -> Contents:
        """Return the contents of the ids of both; where both have one, that of `newer`.

        Raises
        ------
        DataError
            Some ids are integers and others text.
        """
        checked_contents("newer", newer)
        return Contents(self.ids.union(newer.ids), _Either(newer, self))

    def _try(self, one: Any) -> None:
        try:
            self._loaded([one])
        except DataError as error:
            raise DataError(
                f"The content of the id {one!r} cannot be read: {first_line(error)}"
            ) from error

    def _loaded(self, wanted: list[Any]) -> npt.NDArray[Any]:
        values = _numbers(self._from_loader(wanted), wanted)
        if values.shape[1:] != self.shape:
            raise DataError(
                f"it has the shape {values.shape[1:]}, and that of {self.ids.id(0)!r} has"
                f" {self.shape}; all must have one shape."
            )
        return values

    def _from_loader(self, wanted: list[Any]) -> Any:
        try:
            return self.load(wanted)
        except Exception as error:  # the caller's code, which may raise anything
            raise DataError(f"{type(error).__name__}: {first_line(error)}") from error


@dataclass(frozen=True, eq=False)
class _OfArray:
    """Reads rows of an array."""

    array: npt.NDArray[Any]
    ids: Ids
    place: Int64
    """The row of each id."""

    def __call__(self, wanted: list[Any]) -> Any:
        return self.array[self.place[self.ids.rows(wanted)]]


@dataclass(frozen=True, eq=False)
class _OfFolder:
    """Reads the files of a folder."""

    folder: Path

    def __call__(self, wanted: list[Any]) -> Any:
        return np.stack(
            [np.load(self.folder / f"{name}.npy", allow_pickle=False) for name in wanted]
        )


@dataclass(frozen=True, eq=False)
class _Renamed:
    """Reads contents by other ids."""

    contents: Contents
    ids: Ids
    old: Int64
    """The row in `contents` of each id."""

    def __call__(self, wanted: list[Any]) -> Any:
        return self.contents.take(self.old[self.ids.rows(wanted)])


@dataclass(frozen=True, eq=False)
class _Either:
    """Reads the first contents where they have an id, else the second."""

    first: Contents
    second: Contents

    def __call__(self, wanted: list[Any]) -> Any:
        newer = np.array([one in self.first.ids for one in wanted])
        found: dict[Any, Any] = {}
        for source, part in ((self.first, newer), (self.second, ~newer)):
            some = [wanted[at] for at in np.flatnonzero(part)]
            if some:
                found |= zip(some, source.read(some), strict=True)
        return np.stack([found[one] for one in wanted])


def checked_contents(name: str, value: Any) -> Contents:
    """Return contents that a caller passed.

    Raises
    ------
    OptionError
        It is something else; the message says how to create them.
    """
    remedy = "Create them with Contents.from_array, from_folder or from_callable."
    found: Contents = an_instance(name, value, Contents, remedy)
    return found


def _distinct(ids: Iterable[Any]) -> tuple[Ids, npt.NDArray[Any]]:
    values, name = (ids.values, ids.name) if isinstance(ids, Ids) else (listed("ids", ids), "")
    known, rows = encode(values, name)
    if len(known) != len(rows):
        raise DataError(
            f"`ids` must be distinct; {len(rows):,} were given, of which {len(known):,} differ."
        )
    return known, rows


def _numbers(found: Any, wanted: list[Any]) -> npt.NDArray[Any]:
    """Return what a loader gave as an array, fractions in float32; refuse anything else."""
    values = np.asarray(found)
    if values.ndim < 2 or len(values) != len(wanted) or values.dtype.kind not in _NUMBERS:
        raise DataError(
            f"it must be an array of numbers of the shape ({len(wanted)}, ...); got"
            f" {values.dtype} of the shape {values.shape}."
        )
    if values.dtype.kind != "f":
        return values
    if not np.isfinite(values).all():
        raise DataError("its values must be finite; got NaN or an infinity.")
    return values.astype(np.float32, copy=False)
