"""The heap of the k best against sorting."""

import numpy as np
import pytest

from nearfar.search import heap


def fed(tile, k, first=0, allowed=()):
    scores = np.full((len(tile), k), -np.inf, np.float32)
    items = np.full((len(tile), k), -1, np.int32)
    bad = heap.scan(tile, first, np.array(allowed, np.bool_), scores, items)
    return bad, scores, items


@pytest.mark.parametrize("width", [1, 15, 16, 17, 100])
@pytest.mark.parametrize("k", [1, 2, 7])
def test_scan_and_sort_keep_the_best_of_random_rows(width, k):
    tile = np.random.default_rng(width).normal(size=(5, width)).astype(np.float32)
    bad, scores, items = fed(tile, k)
    heap.sort(scores, items)
    n = min(k, width)
    expected = np.argsort(-tile, axis=1, kind="stable")[:, :n]
    assert bad == -1
    np.testing.assert_array_equal(items[:, :n], expected)
    np.testing.assert_array_equal(scores[:, :n], np.take_along_axis(tile, expected, 1))
    assert (items[:, n:] == -1).all()
    assert (scores[:, n:] == -np.inf).all()


def test_the_root_is_the_worst_entry():
    _, scores, items = fed(np.array([[3, 1, 2, 1, 5]], np.float32), k=4)
    assert (scores[0, 0], items[0, 0]) == (1, 1)  # of the two ones, item 3 was turned away


@pytest.mark.parametrize("column", [0, 7, 16, 39])
def test_scan_reports_where_a_nan_is(column):
    tile = np.zeros((3, 40), np.float32)
    tile[1, column] = np.nan
    assert fed(tile, k=2)[0] == 40 + column


def test_a_nan_that_may_not_be_listed_is_ignored():
    tile = np.array([[np.nan, 1]], np.float32)
    bad, _, items = fed(tile, k=1, allowed=[False, True])
    assert (bad, items.tolist()) == (-1, [[1]])


@pytest.mark.parametrize("item", range(-1, 9))
def test_first_at_least_is_searchsorted_within_the_bounds(item):
    items = np.array([9, 1, 3, 3, 6, 0], np.int32)
    assert heap.first_at_least(items, 1, 5, item) == 1 + np.searchsorted(items[1:5], item)


def test_hide_touches_the_users_items_within_the_tile_and_nothing_else():
    indptr, items = np.array([0, 3, 3, 5]), np.array([1, 4, 6, 3, 4], np.int32)
    tile = np.zeros((3, 3), np.float32)  # items 3, 4, 5
    heap.hide(tile, 3, np.array([2, 0, 1], np.int32), indptr, items)
    never = -np.inf
    assert tile.tolist() == [[never, never, 0], [0, never, 0], [0, 0, 0]]
