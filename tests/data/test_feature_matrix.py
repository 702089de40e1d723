"""Matrices become columns of features, or an error names the id and the column."""

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from nearfar.data.feature_columns import TermColumn, VectorColumn
from nearfar.data.feature_matrix import matrix_column
from nearfar.errors import DataError, EmptyDataError, OptionError

EYE = np.eye(2)


def column(matrix, ids="ab", columns=None, weight=None):
    return matrix_column(matrix, pl.Series("item", list(ids)), "tags", columns, weight)


@pytest.mark.parametrize("weight", [None, "tf-idf"])
@pytest.mark.parametrize(
    "make",
    [np.asarray, np.ndarray.tolist, sp.csr_array, sp.csc_array, sp.coo_matrix, sp.lil_matrix],
)
def test_every_kind_of_matrix_is_a_column_of_counts(make, weight):
    made = column(make(np.array([[0.0, 2.0, 0.0], [1.0, 0.0, 3.0]])), weight=weight)
    assert isinstance(made, TermColumn)
    assert (made.kind, made.weighted) == ("matrix", weight == "tf-idf")
    assert made.counts.toarray().tolist() == [[0, 2, 0], [1, 0, 3]]
    assert (made.counts.dtype, made.counts.nnz) == (np.float32, 3)
    assert made.counts.has_sorted_indices
    assert made.terms.dtype == pl.Int32
    assert made.terms.to_list() == [0, 1, 2]


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint64, np.float16, np.float64])
def test_numbers_of_every_type_are_kept_as_float32(dtype):
    assert column(EYE.astype(dtype)).counts.toarray().tolist() == EYE.tolist()


def test_names_of_columns_are_kept_in_their_order():
    made = column(np.ones((2, 2)), columns=iter(["y", "x"]))
    assert made.terms.to_list() == ["y", "x"]
    assert made.terms.dtype == pl.String


def test_zeros_that_are_stored_are_dropped_and_duplicates_are_added():
    matrix = sp.coo_array(([1, 2, 0, 1, -1], ([0, 0, 1, 1, 1], [1, 1, 0, 1, 1])), shape=(2, 2))
    made = column(matrix)
    assert made.counts.toarray().tolist() == [[0, 3], [0, 0]]
    assert made.counts.nnz == 1


def test_duplicates_are_added_exactly():
    """2^24 + 1 + 1 is 2^24 if it is added in float32."""
    matrix = sp.coo_array(([2**24, 1, 1], ([0, 0, 0], [0, 0, 0])), shape=(1, 1))
    assert column(matrix, "a").counts.toarray().tolist() == [[2**24 + 2]]


@pytest.mark.parametrize("weight", [None, "tf-idf", "centre"])
def test_the_matrix_is_copied(weight):
    dense = np.ones((2, 2), np.float32)
    made = column(dense, weight=weight)
    dense[:] = 5
    kept = made.values if weight == "centre" else made.counts.toarray()
    assert kept.tolist() == [[1, 1], [1, 1]]
    if weight != "centre":
        sparse = sp.csr_array(np.ones((2, 2), np.float32))
        made = column(sparse, weight=weight)
        made.counts.data[:] = 7
        assert sparse.toarray().tolist() == [[1, 1], [1, 1]]


def test_what_is_to_be_centred_are_vectors():
    made = column(np.array([[0.0, -2.0], [1.5, 0.0]]), weight="centre")
    assert isinstance(made, VectorColumn)
    assert made.values.dtype == np.float32
    assert made.values.tolist() == [[0, -2], [1.5, 0]]


@pytest.mark.parametrize(
    ("matrix", "ids", "how", "error", "message"),
    [
        (np.array([[1, 2], [3, np.nan]]), "ab", {}, DataError,
         "The matrix 'tags' must hold finite numbers of 32 bits; item id 'b' has nan in column 1."
         " Correct or drop such values"),
        (np.array([[1, 2], [3, np.nan]]), "ab", {"weight": "centre"}, DataError, "has nan"),
        (np.array([[1, 2], [3, -np.inf]]), "ab", {"columns": ["x", "y"]}, DataError,
         "id 'b' has -inf in column 'y'"),
        (np.array([[1, 2], [3, 1e300]]), "ab", {}, DataError, "of 32 bits; item id 'b' has inf"),
        (sp.csr_array(np.array([[0, 0], [np.nan, 0]])), "ab", {}, DataError,
         "item id 'b' has nan in column 0"),
        (EYE, "abc", {}, DataError, "`ids` must be 2, one for each row.*got 3"),
        (np.zeros((2, 0)), "ab", {}, EmptyDataError, "at least one row and one column"),
        (sp.csr_array((0, 2)), "", {}, EmptyDataError, r"one column; its shape is \(0, 2\)"),
        (np.zeros(2), "ab", {}, DataError, "must be a matrix of numbers"),
        (np.zeros((2, 2, 2)), "ab", {}, DataError, "must be a matrix of numbers"),
        (np.array([["a"]]), "a", {}, DataError, "must be a matrix of numbers"),
        (sp.csr_array(EYE.astype(complex)), "ab", {}, DataError,
         r"must be a matrix of numbers.*got complex128 of shape \(2, 2\)"),
        (None, "ab", {}, DataError, "must be a matrix of numbers.*got None"),
        (sp.coo_array(([1], ([0], [2**31])), shape=(1, 2**31 + 1)), "a", {}, DataError,
         r"less than 2\^31 rows and columns"),
        (EYE, "ab", {"weight": "idf"}, OptionError, "`weight` must be one of tf-idf, centre"),
        (sp.csr_array(EYE), "ab", {"weight": "centre"}, OptionError,
         "for a dense matrix only.*toarray"),
        (-EYE, "ab", {"weight": "tf-idf"}, DataError, "counts of at least 1.*id 'a' has -1"),
        (EYE / 2, "ab", {"weight": "tf-idf"}, DataError, "counts of at least 1.*id 'a' has 0.5"),
        (EYE, "ab", {"columns": ["x"]}, DataError, "`columns` must be 2 names.*got 1"),
        (EYE, "ab", {"columns": ["x", "x"]}, DataError, "`columns` has 'x' more than once"),
        (EYE, "ab", {"columns": [1, 2]}, DataError, "`columns` must be names of type str; got 1"),
        (EYE, "ab", {"columns": "xy"}, DataError, "`columns` must be a list"),
    ],
)  # fmt: skip
def test_a_matrix_that_cannot_be_used_is_refused(matrix, ids, how, error, message):
    with pytest.raises(error, match=message):
        column(matrix, ids, **how)
