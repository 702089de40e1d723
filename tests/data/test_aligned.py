import numpy as np
import pytest

from nearfar.data.ids import Ids
from nearfar.data.interactions import Interactions
from nearfar.errors import DataError, UnknownIdError


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
