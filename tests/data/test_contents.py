"""Contents: read by id and only when asked for, and named by id where they are bad."""

import pickle

import numpy as np
import pytest

from nearfar.data.contents import Contents
from nearfar.data.ids import Ids
from nearfar.errors import DataError, EmptyDataError, OptionError, UnknownIdError

VALUES = np.arange(24.0).reshape(4, 2, 3)
IDS = [9, 2, 7, 4]


def test_rows_of_an_array_follow_their_ids():
    contents = Contents.from_array(VALUES, IDS)
    rows = contents.ids.rows([7, 9, 7])
    found = contents.take(rows)
    np.testing.assert_array_equal(contents.read([7, 9, 7]), found)
    np.testing.assert_array_equal(found, VALUES[[2, 0, 2]])
    assert found.dtype == np.float32
    assert contents.shape == (2, 3)
    assert len(contents) == 4


def test_a_memory_map_is_read_where_it_is_asked_for(tmp_path):
    np.save(tmp_path / "a.npy", VALUES.astype(np.int16))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    contents = Contents.from_array(mapped, IDS)
    assert contents.load.array is mapped
    assert contents.take([0]).dtype == np.int16
    np.testing.assert_array_equal(contents.take([0, 3]), VALUES[[1, 0]])


def test_a_folder_is_read_by_name(tmp_path):
    for name, value in zip("cab", VALUES, strict=False):
        np.save(tmp_path / f"{name}.npy", value)
    contents = Contents.from_folder(tmp_path)
    assert contents.ids.to_list() == ["a", "b", "c"]
    np.testing.assert_array_equal(contents.take([0, 2]), VALUES[[1, 0]])


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(EmptyDataError, match="npy"):
        Contents.from_folder(tmp_path)


def test_a_loader_gets_ids_and_nothing_is_read_before():
    asked = []

    def load(ids):
        asked.append(ids)
        return np.array([[float(one)] * 3 for one in ids])

    contents = Contents.from_callable(load, IDS)
    assert asked == []
    np.testing.assert_array_equal(contents.take([3, 0]), [[9.0] * 3, [2.0] * 3])
    assert asked == [[9, 2], [2]]


def test_a_loader_that_raises_is_named_by_its_id():
    def load(ids):
        if 7 in ids:
            raise OSError("disk gone")
        return np.ones((len(ids), 3))

    with pytest.raises(DataError, match=r"id 7 cannot be read: OSError: disk gone"):
        Contents.from_callable(load, IDS).take([0, 1, 2, 3])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_named_by_its_id(bad):
    values = VALUES.copy()
    values[1, 0, 0] = bad
    with pytest.raises(DataError, match=r"id 2 .*finite"):
        Contents.from_array(values, IDS).take([0, 1, 2])


def test_another_shape_is_named_by_its_id(tmp_path):
    for name, value in zip("abc", (np.ones(3), np.ones(3), np.ones(4)), strict=True):
        np.save(tmp_path / f"{name}.npy", value)
    with pytest.raises(DataError, match=r"id 'c' .*\(4,\).*'a' has \(3,\)"):
        Contents.from_folder(tmp_path).take([0, 1, 2])


@pytest.mark.parametrize("made", [np.ones(2), np.ones((3, 2)), np.array([["a"], ["b"]]), None])
def test_a_loader_that_returns_something_else_is_refused(made):
    with pytest.raises(DataError, match="array of numbers"):
        Contents.from_callable(lambda ids: made, IDS).take([0, 1])


def test_twins_and_missing_rows_are_refused():
    with pytest.raises(DataError, match="distinct"):
        Contents.from_array(VALUES, [1, 1, 2, 3])
    with pytest.raises(DataError, match="one row for each"):
        Contents.from_array(VALUES, [1, 2, 3])
    with pytest.raises(DataError, match="two axes"):
        Contents.from_array(np.ones(4), IDS)
    with pytest.raises(OptionError, match="function"):
        Contents.from_callable(3, IDS)


def test_ids_are_converted_like_others():
    contents = Contents.from_array(VALUES, ["9", "10", "7", "4"])
    found = contents.with_ids_like(Ids([1, 2]))
    assert found.ids.to_list() == [4, 7, 9, 10]
    np.testing.assert_array_equal(found.take([3, 0]), VALUES[[1, 3]])
    assert found.with_ids_like(Ids([1])) is found


def test_some_of_the_contents():
    contents = Contents.from_array(VALUES, IDS)
    some = contents.of([9, 4])
    assert some.ids.to_list() == [4, 9]
    np.testing.assert_array_equal(some.take([0, 1]), VALUES[[3, 0]])
    with pytest.raises(UnknownIdError):
        contents.of([1])


def test_newer_contents_replace_older_ones():
    newer = Contents.from_array(-VALUES[:2], [7, 1])
    both = Contents.from_array(VALUES, IDS).updated(newer)
    assert both.ids.to_list() == [1, 2, 4, 7, 9]
    np.testing.assert_array_equal(
        both.take([3, 0, 4, 3]), [-VALUES[0], -VALUES[1], VALUES[0], -VALUES[0]]
    )


def test_contents_survive_pickle(tmp_path):
    np.save(tmp_path / "1.npy", VALUES[0])
    for contents in (
        Contents.from_array(VALUES, IDS),
        Contents.from_folder(tmp_path).with_ids_like(Ids([3])),
    ):
        again = pickle.loads(pickle.dumps(contents))
        np.testing.assert_array_equal(again.take([0]), contents.take([0]))
