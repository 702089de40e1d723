import numpy as np
import polars as pl
import pytest

from nearfar.data.ids import Ids
from nearfar.data.interactions import Interactions
from nearfar.errors import DataError, OptionError, UnknownIdError


def test_aligned_moves_rows_and_times_and_drops_strangers():
    data = Interactions.from_pairs([("a", 1, 10), ("b", 2, 20), ("c", 1, 30), ("b", 9, 40)])
    moved = data.aligned(Ids(["b", "c", "z"]), Ids([0, 1, 2]))
    assert moved.to_frame().rows() == [("b", 2, 20), ("c", 1, 30)]
    assert moved.user_ids == Ids(["b", "c", "z"])
    assert (moved.n_users, moved.n_items) == (3, 3)


def test_aligned_to_its_own_axes_changes_nothing():
    data = Interactions.from_pairs([("a", 1), ("b", 2), ("a", 2)])
    assert data.aligned(data.user_ids, data.item_ids) == data


def test_aligned_matches_integers_of_other_widths_but_not_text():
    narrow = Ids(np.array([1, 2, 3], np.int32))
    assert Ids([2, 3, 4]).places(narrow).tolist() == [-1, 0, 1]
    assert Ids(["2", "3"]).places(narrow).tolist() == [-1, -1, -1]


def test_without_is_the_set_difference():
    data = Interactions.from_pairs([(u, i) for u in range(4) for i in range(5)])
    mask = np.arange(len(data)) % 3 == 0
    part, rest = data.subset(mask), data.subset(~mask)
    assert data.without(part) == rest
    assert data.without(data).n_pairs == 0


def test_without_refuses_other_axes():
    data = Interactions.from_pairs([("a", 1), ("b", 2)])
    other = Interactions.from_pairs([("a", 1), ("c", 2)])
    with pytest.raises(DataError, match="same axes"):
        data.without(other)


@pytest.mark.parametrize(
    ("ids", "word", "expected"),
    [
        (["7", "007"], "007", "007"),
        ([7, 8], "007", 7),
        ([-7, 8], "-7", -7),
    ],
)
def test_typed_words_become_ids_of_the_kind_there_is(ids, word, expected):
    (found,) = Ids(ids).typed([word])
    assert found == expected
    assert type(found) is type(expected)


def test_a_word_that_is_no_integer_is_an_unknown_id():
    ids = Ids([7, 8], "user")
    with pytest.raises(UnknownIdError, match="integers, such as 7; got str"):
        ids.rows(ids.typed(["ann"]))


def test_aligned_can_refuse_what_the_axes_lack():
    data = Interactions.from_pairs([("a", 1), ("b", 2), ("c", 1)])
    users, items = Ids(["a", "b"], "user"), Ids([1, 2], "item")
    with pytest.raises(UnknownIdError, match="Unknown user id: 'c'"):
        data.aligned(users, items, unknown="error")
    with pytest.raises(UnknownIdError, match="Unknown item id: 2"):
        data.aligned(data.user_ids, Ids([1], "item"), unknown="error")
    assert data.aligned(data.user_ids, items, unknown="error") == data
    with pytest.raises(OptionError, match=r"`unknown` must be one of drop, error; got 'skip'"):
        data.aligned(users, items, unknown="skip")


def test_ids_of_a_list_are_known_or_not_in_their_order():
    for ids, asked, rows, unknown in [
        (Ids([7, 3]), [7, 5, "7", None, 3, 7], [1, 0, 1], [5, "7", None]),
        (Ids(["x", "y"]), pl.Series(["y", None, "z"]), [1], [None, "z"]),
        (Ids([7, 3]), np.array([3.0, 4.5]), [0], [4.5]),
        (Ids([7, 3]), [], [], []),
    ]:
        found, strangers = ids.known(asked)
        assert found.tolist() == rows
        assert strangers == unknown
        assert found.dtype == np.int32


def test_an_id_of_another_type_is_recognised_and_no_other():
    numbers, text = Ids([7]), Ids(["7", "1"])
    for no_id in (None, True, np.True_, 7.5, float("nan"), float("inf"), b"7", [7], object()):
        assert numbers.mistyped(no_id)
        assert text.mistyped(no_id)
    assert all(numbers.mistyped(one) for one in ("7", " 7 ", "07"))
    assert not any(numbers.mistyped(one) for one in ("8", "x", "", 8, np.int8(8), 8.0))
    assert all(text.mistyped(one) for one in (7, 7.0, np.int32(7), np.float32(7)))
    assert not any(text.mistyped(one) for one in (8, 8.0, "8", "x"))
