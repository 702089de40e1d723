"""`FeatureSpace`: how features become rows of numbers; fitted on training items and saved.

For item j with the fields f that it has, of which block f makes the row x_jf:

    x_j = concatenation over f of  gain_f x_jf / |x_jf|,   divided by its length,

so that ``|x_j| = 1`` for every item that has any feature. `nearfar.data.feature_blocks` has the
formula of x_jf for each kind of field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import scipy.sparse as sp

from nearfar.data.feature_blocks import BLOCKS, FeatureBlock, fitted
from nearfar.data.features import Features, checked_features
from nearfar.data.id_values import label
from nearfar.data.ids import Ids
from nearfar.errors import DataError, OptionError, StoreError
from nearfar.runtime.arrays import Bool, Float64, Int32
from nearfar.runtime.caller import warn
from nearfar.runtime.checks import an_instance, as_array, real, said
from nearfar.runtime.forks import check_fork

_ENOUGH: Final = 0.9
"""The share of training items that should have features."""
_NO_GAINS: Final[Mapping[str, float]] = MappingProxyType({})


class Encoded(NamedTuple):
    """The rows of some items, and what could not be used of their features."""

    matrix: sp.csr_array
    """float32, shape (n, n_columns), with sorted int32 indices; rows of length 1, or empty."""
    missing: Bool
    """Which rows are empty, shape (n,): there are no features of the item, or none that count."""
    unknown: dict[str, int]
    """For each field, how many words or categories (of one item each) no training item has."""


class FeatureField(NamedTuple):
    """One field and its columns."""

    name: str
    kind: str
    """One of `nearfar.data.feature_columns.KINDS`."""
    columns: slice
    """Its columns of the matrix."""


@dataclass(frozen=True, eq=False, repr=False)
class FeatureSpace:
    """The columns of numbers that features become.

    Created by `fit`. A field of which nothing can be learned, such as a constant number, has no
    columns.

    Examples
    --------
    >>> films = pl.DataFrame({"item_id": [1, 2, 3], "genre": ["war", "war", "drama"],
    ...                       "year": [1950, 1970, 1990]})
    >>> features = Features.from_frame(films, categories="genre", numbers="year")
    >>> axis, known = Ids([1, 2, 3], "item"), np.array([True, True, False])
    >>> space = FeatureSpace.fit(features, axis, known, gains={"genre": 1.0})
    >>> space
    FeatureSpace(3 columns: genre (1), year (2))
    >>> space.column_names()
    ['genre=war', 'year', 'year is known']
    >>> space.encode(features, axis).unknown
    {'genre': 1, 'year': 0}
    """

    blocks: Mapping[str, FeatureBlock]
    """What is fitted for each field, by name, in the order of the columns."""
    gains: Mapping[str, float]
    """The gain of each field."""

    @classmethod
    def fit(
        cls,
        features: Features,
        ids: Ids,
        known: npt.ArrayLike,
        gains: Mapping[str, float] = _NO_GAINS,
    ) -> FeatureSpace:
        """Learn vocabularies, frequencies, means and scales from the training items.

        Parameters
        ----------
        features : Features
            Features of these and perhaps of other items.
        ids : Ids, M of them
            The items, or users, of the model.
        known : bool array, shape (M,)
            Those that have training pairs; nothing is learned from others.
        gains : mapping of str to float
            The gain of fields by name, a positive number; 1 for those not given.

        Warns
        -----
        NearfarWarning
            If less than 90 % of the known items have features, or a field has no columns.

        Raises
        ------
        OptionError
            If a gain is not positive or not of a field, or an argument is of another type.
        DataError
            If no known item has features, such as because the ids are integers here and text there;
            or nothing can be learned from any field.
        """
        check_fork()
        checked_features("features", features)
        an_instance("ids", ids, Ids)
        used = _checked_known(known, len(ids))
        weights = _checked_gains(gains, features)
        places = ids.places(features.ids)
        found = np.flatnonzero((places >= 0) & used[places]).astype(np.int32)
        check_cover(features.ids, _n_present(features, found), ids, int(used.sum()))
        blocks = {name: fitted(column, found) for name, column in features.columns.items()}
        _check_blocks(blocks, label(ids.name))
        return cls(blocks, weights)

    @property
    def n_columns(self) -> int:
        """The number of columns."""
        return sum(block.width for block in self.blocks.values())

    @cached_property
    def fields(self) -> tuple[FeatureField, ...]:
        """The fields in the order of their columns."""
        made, start = [], 0
        for name, block in self.blocks.items():
            made.append(FeatureField(name, block.kind, slice(start, start + block.width)))
            start += block.width
        return tuple(made)

    def column_names(self) -> list[str]:
        """Return the name of each column, such as ``genres=drama`` or ``plot: friends``."""
        return [one for name, block in self.blocks.items() for one in block.column_names(name)]

    def __repr__(self) -> str:
        fields = ", ".join(f"{name} ({block.width:,})" for name, block in self.blocks.items())
        return f"FeatureSpace({self.n_columns:,} columns: {fields})"

    def encode(self, features: Features, ids: Ids | None = None) -> Encoded:
        """Make the rows of some items from their features.

        Parameters
        ----------
        features : Features
            It must have the fields of those that were fitted.
        ids : Ids, optional
            The items, one a row; those without features have an empty row, and features of others
            are ignored. By default the items of `features`.

        Raises
        ------
        DataError
            If a field is missing, new, or of another kind or width; or if the ids are integers here
            and text there.
        """
        check_fork()
        checked_features("features", features)
        self._check_fields(features)
        rows = _rows(features, ids)
        parts, unknown = [], {}
        for name, block in self.blocks.items():
            try:
                part, unknown[name] = block.encode(features.columns[name], rows)
            except DataError as error:
                raise DataError(f"Field {name!r}: {error}.") from error
            parts.append(part)
        matrix = _scaled(parts, list(self.gains.values()))
        return Encoded(matrix, np.diff(matrix.indptr) == 0, unknown)

    def _check_fields(self, features: Features) -> None:
        mine = {name: block.kind for name, block in self.blocks.items()}
        theirs = dict(features.fields)
        lacking = [name for name in mine if name not in theirs]
        others = [name for name in theirs if name not in mine]
        if lacking or others:
            what = f"lack {lacking[0]!r}" if lacking else f"have {others[0]!r} as well"
            raise DataError(
                f"`features` must have the fields that the model was fitted with,"
                f" {', '.join(mine)}; these {what}. Create them with the same columns; values can"
                " be null."
            )
        for name, kind in mine.items():
            if theirs[name] != kind:
                raise DataError(
                    f"The field {name!r} must be {kind}, as the model was fitted with; it is"
                    f" {theirs[name]} in `features`. Create them with the same arguments."
                )

    def to_store(self) -> tuple[dict[str, Any], dict[str, pl.DataFrame]]:
        """Return metadata, as JSON values, and frames for `nearfar.runtime.store` to write.

        The frame ``field_0`` is of the first field, and so on; fields of numbers have none.
        """
        fields, frames = [], {}
        for i, (name, block) in enumerate(self.blocks.items()):
            meta, frame = block.to_store()
            fields.append({"name": name, "kind": block.kind, "gain": self.gains[name], **meta})
            if frame.width:
                frames[f"field_{i}"] = frame
        return {"n_columns": self.n_columns, "fields": fields}, frames

    @classmethod
    def from_store(
        cls, meta: Mapping[str, Any], frames: Mapping[str, pl.DataFrame]
    ) -> FeatureSpace:
        """Read back what `to_store` returned; additional entries of either are ignored.

        Raises
        ------
        StoreError
            If the contents do not have the form that `to_store` returns.
        """
        blocks: dict[str, FeatureBlock] = {}
        gains = {}
        try:
            for i, one in enumerate(meta["fields"]):
                name, kind = str(one["name"]), one["kind"]
                frame = frames.get(f"field_{i}", pl.DataFrame())
                try:
                    blocks[name] = BLOCKS[kind].from_store(kind, one, frame)
                    gains[name] = real("gain", one["gain"], above=0)
                except (KeyError, TypeError, ValueError, pl.exceptions.PolarsError) as error:
                    raise ValueError(f"field {name!r}: {error}") from error
            if len(blocks) != len(meta["fields"]):
                raise ValueError("two fields have one name")
            made = cls(blocks, gains)
            if made.n_columns != meta["n_columns"] or not made.n_columns:
                raise ValueError(f"{meta['n_columns']} columns expected, {made.n_columns} found")
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"The saved features are not readable: {error!r}.") from error
        return made


def _rows(features: Features, ids: Ids | None) -> Int32:
    """Return the row of `features` of each id, -1 if there is none."""
    if ids is None:
        return np.arange(len(features), dtype=np.int32)
    an_instance("ids", ids, Ids)
    if len(ids) and len(features) and ids.kind != features.ids.kind:
        raise DataError(_kinds(features.ids, ids))
    return features.ids.places(ids)


def _kinds(theirs: Ids, ids: Ids, what: str = "features") -> str:
    name = label(ids.name or theirs.name)
    return (
        f"The {name}s of the {what} are {theirs.kind} ({theirs.dtype}), such as"
        f" {theirs.id(0)!r}, and those of the data {ids.kind} ({ids.dtype}), such as"
        f" {ids.id(0)!r}. They must be of the same kind; convert one of the two with"
        " `with_ids_like`."
    )


def _checked_known(known: npt.ArrayLike, n: int) -> Bool:
    used = as_array(known)
    if used.dtype != np.bool_ or used.shape != (n,):
        raise OptionError(f"`known` must be bool, one for each of {n:,} ids; got {said(known)}.")
    return used


def _checked_gains(gains: Mapping[str, float], features: Features) -> dict[str, float]:
    """Return the gain of every field."""
    an_instance("gains", gains, Mapping, "Give the gain of each field by its name.")
    for name in gains:
        if name not in features.columns:
            raise OptionError(
                f"`gains` must name fields, which are {', '.join(features.columns)}; got"
                f" {said(name)}."
            )
    checked = {name: real(f"gains[{name!r}]", gain, above=0) for name, gain in gains.items()}
    return {name: checked.get(name, 1.0) for name in features.columns}


def check_cover(given: Ids, n: int, ids: Ids, n_known: int, what: str = "features") -> None:
    """Warn if few of the known items have features, and refuse if none has.

    Parameters
    ----------
    given : Ids
        Those of the features.
    n : int
        Number of known items that have features.
    ids : Ids
        The items of the model.
    n_known : int
        Number of those with training pairs.
    what : str
        What the features are called.

    Warns
    -----
    NearfarWarning
        Less than 90 % have.

    Raises
    ------
    DataError
        None has.
    """
    name = label(ids.name or given.name)
    if not n and n_known and len(given) and ids.kind != given.kind:
        raise DataError(_kinds(given, ids, what))
    if not n:
        raise DataError(
            f"None of the {n_known:,} {name}s with training pairs has {what}; there are {what}"
            f" of {len(given):,}, such as {given.id(0)!r}. Check that both are the same ids."
        )
    if n < _ENOUGH * n_known:
        warn(
            f"only {n:,} of the {n_known:,} {name}s with training pairs have {what}; the others"
            " are learned from their pairs alone. Check that both are the same ids."
        )


def _n_present(features: Features, rows: Int32) -> int:
    """Return how many rows have a value in any field."""
    present = np.zeros(rows.size, np.bool_)
    for column in features.columns.values():
        present |= column.present[rows]
    return int(present.sum())


def _check_blocks(blocks: Mapping[str, FeatureBlock], name: str) -> None:
    """Warn of fields without columns, and refuse if no field has any."""
    empty = [field for field, block in blocks.items() if not block.width]
    why = f"all {name}s with training pairs have the same value in it, or none"
    if len(empty) == len(blocks):
        raise DataError(
            f"Nothing can be learned from the features {', '.join(empty)}: {why}. Give others."
        )
    for field in empty:
        warn(f"the field {field!r} is left out: {why}.")


def _scaled(parts: list[sp.csr_array], gains: list[float]) -> sp.csr_array:
    """Join the blocks of rows: each to its gain, then each whole row to length 1."""
    lengths = [row_lengths(part) for part in parts]
    squares = sum(gain**2 * (length > 0) for gain, length in zip(gains, lengths, strict=True))
    whole = np.sqrt(np.maximum(squares, np.finfo(np.float64).tiny))
    for part, gain, length in zip(parts, gains, lengths, strict=True):
        factor = gain / (np.where(length > 0, length, 1.0) * whole)
        factors = np.repeat(factor, np.diff(part.indptr))
        part.data = (part.data * factors).astype(np.float32)
    return parts[0] if len(parts) == 1 else sp.csr_array(sp.hstack(parts, format="csr"))


def row_lengths(part: sp.csr_array) -> Float64:
    """Return the length of each row."""
    made = np.zeros(part.shape[0])
    filled = np.flatnonzero(np.diff(part.indptr))
    if filled.size:
        squares = np.square(part.data, dtype=np.float64)
        made[filled] = np.sqrt(np.add.reduceat(squares, part.indptr[filled]))
    return made
