"""Matrices that become columns of features, checked: an error names the id and the column."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp

from nearfar.data.feature_columns import TermColumn, VectorColumn
from nearfar.data.id_values import label, shown
from nearfar.errors import DataError, EmptyDataError, OptionError
from nearfar.runtime.arrays import Bool
from nearfar.runtime.checks import as_array, listed, one_of, said


def matrix_column(
    matrix: Any, ids: pl.Series, field: str, columns: Iterable[str] | None, weight: str | None
) -> TermColumn | VectorColumn:
    """Check a matrix and convert it to a column of features.

    Parameters
    ----------
    matrix : scipy sparse array, or array_like, shape (n, n_columns)
        It is not modified.
    ids : Series, n of them
        The id of each row, for messages; its name is that of the axis.
    field : str
        The name of the field, for messages.
    columns : iterable of str, optional
        The names of the columns.
    weight : {"tf-idf", "centre"}, optional
        As in `nearfar.Features.from_matrix`.

    Raises
    ------
    NearfarError
        As in `nearfar.Features.from_matrix`.
    """
    if weight is not None:
        one_of("weight", weight, ("tf-idf", "centre"))
    if sp.issparse(matrix) and weight == "centre":
        raise OptionError(
            "`weight` can be 'centre' for a dense matrix only: subtracting the mean fills a sparse"
            " one. Pass `matrix.toarray()` if that fits into memory."
        )
    counts = _counts(matrix)
    n, width = counts.shape
    if n != ids.len():
        raise DataError(f"`ids` must be {n:,}, one for each row of the matrix; got {ids.len():,}.")
    if not n or not width:
        raise EmptyDataError(
            f"`matrix` must have at least one row and one column; its shape is {counts.shape}."
        )
    terms = _names(columns, width)
    _refuse(~np.isfinite(counts.data), counts, ids, field, terms, "finite numbers of 32 bits")
    if weight == "tf-idf":
        must = "counts of at least 1 with `weight='tf-idf'`, or 0"
        _refuse(counts.data < 1, counts, ids, field, terms, must)
    if weight == "centre":
        return VectorColumn(counts.toarray())
    return TermColumn("matrix", counts, terms, weighted=weight is not None)


def _counts(matrix: Any) -> sp.csr_array:
    """Return a copy in the form of `TermColumn`; what is not finite is kept."""
    sparse = sp.issparse(matrix)
    given: Any = matrix if sparse else as_array(matrix)
    if given.ndim != 2 or (given.dtype.kind not in "biuf" and 0 not in given.shape):
        what = f"{given.dtype} of shape {given.shape}" if sparse else said(matrix)
        raise DataError(
            "`matrix` must be a matrix of numbers with one row for each id: a scipy sparse array,"
            f" or an array of two dimensions; got {what}."
        )
    if max(given.shape) >= 2**31:
        raise DataError(f"`matrix` must have less than 2^31 rows and columns; got {given.shape}.")
    if given.dtype == np.float16:  # scipy has no sparse arrays of it
        given = given.astype(np.float32)
    with np.errstate(over="ignore"):
        counts = sp.csr_array(given, copy=True)
        counts.sum_duplicates()  # in the type of the caller, where sums are exact
        counts = counts.astype(np.float32)
    counts.eliminate_zeros()
    return counts


def _names(columns: Iterable[str] | None, width: int) -> pl.Series:
    """Return the names of the columns, or their numbers."""
    if columns is None:
        return pl.Series(np.arange(width, dtype=np.int32))
    found = listed("columns", columns, "names")
    wrong = [one for one in found if not isinstance(one, str)]
    if wrong:
        raise DataError(f"`columns` must be names of type str; got {said(wrong[0])}.")
    if len(found) != width:
        raise DataError(
            f"`columns` must be {width:,} names, one for each column of the matrix; got"
            f" {len(found):,}."
        )
    names = pl.Series([str(one) for one in found], dtype=pl.String)
    twice = names.is_duplicated()
    if twice.any():
        raise DataError(f"`columns` has {shown(names.filter(twice)[0])} more than once.")
    return names


def _refuse(
    bad: Bool, counts: sp.csr_array, ids: pl.Series, field: str, terms: pl.Series, must: str
) -> None:
    """Raise an error for the first bad entry."""
    if not bad.any():
        return
    at = int(bad.argmax())
    row = int(np.searchsorted(counts.indptr, at, side="right")) - 1
    raise DataError(
        f"The matrix {field!r} must hold {must}; {label(ids.name)} {shown(ids[row])} has"
        f" {counts.data[at]:g} in column {shown(terms[int(counts.indices[at])])}. Correct or drop"
        " such values."
    )
