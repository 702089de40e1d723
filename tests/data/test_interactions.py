import gzip
import subprocess
import sys
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfar.data.ids import Ids
from nearfar.data.interactions import Interactions
from nearfar.errors import (
    DataError,
    EmptyDataError,
    MissingColumnError,
    MissingExtraError,
    OptionError,
    StoreError,
    UnknownIdError,
)
from nearfar.prepare import prepare

SHARED = Path(__file__).parents[3] / "shared" / "data"
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=6)
KINDS = {
    "integers": st.integers(-(2**63), 2**63 - 1),
    "strings": TEXT,
}


def lists_of(ids):
    return st.lists(st.tuples(ids, ids, st.integers(0, 9)), min_size=1, max_size=40)


def as_set(data):
    frame = data.to_frame()
    return set(zip(frame["user_id"].to_list(), frame["item_id"].to_list(), strict=True))


@pytest.mark.parametrize("ids", KINDS.values(), ids=KINDS.keys())
@settings(max_examples=40, deadline=None)
@given(draw=st.data())
def test_pairs_come_back_with_their_ids_whatever_the_order(ids, draw):
    pairs = draw.draw(lists_of(ids))
    data = Interactions.from_pairs(pairs)
    assert as_set(data) == {(user, item) for user, item, _ in pairs}
    assert len(data) == data.n_pairs == len(as_set(data))
    assert data.n_users == len({user for user, _, _ in pairs})
    earliest = {}
    for user, item, time in pairs:
        earliest[user, item] = min(time, earliest.get((user, item), 99))
    rows = zip(data.pair_users(), data.items, data.times, strict=True)
    assert {(data.user_ids.id(u), data.item_ids.id(i)): t for u, i, t in rows} == earliest
    again = Interactions.from_pairs(draw.draw(st.permutations(pairs)))
    assert again == data
    assert again.fingerprint == data.fingerprint
    assert again.user_ids.to_list() == data.user_ids.to_list()


@settings(max_examples=40, deadline=None)
@given(pairs=lists_of(st.integers(0, 9)), keep=st.randoms(use_true_random=False))
def test_views_agree_with_the_set_of_pairs(pairs, keep):
    data = Interactions.from_pairs(pairs)
    dense = np.zeros((data.n_users, data.n_items), bool)
    for user, item, _ in pairs:
        dense[data.user_ids.row(user), data.item_ids.row(item)] = True
    users, items = np.indices(dense.shape)
    np.testing.assert_array_equal(data.contains(users, items), dense)
    np.testing.assert_array_equal(data.to_csr().toarray(), dense.astype(np.float32))
    np.testing.assert_array_equal(data.user_counts, dense.sum(1))
    np.testing.assert_array_equal(data.item_counts, dense.sum(0))
    for user, row in enumerate(dense):
        np.testing.assert_array_equal(data.positives(user), np.flatnonzero(row))
    assert data.density == dense.mean()
    mask = np.array([keep.random() < 0.5 for _ in range(len(data))])
    part = data.subset(mask)
    np.testing.assert_array_equal(part.pair_users(), data.pair_users()[mask])
    np.testing.assert_array_equal(part.items, data.items[mask])
    np.testing.assert_array_equal(part.times, data.times[mask])
    assert part.user_ids is data.user_ids
    small = part.compact()
    assert as_set(small) == as_set(part)
    assert (small.user_counts > 0).all()
    assert (small.item_counts > 0).all()


def test_arrays_have_their_types_and_cannot_be_written():
    data = Interactions.from_pairs([("a", 1, 0.5), ("b", 2, 1)])
    arrays = {
        "int64": [data.indptr, data.user_counts, data.item_counts],
        "int32": [data.items, data.pair_users(), data.positives(0)],
        "float64": [data.times],
    }
    for dtype, those in arrays.items():
        for array in those:
            assert array.dtype == dtype
            assert not array.flags.writeable
    assert data.contains(0, 0).shape == ()
    assert data.to_csr().dtype == np.float32
    csr = data.to_csr()
    csr.data[:] = 5
    csr.indices[:] = 0
    assert data.items.tolist() == [0, 1]
    with pytest.raises(AttributeError):
        data.items = None


def test_equality_is_of_contents():
    data = Interactions.from_pairs([("a", 1)])
    assert data == Interactions.from_frame(pl.DataFrame({"user": ["a"], "item": [1]}))
    assert hash(data) == hash(Interactions.from_pairs([("a", 1)]))
    for other in ([("a", 1, 0)], [("a", "1")], [("b", 1)], [("a", 1), ("a", 2)]):
        assert data != Interactions.from_pairs(other)
    timed = [Interactions.from_pairs([("a", 1, time)]) for time in (0, 0.0, 1)]
    assert len({one.fingerprint for one in timed}) == 3
    assert repr(timed[0]) == "Interactions(1 users, 1 items, 1 pairs, density 100%, with times)"


FRAME = pl.DataFrame(
    {"user_id": ["b", "a", "b"], "itemID": pl.Series([3, 1, 3], dtype=pl.Int32), "n": [1, 2, 3]}
)


@pytest.mark.parametrize(
    "make",
    [
        lambda: FRAME,
        FRAME.lazy,
        lambda: pd.DataFrame({"user_id": ["b", "a", "b"], "itemID": np.array([3, 1, 3], np.int32)}),
        lambda: pa.table({"user_id": ["b", "a", "b"], "itemID": pa.array([3, 1, 3], pa.int32())}),
        lambda: pa.RecordBatchReader.from_batches(
            FRAME.to_arrow().schema, FRAME.to_arrow().to_batches()
        ),
    ],
    ids=["polars", "lazy", "pandas", "arrow", "stream"],
)
def test_any_table_will_do_and_types_stay(make):
    frame = Interactions.from_frame(make()).to_frame()
    assert frame.rows() == [("a", 1), ("b", 3)]
    assert frame.schema == {"user_id": pl.String, "item_id": pl.Int32}


@pytest.mark.parametrize(
    ("values", "dtype", "back"),
    [
        (pl.Series([3, 1], dtype=pl.UInt8), pl.UInt8, [1, 3]),
        (pl.Series([2.0, 1.0]), pl.Int64, [1, 2]),
        (pl.Series(["b", "a"], dtype=pl.Categorical), pl.String, ["a", "b"]),
    ],
)
def test_column_types(values, dtype, back):
    data = Interactions.from_frame(pl.DataFrame({"user": values, "item": values}))
    assert data.user_ids.dtype == dtype
    assert data.item_ids.to_list() == back


NO_IDS = {
    "UUID": UUID(int=1),
    "decimal": Decimal(1),
    "date": date(2020, 1, 2),
    "datetime": datetime(2020, 1, 2),
    "tuple": ("a", 1),
    "bytes": b"a",
    "boolean": True,
    "float": 1.5,
}


@pytest.mark.parametrize("value", NO_IDS.values(), ids=NO_IDS.keys())
def test_other_ids_are_refused_wherever_they_come_in(value, tmp_path):
    pairs = [("ann", value), ("bob", value)]
    message = r"[Ii]tem ids? .*Ids must be integers of 64 bits or text: convert them with `\["
    with pytest.raises(DataError, match=message):
        Interactions.from_pairs(pairs)
    with pytest.raises(DataError, match=message):
        Interactions.from_csr(sp.csr_array([[1]]), ["ann"], [value])
    users, items = zip(*pairs, strict=True)
    table = pd.DataFrame({"user": list(users), "item": pd.Series(list(items), dtype=object)})
    with pytest.raises(DataError, match=message):
        Interactions.from_frame(table)
    with pytest.raises(DataError, match=message):
        prepare(pl.DataFrame({"user": users, "item": pl.Series(items, dtype=pl.Object)}))
    data = Interactions.from_pairs([("ann", 1), ("bob", 2)])
    kind = pl.Object if isinstance(value, UUID | tuple) else None
    with pytest.raises(DataError, match=r"The column 'item_id' .* item ids are integers"):
        data.with_item_table(pl.DataFrame({"item_id": pl.Series([value], dtype=kind)}))
    if kind is None:
        column = pl.Series(items)
        with pytest.raises(DataError, match=message):
            Interactions.from_frame(pl.DataFrame({"user": users, "item": column}))
        pl.DataFrame({"user": users, "item": column}).write_parquet(tmp_path / "a.parquet")
        with pytest.raises(DataError, match=r"[Ii]tem id.*(Ids must be integers|a fraction)"):
            Interactions.read(tmp_path / "a.parquet")


def test_pandas_columns():
    frame = pd.DataFrame(
        {
            "user": pd.Series(["a", "x", "y"], dtype=object),
            "item": pd.Categorical(["p", "q", "p"]),
            "when": pd.to_datetime(["2020-01-01", "2020-01-02", "2020-01-03"]),
            "gap": [1.0, 2.0, None],
            "nullable": pd.array([1, 2, 3], dtype="Int64"),
        }
    )
    data = Interactions.from_frame(frame, time="when")
    assert as_set(data) == {("a", "p"), ("x", "q"), ("y", "p")}
    assert data.times.max() == 1_578_009_600_000_000
    assert Interactions.from_frame(frame, item="nullable").item_ids.dtype == pl.Int64
    with pytest.raises(DataError, match=r"item id of row 3 \(the first is 1\) is null or NaN"):
        Interactions.from_frame(frame, item="gap")


def test_pandas_without_pyarrow_is_said(monkeypatch):
    def unable(*_args, **_kwargs):
        raise ModuleNotFoundError("pyarrow")

    frame = pd.DataFrame({"user": pd.array([1], dtype="Int64"), "item": [1]})
    monkeypatch.setattr("nearfar.data.frames.pl.Series", unable)
    with pytest.raises(MissingExtraError, match=r"'user' of type Int64 needs pyarrow.*pip install"):
        Interactions.from_frame(frame)


def test_columns_are_recognised_or_asked_for():
    wide = pl.DataFrame({"x": [1], "user_id:token": [2], "item_id:token": [3], "rating:float": [4]})
    assert as_set(Interactions.from_frame(wide)) == {(2, 3)}
    assert as_set(Interactions.from_frame(wide, user=0, item="rating:float")) == {(1, 4)}
    assert as_set(Interactions.from_frame(pl.DataFrame({"who": [1], "what": [2]}))) == {(1, 2)}
    with pytest.raises(MissingColumnError, match=r"no column 'q' for `user`; the columns are x, u"):
        Interactions.from_frame(wide, user="q")
    with pytest.raises(MissingColumnError, match=r"no column 4 for `item`"):
        Interactions.from_frame(wide, item=4)
    for names, message in [
        ("abc", r"No column is recognised as the user; pass its name as `user=`. .* are a, b, c"),
        (["user", "uid", "item"], "More than one column is recognised as the user"),
        (["item", "other"], "No column is recognised as the user"),
    ]:
        with pytest.raises(MissingColumnError, match=message):
            Interactions.from_frame(pl.DataFrame({name: [1] for name in names}))


def test_thresholds():
    by = {"value": "n", "min_value": 2}
    data = Interactions.from_frame(FRAME, **by)
    assert as_set(data) == {("a", 1), ("b", 3)}
    above = Interactions.from_frame(FRAME, value="n", min_value=2.5)
    assert as_set(above) == {("b", 3)}
    assert above.user_ids.to_list() == ["b"]
    with pytest.raises(EmptyDataError, match=r"no interaction with 'n' >= 9"):
        Interactions.from_frame(FRAME, value="n", min_value=9)
    with pytest.raises(OptionError, match="`value` and `min_value` go together"):
        Interactions.from_frame(FRAME, value="n")
    for bad, shown in [("x", "'x'"), (None, "None"), ("nan", "'nan'"), ("inf", "'inf'")]:
        frame = FRAME.with_columns(pl.Series("n", ["1", bad, "3"]))
        message = rf"Column 'n' must hold finite numbers; row 2 \(the first is 1\) has {shown}"
        with pytest.raises(DataError, match=message):
            Interactions.from_frame(frame, **by)
    with pytest.raises(DataError, match=r"Column 'n' must hold numbers; its type is List"):
        Interactions.from_frame(FRAME.with_columns(n=[1]), **by)


def test_times():
    stamps = pl.Series([datetime(1970, 1, 1, 0, 0, 2), datetime(1970, 1, 1), datetime(1970, 1, 2)])
    data = Interactions.from_frame(FRAME.with_columns(t=stamps), time="t")
    assert data.times.tolist() == [0, 2_000_000]
    assert data.times.dtype == np.int64
    text = FRAME.with_columns(t=pl.Series(["5", " 7", "1.5"]))
    assert Interactions.from_frame(text, time="t").times.tolist() == [7.0, 1.5]
    for bad in ("x", None, float("nan")):
        with pytest.raises(DataError, match=r"'time' must hold finite numbers; row 1"):
            Interactions.from_pairs([("a", 1, bad)])


@pytest.mark.parametrize("bad", [None, float("nan"), 1.5, 2.0**60])
def test_ids_that_are_none(bad):
    with pytest.raises(DataError, match=r"user id of row 2 \(the first is 1\)"):
        Interactions.from_pairs([(1.0, 1), (bad, 2)])
    frame = pl.DataFrame({"user": [1.0, bad], "item": ["a", "b"]})
    with pytest.raises(DataError, match=r"user id of row 2 \(the first is 1\) is "):
        Interactions.from_frame(frame)


def test_pairs_that_are_none():
    for pairs, shown in [
        ([(1,)], r"\(1,\)"),
        ([(1, 2), (1, 2, 3)], r"entry 1 is"),
        (["ab"], "'ab'"),
    ]:
        with pytest.raises(DataError, match=rf"`pairs` must be \(user, item\) .*{shown}"):
            Interactions.from_pairs(pairs)
    with pytest.raises(EmptyDataError, match="at least one"):
        Interactions.from_pairs([])
    with pytest.raises(EmptyDataError, match="no interaction in the table"):
        Interactions.from_frame(FRAME.head(0))
    with pytest.raises(DataError, match="A dict is not a table; pass"):
        Interactions.from_frame({"user": [1]})


def test_text_files_keep_ids_as_written(tmp_path):
    rows = "user,item,rating\n007,0-306-40615-2,5\n7,1e3,4\n007,080442957X,1\n"
    (tmp_path / "a.csv").write_text(rows)
    (tmp_path / "a.tsv").write_text(rows.replace(",", "\t"))
    (tmp_path / "a.dat").write_text(rows.replace(",", "|"))
    (tmp_path / "bare.csv").write_text(rows.split("\n", 1)[1])
    with gzip.open(tmp_path / "a.csv.gz", "wt") as file:
        file.write(rows)
    expected = {("007", "0-306-40615-2"), ("7", "1e3")}
    by = {"value": "rating", "min_value": 4}
    for name in ("a.csv", "a.tsv", "a.csv.gz"):
        assert as_set(Interactions.read(tmp_path / name, **by)) == expected
    assert as_set(Interactions.read(str(tmp_path / "a.dat"), separator="|", **by)) == expected
    bare = tmp_path / "bare.csv"
    assert as_set(Interactions.read(bare, value=2, min_value=4, has_header=False)) == expected
    named = {"value": "column_3", "min_value": 4, "has_header": False}
    assert as_set(Interactions.read(bare, **named)) == expected


def test_parquet_files_keep_their_types(tmp_path):
    FRAME.write_parquet(tmp_path / "a.parquet")
    data = Interactions.read(tmp_path / "a.parquet", time="n")
    assert data.item_ids.dtype == pl.Int32
    assert data.times.tolist() == [2, 1]


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"no file '.*no.csv'; check the path"):
        Interactions.read(tmp_path / "no.csv")
    for name, content, message in [
        (
            "a.xlsx",
            b"x",
            r"The suffix of .* is unknown; it must be one of .csv, .*pass `separator`",
        ),
        ("a", b"x", "The suffix of .* is unknown"),
        ("a.csv", b"", r"a.csv' is empty"),
        ("ragged.csv", b"user,item\n1,2,3\n", r"Line 2 of '.*ragged.csv' has 3 fields"),
        ("latin.csv", b"user,item\n1,\xe9\n", r"Line 2 of '.*latin.csv' .*`encoding`"),
        ("bad.parquet", b"user,item\n", r"'.*bad.parquet' cannot be read"),
        ("null.csv", b"user,item\n1,2\n,3\n", r"user id must not be .*line 3 of '.*null.csv'"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message):
            Interactions.read(tmp_path / name)


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "lil", "dok"])
@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csr_array])
def test_sparse_matrices(form, make):
    matrix = make(np.array([[0, 2, 0], [0, 0, 0], [0.5, 1, 0]])).asformat(form)
    data = Interactions.from_csr(matrix)
    assert as_set(data) == {(0, 1), (2, 0), (2, 1)}
    assert (data.n_users, data.n_items) == (3, 3)
    named = Interactions.from_csr(matrix, ["z", "y", "x"], [3, 2, 1])
    assert as_set(named) == {("z", 2), ("x", 3), ("x", 2)}
    assert named.user_ids.to_list() == ["x", "y", "z"]


def test_stored_zeros_are_no_interactions_and_the_matrix_stays_as_it_is():
    data, indices, indptr = np.array([0.0, 1, 1]), np.array([1, 0, 0]), np.array([0, 2, 3])
    matrix = sp.csr_array((data, indices, indptr), (2, 2))
    assert as_set(Interactions.from_csr(matrix)) == {(0, 0), (1, 0)}
    assert matrix.nnz == 3
    assert matrix.indices.tolist() == [1, 0, 0]


def test_matrices_that_will_not_do():
    for bad in (-1, float("nan")):
        matrix = sp.coo_array(([1.0, bad], ([0, 1], [1, 0])))
        with pytest.raises(DataError, match=rf"Entry \(1, 0\) of `matrix` is {bad}.*`matrix > 0`"):
            Interactions.from_csr(matrix)
    for shape, name in (((2**31, 3), "users"), ((3, 2**31), "items")):
        with pytest.raises(DataError, match=rf"2,147,483,648 {name}; .*at most 2,147,483,647"):
            Interactions.from_csr(sp.coo_array(shape))
    for no_matrix in (np.eye(2), sp.coo_array(np.ones(3))):
        with pytest.raises(DataError, match="must be a two-dimensional scipy sparse matrix; got"):
            Interactions.from_csr(no_matrix)
    with pytest.raises(EmptyDataError, match="no positive entry"):
        Interactions.from_csr(sp.csr_array((2, 2)))
    with pytest.raises(DataError, match=r"`user_ids` must be 2, one per row of the axis; got 1"):
        Interactions.from_csr(sp.eye_array(2), user_ids=["a"])
    with pytest.raises(DataError, match=r"`item_ids` must be distinct; 'a' occurs more than once"):
        Interactions.from_csr(sp.eye_array(2), item_ids=["a", "a"])


def test_rows_are_checked():
    users, items = Ids(["a", "b"], "user"), Ids.numbered(3, "item")
    data = Interactions.from_rows([1, 0, 1], [2, 0, 2], users, items)
    assert as_set(data) == {("b", 2), ("a", 0)}
    assert len(Interactions.from_rows([], [], users, items)) == 0
    empty = Interactions.from_rows([], [], Ids([]), Ids([]))
    assert (empty.density, empty.contains([], []).size) == (0, 0)
    assert not data.subset(np.zeros(2, bool)).contains(1, 2)
    for bad_users, bad_items, times, message in [
        ([2], [0], None, r"User row 2 \(entry 0\) is not among the 2 users"),
        ([0], [-1], None, "Item row -1"),
        ([0.5], [0], None, r"`users` must be a flat array of whole numbers; got \[0.5\]"),
        ([0], [0, 1], None, "must have the same length; got"),
        ([0], [0], [1, 2], "must have the same length; got"),
        ([0], [0], [np.nan], "Times must be finite; entry 0 is nan"),
        ([0], [0], ["x"], "`times` must be a flat array of numbers"),
    ]:
        with pytest.raises(DataError, match=message):
            Interactions.from_rows(bad_users, bad_items, users, items, times)
    with pytest.raises(UnknownIdError, match=r"`user` must be rows in 0..1; got 2"):
        data.contains(2, 0)
    with pytest.raises(UnknownIdError, match=r"user row -1 is not in 0..1"):
        data.positives(-1)
    for mask in ([True], [1, 0]):
        with pytest.raises(
            OptionError, match=r"`mask` must be bool with one entry for each of the 2"
        ):
            data.subset(mask)


@pytest.mark.parametrize("ids", KINDS.values(), ids=KINDS.keys())
@settings(max_examples=10, deadline=None)
@given(draw=st.data())
def test_saved_interactions_come_back(ids, draw, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    pairs = draw.draw(lists_of(ids))
    for data in (Interactions.from_pairs(pairs), Interactions.from_pairs([p[:2] for p in pairs])):
        data.save(folder)
        back = Interactions.load(folder)
        assert back == data
        assert back.user_ids == data.user_ids
        assert back.fingerprint == data.fingerprint


def test_ids_of_two_kinds_are_not_aligned_to_nothing():
    one, two = Interactions.from_pairs([(1, 2)]), Interactions.from_pairs([(1, "2")])
    for data, train in ((one, two), (two, one)):
        message = r"item ids are .*, and those of the other axis .*`data\.with_ids_like\(train\)`"
        with pytest.raises(DataError, match=message):
            data.aligned(train.user_ids, train.item_ids)
        same = data.with_ids_like(train)
        assert same.aligned(train.user_ids, train.item_ids).without(train).n_pairs == 0
        assert data.with_ids_like(data) is data


def test_converted_ids_keep_times_and_tables():
    text = Interactions.from_pairs([("9", "1", 5), ("10", "2", 6), ("10", "1", 7)])
    text = text.with_item_table(pl.DataFrame({"item_id": ["2", "1"], "title": ["two", "one"]}))
    whole = text.with_ids_like(Interactions.from_pairs([(1, 1)]))
    assert whole.to_frame().rows() == [(9, 1, 5), (10, 1, 7), (10, 2, 6)]
    assert whole.titles([1, 2]) == ["one", "two"]
    assert whole.with_ids_like(text) == text
    with pytest.raises(DataError, match=r"strings \(String\), .* integers \(Int64\).*'x' is not"):
        Interactions.from_pairs([("x", 1)]).with_ids_like(whole)


@pytest.mark.parametrize(
    ("one", "other", "wider"),
    [
        (pl.Int32, pl.Int64, pl.Int64), (pl.UInt8, pl.Int8, pl.Int16),
        (pl.UInt8, pl.Int64, pl.Int64), (pl.UInt8, pl.UInt16, pl.UInt16),
        (pl.UInt32, pl.Int32, pl.Int64), (pl.UInt64, pl.Int8, pl.Int64),
    ],
)  # fmt: skip
def test_integers_of_two_widths_are_the_same_ids(one, other, wider):
    frame = pl.DataFrame({"user": [1, 2, 2], "item": [1, 1, 3]})
    table = pl.DataFrame({"item_id": [3], "title": ["three"]}).cast({"item_id": other})
    left, right = (Interactions.from_frame(frame.cast(kind)) for kind in (one, other))
    left = left.with_item_table(table)
    assert left.titles([1, 3]) == [None, "three"]
    for both in (left.union(right), right.union(left)):
        assert both.user_ids.dtype == both.item_ids.dtype == wider
        assert both.to_frame().rows() == frame.rows()
        assert both.titles([1, 3]) == [None, "three"]
        assert both.item_table["item_id"].dtype == wider
    assert left.aligned(right.user_ids, right.item_ids).without(right).n_pairs == 0
    assert left.item_ids.rows(right.item_ids.values).tolist() == [0, 1]
    assert left.item_ids.places(Ids(pl.Series([3, 100, 1], dtype=other))).tolist() == [0, 1, -1]


def test_saving_keeps_types_and_what_is_not_whole_is_refused(tmp_path):
    data = Interactions.from_frame(FRAME)
    data.save(tmp_path / "a")
    assert Interactions.load(tmp_path / "a").item_ids.dtype == pl.Int32
    meta, frames = data.to_store()
    assert Interactions.from_store({**meta, "more": 1}, {**frames, "more": FRAME}) == data
    for bad_meta, bad_frames in [
        ({}, frames),
        (meta, {}),
        ({**meta, "n_pairs": 5}, frames),
        (meta, {**frames, "users": pl.DataFrame({"id": [False, True]})}),
        (meta, {**frames, "users": pl.DataFrame({"id": [1.0, 2.0]})}),
        (meta, {**frames, "users": frames["users"].head(1)}),
    ]:
        with pytest.raises(StoreError, match="saved interactions"):
            Interactions.from_store(bad_meta, bad_frames)


def test_pandas_and_pyarrow_are_not_imported():
    code = (
        "import sys, nearfar.data.interactions, nearfar.data.split, nearfar.datasets,"
        "nearfar.prepare;"
        "print([m for m in ('pandas', 'pyarrow', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.data
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data of ../shared/data are not here")
def test_real_tables():
    data = Interactions.read(
        SHARED / "hetrec-lastfm-2k.parquet", "userID", "artistID", "weight", min_value=5
    )
    assert (data.n_users, data.n_items, len(data)) == (1877, 17202, 91096)


def test_a_union_has_the_pairs_ids_and_tables_of_both():
    one = Interactions.from_pairs([("ann", "tea"), ("bob", "jam")])
    two = Interactions.from_pairs([("ann", "jam"), ("eve", "tea"), ("ann", "tea")])
    both = one.union(two)
    assert both == two.union(one)
    assert both.to_frame().rows() == [
        ("ann", "jam"), ("ann", "tea"), ("bob", "jam"), ("eve", "tea"),
    ]  # fmt: skip
    assert one.union(one) == one
    assert both.item_table is None
    titled = one.with_item_table(pl.DataFrame({"item_id": ["tea"], "title": ["Tea"]}))
    other = two.with_item_table(
        pl.DataFrame({"item_id": ["jam", "tea"], "title": ["Jam", "T"], "year": [1, 2]})
    )
    listed = two.with_item_table(pl.DataFrame({"item_id": ["jam"], "title": [["Jam"]]}))
    with pytest.raises(DataError, match=r"tables about items have columns .* Rename or drop one"):
        titled.union(listed)
    table = titled.union(other).item_table
    assert table.rows() == [("jam", "Jam", 1), ("tea", "Tea", None)]


def test_a_union_keeps_the_earliest_time_if_both_know_it():
    early = Interactions.from_pairs([("ann", "tea", 3), ("bob", "tea", 9)])
    late = Interactions.from_pairs([("ann", "tea", 2), ("eve", "tea", 5)])
    assert early.union(late).times.tolist() == [2, 9, 5]
    assert early.union(Interactions.from_pairs([("eve", "tea")])).times is None


def test_ids_of_two_kinds_have_no_union():
    one, two = Interactions.from_pairs([(1, 2)]), Interactions.from_pairs([(1, "b")])
    with pytest.raises(DataError, match=r"of different types .* Convert one of them"):
        one.union(two)
