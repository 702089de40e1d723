"""What is fitted for one field of features, and the columns of numbers that it makes.

A block is fitted on the column of a field, at the rows of training items, and encodes other rows
with what it has learned then. The rows that it makes are scaled by `nearfar.data.feature_space`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import polars as pl
import scipy.sparse as sp

from nearfar.data.feature_columns import (
    FeatureColumn,
    NumberColumn,
    TermColumn,
    VectorColumn,
    assembled,
    no_columns,
    placed_rows,
)
from nearfar.data.feature_values import places
from nearfar.errors import DataError
from nearfar.runtime.arrays import Float32, Float64, Int32, Int64

_FAR: Final = 1e6
"""Standardised numbers are cut to +-1e6, where the next step loses nothing."""
_NEAR: Final = 1e-5
"""Vectors this near to the mean, as a share of the usual distance, are rounding errors."""
_ROWS: Final = 2**14
"""Vectors are taken so many at a time, in float64."""
_NO_FRAME: Final = pl.DataFrame()


class FeatureBlock(Protocol):
    """What is fitted for one field."""

    @property
    def kind(self) -> str:
        """The kind of the field: one of `nearfar.data.feature_columns.KINDS`."""

    @property
    def width(self) -> int:
        """The number of its columns; 0 if nothing could be learned from it."""

    def encode(self, column: Any, rows: Int32) -> tuple[sp.csr_array, int]:
        """Return the values of some rows, before scaling, and the number of unknown terms.

        Parameters
        ----------
        column : FeatureColumn
            The field, of the kind of the block.
        rows : int32 array, shape (n,)
            Rows of `column`; -1 for one without values.

        Returns
        -------
        csr_array, float32, shape (n, width)
        int
        """

    def column_names(self, name: str) -> list[str]:
        """Return the names of the columns of a field called `name`."""

    def to_store(self) -> tuple[dict[str, Any], pl.DataFrame]:
        """Return metadata, as JSON values, and a frame."""


# ------------------------------------------------------------------------------------ terms


@dataclass(frozen=True, eq=False)
class TermBlock:
    """The vocabulary of a field, and how many training items have each term.

    A term t that occurs tf times in a row has the value ``(1 + ln tf) idf_t``, where
    ``idf_t = ln((1 + n) / (1 + df_t)) + 1``; n is the number of training items that have any term
    of the field, df_t of those that have t. The columns of a matrix without a weight keep their
    values.

    Examples
    --------
    >>> counts = sp.csr_array(np.array([[1, 0, 1], [1, 3, 0]], np.float32))
    >>> column = TermColumn("text", counts, pl.Series(["a", "b", "c"]), weighted=True)
    >>> block = TermBlock.fit(column, np.array([0], np.int32))
    >>> block.terms.to_list(), block.n
    (['a', 'c'], 1)
    >>> values, unknown = block.encode(column, np.array([1, 0], np.int32))
    >>> values.toarray().tolist(), unknown
    ([[1.0, 0.0], [1.0, 1.0]], 1)
    """

    kind: str
    """"categories", "text" or "matrix"."""
    terms: pl.Series
    """The terms, distinct, in the order of the columns: text, or Int32 as in `TermColumn`."""
    frequency: Int64
    """df, shape (width,)."""
    n: int
    """The number of training items that have any of the terms."""
    weighted: bool
    """Whether values are TF-IDF."""
    n_terms: int
    """The number of terms that the column had."""

    @classmethod
    def fit(cls, column: TermColumn, rows: Int32) -> TermBlock:
        """Find the terms of some rows of a column, and count the rows that have each."""
        counts = placed_rows(column.counts, rows)
        n = int(np.count_nonzero(np.diff(counts.indptr)))
        frequency = np.bincount(counts.indices, minlength=column.terms.len()).astype(np.int64)
        kept = np.flatnonzero(frequency)
        terms = column.terms[pl.Series(kept)]
        return cls(column.kind, terms, frequency[kept], n, column.weighted, column.terms.len())

    @property
    def width(self) -> int:
        """The number of terms."""
        return self.terms.len()

    @property
    def idf(self) -> Float32:
        """The inverse document frequency of each term, float32, shape (width,)."""
        found: Float32 = (np.log((1 + self.n) / (1 + self.frequency)) + 1).astype(np.float32)
        return found

    def encode(self, column: TermColumn, rows: Int32) -> tuple[sp.csr_array, int]:
        """Return the values of the known terms, and the number of values of unknown terms.

        Raises
        ------
        DataError
            If the columns of a matrix are named here and not there, or differ in number, or only
            one of the two is weighted.
        """
        self._check(column)
        counts = placed_rows(column.counts, rows)
        codes = places(column.terms, self.terms)[counts.indices]
        values, lengths = counts.data, np.diff(counts.indptr).astype(np.int64)
        kept = codes >= 0
        unknown = int(kept.size - np.count_nonzero(kept))
        if unknown:
            before = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept, dtype=np.int64)])
            lengths = np.diff(before[counts.indptr])
            codes, values = codes[kept], values[kept]
        # copied in either case, because they are sorted and scaled in place
        values = (1 + np.log(values)) * self.idf[codes] if self.weighted else values.copy()
        made = assembled(values, codes, lengths, self.width)
        made.sort_indices()
        return made, unknown

    def _check(self, column: TermColumn) -> None:
        if column.terms.dtype != self.terms.dtype:
            named = "has" if column.terms.dtype == pl.String else "lacks"
            raise DataError(
                f"the matrix {named} names of its columns, unlike the one that was fitted. Give"
                " `columns` to both or to neither"
            )
        if self.terms.dtype != pl.String and column.terms.len() != self.n_terms:
            raise DataError(
                f"the matrix must have {self.n_terms:,} columns, as the one that was fitted; it has"
                f" {column.terms.len():,}. Give `columns` to both, to match them by name"
            )
        if column.weighted != self.weighted:
            raise DataError(
                "one of the matrix and the one that was fitted has `weight='tf-idf'`. Give the same"
                " to both"
            )

    def column_names(self, name: str) -> list[str]:
        """Return names such as ``genres=drama``, ``plot: friends`` and ``tags: 7``."""
        mark = "=" if self.kind == "categories" else ": "
        return [f"{name}{mark}{term}" for term in self.terms.to_list()]

    def to_store(self) -> tuple[dict[str, Any], pl.DataFrame]:
        """Return metadata, and a frame with the columns term and frequency."""
        meta = {"n": self.n, "weighted": self.weighted, "n_terms": self.n_terms}
        return meta, pl.DataFrame({"term": self.terms, "frequency": self.frequency})

    @classmethod
    def from_store(cls, kind: str, meta: Mapping[str, Any], frame: pl.DataFrame) -> TermBlock:
        """Read back what `to_store` returned; ValueError if it is inconsistent."""
        terms, frequency = frame["term"], frame["frequency"]
        n, weighted, n_terms = int(meta["n"]), meta["weighted"], int(meta["n_terms"])
        fits = terms.dtype == pl.String or (kind == "matrix" and terms.dtype == pl.Int32)
        if not fits or terms.null_count() or terms.n_unique() != terms.len():
            raise ValueError("its terms are not distinct texts")
        if frequency.dtype != pl.Int64 or frequency.null_count():
            raise ValueError("its frequencies are not whole numbers")
        df = frequency.to_numpy().copy()
        if df.size and not (df.min() >= 1 and df.max() <= n and df.size <= n_terms):
            raise ValueError(f"its frequencies are not from 1 to {n}")
        if not isinstance(weighted, bool):
            raise ValueError(f"weighted is {weighted!r}")
        return cls(kind, terms.alias(""), df, n, weighted, n_terms)


# ---------------------------------------------------------------------------------- numbers


@dataclass(frozen=True, eq=False)
class NumberBlock:
    """The mean and the standard deviation of a number, over the training items that have it.

    A number x has two columns: ``(z, 1) / sqrt(1 + z^2)``, with ``z = (x - mean) / deviation``. The
    length of the two is 1, so an outlier weighs no more than others, and the second one says that
    the number is known. Both are 0 where it is not.

    Examples
    --------
    >>> column = NumberColumn(np.array([1.0, 3.0, np.nan]))
    >>> block = NumberBlock.fit(column, np.array([0, 1], np.int32))
    >>> block.mean, block.deviation
    (2.0, 1.0)
    >>> block.encode(column, np.array([1, 2], np.int32))[0].toarray().tolist()
    [[0.70710..., 0.70710...], [0.0, 0.0]]
    """

    mean: float
    deviation: float
    """0 if all numbers are equal or there are none; the block has no columns then."""
    kind: str = "numbers"

    @classmethod
    def fit(cls, column: NumberColumn, rows: Int32) -> NumberBlock:
        """Find the mean and the standard deviation of the numbers at some rows."""
        found = column.values[rows]
        found = found[~np.isnan(found)]
        if not found.size or found.min() == found.max():
            return cls(float(found[0]) if found.size else 0.0, 0.0)
        scale = float(np.abs(found).max())  # the squares of large numbers are infinite
        part = found / scale
        return cls(float(part.mean()) * scale, float(part.std()) * scale)

    @property
    def width(self) -> int:
        """2, or 0."""
        return 2 if self.deviation else 0

    def encode(self, column: NumberColumn, rows: Int32) -> tuple[sp.csr_array, int]:
        """Return both columns of the numbers at some rows, and 0."""
        found = column.placed(rows).values
        there = ~np.isnan(found)
        if not self.width:
            return no_columns(rows.size), 0
        with np.errstate(over="ignore"):
            z = np.clip((found[there] - self.mean) / self.deviation, -_FAR, _FAR)
        values = (np.stack([z, np.ones_like(z)], axis=1) / np.hypot(z, 1.0)[:, None]).ravel()
        indices = np.tile(np.arange(2, dtype=np.int32), z.size)
        return assembled(values.astype(np.float32), indices, 2 * there.astype(np.int64), 2), 0

    def column_names(self, name: str) -> list[str]:
        """Return such as ``year`` and ``year is known``."""
        return [name, f"{name} is known"][: self.width]

    def to_store(self) -> tuple[dict[str, Any], pl.DataFrame]:
        """Return metadata, and a frame without columns."""
        return {"mean": self.mean, "deviation": self.deviation}, _NO_FRAME

    @classmethod
    def from_store(cls, kind: str, meta: Mapping[str, Any], frame: pl.DataFrame) -> NumberBlock:
        """Read back what `to_store` returned; ValueError if it is inconsistent."""
        mean, deviation = float(meta["mean"]), float(meta["deviation"])
        if not (np.isfinite(mean) and np.isfinite(deviation) and deviation >= 0):
            raise ValueError(f"its mean is {mean} and its deviation {deviation}")
        return cls(mean, deviation)


# ---------------------------------------------------------------------------------- vectors


@dataclass(frozen=True, eq=False)
class VectorBlock:
    """The mean of vectors, and their usual distance from it, over the training items.

    A vector v becomes ``v - mean``; it is nothing if it equals the mean but for rounding errors.

    Examples
    --------
    >>> column = VectorColumn(np.array([[1.0, 5.0], [3.0, 5.0]], np.float32))
    >>> block = VectorBlock.fit(column, np.array([0, 1], np.int32))
    >>> block.mean.tolist(), block.scale
    ([2.0, 5.0], 1.0)
    >>> block.encode(column, np.array([0], np.int32))[0].toarray().tolist()
    [[-1.0, 0.0]]
    """

    mean: Float64
    """Shape (width of the vectors,)."""
    scale: float
    """The root mean square distance from the mean; 0 if all vectors are equal or there are none,
    and the block has no columns then."""
    kind: str = "vectors"

    @classmethod
    def fit(cls, column: VectorColumn, rows: Int32) -> VectorBlock:
        """Find the mean of the vectors at some rows, and their distance from it."""
        rows = rows[column.present[rows]]
        if not rows.size:
            return cls(np.zeros(column.values.shape[1]), 0.0)
        parts = [rows[start : start + _ROWS] for start in range(0, rows.size, _ROWS)]
        wide = (column.values[part].astype(np.float64) for part in parts)
        mean = sum(part.sum(axis=0) for part in wide) / rows.size
        wide = (column.values[part] - mean for part in parts)
        scale = float(np.sqrt(sum(float((part * part).sum()) for part in wide) / rows.size))
        return cls(mean, scale if scale > _NEAR * float(np.linalg.norm(mean)) else 0.0)

    @property
    def width(self) -> int:
        """The width of the vectors, or 0."""
        return self.mean.size if self.scale else 0

    def encode(self, column: VectorColumn, rows: Int32) -> tuple[sp.csr_array, int]:
        """Return the centred vectors at some rows, and 0.

        Raises
        ------
        DataError
            If the vectors have another width than those that were fitted.
        """
        if column.values.shape[1] != self.mean.size:
            raise DataError(
                f"the vectors must have {self.mean.size:,} numbers, as those that were fitted; they"
                f" have {column.values.shape[1]:,}"
            )
        if not self.width:
            return no_columns(rows.size), 0
        there = (rows >= 0) & column.present[rows]
        made = column.values[rows[there]]
        made -= self.mean  # in float64, buffered
        lengths = np.sqrt(np.einsum("ij,ij->i", made, made, dtype=np.float64))
        far = lengths > _NEAR * self.scale
        there[there] = far
        indices = np.tile(np.arange(self.width, dtype=np.int32), int(far.sum()))
        return assembled(made[far].ravel(), indices, self.width * there.astype(np.int64),
                         self.width), 0  # fmt: skip

    def column_names(self, name: str) -> list[str]:
        """Return names such as ``image[7]``."""
        return [f"{name}[{i}]" for i in range(self.width)]

    def to_store(self) -> tuple[dict[str, Any], pl.DataFrame]:
        """Return metadata, and a frame with the column mean."""
        return {"scale": self.scale}, pl.DataFrame({"mean": self.mean})

    @classmethod
    def from_store(cls, kind: str, meta: Mapping[str, Any], frame: pl.DataFrame) -> VectorBlock:
        """Read back what `to_store` returned; ValueError if it is inconsistent."""
        mean, scale = frame["mean"].to_numpy().astype(np.float64), float(meta["scale"])
        if not (mean.size and np.isfinite(mean).all() and np.isfinite(scale) and scale >= 0):
            raise ValueError("its mean or its scale is not finite")
        return cls(mean, scale)


BLOCKS: Final[Mapping[str, Any]] = {
    "categories": TermBlock,
    "text": TermBlock,
    "matrix": TermBlock,
    "numbers": NumberBlock,
    "vectors": VectorBlock,
}
"""The class of block of each kind of field."""


def fitted(column: FeatureColumn, rows: Int32) -> FeatureBlock:
    """Return the block that is fitted on some rows of a column."""
    made: FeatureBlock = BLOCKS[column.kind].fit(column, rows)
    return made
