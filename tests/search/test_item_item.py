"""Neighbours of items against the definition, and exact search with their term."""

import numpy as np
import pytest

from conftest import random_data
from nearfar.method.co_occurrence import similarities
from nearfar.search import item_item, neighbours
from nearfar.search.each_weight import top_k_each
from nearfar.search.item_item import Terms, near_items
from nearfar.search.neighbours import Points, top_k

DATA = random_data(crowded=True)
PAIRS = (DATA.indptr, DATA.items)
N, M = DATA.n_users, DATA.n_items


def table(data):
    liked = np.zeros((data.n_users, data.n_items), bool)
    liked[data.pair_users(), data.items] = True
    return liked


def dense(near):
    found = np.zeros((near.n_items, near.n_items))
    found[np.repeat(np.arange(near.n_items), np.diff(near.indptr)), near.items] = near.values
    return found


@pytest.mark.parametrize("nearest", [1, 7, 1000])
def test_near_items_are_those_of_the_definition(nearest, monkeypatch):
    monkeypatch.setattr(item_item, "_BLOCK_ITEMS", 16)
    expected = similarities(table(DATA), nearest)
    for threads in (1, 2):
        near = near_items(PAIRS, M, nearest, threads=threads)
        assert near.values.dtype == np.float32
        assert near.items.dtype == np.int32
        np.testing.assert_allclose(dense(near), expected, rtol=1e-6)
        assert near.n_bytes <= M * nearest * 8 + (M + 1) * 8
        inside = np.diff(near.items) > 0
        inside[near.indptr[1:-1] - 1] = True
        assert inside.all()  # ascending for each item


def test_of_equals_the_smaller_items_are_near():
    pairs = np.array([0, 5, 10]), np.tile(np.arange(5, dtype=np.int32), 2)
    near = near_items(pairs, 6, 2)  # item 5 has no users
    rows = np.split(near.items, near.indptr[1:-1])
    assert [row.tolist() for row in rows] == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1], []]
    assert near.largest.tolist() == pytest.approx([0.2] * 5 + [0.0])


def terms(weight=3.0, nearest=10):
    return Terms(near_items(PAIRS, M, nearest), weight, PAIRS)


def test_terms_are_the_weighted_mean_of_the_own_items():
    liked, some = table(DATA), terms()
    sums = 3.0 / np.sqrt(liked.sum(axis=1, keepdims=True)) * (liked @ dense(some.near))
    rows = np.array([4, 0, 29, 4], np.int32)
    candidates = np.tile(np.arange(M, dtype=np.int32), (4, 1))
    candidates[0, 3] = -1
    exact = some.of(rows, candidates)
    assert exact[0, 3] == 0.0
    exact[0, 3] = sums[4, 3]
    np.testing.assert_allclose(exact, sums[rows], rtol=1e-12)
    for first, width in ((0, M), (13, 20)):
        tile = np.ones((4, width), np.float32)
        some.add_to(tile, rows, first)
        added = exact[:, first : first + width].astype(np.float32)
        np.testing.assert_array_equal(tile, np.float32(1) + added)
    assert np.all(sums.max(axis=1) <= some.bound(np.arange(N)) * (1 + 1e-12))


def points(dim=3, offset=None):
    rng = np.random.default_rng(1)
    users, items = (rng.integers(-1, 2, (n, dim)).astype(np.float32) for n in (N, M))
    return Points(users, items, offset)


@pytest.mark.parametrize("offset", [None, np.linspace(-1, 1, M, dtype=np.float32)])
def test_the_search_is_exact_with_terms(offset):
    some = terms()
    scored = points(offset=offset).near(some)
    everything = np.tile(np.arange(M, dtype=np.int32), (N, 1))
    scores = scored.queries.astype(np.float64) @ scored.targets.T
    scores = scores if offset is None else scores + offset
    scores = (scores + some.of(np.arange(N, dtype=np.int32), everything)).astype(np.float32)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :9]
    found = top_k(scored, np.arange(N), 9)
    np.testing.assert_array_equal(found.items, expected)
    np.testing.assert_array_equal(found.scores, np.take_along_axis(scores, expected, axis=1))
    alone = [top_k(scored, [row], 9).items[0] for row in range(N)]
    np.testing.assert_array_equal(alone, expected)


def test_terms_belong_to_the_queries():
    scored = points().near(terms())
    assert scored.with_queries(scored.queries).terms is None
    assert scored.weighted(np.ones(M, np.float32)).terms is scored.terms


def test_several_weightings_have_the_lists_of_one_search_for_each():
    scored = points(offset=np.linspace(-1, 1, M, dtype=np.float32)).near(terms())
    weight = np.random.default_rng(0).integers(0, 4, M).astype(np.float32)
    factors = np.array([0, 0.5, 2], np.float32)
    found = top_k_each(scored, weight, factors, np.arange(N), 9, exclude=PAIRS)
    for each, factor in zip(found, factors, strict=True):
        alone = top_k(scored.weighted(factor * weight), np.arange(N), 9, exclude=PAIRS)
        np.testing.assert_array_equal(each.items, alone.items)
        np.testing.assert_array_equal(each.scores, alone.scores)


def test_items_can_be_in_another_order():
    some, order = terms(), np.random.default_rng(0).permutation(M).astype(np.int32)
    rows = np.arange(N, dtype=np.int32)
    items = np.tile(np.arange(M, dtype=np.int32), (N, 1))
    found = some.holding(rows).reordered(order).of(rows, items)
    np.testing.assert_array_equal(found, some.of(rows, items)[:, order])


def test_terms_are_held_for_the_same_rows_only():
    some, rows = terms(), np.array([3, 9], np.int32)
    held, items = some.holding(rows), np.tile(np.arange(M, dtype=np.int32), (2, 1))
    assert held._summed(rows) is held._summed(rows)
    for asked in (rows, rows[::-1].copy()):
        np.testing.assert_array_equal(held.of(asked, items), some.of(asked, items))
    assert np.all(np.count_nonzero(some.of(rows, items), axis=1) <= some.sizes(rows))


def test_the_search_is_the_same_in_small_blocks_of_terms(monkeypatch):
    scored = points().near(terms())
    whole = top_k(scored, np.arange(N), 9)
    monkeypatch.setattr(neighbours, "_TERMS", 70)
    found = top_k(scored, np.arange(N), 9)
    np.testing.assert_array_equal(found.items, whole.items)
    np.testing.assert_array_equal(found.scores, whole.scores)
