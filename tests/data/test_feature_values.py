"""Columns of a table become columns of features, or an error names the id and the column."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfar.data import feature_values
from nearfar.data.feature_values import column_of, places
from nearfar.data.features import Features
from nearfar.errors import DataError


def column(kind, values, dtype=None, name="x"):
    """The column of features of the ids 10, 11, ..."""
    made = values if isinstance(values, pl.Series) else pl.Series(name, values, dtype, strict=False)
    ids = pl.Series("item", np.arange(10, 10 + made.len()))
    return column_of(kind, made, ids)


def terms(made):
    """The terms of each row with their counts."""
    names = made.terms.to_list()
    return [{names[j]: int(row[j]) for j in np.flatnonzero(row)} for row in made.counts.toarray()]


# ------------------------------------------------------------------------------------ terms


@settings(max_examples=30)
@given(
    values=st.lists(st.lists(st.sampled_from(["a", "b", "ä", "", "c d"]), max_size=4), min_size=1,
                    max_size=12),
    size=st.integers(1, 5),
)  # fmt: skip
def test_categories_and_words_are_what_a_loop_finds_however_they_are_cut(values, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_values, "_VALUES", size)
        patch.setattr(feature_values, "_TEXT_BYTES", size)
        categories = column("categories", values, pl.List(pl.String))
        text = column("text", [" xx ".join(one) for one in values])
    assert terms(categories) == [{one: 1 for one in row if one} for row in values]
    assert terms(text) == [{"xx": len(row) - 1} if len(row) > 1 else {} for row in values]


@pytest.mark.parametrize(
    ("values", "dtype", "found"),
    [
        ([None, 2], pl.Int8, [{}, {"2": 1}]),
        ([False, True], pl.Boolean, [{"false": 1}, {"true": 1}]),
        (["y", "x"], pl.Categorical, [{"y": 1}, {"x": 1}]),
        (["y", None], pl.Enum(["x", "y"]), [{"y": 1}, {}]),
        ([[], ["x", "x", None]], pl.List(pl.Categorical), [{}, {"x": 1}]),
        ([[1, 2], [2, 1]], pl.Array(pl.Int64, 2), [{"1": 1, "2": 1}, {"1": 1, "2": 1}]),
        ([None, None], pl.Null, [{}, {}]),
        ([" a", "a"], pl.String, [{" a": 1}, {"a": 1}]),  # as they are written
    ],
)
def test_categories_of_other_types_are_their_text(values, dtype, found):
    made = column("categories", values, dtype)
    assert terms(made) == found
    assert (made.kind, made.weighted) == ("categories", True)
    assert made.counts.dtype == np.float32
    assert made.terms.to_list() == sorted(made.terms.to_list())


def test_words_are_runs_of_two_or_more_letters_digits_or_underscores():
    made = column("text", ["The war, the WAR of a_b 42 x", "ÉCLAIR-é cd", None, " . "])
    assert terms(made) == [
        {"the": 2, "war": 2, "of": 1, "a_b": 1, "42": 1}, {"éclair": 1, "cd": 1}, {}, {}
    ]  # fmt: skip
    assert made.present.tolist() == [True, True, False, False]


def test_words_do_not_run_from_one_text_of_a_list_into_the_next():
    made = column("text", [["ab", None, "cd ab"], None, ["a", "b"]], pl.List(pl.String))
    assert terms(made) == [{"ab": 2, "cd": 1}, {}, {}]


def test_a_text_may_be_as_long_as_is_said_but_no_longer(monkeypatch):
    monkeypatch.setattr(feature_values, "MOST_CHARACTERS", 4)
    assert terms(column("text", ["éééé"])) == [{"éééé": 1}]  # 4 characters, of 2 bytes each
    with pytest.raises(DataError, match=r"at most 4 characters; item id 11 has 'aaaaa'.*cut long"):
        column("text", ["aaaa", "aaaaa"])


# ---------------------------------------------------------------------------------- numbers


def test_numbers_are_of_any_type_and_null_is_none():
    assert column("numbers", [" 1.5", "", None, "-2e3"]).present.tolist() == [True, False, False,
                                                                            True]  # fmt: skip
    assert column("numbers", [" 1.5", "-2e3"]).values.tolist() == [1.5, -2000.0]
    assert column("numbers", [2**63, 5], pl.UInt64).values.tolist() == [2.0**63, 5.0]
    assert column("numbers", [True, False]).values.tolist() == [1.0, 0.0]
    assert np.isnan(column("numbers", [None, None], pl.Null).values).all()
    assert column("numbers", [1, 2]).values.dtype == np.float64


# ---------------------------------------------------------------------------------- vectors


def test_vectors_are_rows_and_null_is_none():
    made = column("vectors", [None, [1, 2], [3, 4]], pl.List(pl.Int64))
    assert made.values.dtype == np.float32
    assert made.values[1:].tolist() == [[1, 2], [3, 4]]
    assert made.present.tolist() == [False, True, True]
    texts = column("vectors", [["1.5", "2"]], pl.List(pl.String))
    assert texts.values.tolist() == [[1.5, 2]]


# ---------------------------------------------------------------------------------- objects


def test_objects_are_converted_to_one_type():
    made = pl.Series("x", [("a", "b"), {"c"}, np.array(["a"]), float("nan"), pd.NA, None, pd.NaT],
                     dtype=pl.Object)  # fmt: skip
    assert terms(column("categories", made)) == [
        {"a": 1, "b": 1}, {"c": 1}, {"a": 1}, {}, {}, {}, {}
    ]  # fmt: skip
    numbers = pl.Series("x", [np.float32(1.5), 2, None], dtype=pl.Object)
    assert column("numbers", numbers).values[:2].tolist() == [1.5, 2.0]


def test_objects_of_mixed_types_are_refused():
    frame = pd.DataFrame({"id": [1, 2], "x": [{"a": 1}, b"x"]})
    with pytest.raises(DataError, match="'x' of `categories`"):
        Features.from_frame(frame, categories="x")
    with pytest.raises(DataError, match=r"`categories` must hold .* its type is Object"):
        column("categories", pl.Series("x", [["a"], 5], dtype=pl.Object))


def test_an_object_that_fits_into_no_type_is_not_lost():
    large = pl.Series("x", [None, 1, 2**200], dtype=pl.Object)
    with pytest.raises(
        DataError, match=r"'x' of `categories` has values .* too large: 16069.* Int64"
    ):
        column("categories", large)


# ----------------------------------------------------------------------------------- errors

WRONG = [
    ([1.0, float("nan"), float("inf")], "numbers",
     r"Column 'x' must hold finite numbers.*item id 11 has nan \(2 ids.*fill_nan"),
    ([1.0, float("-inf")], "numbers", "item id 11 has -inf"),
    (["1", "3,5"], "numbers", "Column 'x' must hold finite numbers.*item id 11 has '3,5'"),
    ([[1.0], [2.0]], "numbers", r"Column 'x' of `numbers` must hold numbers; its type is List"),
    ([None, 2.5], "categories", "'x' of `categories` must hold.*item id 11 has 2.5"),
    ([[["a"]]], "categories", "'x' of `categories` must hold text, integers or booleans"),
    ([3, 4], "text", "'x' of `text` must hold text.*item id 10 has 3.*`categories`"),
    (["a", "b" * 10_000_001], "text",
     "'x' must hold texts of at most 10,000,000 characters; item id 11 has 'bb"),
    ([None, [1.0, 2.0], [1.0]], "vectors",
     r"'x' must hold vectors of 2 numbers.*item id 12 has \[1.0\]"),
    ([[1.0, 2.0], [1.0, float("nan")]], "vectors", "vectors of finite numbers.*item id 11"),
    ([[1.0, 2.0], [None, 2.0]], "vectors", "vectors of finite numbers.*item id 11"),
    ([[1.0, 2.0], [1e300, 2.0]], "vectors", "of 32 bits, without nulls; item id 11"),
    ([[], [1.0]], "vectors", "vectors of at least one number; item id 10"),
    ([None, None], "vectors", "'x' of `vectors` has no vector: all values are null"),
    ([1.0, 2.0], "vectors", "'x' of `vectors` must hold lists or arrays of numbers"),
    ([[["a"]]], "vectors", "'x' of `vectors` must hold lists or arrays of numbers"),
    ([["1", "a"]], "vectors", "vectors of finite numbers.*item id 10"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "kind", "message"), WRONG)
def test_a_value_that_cannot_be_used_is_named_with_id_and_column(values, kind, message):
    with pytest.raises(DataError, match=message):
        column(kind, values)


# ----------------------------------------------------------------------------------- places


@given(st.lists(st.sampled_from("abcde")), st.lists(st.sampled_from("abcde"), unique=True))
def test_places_are_those_that_a_loop_finds(values, among):
    found = places(pl.Series(values, dtype=pl.String), pl.Series(among, dtype=pl.String))
    assert found.tolist() == [among.index(one) if one in among else -1 for one in values]
    assert found.dtype == np.int32
