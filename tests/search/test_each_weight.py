"""Several weightings in one pass, against one search for each."""

import numpy as np
import pytest

from nearfar.errors import DataError
from nearfar.search import each_weight
from nearfar.search.each_weight import top_k_each
from nearfar.search.neighbours import Points, top_k

FACTORS = np.array([0, 0.5, 1, 3], np.float32)


def problem(n_users=40, n_items=3000, dim=6, seed=0, offset=False):
    """Points on a grid, so that many scores are equal, and weights that are multiples."""
    rng = np.random.default_rng(seed)
    users, items = (rng.integers(-2, 3, (n, dim)).astype(np.float32) for n in (n_users, n_items))
    base = rng.integers(-3, 1, n_items).astype(np.float32) if offset else None
    weight = rng.integers(0, 4, n_items).astype(np.float32)
    seen = [np.sort(rng.choice(n_items, rng.integers(0, 30), replace=False)) for _ in users]
    exclude = np.cumsum([0, *map(len, seen)]), np.concatenate(seen).astype(np.int32)
    return Points(users, items, base), weight, exclude


@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("k", [1, 10, 4000])
def test_lists_are_those_of_one_search_for_each(k, offset):
    points, weight, exclude = problem(offset=offset)
    rows = np.array([3, 0, 39, 3])
    done = []
    found = top_k_each(
        points, weight, FACTORS, rows, k, exclude=exclude, threads=2, progress=done.append
    )
    assert sum(done) == len(rows)
    for each, factor in zip(found, FACTORS, strict=True):
        alone = top_k(points.weighted(factor * weight), rows, k, exclude=exclude)
        np.testing.assert_array_equal(each.items, alone.items)
        np.testing.assert_array_equal(each.scores, alone.scores)


def test_smooth_scores_over_several_blocks():
    rng = np.random.default_rng(1)
    users, items = (rng.normal(size=(n, 16)).astype(np.float32) for n in (300, 5000))
    weight, factors = rng.normal(size=5000).astype(np.float32), np.linspace(0, 1, 5, dtype="f4")
    exclude = np.zeros(301, np.int64), np.empty(0, np.int32)
    found = top_k_each(Points(users, items), weight, factors, np.arange(300), 20, exclude=exclude)
    for each, factor in zip(found, factors, strict=True):
        alone = top_k(Points(users, items, factor * weight), np.arange(300), 20, exclude=exclude)
        np.testing.assert_array_equal(each.items, alone.items)


def test_a_score_that_is_not_a_number_is_named():
    points, weight, exclude = problem()
    points.targets[1234] = np.nan
    with pytest.raises(DataError, match=r"user row 0 for item row 1234 is NaN"):
        top_k_each(points, weight, FACTORS, [0], 5, exclude=exclude)


def test_near_ties_are_ordered_by_exact_scores():
    """Items in clusters of scores that differ by less than products are rounded by."""
    rng = np.random.default_rng(2)
    users, centres = (rng.normal(size=(n, 64)).astype(np.float32) for n in (50, 120))
    items = np.repeat(centres, 25, axis=0)
    items *= 1 + rng.integers(-2, 3, items.shape) * np.float32(2**-24)
    weight = np.repeat(rng.normal(size=120), 25).astype(np.float32)
    exclude = np.zeros(51, np.int64), np.empty(0, np.int32)
    found = top_k_each(Points(users, items), weight, FACTORS, np.arange(50), 30, exclude=exclude)
    for each, factor in zip(found, FACTORS, strict=True):
        alone = top_k(Points(users, items, factor * weight), np.arange(50), 30, exclude=exclude)
        np.testing.assert_array_equal(each.items, alone.items)
        np.testing.assert_array_equal(each.scores, alone.scores)


@pytest.mark.parametrize("odd", [0.0, 1e38])
def test_rows_for_which_no_shortlist_is_kept_are_searched_one_by_one(odd, monkeypatch):
    """A point at 0 has the same score for all items; the bounds of a huge one are infinite."""
    points, weight, exclude = problem(n_users=5)
    points.queries[3] = odd
    again = []
    monkeypatch.setattr(
        each_weight, "top_k", lambda *a, **how: (again.append(a[1].tolist()), top_k(*a, **how))[1]
    )
    with np.errstate(over="ignore"):
        found = top_k_each(points, weight, FACTORS, np.arange(5), 5, exclude=exclude)
        assert again == [[3]] * len(FACTORS)
        for each, factor in zip(found, FACTORS, strict=True):
            alone = top_k(points.weighted(factor * weight), np.arange(5), 5, exclude=exclude)
            np.testing.assert_array_equal(each.items, alone.items)
            np.testing.assert_array_equal(each.scores, alone.scores)


def test_no_rows_have_no_lists():
    points, weight, exclude = problem()
    found = top_k_each(points, weight, FACTORS, [], 5, exclude=exclude)
    assert [each.items.shape for each in found] == [(0, 5)] * len(FACTORS)
