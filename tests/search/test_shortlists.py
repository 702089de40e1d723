"""Shortlists: whatever is among the best under some weighting is in them."""

import numpy as np
import pytest

from nearfar.search import shortlists
from nearfar.search.shortlists import RUN, Shortlists, Weightings, collect, first_floors, prune_all

FACTORS = np.array([0, 0.5, 3], np.float32)


def some_scores(n_rows=7, n_items=1000, seed=0):
    rng = np.random.default_rng(seed)
    weight = -np.sort(-rng.exponential(size=n_items).astype(np.float32))
    return rng.normal(size=(n_rows, n_items)).astype(np.float32), weight


def empty(n_rows, size, step, margin=0.0):
    return Shortlists(
        np.zeros((n_rows, size), np.int32),
        np.zeros((n_rows, size), np.float32),
        np.zeros(n_rows, np.int64),
        np.full(n_rows, step + RUN),
        np.full((n_rows, len(FACTORS)), -np.inf, np.float32),
        np.full(n_rows, margin, np.float32),
    )


def collected(scores, weight, lists, k, step, width=256, floors_first=True):
    weightings = Weightings.of(FACTORS, weight)
    for first in range(0, scores.shape[1], width):
        tile = np.ascontiguousarray(scores[:, first : first + width])
        if first == 0 and floors_first:
            first_floors(tile, weightings, lists, k)
        assert collect(tile, first, weightings, lists, k, step) == -1
    prune_all(lists, weightings, k)
    return lists


def weighted(scores, weight):
    return scores + np.multiply.outer(FACTORS, weight)[:, None]


@pytest.mark.parametrize("floors_first", [False, True])
@pytest.mark.parametrize(("k", "step"), [(1, 70), (10, 100), (60, 300)])
def test_the_best_are_in_the_shortlist_and_little_else(k, step, floors_first):
    scores, weight = some_scores()
    scores[0, :5] = -np.inf  # excluded
    size = 3 * k + 2 * step + RUN
    lists = collected(scores, weight, empty(7, size, step), k, step, floors_first=floors_first)
    all_best = np.argsort(-weighted(scores, weight), axis=2)[:, :, :k]
    for a in range(7):
        found = lists.items[a, : lists.counts[a]]
        np.testing.assert_array_equal(lists.scores[a, : len(found)], scores[a, found])
        best = set(all_best[:, a].ravel().tolist())
        assert best <= set(found.tolist())
        assert len(found) <= 1.5 * len(best) + 1
        assert len(set(found.tolist())) == len(found)


def test_floors_are_below_the_kth_best_by_the_margin_at_least():
    scores, weight = some_scores()
    lists = empty(7, 600, 100, margin=0.25)
    first_floors(scores, Weightings.of(FACTORS, weight), lists, 10)
    kth = -np.sort(-weighted(scores, weight), axis=2)[:, :, 9].T
    assert np.all(lists.floors <= kth - np.float32(0.25))
    assert np.mean(kth - lists.floors) < 1.0
    before = lists.floors.copy()
    collected(scores, weight, lists, 10, 100, floors_first=False)
    assert np.all(lists.floors <= kth - np.float32(0.25))
    assert np.all(lists.floors >= before)
    assert lists.floors.mean() > before.mean()


def test_a_tile_that_is_narrower_than_the_groups_gives_no_floors():
    scores, weight = some_scores(n_items=shortlists._GROUPS - 1)
    lists = empty(7, 600, 100)
    first_floors(scores, Weightings.of(FACTORS, weight), lists, 10)
    assert np.all(lists.floors == -np.inf)


def test_a_row_of_ties_is_crowded_and_the_others_are_not():
    scores, weight = some_scores()
    scores[3], weight = 0.5, np.zeros_like(weight)
    lists = collected(scores, weight, empty(7, 400, 100), 10, 100)
    assert np.flatnonzero(lists.counts < 0).tolist() == [3]


def test_ties_with_the_floor_are_kept():
    scores, weight = np.zeros((1, 300), np.float32), np.zeros(300, np.float32)
    lists = collected(scores, weight, empty(1, 900, 500), 10, 500)
    assert lists.counts.tolist() == [300]


def test_a_score_that_is_not_a_number_is_found():
    scores, weight = some_scores()
    weightings, lists = Weightings.of(FACTORS, weight), empty(7, 1000, 100)
    scores[4, 300] = np.nan
    first_floors(scores, weightings, lists, 10)
    assert collect(scores, 0, weightings, lists, 10, 100) == 4 * 1000 + 300


@pytest.mark.parametrize("sign", [1, -1])
def test_reach_is_the_largest_weight_of_a_run(sign):
    _, weight = some_scores(n_items=150)
    reach = Weightings.of(sign * FACTORS, weight).reach
    each = sign * np.multiply.outer(FACTORS, weight)
    expected = [each[:, start : start + RUN].max(axis=1) for start in range(0, 150, RUN)]
    np.testing.assert_array_equal(reach, expected)
