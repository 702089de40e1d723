"""Blocked top-k against a brute-force sort, filters, ties, threads and errors."""

from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfar.errors import DataError, OptionError
from nearfar.search import neighbours
from nearfar.search.neighbours import Points, top_k


class Table:
    """Scores that are written down."""

    def __init__(self, scores):
        self.scores = np.asarray(scores, np.float32)
        self.n_users, self.n_items = self.scores.shape

    def score_block(self, rows, first_item, out):
        out[:] = self.scores[rows, first_item : first_item + out.shape[1]]


def csr(lists):
    indptr = np.cumsum([0, *(len(row) for row in lists)])
    return indptr, np.array([item for row in lists for item in sorted(row)], np.int32)


def brute_force(scores, rows, k, excluded=None, allow=None):
    """Sort by (score descending, item ascending) after filtering, one user at a time."""
    items = np.full((len(rows), min(k, scores.shape[1])), -1)
    for a, user in enumerate(rows):
        left = [
            item
            for item in range(scores.shape[1])
            if (excluded is None or item not in excluded[user])
            and (allow is None or allow[item])
            and scores[user, item] > -np.inf
        ]
        best = sorted(left, key=lambda item: (-scores[user, item], item))[:k]
        items[a, : len(best)] = best
    return items


def random_points(n_users=700, n_items=5000, dim=16, seed=0):
    rng = np.random.default_rng(seed)
    return Points(
        rng.normal(size=(n_users, dim)).astype(np.float32),
        rng.normal(size=(n_items, dim)).astype(np.float32),
    )


@st.composite
def questions(draw):
    n_users, n_items = draw(st.integers(1, 6)), draw(st.integers(1, 60))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    scores = rng.integers(-draw(st.integers(0, 4)), 3, (n_users, n_items)).astype(np.float32)
    scores[rng.random(scores.shape) < draw(st.sampled_from([0, 0.3]))] = -np.inf
    excluded = [set(np.flatnonzero(rng.random(n_items) < 0.3)) for _ in range(n_users)]
    allow = rng.random(n_items) < 0.7
    rows = rng.integers(0, n_users, draw(st.integers(0, 9)))
    return (
        scores,
        rows,
        draw(st.integers(1, 70)),
        draw(st.sampled_from([None, excluded])),
        draw(st.sampled_from([None, allow])),
    )


@contextmanager
def small_tiles():
    """Tiles of 2 users x 20 items: every question crosses their borders."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "BLOCK_USERS", 2)
        patch.setattr(neighbours, "BLOCK_ITEMS", 20)
        yield


@settings(deadline=None)  # the first example loads the kernels
@given(question=questions(), threads=st.sampled_from([1, 2]))
def test_top_k_is_brute_force_with_ties_filters_and_short_lists(question, threads):
    scores, rows, k, excluded, allow = question
    with small_tiles():
        found = top_k(
            Table(scores),
            rows,
            k,
            exclude=None if excluded is None else csr(excluded),
            allow=allow,
            threads=threads,
        )
    expected = brute_force(scores, rows, k, excluded, allow)
    assert found.items.dtype == np.int32
    assert found.scores.dtype == np.float32
    np.testing.assert_array_equal(found.items, expected)
    listed = np.where(expected < 0, -np.inf, scores[rows[:, None], expected])
    np.testing.assert_array_equal(found.scores, listed)


def test_points_score_by_product_and_offset():
    points = random_points(50, 3000)
    offset = np.linspace(-3, 3, 3000, dtype=np.float32)
    exact = points.queries.astype(np.float64) @ points.targets.T.astype(np.float64) + offset
    found = top_k(Points(points.queries, points.targets, offset), np.arange(50), k=20)
    best = -np.sort(-exact, axis=1)[:, :20]
    np.testing.assert_allclose(found.scores, best, rtol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(exact, found.items, 1), best, rtol=1e-5)


def exact_lists(points, k):
    """Lists by products in float64, rounded once."""
    products = points.queries.astype(np.float64) @ points.targets.T.astype(np.float64)
    scores = (products if points.offset is None else products + points.offset).astype(np.float32)
    return brute_force(scores, np.arange(points.n_users), k), scores


@pytest.mark.parametrize("apart", [0.0, 1e-7, 3e-6, 1e-3])
@pytest.mark.parametrize("k", [1, 20, 400])
@pytest.mark.parametrize("with_offset", [False, True])
def test_lists_are_those_of_exact_scores_however_near_the_items_are(apart, k, with_offset):
    rng = np.random.default_rng(0)
    items = rng.normal(size=96) + apart * rng.normal(size=(700, 96))
    offset = (-0.5 * np.sum(items**2, axis=1)).astype(np.float32) if with_offset else None
    queries = rng.normal(size=(9, 96)).astype(np.float32)
    points = Points(queries, items.astype(np.float32), offset)
    expected, scores = exact_lists(points, k)
    for rows in (np.arange(9), np.array([4])):
        found = top_k(points, rows, k)
        np.testing.assert_array_equal(found.items, expected[rows])
        np.testing.assert_array_equal(
            found.scores, np.take_along_axis(scores, expected, axis=1)[rows]
        )


def test_products_are_off_by_no_more_than_their_bound():
    points = random_points(50, 3000, 200)
    rows = np.arange(50, dtype=np.int32)
    tile = np.empty((50, 3000), np.float32)
    points.score_block(rows, 0, tile)
    products = points.queries.astype(np.float64) @ points.targets.T.astype(np.float64)
    off = np.abs(tile - products).max(axis=1)
    assert (off < points.rounding(rows)).all()
    assert (off > 1e-3 * points.rounding(rows)).all()  # it is not for nothing, and not absurd


def test_other_queries_find_what_they_would_alone():
    points = random_points(30, 400)
    other = random_points(20, 400, seed=1)
    expected = top_k(Points(other.queries, points.targets), np.arange(20), 7)
    found = top_k(points.with_queries(other.queries), np.arange(20), 7)
    np.testing.assert_array_equal(found.items, expected.items)
    with pytest.raises(DataError, match="the same width"):
        points.with_queries(np.zeros((2, 3), np.float32))


def test_an_offset_of_minus_half_the_squared_length_orders_by_distance():
    points = random_points(20, 500)
    offset = -0.5 * np.sum(points.targets**2, axis=1)
    found = top_k(Points(points.queries, points.targets, offset), np.arange(20), k=10)
    gaps = points.queries[:, None].astype(np.float64) - points.targets[None]
    nearest = np.argsort(np.sum(gaps**2, axis=2), axis=1)[:, :10]
    np.testing.assert_array_equal(found.items, nearest)


@pytest.mark.parametrize("threads", [2, 4])
def test_threads_change_no_bit(threads):
    points = random_points()
    one = top_k(points, np.arange(700), k=30, threads=1)
    several = top_k(points, np.arange(700), k=30, threads=threads)
    np.testing.assert_array_equal(several.items, one.items)
    np.testing.assert_array_equal(several.scores, one.scores)


@pytest.mark.parametrize("shape", [(5000, 16), (40, 128), (7, 3), (2049, 300)])
def test_a_users_list_has_the_same_bits_in_any_company(shape):
    n_items, dim = shape
    points = random_points(300, n_items, dim)
    everybody = top_k(points, np.arange(300), k=5)
    rng = np.random.default_rng(1)
    for size in (1, 2, 15, 17, 100, 290):
        rows = rng.permutation(300)[:size]
        some = top_k(points, rows, k=5)
        np.testing.assert_array_equal(some.items, everybody.items[rows])
        np.testing.assert_array_equal(some.scores, everybody.scores[rows])


def test_progress_counts_every_row_once():
    for threads in (1, 2):
        counted = []
        top_k(random_points(), np.arange(600), 3, threads=threads, progress=counted.append)
        assert sorted(counted) == [88, 256, 256]


def test_nothing_left_gives_an_empty_list():
    found = top_k(Table([[1, 2]]), [0], 3, exclude=csr([{0, 1}]))
    assert found.items.tolist() == [[-1, -1]]
    assert (found.scores == -np.inf).all()


def test_a_k_above_the_catalogue_costs_no_more_than_the_catalogue():
    """Arrays of this k would not fit into any memory."""
    for table in (Table([[1, 3, 2]]), random_points(1, 3)):
        usual, long = (top_k(table, [0], k) for k in (3, 10**15))
        assert long.items.tolist() == usual.items.tolist()
        assert long.scores.tolist() == usual.scores.tolist()
        assert long.items.shape == (1, 3)


def test_plus_infinity_comes_first():
    assert top_k(Table([[1, np.inf, 2]]), [0], 2).items.tolist() == [[1, 2]]


@pytest.mark.parametrize("threads", [1, 2])
def test_nan_is_an_error_that_says_where(threads):
    scores = np.zeros((5, 50))
    scores[3, 41] = np.nan
    message = r"score of user row 3 for item row 41 is NaN.*lower learning rate"
    with small_tiles(), pytest.raises(DataError, match=message):
        top_k(Table(scores), [0, 1, 2, 3], 2, threads=threads)
    top_k(Table(scores), [0, 1, 2, 4], 2, threads=threads)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k": 0}, OptionError, r"`k` must be a whole number of at least 1; got 0\."),
        ({"threads": 0}, OptionError, r"`threads` must be a whole number from 1 .*; got 0\."),
        ({"rows": [0, 2]}, DataError, r"`rows` must lie in 0 \.\.\. 1; got 2\."),
        ({"rows": [-1]}, DataError, r"`rows` must lie in 0 \.\.\. 1; got -1\."),
        ({"rows": [0.5]}, DataError, r"`rows` must be a list of row numbers; got float64"),
        ({"rows": [[0]]}, DataError, r"`rows` must be a list.*shape \(1, 1\)\."),
        ({"exclude": csr([{0}])}, DataError, r"of 2 users; got 2 pointers, 1 items\."),
        ({"exclude": (np.array([0, 2, 1]), np.zeros(1, np.int32))}, DataError, "`exclude` must be"),
        ({"allow": np.ones(2, bool)}, DataError, r"for each of the 3 items; got bool of shape"),
        ({"allow": np.ones(3)}, DataError, r"`allow` must be a bool.*got float64"),
    ],
)
def test_wrong_options_are_named(options, error, message):
    question = {"rows": [0, 1], "k": 1, **options}
    with pytest.raises(error, match=message):
        top_k(Table(np.zeros((2, 3))), **question)


def test_points_of_different_widths_are_an_error():
    with pytest.raises(DataError, match=r"the same width; got shapes \(2, 3\) and \(2, 4\)\."):
        Points(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32))


def test_an_offset_of_the_wrong_length_is_an_error():
    with pytest.raises(DataError, match=r"each of the 4 targets; got shape \(2,\)\."):
        Points(np.zeros((2, 3), np.float32), np.zeros((4, 3), np.float32), np.zeros(2, np.float32))
