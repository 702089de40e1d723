import pickle

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import nearfar as nf
from nearfar.data import feature_values
from nearfar.data.features import Features
from nearfar.data.ids import Ids
from nearfar.errors import (
    DataError,
    EmptyDataError,
    MissingColumnError,
    OptionError,
)

FILMS = pl.DataFrame({
    "item_id": [7, 3, 5],
    "genres": [["war", "drama", "war"], None, ["drama", None, ""]],
    "plot": ["The War, the war of ÉCLAIRS", None, "a b"],
    "year": [1950.0, None, 1970.0],
    "image": [[1.0, 2.0], [3.0, 4.0], None],
})  # fmt: skip
HOW = {"categories": "genres", "text": "plot", "numbers": "year", "vectors": ["image"]}


def terms(column):
    """The terms of each row with their counts."""
    dense = column.counts.toarray()
    names = column.terms.to_list()
    return [{names[j]: int(row[j]) for j in np.flatnonzero(row)} for row in dense]


def same(one, other):
    """Whether two features hold the same."""
    if one.ids != other.ids or dict(one.fields) != dict(other.fields):
        return False
    for name, mine in one.columns.items():
        theirs = other.columns[name]
        if hasattr(mine, "counts"):
            if terms(mine) != terms(theirs):
                return False
        elif not np.array_equal(mine.values, theirs.values, equal_nan=True):
            return False
    return True


def test_a_frame_becomes_columns_sorted_by_id():
    features = Features.from_frame(FILMS, **HOW)
    assert nf.Features is Features
    assert features.ids.to_list() == [3, 5, 7]
    assert features.ids.name == "item"
    assert len(features) == 3
    assert dict(features.fields) == {
        "genres": "categories", "plot": "text", "year": "numbers", "image": "vectors"
    }  # fmt: skip
    columns = features.columns
    assert terms(columns["genres"]) == [{}, {"drama": 1}, {"drama": 1, "war": 1}]
    assert terms(columns["plot"]) == [{}, {}, {"the": 2, "war": 2, "of": 1, "éclairs": 1}]
    assert columns["year"].values.tolist()[1:] == [1970, 1950]
    assert columns["image"].values[[0, 2]].tolist() == [[3, 4], [1, 2]]
    present = {name: column.present.tolist() for name, column in columns.items()}
    assert present == {"genres": [False, True, True], "plot": [False, False, True],
                       "year": [False, True, True], "image": [True, False, True]}  # fmt: skip
    assert repr(features) == (
        "Features(3 items: genres (categories, 2 of them), plot (text, 4 words), year (number),"
        " image (vectors of 2))"
    )


@pytest.mark.parametrize("library", ["lazy", "pandas", "arrow", "objects", "array"])
def test_every_kind_of_table_gives_the_same(library):
    frame = FILMS
    if library == "pandas":
        frame = FILMS.to_pandas().convert_dtypes()
    elif library == "objects":
        frame = pd.DataFrame({name: pd.Series(FILMS[name].to_list(), dtype=object)
                              for name in FILMS.columns})  # fmt: skip
    elif library == "array":
        frame = FILMS.with_columns(pl.col("image").cast(pl.Array(pl.Float64, 2)))
    elif library == "arrow":
        frame = pa.table(FILMS.to_arrow())
    else:
        frame = FILMS.lazy()
    assert same(Features.from_frame(frame, **HOW), Features.from_frame(FILMS, **HOW))


@settings(max_examples=30)
@given(
    values=st.lists(st.lists(st.sampled_from(["a", "b", "ä", "", "c d"]), max_size=4), min_size=1,
                    max_size=12),
    size=st.integers(1, 5),
)  # fmt: skip
def test_categories_and_words_are_what_a_loop_finds_however_they_are_cut(values, size):
    ids = list(range(len(values)))[::-1]
    frame = pl.DataFrame({"id": ids, "c": values, "t": [" xx ".join(one) for one in values]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_values, "_VALUES", size)
        patch.setattr(feature_values, "_TEXT_BYTES", size)
        features = Features.from_frame(
            frame.with_columns(pl.col("c").cast(pl.List(pl.String))), categories="c", text="t"
        )
    wanted = [{one: 1 for one in row if one} for row in values[::-1]]
    assert terms(features.columns["c"]) == wanted
    words = [{"xx": len(row) - 1} if len(row) > 1 else {} for row in values[::-1]]
    assert terms(features.columns["t"]) == words


def test_categories_of_other_types_are_their_text():
    frame = pl.DataFrame({"id": ["b", "a"], "n": [2, None], "b": [True, False],
                          "c": pl.Series(["x", "y"], dtype=pl.Categorical),
                          "l": pl.Series([["x"], []], dtype=pl.List(pl.Categorical))})  # fmt: skip
    columns = Features.from_frame(frame, categories=["n", "b", "c", "l"]).columns
    found = {name: terms(column) for name, column in columns.items()}
    assert found == {"n": [{}, {"2": 1}], "b": [{"false": 1}, {"true": 1}],
                     "c": [{"y": 1}, {"x": 1}], "l": [{}, {"x": 1}]}  # fmt: skip


def test_texts_in_lists_and_numbers_in_text():
    frame = pl.DataFrame({"id": [1, 2], "t": [["ab", None, "cd ab"], None], "n": [" 1.5", ""],
                          "u": [2**63, 5], "b": [True, None]})  # fmt: skip
    columns = Features.from_frame(frame, text="t", numbers=["n", "u", "b"]).columns
    assert terms(columns["t"]) == [{"ab": 2, "cd": 1}, {}]
    assert columns["n"].values[0] == 1.5
    assert np.isnan(columns["n"].values[1])
    assert columns["u"].values.tolist() == [2.0**63, 5.0]
    assert columns["b"].values[0] == 1


def test_a_file_is_read_as_the_frame(tmp_path):
    FILMS.write_parquet(tmp_path / "films.parquet")
    assert same(Features.read(tmp_path / "films.parquet", **HOW), Features.from_frame(FILMS, **HOW))
    text = "movie,genres,year,image\n007,war|drama, 1950,1|2\n7,,,\n"
    (tmp_path / "films.csv").write_text(text)
    features = Features.read(tmp_path / "films.csv", id="movie", categories="genres",
                             numbers="year", vectors="image", list_separator="|")  # fmt: skip
    assert features.ids.to_list() == ["007", "7"]
    assert terms(features.columns["genres"]) == [{"war": 1, "drama": 1}, {}]
    assert features.columns["image"].values[0].tolist() == [1, 2]
    assert features.columns["image"].present.tolist() == [True, False]
    whole = Features.read(tmp_path / "films.csv", id="movie", categories="genres")
    assert whole.columns["genres"].terms.to_list() == ["war|drama"]
    (tmp_path / "bare.csv").write_text("a,x\nb,y\n")
    bare = Features.read(tmp_path / "bare.csv", categories=1, has_header=False)
    assert bare.ids.to_list() == ["a", "b"]
    (tmp_path / "films.csv").write_text("id,year\n007,abc\n")
    with pytest.raises(DataError, match=r"films.csv.*'year' must hold finite numbers.*'007' has"):
        Features.read(tmp_path / "films.csv", numbers="year")


# ------------------------------------------------------------------------------------ errors


def one(**columns):
    """A table of ids 10, 11, ... with these columns."""
    n = len(next(iter(columns.values())))
    return pl.DataFrame({"item_id": range(10, 10 + n), **columns}, strict=False)


WRONG = [
    ({"x": [1.0, float("nan"), float("inf")]}, "numbers",
     r"Column 'x' must hold finite numbers.*item id 11 has nan \(2 ids.*fill_nan"),
    ({"x": [1.0, float("-inf")]}, "numbers", "item id 11 has -inf"),
    ({"x": ["1", "3,5"]}, "numbers", "Column 'x' must hold finite numbers.*item id 11 has '3,5'"),
    ({"x": [[1.0], [2.0]]}, "numbers", r"Column 'x' of `numbers` must hold numbers; its type"),
    ({"x": [None, 2.5]}, "categories", "'x' of `categories` must hold.*item id 11 has 2.5"),
    ({"x": [[["a"]]]}, "categories", "'x' of `categories` must hold text, integers or booleans"),
    ({"x": [3, 4]}, "text", "'x' of `text` must hold text.*item id 10 has 3.*`categories`"),
    ({"x": ["a", "b" * 10_000_001]}, "text",
     "'x' must hold texts of at most 10,000,000 characters; item id 11 has 'bb"),
    ({"x": [None, [1.0, 2.0], [1.0]]}, "vectors",
     r"'x' must hold vectors of 2 numbers.*item id 12 has \[1.0\]"),
    ({"x": [[1.0, 2.0], [1.0, float("nan")]]}, "vectors", "vectors of finite numbers.*item id 11"),
    ({"x": [[1.0, 2.0], [None, 2.0]]}, "vectors", "vectors of finite numbers.*item id 11"),
    ({"x": [[1.0, 2.0], [1e300, 2.0]]}, "vectors", "of 32 bits, without nulls; item id 11"),
    ({"x": [[], [1.0]]}, "vectors", "vectors of at least one number; item id 10"),
    ({"x": [None, None]}, "vectors", "'x' of `vectors` has no vector: all values are null"),
    ({"x": [1.0, 2.0]}, "vectors", "'x' of `vectors` must hold lists or arrays of numbers"),
    ({"x": [[["a"]]]}, "vectors", "'x' of `vectors` must hold lists or arrays of numbers"),
    ({"x": [["1", "a"]]}, "vectors", "vectors of finite numbers.*item id 10"),
]  # fmt: skip


@pytest.mark.parametrize(("columns", "kind", "message"), WRONG)
def test_a_value_that_cannot_be_used_is_named_with_id_and_column(columns, kind, message):
    with pytest.raises(DataError, match=message):
        Features.from_frame(one(**columns), **{kind: "x"})


def test_objects_of_mixed_types_are_refused():
    frame = pd.DataFrame({"id": [1, 2], "x": [{"a": 1}, b"x"]})
    with pytest.raises(DataError, match="'x' of `categories`"):
        Features.from_frame(frame, categories="x")


@pytest.mark.parametrize(
    ("frame", "how", "error", "message"),
    [
        (FILMS, {}, OptionError, "No column of features is asked for"),
        (FILMS, {"text": None}, OptionError, "`text` must be the name of a column"),
        (FILMS, {"text": [2.5]}, OptionError, "`text` must be the name of a column"),
        (FILMS, {"text": "plto"}, MissingColumnError, "no column 'plto' for `text`"),
        (FILMS, {"text": "plot", "id": "film"}, MissingColumnError, "no column 'film' for `id`"),
        (FILMS, {"text": "plot", "categories": ["plot"]}, DataError,
         "'plot' is in `categories` and again in `text`"),
        (FILMS, {"id": "plot", "text": "plot"}, DataError, "'plot' has the ids and is in `text`"),
        (FILMS.rename({"item_id": "film"}), {"text": "plot"}, MissingColumnError,
         "No column is recognised as the ids; pass its name as `id=`.*film"),
        (FILMS.with_columns(id=1), {"text": "plot"}, MissingColumnError,
         "More than one column is recognised as the ids"),
        (FILMS.clear(), {"text": "plot"}, EmptyDataError, "has no rows"),
        (pl.concat([FILMS, FILMS]), {"text": "plot"}, DataError,
         "Each item id must have one row of features; 3 have more: 3, 5, 7"),
        (FILMS.with_columns(item_id=pl.Series([1, None, 2])), {"text": "plot"}, DataError,
         "The item id of row 2"),
        (FILMS.with_columns(item_id=pl.Series([1.5, 2, 3])), {"text": "plot"}, DataError,
         "The item id of row 1"),
        ([1, 2], {"text": "plot"}, DataError, "is not a table"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_used_is_refused(frame, how, error, message):
    with pytest.raises(error, match=message):
        Features.from_frame(frame, **how)


def test_a_column_named_like_ids_can_be_a_feature():
    frame = FILMS.with_columns(user=pl.lit("ann"))
    assert dict(Features.from_frame(frame, categories="user").fields) == {"user": "categories"}


# ------------------------------------------------------------------------------------ matrices


@pytest.mark.parametrize("make", [np.asarray, sp.csr_array, sp.coo_matrix, sp.csc_array])
def test_a_matrix_keeps_its_rows_by_id(make):
    given_as = make(np.array([[0.0, -2.0], [1.0, 0.0]]))
    features = Features.from_matrix(given_as, ["b", "a"], name="tags", columns=["x", "y"])
    assert features.columns["tags"].counts.toarray().tolist() == [[1, 0], [0, -2]]
    assert features.columns["tags"].terms.to_list() == ["x", "y"]
    assert features.columns["tags"].counts.nnz == 2
    assert same(features, Features.from_matrix(given_as, Ids(["a", "b"]), name="tags",
                                               columns=["x", "y"])) is False  # fmt: skip


def test_a_matrix_is_copied_and_its_duplicates_are_added():
    matrix = sp.coo_array(([1, 2, 0], ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    column = Features.from_matrix(matrix, [1, 2]).columns["features"]
    assert column.counts.toarray().tolist() == [[0, 3], [0, 0]]
    dense = np.ones((2, 2))
    column = Features.from_matrix(dense, [1, 2], weight="centre").columns["features"]
    dense[:] = 5
    assert column.values.tolist() == [[1, 1], [1, 1]]


EYE = np.eye(2)


@pytest.mark.parametrize(
    ("matrix", "ids", "how", "error", "message"),
    [
        (np.array([[1, 2], [3, np.nan]]), "ab", {}, DataError,
         "The matrix 'features' must hold finite numbers.*id 'b' has nan in column 1"),
        (np.array([[1, 2], [3, -np.inf]]), "ab", {"columns": ["x", "y"]}, DataError,
         "id 'b' has -inf in column 'y'"),
        (np.array([[1, 2], [3, 1e300]]), "ab", {}, DataError, "of 32 bits; id 'b' has inf"),
        (EYE, "abc", {}, DataError, "`ids` must be 2, one for each row.*got 3"),
        (EYE, "aa", {}, DataError, "Each id must have one row of features; 1 have more: 'a'"),
        (np.zeros((2, 0)), "ab", {}, EmptyDataError, "at least one row and one column"),
        (sp.csr_array((0, 2)), "", {}, EmptyDataError, "at least one row and one column"),
        (np.zeros(2), "ab", {}, DataError, "must be a matrix of numbers"),
        (np.array([["a"]]), "a", {}, DataError, "must be a matrix of numbers"),
        (sp.csr_array(EYE.astype(complex)), "ab", {}, DataError, "must be a matrix of numbers"),
        (None, "ab", {}, DataError, "must be a matrix of numbers"),
        (EYE, "ab", {"name": ""}, OptionError, "`name` must be a text"),
        (EYE, "ab", {"weight": "idf"}, OptionError, "`weight` must be one of tf-idf, centre"),
        (sp.csr_array(EYE), "ab", {"weight": "centre"}, OptionError, "for a dense matrix only"),
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
        Features.from_matrix(matrix, list(ids), **how)


# ------------------------------------------------------------------------------------ joined


def test_features_are_joined_by_id():
    films = Features.from_frame(FILMS, **HOW)
    tags = Features.from_matrix([[1.0], [2.0]], [9, 3], name="tags")
    both = films.joined(tags)
    assert both.ids.to_list() == [3, 5, 7, 9]
    assert list(both.fields) == ["genres", "plot", "year", "image", "tags"]
    assert both.columns["tags"].counts.toarray().ravel().tolist() == [2, 0, 0, 1]
    assert both.columns["year"].present.tolist() == [False, True, True, False]
    assert both.columns["image"].present.tolist() == [True, False, True, False]
    assert terms(both.columns["genres"])[3] == {}
    assert same(films.joined(), films)
    with pytest.raises(DataError, match="Several of the features have a field 'tags'"):
        both.joined(tags)
    with pytest.raises(DataError, match="different types"):
        films.joined(Features.from_matrix([[1.0]], ["a"]))
    with pytest.raises(OptionError, match="`others` must be of type Features"):
        films.joined(FILMS)


def test_features_cannot_be_changed_and_can_be_pickled():
    features = Features.from_frame(FILMS, **HOW)
    with pytest.raises(AttributeError):
        features.ids = Ids([1])
    with pytest.raises(TypeError):
        features.columns["x"] = None
    assert same(pickle.loads(pickle.dumps(features)), features)
