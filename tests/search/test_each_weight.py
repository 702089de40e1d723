"""Several weightings in one pass, against one search for each."""

import numpy as np
import pytest

from nearfar.errors import DataError
from nearfar.search.each_weight import top_k_each
from nearfar.search.neighbours import Points, top_k


def problem(n_users=40, n_items=3000, dim=6, seed=0, offset=False):
    """Points on a grid, so that many scores are equal, and weights that are multiples."""
    rng = np.random.default_rng(seed)
    users, items = (rng.integers(-2, 3, (n, dim)).astype(np.float32) for n in (n_users, n_items))
    base = rng.integers(-3, 1, n_items).astype(np.float32) if offset else None
    weight = rng.integers(0, 4, n_items).astype(np.float32)
    weights = np.multiply.outer(np.array([0, 0.5, 1, 3], np.float32), weight)
    seen = [np.sort(rng.choice(n_items, rng.integers(0, 30), replace=False)) for _ in users]
    exclude = np.cumsum([0, *map(len, seen)]), np.concatenate(seen).astype(np.int32)
    return Points(users, items, base), weights, exclude


@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("k", [1, 10, 4000])
def test_lists_are_those_of_one_search_for_each(k, offset):
    points, weights, exclude = problem(offset=offset)
    rows = np.array([3, 0, 39, 3])
    done = []
    found = top_k_each(points, weights, rows, k, exclude=exclude, threads=2, progress=done.append)
    assert sum(done) == len(rows)
    for each, weight in zip(found, weights, strict=True):
        alone = top_k(points.weighted(weight), rows, k, exclude=exclude)
        np.testing.assert_array_equal(each.items, alone.items)
        np.testing.assert_array_equal(each.scores, alone.scores)


def test_smooth_scores_over_several_blocks():
    rng = np.random.default_rng(1)
    users, items = (rng.normal(size=(n, 16)).astype(np.float32) for n in (300, 5000))
    weights = np.multiply.outer(np.linspace(0, 1, 5), rng.normal(size=5000)).astype(np.float32)
    exclude = np.zeros(301, np.int64), np.empty(0, np.int32)
    found = top_k_each(Points(users, items), weights, np.arange(300), 20, exclude=exclude)
    for each, weight in zip(found, weights, strict=True):
        alone = top_k(Points(users, items, weight), np.arange(300), 20, exclude=exclude)
        np.testing.assert_array_equal(each.items, alone.items)


def test_a_score_that_is_not_a_number_is_named():
    points, weights, exclude = problem()
    points.targets[1234] = np.nan
    with pytest.raises(DataError, match=r"user row 0 for item row 1234 is NaN"):
        top_k_each(points, weights, [0], 5, exclude=exclude)
