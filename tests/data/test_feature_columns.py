"""The columns of features: rows move to other places, and nothing else changes."""

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from nearfar.data.feature_columns import (
    KINDS,
    NumberColumn,
    TermColumn,
    VectorColumn,
    assembled,
    by_kind,
    no_columns,
    placed_rows,
)

DENSE = np.array([[0, 2, 1], [0, 0, 0], [3, 0, 0]], np.float32)
TERMS = TermColumn("text", sp.csr_array(DENSE), pl.Series(["a", "b", "c"]), weighted=True)
NUMBERS = NumberColumn(np.array([1.5, np.nan, -2.0]))
VECTORS = VectorColumn(np.array([[1, 2], [np.nan, np.nan], [3, 4]], np.float32))
COLUMNS = {"terms": TERMS, "numbers": NUMBERS, "vectors": VECTORS}


def values(column):
    return column.counts.toarray() if isinstance(column, TermColumn) else column.values


@pytest.mark.parametrize("name", COLUMNS)
@given(rows=st.lists(st.integers(-1, 2), max_size=6))
def test_rows_come_where_they_are_placed(name, rows):
    column, nothing = COLUMNS[name], 0.0 if name == "terms" else np.nan
    placed = column.placed(np.array(rows, np.int64))
    assert type(placed) is type(column)
    assert placed.kind == column.kind
    expected = [np.full_like(values(column)[0], nothing) if r < 0 else values(column)[r]
                for r in rows]  # fmt: skip
    np.testing.assert_array_equal(
        values(placed), np.reshape(expected, (len(rows), *values(column).shape[1:]))
    )
    assert placed.present.tolist() == [r in {0, 2} for r in rows]
    if name == "terms":
        assert placed.terms is column.terms
        assert placed.weighted
        assert placed.counts.dtype == np.float32


@pytest.mark.parametrize("name", ["numbers", "vectors"])
def test_what_is_placed_is_a_copy(name):
    column = COLUMNS[name]
    before = column.values.copy()
    column.placed(np.array([0, 1, 2])).values[:] = 9
    np.testing.assert_array_equal(column.values, before)


def test_counts_in_their_own_order_are_not_copied():
    assert placed_rows(TERMS.counts, np.arange(3)) is TERMS.counts
    assert placed_rows(TERMS.counts, np.array([0, 2, 1])) is not TERMS.counts


def test_a_column_says_what_it_holds():
    assert TERMS.about == "text, 3 words"
    assert TermColumn("categories", TERMS.counts, TERMS.terms, True).about == (
        "categories, 3 of them"
    )
    assert TermColumn("matrix", TERMS.counts, TERMS.terms, False).about == "matrix, 3 columns"
    assert NUMBERS.about == "number"
    assert VECTORS.about == "vectors of 2"
    assert {"text", NUMBERS.kind, VECTORS.kind} <= set(KINDS)


def test_fields_are_grouped_by_the_kinds_that_a_table_can_have():
    found = by_kind({"plot": "text", "tags": "matrix", "genres": "categories", "year": "numbers"})
    assert found == {"categories": ["genres"], "text": ["plot"], "numbers": ["year"], "vectors": []}
    assert list(found) == [kind for kind in KINDS if kind != "matrix"]


def test_entries_are_assembled_row_by_row():
    made = assembled(np.array([1, 2, 3], np.float32), np.array([2, 0, 1]), np.array([2, 0, 1]), 4)
    assert made.toarray().tolist() == [[2, 0, 1, 0], [0, 0, 0, 0], [0, 3, 0, 0]]
    assert (made.indices.dtype, made.indptr.dtype, made.dtype) == ("i4", "i4", "f4")


def test_indices_are_wide_where_they_have_to_be():
    made = assembled(np.ones(1, np.float32), np.array([2**31]), np.array([1]), 2**31 + 1)
    assert (made.indices.dtype, made.indptr.dtype) == ("i8", "i8")
    assert made.indices.tolist() == [2**31]


def test_there_are_rows_without_columns():
    made = no_columns(3)
    assert (made.shape, made.nnz, made.dtype) == ((3, 0), 0, np.float32)
