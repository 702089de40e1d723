"""The columns of `Features`: counts of terms, numbers, or vectors; one row for each id.

A column holds what the caller said and nothing that is fitted: no weights, means or scales. Terms
are the words of a text, the categories of an item, or the columns of a matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import polars as pl
import scipy.sparse as sp

from nearfar.runtime.arrays import Bool, Float32, Float64, Integers

KINDS: Final = ("categories", "text", "numbers", "vectors", "matrix")
"""The kinds of fields."""


def by_kind(kinds: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the fields of each kind that a table can have, as `Features.from_frame` takes them.

    Examples
    --------
    >>> by_kind({"genres": "categories", "year": "numbers", "tags": "categories"})
    {'categories': ['genres', 'tags'], 'text': [], 'numbers': ['year'], 'vectors': []}
    """
    return {part: [n for n, kind in kinds.items() if kind == part] for part in KINDS[:-1]}


class FeatureColumn(Protocol):
    """One field of `Features`."""

    @property
    def kind(self) -> str:
        """One of `KINDS`."""

    @property
    def present(self) -> Bool:
        """Which rows have a value, bool, shape (n,)."""

    @property
    def about(self) -> str:
        """A few words for ``repr``."""

    def placed(self, rows: Integers) -> FeatureColumn:
        """Return the column with row ``rows[i]`` in row i, and no value where that is -1."""


@dataclass(frozen=True, eq=False)
class TermColumn:
    """How often each term occurs in each row: categories, the words of texts, or a matrix.

    Examples
    --------
    >>> counts = sp.csr_array(np.array([[1, 0], [0, 2]], np.float32))
    >>> column = TermColumn("text", counts, pl.Series(["jam", "tea"]), weighted=True)
    >>> column.placed(np.array([1, -1])).counts.toarray().tolist()
    [[0.0, 2.0], [0.0, 0.0]]
    """

    kind: str
    """"categories", "text" or "matrix"."""
    counts: sp.csr_array
    """float32, shape (n, n_terms), without stored zeros; the indices of a row increase."""
    terms: pl.Series
    """The distinct terms, text; or 0, 1, ... (Int32), if the columns of a matrix have no names."""
    weighted: bool
    """Whether counts are to be weighted by TF-IDF."""

    @property
    def present(self) -> Bool:
        """Which rows have at least one term."""
        return np.diff(self.counts.indptr) > 0

    @property
    def about(self) -> str:
        """The kind and the number of terms."""
        what = {"text": "words", "matrix": "columns"}.get(self.kind, "of them")
        return f"{self.kind}, {self.terms.len():,} {what}"

    def placed(self, rows: Integers) -> TermColumn:
        """Return the column with row ``rows[i]`` in row i, and no terms where that is -1."""
        return TermColumn(self.kind, placed_rows(self.counts, rows), self.terms, self.weighted)


@dataclass(frozen=True, eq=False)
class NumberColumn:
    """One number for each row."""

    values: Float64
    """Shape (n,); NaN where there is no number."""
    kind: str = "numbers"

    @property
    def present(self) -> Bool:
        """Which rows have a number."""
        return ~np.isnan(self.values)

    @property
    def about(self) -> str:
        """The kind."""
        return "number"

    def placed(self, rows: Integers) -> NumberColumn:
        """Return the column with row ``rows[i]`` in row i, and no number where that is -1."""
        return NumberColumn(np.where(rows >= 0, self.values[rows], np.nan))


@dataclass(frozen=True, eq=False)
class VectorColumn:
    """One vector of a fixed width for each row."""

    values: Float32
    """Shape (n, width); a row of NaN where there is no vector."""
    kind: str = "vectors"

    @property
    def present(self) -> Bool:
        """Which rows have a vector."""
        return ~np.isnan(self.values[:, 0])

    @property
    def about(self) -> str:
        """The kind and the width."""
        return f"vectors of {self.values.shape[1]:,}"

    def placed(self, rows: Integers) -> VectorColumn:
        """Return the column with row ``rows[i]`` in row i, and no vector where that is -1."""
        values = self.values[rows]
        values[rows < 0] = np.nan
        return VectorColumn(values)


def placed_rows(matrix: sp.csr_array, rows: Integers) -> sp.csr_array:
    """Return a matrix with row ``rows[i]`` of `matrix` in row i, empty where that is -1.

    Examples
    --------
    >>> placed_rows(sp.csr_array(np.array([[1.0], [2.0]])), np.array([-1, 1])).toarray().tolist()
    [[0.0], [2.0]]
    """
    n = matrix.shape[0]
    if rows.size == n and bool((rows == np.arange(n)).all()):
        return matrix  # a copy of what may be gigabytes
    found = rows >= 0
    part = matrix[rows[found]]
    lengths = np.zeros(rows.size, np.int64)
    lengths[found] = np.diff(part.indptr)
    return assembled(part.data, part.indices, lengths, matrix.shape[1])


def no_columns(n: int) -> sp.csr_array:
    """Return n rows without columns."""
    return assembled(np.zeros(0, np.float32), np.zeros(0, np.int32), np.zeros(n, np.int64), 0)


def assembled(values: Float32, indices: Integers, lengths: Integers, width: int) -> sp.csr_array:
    """Return the sparse matrix of these entries, of which row i has ``lengths[i]``.

    The indices are int32 unless there are 2^31 entries or more.
    """
    indptr = np.zeros(lengths.size + 1, np.int64)
    np.cumsum(lengths, out=indptr[1:])
    narrow = max(int(indptr[-1]), width) < 2**31
    dtype = np.int32 if narrow else np.int64
    return sp.csr_array(
        (values, indices.astype(dtype, copy=False), indptr.astype(dtype)), (lengths.size, width)
    )
