import pickle
from datetime import date
from decimal import Decimal
from uuid import UUID

import numpy as np
import polars as pl
import pytest

from nearfar.data.id_values import from_text, to_text
from nearfar.data.ids import Ids, encode
from nearfar.errors import DataError, UnknownIdError

MIXED = [3, "3", (1, "a"), (1, "B"), True, 2.5]


class Named:
    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return f"Named({self.name})"


def test_rows_are_places_in_sorted_order():
    ids = Ids([30, 10, 20, 10], "user")
    assert (len(ids), ids.to_list(), list(ids)) == (3, [10, 20, 30], [10, 20, 30])
    assert ids.row(20) == ids.row(np.int64(20)) == 1
    for asked in (
        [30, 10, 30],
        np.array([30, 10, 30]),
        pl.Series([30, 10, 30]),
        iter([30, 10, 30]),
    ):
        rows = ids.rows(asked)
        assert rows.tolist() == [2, 0, 2]
        assert rows.dtype == np.int32
    assert ids.take([2, 0, 2]).to_list() == [30, 10, 30]
    assert ids.take(np.array([], np.int32)).dtype == pl.Int64
    assert (ids.id(0), ids.rows([]).size) == (10, 0)
    assert ids.rows(pl.Series([30, 10], dtype=pl.UInt8)).tolist() == [2, 0]
    with pytest.raises(IndexError, match=r"user row 3 is not in 0..2"):
        ids.id(3)
    with pytest.raises(IndexError, match="user row -1"):
        ids.id(-1)


def test_membership_is_of_type_and_value():
    assert 10 in Ids([10])
    for stranger in ("10", 11, None, [10], float("nan"), 10.5):
        assert stranger not in Ids([10])
    assert True not in Ids([1])
    assert 1 not in Ids([True])
    mixed = Ids(MIXED)
    assert all(one in mixed for one in MIXED)
    assert 1 not in mixed
    assert [mixed.row(one) for one in mixed] == list(range(len(MIXED)))


@pytest.mark.parametrize(
    ("ids", "stranger", "message"),
    [
        (["196"], 196, r"Unknown user id: 196. The user ids are strings, such as '196'; got int"),
        ([196], "196", r"Unknown user id: '196'. The user ids are integers, such as 196; got str"),
        ([196], 197, r"Unknown user id: 197. There are 1 user ids, such as 196; ask with `id in"),
        ([], 1, r"Unknown user id: 1. There are no user ids at all"),
        ([True], 1, "The user ids are booleans"),
        ([b"a"], "a", "The user ids are bytes"),
        ([date(2020, 1, 1)], "2020-01-01", "The user ids are dates"),
    ],
)
def test_unknown_ids_are_explained(ids, stranger, message):
    known = Ids(ids, "user")
    with pytest.raises(UnknownIdError, match=message):
        known.row(stranger)
    with pytest.raises(UnknownIdError, match=message):
        known.rows([stranger])


def test_many_unknown_ids_are_counted():
    message = r"Unknown ids \(20 of them\): 1, 2, 3, 4, 5 and 15 more"
    for asked in (list(range(21)), pl.Series(range(21))):
        with pytest.raises(UnknownIdError, match=message):
            Ids([0]).rows(asked)
    with pytest.raises(
        TypeError, match=r"`rows` takes several ids; got 'ab'. For one there is `row`"
    ):
        Ids(["a", "b"]).rows("ab")


def test_objects_have_an_order_of_their_own():
    for turned in (MIXED, MIXED[::-1]):
        assert Ids(turned).to_list() == [True, 2.5, 3, "3", (1, "B"), (1, "a")]
    assert Ids([UUID(int=2), UUID(int=1)]).to_list() == [UUID(int=1), UUID(int=2)]
    assert Ids([Decimal(10), Decimal(9)]).to_list() == [9, 10]
    assert Ids([frozenset([2]), frozenset([1])]).to_list() == [frozenset([1]), frozenset([2])]
    assert Ids([10**60, 5]).to_list() == [5, 10**60]
    assert Ids(np.array([3, "a"], dtype=object)).to_list() == [3, "a"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, True], r"id True of row 2 .* equals an earlier one .*convert all to str"),
        ([(1,), (True,)], r"id \(True,\) of row 2"),
        ([Named("x"), Named("x")], "Two different user ids have the same repr"),
        ([object(), 1], "an object of type object has no order and no repr"),
        (["a", [1]], r"row 2 .* \[1\] of type list is not hashable; convert it to a tuple"),
        (["a", ("b", [1])], "of type list is not hashable"),
        (["a", None], r"user id of row 2 \(the first is 1\) cannot be used: it is null"),
        (["a", ("b", float("nan"))], "it is NaN"),
        (pl.Series([[1]]), r"User ids of type List\(Int64\) are not supported; convert to str"),
        (pl.Series(["a", None]), r"user id of row 2 \(the first is 1\) is null"),
        (pl.Series([None]), "of row 1"),
    ],
)
def test_values_that_are_no_ids(values, message):
    with pytest.raises(DataError, match=message):
        Ids(values, "user")


def test_encode_gives_the_values_back():
    for values in ([5, 3, 5], ["b", "a", "b"], [(2,), "a", (2,)], np.array([2.0, 1.0, 2.0])):
        ids, rows = encode(values)
        assert ids.take(rows).to_list() == list(values)
        assert rows.dtype == np.int32


def test_ids_cannot_be_changed_and_compare_by_content():
    ids = Ids(["b", "a"], "user")
    with pytest.raises(AttributeError, match="cannot be changed"):
        ids.name = "item"
    assert ids == Ids(["a", "b"])
    assert hash(ids) == hash(Ids(["a", "b"]))
    assert ids != Ids(["a"])
    assert ids != ["a", "b"]
    assert Ids([1]) != Ids(pl.Series([1], dtype=pl.Int8))
    assert Ids([1, "a"]) != Ids([True, "a"])
    assert repr(ids) == "Ids(2 of strings: ['a', 'b'])"
    for one in (ids, Ids(MIXED)):
        assert pickle.loads(pickle.dumps(one)) == one


def test_text_of_objects():
    values = ["ü", "", -(2**80), 0.1, float("inf"), True, (1, ("a", (False,))), ()]
    assert from_text(to_text(values, "user")) == values
    assert [type(one) for one in from_text(to_text(values, "user"))] == [*map(type, values)]
    for bad in ('["x", 1]', '["i", "1"]', "3", '["t", [3]]', "{"):
        with pytest.raises(ValueError, match=r"is not a saved id|Expecting"):
            from_text([bad])
    with pytest.raises(DataError, match="user id b'a' is of type bytes, which cannot be saved"):
        to_text([b"a"], "user")
