import pickle

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp

import nearfar as nf
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


def test_a_value_that_cannot_be_used_is_named_with_its_own_id():
    frame = FILMS.with_columns(year=pl.Series([1.0, float("inf"), 2.0]))  # ids 7, 3, 5
    with pytest.raises(
        DataError, match=r"Column 'year' must hold finite numbers.*item id 3 has inf"
    ):
        Features.from_frame(frame, **HOW)


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


@pytest.mark.parametrize(
    ("matrix", "ids", "how", "error", "message"),
    [
        (np.eye(2), "aa", {}, DataError, "Each id must have one row of features; 1 have more: 'a'"),
        (np.eye(2), "ab", {"name": ""}, OptionError, "`name` must be a text"),
        (np.array([[1, 2], [3, np.nan]]), "ba", {"name": "tags"}, DataError,
         "The matrix 'tags' must hold finite numbers.*id 'a' has nan in column 1"),
    ],
)  # fmt: skip
def test_a_matrix_or_ids_that_cannot_be_used_are_refused(matrix, ids, how, error, message):
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
