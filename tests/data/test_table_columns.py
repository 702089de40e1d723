"""Tables as users have them: which column is which, and tables that are none."""

from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from nearfar.data import table_columns
from nearfar.data.interactions import Interactions
from nearfar.errors import DataError, MissingColumnError
from nearfar.prepare import prepare

LOG = {"user": ["ann", "ann", "bob"], "item": ["tea", "jam", "tea"], "n": [1, 2, 3]}
PAIRS = [("ann", "jam"), ("ann", "tea"), ("bob", "tea")]


def pairs(frame, **columns):
    return Interactions.from_frame(frame, **columns).to_frame().rows()


def repeated(names):
    return pd.DataFrame([[1, 2, 3]], columns=names)


@pytest.mark.parametrize(
    "frame",
    [
        repeated(["user", "item", "user"]),
        repeated(["user", "item", "item"]),
        repeated(["user", "item", "other"]).rename(columns={"other": "item"}),
        repeated(["1", "item", 1]),
        pa.table([[1], [2], [3]], names=["user", "item", "user"]),
        pa.RecordBatch.from_arrays([pa.array([1])] * 2, names=["item", "item"]),
    ],
)
def test_two_columns_of_one_name_are_refused(frame):
    message = r"has the column '(user|item|1)' more than once: columns \d and \d, .* Rename or drop"
    with pytest.raises(DataError, match=message):
        pairs(frame)
    with pytest.raises(DataError, match=message):
        pairs(frame, user=0, item=1)
    with pytest.raises(DataError, match=message):
        prepare(frame)


def test_an_integer_is_a_label_where_labels_are_integers():
    swapped = pd.DataFrame({1: ["ann", "bob"], 0: ["tea", "jam"]})
    expected = [("ann", "tea"), ("bob", "jam")]
    assert pairs(swapped, user=1, item=0) == expected
    assert pairs(swapped, user=np.int64(1), item=np.int32(0)) == expected
    assert pairs(swapped, user="1", item="0") == expected
    far = pd.DataFrame({"note": ["x", "y"], 7: ["ann", "bob"], 0: ["tea", "jam"]})
    assert pairs(far, user=7, item=0) == expected
    for place in (1, 2):  # a position, but no label
        with pytest.raises(MissingColumnError, match=rf"no column {place} for `user`; .* note, 7"):
            pairs(far, user=place, item=0)
    assert pairs(pd.DataFrame([["ann", "tea"], ["bob", "jam"]])) == expected


def test_an_integer_is_a_position_where_labels_are_text():
    for frame in (pd.DataFrame(LOG), pl.DataFrame(LOG), pa.table(LOG)):
        assert pairs(frame, user=0, item=np.int64(1)) == PAIRS
        assert pairs(frame, user=1, item=0)[0] == ("jam", "ann")
    digits = pl.DataFrame({"1": ["ann"], "0": ["tea"]})
    assert pairs(digits, user=0, item=1) == [("ann", "tea")]
    assert pairs(digits, user="0", item="1") == [("tea", "ann")]


@pytest.mark.parametrize("column", [True, -1, 3, 1.0, None, ["user"], pl.col("user"), b"user"])
def test_what_names_no_column_is_refused(column):
    for frame in (pd.DataFrame(LOG), pl.DataFrame(LOG)):
        if column is None:
            assert pairs(frame, user=column) == PAIRS
            continue
        with pytest.raises(
            MissingColumnError, match=r"no column .* for `user`; the columns are us"
        ):
            pairs(frame, user=column)


@pytest.mark.parametrize("columns", [{"user": "item"}, {"item": 0}, {"user": "n", "item": 2}])
def test_one_column_for_users_and_items_is_refused(columns):
    with pytest.raises(DataError, match=r"both the column '(user|item|n)'; pass two columns"):
        pairs(pl.DataFrame(LOG), **columns)


def test_dates_are_times_and_no_values():
    dated = pl.DataFrame(LOG | {"n": [date(2020, 1, 1), date(2020, 1, 2), date(2020, 1, 3)]})
    assert Interactions.from_frame(dated, time="n").times is not None
    with pytest.raises(DataError, match="Column 'n' must hold numbers; its type is Date"):
        pairs(dated, value="n", min_value=4)


def test_ids_in_narrow_floats_are_refused_where_several_share_one():
    """2^24 + 1 is 2^24 in 32 bits, and pandas makes such columns where ids are missing."""
    narrow = pl.DataFrame({"user": [1, 2**24 + 1], "item": [1, 2]}).with_columns(
        pl.col("user").cast(pl.Float32)
    )
    assert pairs(narrow[:1]) == [(1, 1)]
    with pytest.raises(DataError, match=r"user id of row 2 .* is the float 16777216\.0"):
        pairs(narrow)


def test_names_are_taken_literally():
    odd = pl.DataFrame({"*": ["ann"], "^.*$": ["tea"], "user.x": [1]})
    assert pairs(odd, user="*", item="^.*$") == [("ann", "tea")]


def test_grouped_tables_of_pandas_say_reset_index():
    log = pd.DataFrame({**LOG, "person": LOG["user"]})
    sizes = log.groupby(["user", "item"]).size()
    with pytest.raises(DataError, match=r"Series .*`\.reset_index\(\)` .* index \(user, item\)"):
        pairs(sizes)
    assert pairs(sizes.reset_index(name="n"), value="n", min_value=1) == PAIRS
    for frame in (log.groupby(["user", "item"])[["n"]].sum(), log.set_index("user")[["item", "n"]]):
        with pytest.raises(MissingColumnError, match=r"The index has user.*`\.reset_index\(\)`"):
            pairs(frame)
    # two columns beside a named index are not taken for users and items
    unknown = log.rename(columns={"item": "film"}).set_index("person")[["film", "n"]]
    with pytest.raises(MissingColumnError, match=r"The index has person; `\.reset_index\(\)`"):
        pairs(unknown)
    assert pairs(log.set_index("n")) == PAIRS
    with pytest.raises(DataError, match="DataFrameGroupBy is not a table"):
        pairs(log.groupby("user"))


def test_columns_of_several_levels_say_how_to_join_them():
    frame = pd.DataFrame(LOG).groupby(["user", "item"]).agg({"n": ["sum", "max"]}).reset_index()
    with pytest.raises(DataError, match=r"have 2 levels, such as .*'_'\.join\(map\(str, c\)\)"):
        pairs(frame)


@dataclass
class Foreign:
    """A table of another library, of which nothing is known but an interface."""

    error: Exception

    def __arrow_c_stream__(self, requested_schema=None):
        raise self.error


RECORDS = np.array([("ann", "tea")], dtype=[("user", "U3"), ("item", "U3")])


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (LOG, r"A dict is not a table; pass .*`polars\.DataFrame\(\.\.\.\)` makes of dicts"),
        ([{"user": "ann", "item": "tea"}], r"A list is not a table; pass .*`polars\.DataFrame"),
        (RECORDS, r"A ndarray is not a table; pass .*`polars\.DataFrame\(\.\.\.\)`"),
        (RECORDS.view(np.recarray), r"A recarray is not a table; pass .*`polars\.DataFrame"),
        (pl.Series(["ann"]), r"A Series of polars is one column, not a table; pass a DataFrame"),
        (pd.Series(["ann"]), r"A Series of pandas is one column, not a table; `\.reset_index"),
        ("log.csv", r"A str is not a table; .*`read`"),
        (None, "A NoneType is not a table"),
        (Foreign(RuntimeError("no\nway")), r"The Foreign cannot be read as a table: no\. Convert"),
        (pl.scan_csv("nowhere.csv"), "The table cannot be computed: .*nowhere.csv"),
        (pl.LazyFrame(LOG).with_columns(pl.col("x")), r"The table cannot be computed: .*x"),
        (
            pl.LazyFrame(LOG).with_columns(pl.col("user").cast(pl.Int64)),
            "The table cannot be computed: conversion from `str` to `i64` failed",
        ),
    ],
)
def test_what_is_no_table_says_how_to_make_one(frame, message):
    with pytest.raises(DataError, match=message):
        pairs(frame)


def test_the_conversions_that_are_named_give_tables():
    for made in (
        LOG,
        [dict(zip(LOG, row, strict=True)) for row in zip(*LOG.values(), strict=True)],
    ):
        assert pairs(pl.DataFrame(made)) == PAIRS
    assert pairs(pl.DataFrame(RECORDS)) == [("ann", "tea")]


@pytest.mark.parametrize("mixed", [[3, "3", 4], ["3", 3, 4], [3.0, "3", "x"]])
def test_one_id_in_two_types_is_refused_naming_both(mixed):
    for column in (mixed, pd.Categorical(mixed)):
        frame = pd.DataFrame({"user": pd.Series(column, dtype=None), "item": [1, 2, 3]})
        with pytest.raises(DataError, match=r"user ids are of mixed types: 3.* is .*'3' of type s"):
            pairs(frame)


def test_a_pandas_file_read_in_chunks_does_not_double_the_users(tmp_path):
    (tmp_path / "a.csv").write_text("user,item\n" + "".join(f"{i},1\n" for i in range(4)) + "x,1\n")
    frame = pd.concat(pd.read_csv(tmp_path / "a.csv", chunksize=2))
    with pytest.raises(DataError, match=r"user ids are of mixed types: 0 is .*'x' of type str"):
        pairs(frame)


def test_only_the_columns_that_are_asked_for_are_converted():
    frame = pd.DataFrame({**LOG, "odd": pd.arrays.IntervalArray.from_breaks(range(4))})
    assert pairs(frame) == PAIRS


def test_sparse_columns_and_text_in_categories_are_read():
    frame = pd.DataFrame(LOG).assign(n=pd.arrays.SparseArray([1, 2, 3]))
    assert pairs(frame, item="n") == [("ann", 1), ("ann", 2), ("bob", 3)]
    assert pairs(frame.astype({"user": "category"})) == PAIRS
    days = ["2019-05-01", "2019-05-02", "2019-05-03"]
    timed = Interactions.from_frame(frame.assign(t=pd.Categorical(days)), time="t")
    assert timed.times.min() == 1_556_668_800_000_000


def test_categories_of_integers_are_integers():
    frame = pd.DataFrame({"user": pd.Categorical([3, 1, 3]), "item": ["a", "b", "c"]})
    assert pairs(frame) == [(1, "b"), (3, "a"), (3, "c")]


def test_tables_of_items_may_be_of_any_library_and_width():
    data = Interactions.from_pairs([("ann", 1), ("ann", 2)])
    table = {"item_id": np.array([2, 1, 3], np.uint8), "title": ["b", "a", "c"]}
    for frame in (pl.DataFrame(table), pl.LazyFrame(table), pd.DataFrame(table), pa.table(table)):
        known = data.with_item_table(frame)
        assert known.item_table.rows() == [(1, "a"), (2, "b")]
        assert known.item_table["item_id"].dtype == data.item_ids.dtype
    narrow = data.with_item_table(pl.DataFrame({"item_id": [1, 2**40], "title": ["a", "x"]}))
    assert narrow.titles([1, 2]) == ["a", None]
    with pytest.raises(DataError, match="A dict is not a table"):
        data.with_item_table(table)


def test_columns_are_selected_by_a_key():
    frame = pd.DataFrame([[1, "a", 2.0]], columns=["itemId", 7, "x"])
    lazy, key, kinds = table_columns.keyed(frame, None, {"text": [7], "numbers": ["x"]})
    assert (key, kinds) == ("itemId", {"7": "text", "x": "numbers"})
    assert lazy.collect().to_dict(as_series=False) == {"itemId": [1], "7": ["a"], "x": [2.0]}
    with pytest.raises(MissingColumnError, match=r"No column.*pass its name as `id=`.*The index"):
        table_columns.keyed(frame.set_index("itemId"), None, {"numbers": ["x"]})
