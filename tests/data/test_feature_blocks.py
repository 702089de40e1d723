"""What is fitted for a field: formulas by hand, stores that are checked, and what does not fit."""

from math import log, sqrt

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from nearfar.data.feature_blocks import BLOCKS, NumberBlock, TermBlock, VectorBlock, fitted
from nearfar.data.feature_columns import KINDS, NumberColumn, TermColumn, VectorColumn
from nearfar.errors import DataError

COUNTS = np.array([[2, 0, 1], [1, 0, 0], [0, 3, 0], [0, 0, 0]], np.float32)
ALL = np.arange(4, dtype=np.int32)


def rows(*numbers):
    return np.array(numbers, np.int32)


def terms(kind="text", names=("aa", "bb", "cc"), weighted=True, counts=COUNTS):
    named = pl.Series(np.arange(counts.shape[1], dtype=np.int32) if names is None else names)
    return TermColumn(kind, sp.csr_array(counts), named, weighted)


NUMBERS = NumberColumn(np.array([1950.0, 1970.0, np.nan, 2020.0]))
VECTORS = VectorColumn(np.array([[1, 0], [3, 4], [np.nan] * 2, [0, 9]], np.float32))
COLUMNS = {
    "categories": terms("categories"), "text": terms(), "matrix": terms("matrix", None, False),
    "numbers": NUMBERS, "vectors": VECTORS,
}  # fmt: skip


# ------------------------------------------------------------------------------------ terms


def test_terms_are_weighted_by_how_often_and_how_rarely_they_occur():
    block = fitted(terms(), rows(0, 1, 3))  # row 3 has no terms, and does not count
    assert (block.terms.to_list(), block.frequency.tolist(), block.n) == (["aa", "cc"], [2, 1], 2)
    idf = [log(3 / 3) + 1, log(3 / 2) + 1]
    np.testing.assert_allclose(block.idf, idf, rtol=1e-6)
    made, unknown = block.encode(terms(), rows(2, 0, -1))
    np.testing.assert_allclose(
        made.toarray(), [[0, 0], [(1 + log(2)) * idf[0], idf[1]], [0, 0]], rtol=1e-6
    )
    assert unknown == 1  # "bb", once, whatever its count
    assert made.dtype == np.float32
    assert made.has_sorted_indices


def test_terms_are_matched_by_their_text():
    block = fitted(terms(), ALL)
    other = terms(names=("zz", "cc", "aa"), counts=np.array([[5, 1, 1]], np.float32))
    made, unknown = block.encode(other, rows(0))
    assert unknown == 1
    assert (made.toarray() > 0).tolist() == [[True, False, True]]
    assert made.indices.tolist() == [0, 2]


def test_a_matrix_without_weight_keeps_its_values_and_its_columns_by_number():
    block = fitted(terms("matrix", None, False, -COUNTS), rows(0, 1))
    assert block.terms.to_list() == [0, 2]
    made, unknown = block.encode(terms("matrix", None, False), rows(0, 2))
    assert made.toarray().tolist() == [[2, 1], [0, 0]]
    assert unknown == 1


def test_the_column_stays_as_it_is():
    column = terms("matrix", None, False)
    made, _ = fitted(column, ALL).encode(column, ALL)
    made.data[:] = 9
    assert column.counts.toarray().tolist() == COUNTS.tolist()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (terms("matrix"), "the matrix has names of its columns, unlike.*to both or to neither"),
        (terms("matrix", None, False, COUNTS[:, :2]), "must have 3 columns.*it has 2. Give"),
        (terms("matrix", None, True), "has `weight='tf-idf'`. Give the same to both"),
    ],
)
def test_matrices_of_another_form_are_refused(other, message):
    block = fitted(terms("matrix", None, False), ALL)
    with pytest.raises(DataError, match=message):
        block.encode(other, ALL)


def test_a_matrix_that_lacks_names_is_refused():
    with pytest.raises(DataError, match="the matrix lacks names of its columns"):
        fitted(terms("matrix", weighted=False), ALL).encode(COLUMNS["matrix"], ALL)


# ---------------------------------------------------------------------------------- numbers


def test_numbers_are_standardised_to_length_1():
    block = fitted(NUMBERS, rows(0, 1, 2))
    assert (block.mean, block.deviation) == pytest.approx((1960.0, 10.0))
    made, unknown = block.encode(NUMBERS, rows(3, 2, 0, -1))
    expected = [[6 / sqrt(37), 1 / sqrt(37)], [0, 0], [-1 / sqrt(2), 1 / sqrt(2)], [0, 0]]
    np.testing.assert_allclose(made.toarray(), expected, rtol=1e-6)
    assert unknown == 0


@pytest.mark.parametrize("values", [[3.0, 3.0], [np.nan, np.nan], []])
def test_numbers_that_are_all_equal_or_missing_say_nothing(values):
    column = NumberColumn(np.array(values, np.float64))
    n = np.arange(len(values), dtype=np.int32)
    block = fitted(column, n)
    assert block.width == 0
    assert block.column_names("year") == []
    assert block.encode(NUMBERS, ALL)[0].shape == (4, 0)


def test_the_largest_numbers_have_a_deviation():
    block = fitted(NumberColumn(np.array([1.7e308, -1.7e308])), rows(0, 1))
    assert block.deviation == pytest.approx(1.7e308)
    made, _ = block.encode(NumberColumn(np.array([1.7e308, 0.0])), rows(0, 1))
    np.testing.assert_allclose(made.toarray(), [[sqrt(0.5), sqrt(0.5)], [0, 1]], atol=1e-6)


# ---------------------------------------------------------------------------------- vectors


def test_vectors_are_centred_on_the_training_rows():
    block = fitted(VECTORS, rows(0, 1, 2))
    assert block.mean.tolist() == [2, 2]
    assert block.scale == pytest.approx(sqrt((1 + 4 + 1 + 4) / 2))
    made, unknown = block.encode(VECTORS, rows(3, 2, -1, 0))
    assert made.toarray().tolist() == [[-2, 7], [0, 0], [0, 0], [-1, -2]]
    assert unknown == 0
    assert VECTORS.values[0].tolist() == [1, 0]


def test_many_vectors_are_taken_in_parts(monkeypatch):
    whole = fitted(VECTORS, rows(0, 1, 3))
    monkeypatch.setattr("nearfar.data.feature_blocks._ROWS", 2)
    parts = fitted(VECTORS, rows(0, 1, 3))
    np.testing.assert_allclose(parts.mean, whole.mean)
    assert parts.scale == pytest.approx(whole.scale)


def test_a_vector_at_the_mean_is_no_feature():
    column = VectorColumn(np.array([[0.1, 0.2], [0.3, 0.4], [0.2, 0.3]], np.float32))
    made, _ = fitted(column, rows(0, 1)).encode(column, rows(0, 2))
    assert np.diff(made.indptr).tolist() == [2, 0]


@pytest.mark.parametrize("values", [[[0.1, 0.2]] * 3, [[np.nan, np.nan]]])
def test_vectors_that_are_all_equal_or_missing_say_nothing(values):
    column = VectorColumn(np.array(values, np.float32))
    block = fitted(column, np.arange(len(values), dtype=np.int32))
    assert (block.width, block.column_names("image")) == (0, [])
    assert block.encode(VECTORS, ALL)[0].shape == (4, 0)


def test_vectors_of_another_width_are_refused():
    wide = VectorColumn(np.ones((1, 3), np.float32))
    with pytest.raises(DataError, match=r"must have 2 numbers, as those that were.*they have 3"):
        fitted(VECTORS, ALL).encode(wide, rows(0))


# ------------------------------------------------------------------------------------ store


def test_every_kind_has_a_block():
    assert set(BLOCKS) == set(KINDS) == set(COLUMNS)
    for kind, column in COLUMNS.items():
        block = fitted(column, ALL)
        assert (block.kind, type(block)) == (kind, BLOCKS[kind])
        assert len(block.column_names("x")) == block.width


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("categories", ["x=aa", "x=bb", "x=cc"]),
        ("text", ["x: aa", "x: bb", "x: cc"]),
        ("matrix", ["x: 0", "x: 1", "x: 2"]),
        ("numbers", ["x", "x is known"]),
        ("vectors", ["x[0]", "x[1]"]),
    ],
)
def test_columns_have_names(kind, names):
    assert fitted(COLUMNS[kind], ALL).column_names("x") == names


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_stored_encodes_to_the_same(kind):
    block = fitted(COLUMNS[kind], ALL)
    again = BLOCKS[kind].from_store(kind, *block.to_store())
    one, other = block.encode(COLUMNS[kind], ALL), again.encode(COLUMNS[kind], ALL)
    assert one[0].toarray().tolist() == other[0].toarray().tolist()
    assert (one[1], block.kind) == (other[1], again.kind)


def spoiled(kind, frame=None, **meta):
    known, table = fitted(COLUMNS[kind], ALL).to_store()
    return known | meta, table if frame is None else frame(table)


@pytest.mark.parametrize(
    ("block", "kind", "how", "message"),
    [
        (TermBlock, "text", {"frame": lambda t: pl.concat([t, t])}, "not distinct texts"),
        (TermBlock, "text", {"frame": lambda t: t.with_columns(term=pl.lit(None, pl.String))},
         "not distinct texts"),
        (TermBlock, "text", {"frame": lambda t: t.with_columns(
            term=pl.int_range(3, dtype=pl.Int32))}, "not distinct texts"),
        (TermBlock, "text", {"frame": lambda t: t.with_columns(frequency=0.5)}, "whole numbers"),
        (TermBlock, "text", {"n": 1}, "frequencies are not from 1 to 1"),
        (TermBlock, "text", {"n_terms": 2}, "frequencies are not from 1"),
        (TermBlock, "text", {"weighted": "yes"}, "weighted is 'yes'"),
        (NumberBlock, "numbers", {"mean": float("nan")}, "its mean is nan"),
        (NumberBlock, "numbers", {"deviation": -1.0}, "its deviation -1"),
        (VectorBlock, "vectors", {"scale": float("inf")}, "not finite"),
        (VectorBlock, "vectors", {"frame": lambda t: t.clear()}, "not finite"),
        (VectorBlock, "vectors", {"frame": lambda t: t.with_columns(mean=float("nan"))},
         "not finite"),
    ],
)  # fmt: skip
def test_an_inconsistent_store_is_refused(block, kind, how, message):
    if message == "its deviation -1":
        message = "its mean is .* and its deviation -1"
    with pytest.raises(ValueError, match=message):
        block.from_store(kind, *spoiled(kind, **how))
