import pickle
import re
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from uuid import UUID

import numpy as np
import polars as pl
import pytest

from nearfar.data.ids import Ids, encode
from nearfar.errors import DataError, UnknownIdError


class Fruit(StrEnum):
    PEAR = "pear"


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
    numbers = (True, np.True_, Decimal(1), Fraction(1), 1 + 0j, np.timedelta64(1, "s"))
    for stranger in (*numbers, (1,), UUID(int=1)):
        assert stranger not in Ids([1])
    assert 10.0 in Ids([10])
    assert np.float32(10) in Ids([10])
    assert Fruit.PEAR in Ids(["pear"])
    assert b"a" not in Ids(["a"])


@pytest.mark.parametrize(
    ("ids", "stranger", "message"),
    [
        (["196"], 196, r"Unknown user id: 196. The user ids are strings, such as '196'; got int"),
        ([196], "196", r"Unknown user id: '196'. The user ids are integers, such as 196; got str"),
        ([196], 197, r"Unknown user id: 197. There are 1 user ids, such as 196\.$"),
        ([], 1, r"Unknown user id: 1. There are no user ids\."),
        ([196], UUID(int=1), r"UUID\(.* are integers, such as 196; got UUID. Convert it.*`int\(id"),
        (["a"], date(2020, 1, 1), r"date\(.* are strings, such as 'a'; got date. Convert.*`str\("),
        ([1], True, "are integers, such as 1; got bool"),
        (["a"], b"a", "are strings, such as 'a'; got bytes"),
        ([1], ("a", 1), "are integers, such as 1; got tuple"),
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
    with pytest.raises(DataError, match=r"`ids` must be a list of ids; got the single 'ab'"):
        Ids(["a", "b"]).rows("ab")


REFUSED = {
    "UUID": (UUID(int=1), "of type UUID"),
    "decimal": (Decimal("1.5"), "Decimal"),
    "fraction": (Fraction(1, 2), "of type Fraction"),
    "date": (date(2020, 1, 2), "of type date"),
    "datetime": (datetime(2020, 1, 2), "datetime"),
    "tuple": (("a", 1), "of type tuple"),
    "list": ([1], "of type list"),
    "frozenset": (frozenset([1]), "of type frozenset"),
    "bytes": (b"a", "Binary"),
    "boolean": (True, "Boolean"),
    "float": (1.5, "the float"),
    "complex": (1j, "of type complex"),
    "integer": (2**70, "Int128"),
    "long integer": (10**60, "of type int, beyond 64 bits"),
}
"""Values that are no ids, and what the error says of the type."""
CONVERSION = r"Ids must be integers of 64 bits or text: convert them with `\[.*for i in ids\]`, or"


@pytest.mark.parametrize(("value", "kind"), REFUSED.values(), ids=REFUSED.keys())
def test_values_that_are_neither_integers_nor_text_are_refused(value, kind):
    for values in ([value, value], np.array([value, None], dtype=object)[:1]):
        with pytest.raises(DataError) as raised:
            Ids(values, "user")
        message = str(raised.value)
        assert repr(value)[:60] in message
        assert kind in message
        assert re.search(CONVERSION, message)


def test_the_conversion_that_is_named_gives_ids():
    assert Ids([str(i) for i in (UUID(int=1), ("a", 1), date(2020, 1, 2))]).kind == "strings"
    for value, code in ((b"a", r"i\.decode\(\)"), (True, r"int\(i\)"), (1.5, r"str\(i\)")):
        with pytest.raises(DataError, match=rf"`\[{code} for i in ids\]`"):
            Ids([value])
    for column in (pl.Series([date(2020, 1, 2)]), pl.Series([b"a"]), pl.Series([True])):
        with pytest.raises(DataError, match=r"`\.cast\(pl\.String\)` \(polars\)"):
            Ids(column)
        assert Ids(column.cast(pl.String)).kind == "strings"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([3, "3"], "mixed types: 3 is of type int, '3' of type str. Ids must be"),
        (np.array(["a", 3], dtype=object), "mixed types: 3 is of type int, 'a' of type str"),
        ([1, True], r"id of row 2 \(the first is 1\) is True of type bool"),
        ([1, (1, "a")], r"row 2 .* is \(1, 'a'\) of type tuple"),
        ([1, 2.5], r"row 2 .* is 2.5 of type float"),
        (["a", "\ud800"], r"row 2 .* is '\\ud800', which is not valid UTF-8 text"),
        (
            np.array(["2020-01-01"], "M8[s]"),
            r"row 1 .* is datetime.datetime\(2020.* of type datetime",
        ),
        (np.array(["2020"], "M8[Y]"), r"row 1 .* is datetime.date\(2020.* of type date"),
        (np.array(["2020-01-01"], "M8[ns]"), r"User ids of type Datetime.*, such as datetime"),
        (np.array([1], "m8[s]"), r"of type timedelta"),
        (["a", None], r"user id of row 2 \(the first is 1\) is null"),
        ([5, float("nan")], r"user id of row 2 \(the first is 1\) is null or NaN"),
        (pl.Series([[1]]), r"User ids of type List\(Int64\), such as .*, are not supported"),
        (pl.Series(["a", None]), r"user id of row 2 \(the first is 1\) is null"),
        (pl.Series([None]), "of row 1"),
        (pl.Series([2**70], dtype=pl.Int128), "User ids of type Int128"),
    ],
)
def test_values_that_are_no_ids(values, message):
    with pytest.raises(DataError, match=message):
        Ids(values, "user")


def test_kinds_of_integers_and_text_become_one():
    assert Ids([2, np.int32(1), 3.0]).to_list() == [1, 2, 3]
    assert Ids(["b", np.str_("a"), Fruit.PEAR]).to_list() == ["a", "b", "pear"]
    assert Ids([2**63, np.uint64(5)]).to_list() == [5, 2**63]
    assert {type(one) for one in Ids([Fruit.PEAR, "a"])} == {str}


def test_ids_beyond_either_type_are_joined_or_refused():
    large, small = Ids(pl.Series([2**64 - 1], dtype=pl.UInt64)), Ids([-1, 5], "user")
    assert Ids([5]).union(large).to_list() == [5, 2**64 - 1]
    with pytest.raises(DataError, match=r"combined: integers, Int64, and integers, UInt64"):
        small.union(large)
    assert small.places(large).tolist() == [-1]
    with pytest.raises(UnknownIdError, match="Unknown user id: 18446744073709551615"):
        small.rows(large.values)
    assert Ids(pl.Series([1], dtype=pl.UInt8)).places(Ids([257, 1, -255])).tolist() == [-1, 0, -1]


def test_text_becomes_integers_only_where_nothing_is_lost():
    for text in ([str(2**64 - 1), "0"], ["-7", "12"], ["5"]):
        ids, rows = Ids(text).converted(Ids([1]))
        assert [str(one) for one in ids.take(rows)] == sorted(text)
        back, again = ids.converted(Ids(["a"]))
        assert back == Ids(text)
        assert back.take(again).to_list() == [str(one) for one in ids]
    for lost in ("007", "7.0", "+7", "-0", " 7", "7 ", "", "x", str(2**64), "٣", "1e3", "1_0"):
        with pytest.raises(
            DataError, match=rf"They cannot be converted: {re.escape(repr(lost))} is"
        ):
            Ids(["5", lost], "user").converted(Ids([1]))


def test_a_typed_number_of_thousands_of_digits_is_an_unknown_id():
    (typed,) = Ids([1]).typed(["9" * 5000])
    assert typed not in Ids([1])


def test_encode_gives_the_values_back():
    for values in ([5, 3, 5], ["b", "a", "b"], np.array([2.0, 1.0, 2.0])):
        ids, rows = encode(values)
        assert ids.take(rows).to_list() == list(values)
        assert rows.dtype == np.int32


def test_ids_cannot_be_changed_and_compare_by_content():
    ids = Ids(["b", "a"], "user")
    with pytest.raises(AttributeError, match="`Ids` is immutable; `name` cannot be set"):
        ids.name = "item"
    assert ids == Ids(["a", "b"])
    assert hash(ids) == hash(Ids(["a", "b"]))
    assert ids != Ids(["a"])
    assert ids != ["a", "b"]
    assert Ids([1]) != Ids(pl.Series([1], dtype=pl.Int8))
    assert repr(ids) == "Ids(2 of strings: ['a', 'b'])"
    for one in (ids, Ids([1, 2])):
        assert pickle.loads(pickle.dumps(one)) == one
