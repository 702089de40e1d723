"""Diverse lists: the kernel against plain loops, and what holds for every list."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfar.errors import OptionError
from nearfar.method.geometry import normalise, score
from nearfar.search.diversity import (
    POOL,
    checked_diversity,
    diverse_top_k,
    diversified,
    intra_list_distances,
    pool_size,
)
from nearfar.search.neighbours import Points, TopK, top_k
from nearfar.search.scoring import scorer_of


def table(n, d, seed, on_sphere=True):
    rows = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    return normalise(rows).astype(np.float32) if on_sphere else rows


def by_loops(items, scores, points, k, x):
    """One list by the formula."""
    left = [(int(j), float(s)) for j, s in zip(items, scores, strict=True) if j >= 0]
    chosen = left[:1]
    left = left[1:]
    while left and len(chosen) < k:
        values = []
        for j, relevance in left:
            near = max(float(score(points[j].astype(float), points[s].astype(float)))
                       for s, _ in chosen)  # fmt: skip
            values.append(((1 - x) * relevance - x * near, -j))
        best = max(range(len(left)), key=lambda n: values[n])
        chosen.append(left.pop(best))
    return [j for j, _ in chosen]


@pytest.mark.parametrize("on_sphere", [True, False])
@pytest.mark.parametrize("x", [0.05, 0.3, 0.7, 1.0])
def test_the_lists_are_those_of_plain_loops(x, on_sphere):
    users, items = table(9, 6, 0, on_sphere), table(70, 6, 1, on_sphere)
    best = top_k(scorer_of(users, items, "sphere" if on_sphere else "free"), np.arange(9), 40)
    best.items[3, 25:], best.scores[3, 25:] = -1, -np.inf
    best.items[4, 5:], best.scores[4, 5:] = -1, -np.inf
    best.items[5], best.scores[5] = -1, -np.inf
    found = diversified(best, items, 12, x, on_sphere=on_sphere)
    for row in range(9):
        expected = by_loops(best.items[row], best.scores[row], items, 12, x)
        assert found.items[row].tolist() == expected + [-1] * (12 - len(expected))
        of_item = dict(zip(best.items[row].tolist(), best.scores[row].tolist(), strict=True))
        assert found.scores[row, : len(expected)].tolist() == [of_item[j] for j in expected]
        assert np.isneginf(found.scores[row, len(expected) :]).all()


@settings(max_examples=60)
@given(st.data())
def test_what_holds_for_every_list(data):
    seed, x = data.draw(st.integers(0, 2**31)), data.draw(st.floats(0, 1))
    n, k = data.draw(st.integers(1, 400)), data.draw(st.integers(1, 30))
    points = Points(table(70, 4, seed), table(n, 4, seed + 1))
    rows = np.arange(70, dtype=np.int32)
    hidden = np.arange(71, dtype=np.int64), np.zeros(70, np.int32)
    how = {"on_sphere": True, "exclude": hidden}
    found = diverse_top_k(points, points.targets, rows, k, x, **how)
    plain = top_k(points, rows, min(POOL, n), exclude=hidden)
    assert found.items.shape == (70, min(k, n))
    assert np.array_equal(found.items[:, 0], plain.items[:, 0])
    for mine, pool in zip(found.items, plain.items, strict=True):
        there = mine[mine >= 0].tolist()
        assert len(there) == len(set(there)) == min(k, n - 1)
        assert set(there) <= set(pool.tolist()) - {0}
    two = diverse_top_k(points, points.targets, rows, k, x, threads=2, **how)
    assert np.array_equal(two.items, found.items)
    assert np.array_equal(two.scores, found.scores)
    longer = diverse_top_k(points, points.targets, rows, k + 5, x, **how)
    assert np.array_equal(longer.items[:, : found.items.shape[1]], found.items)
    alone = diverse_top_k(points, points.targets, rows[5:6], k, x, **how)
    assert np.array_equal(alone.items[0], found.items[5])


def test_no_diversity_is_the_plain_list():
    points = Points(table(5, 4, 0), table(50, 4, 1))
    found = diverse_top_k(points, points.targets, np.arange(5), 7, 0.0, on_sphere=True)
    plain = top_k(points, np.arange(5), 7)
    assert np.array_equal(found.items, plain.items)
    best = top_k(points, np.arange(5), 50)
    assert np.array_equal(diversified(best, points.targets, 7, 0.0, on_sphere=True).items,
                          plain.items)  # fmt: skip


def test_more_diversity_is_more_distance_and_less_score():
    points = Points(table(200, 8, 0), table(400, 8, 1))
    rows, apart, scores = np.arange(200, dtype=np.int32), [], []
    for x in (0.0, 0.2, 0.5, 0.8):
        found = diverse_top_k(points, points.targets, rows, 10, x, on_sphere=True)
        apart.append(intra_list_distances(found.items, points.targets, on_sphere=True).mean())
        scores.append(found.scores.mean())
    assert apart == sorted(apart)
    assert scores == sorted(scores, reverse=True)
    assert apart[-1] > apart[0] + 0.3


def test_equal_items_come_by_their_number():
    items = np.tile(np.array([[1, 0]], np.float32), (6, 1))
    best = TopK(np.array([[5, 2, 4, 1, 3]], np.int32), np.full((1, 5), 0.5, np.float32))
    for x in (0.0, 0.5, 1.0):
        found = diversified(best, items, 5, x, on_sphere=True)
        assert found.items.tolist() == [[5, 1, 2, 3, 4]]  # the first is the first of the list


@pytest.mark.parametrize("on_sphere", [True, False])
def test_the_distance_within_a_list_is_the_mean_over_its_pairs(on_sphere):
    points = table(30, 5, 2, on_sphere)
    lists = np.array([[3, 7, 11, 2], [1, 2, -1, -1], [4, -1, -1, -1], [-1] * 4], np.int32)
    found = intra_list_distances(lists, points, on_sphere=on_sphere)
    for row, expected in ((0, [3, 7, 11, 2]), (1, [1, 2])):
        pairs = [1 - score(points[a].astype(float), points[b].astype(float))
                 for n, a in enumerate(expected) for b in expected[:n]]  # fmt: skip
        assert found[row] == pytest.approx(np.mean(pairs))
    assert np.isnan(found[2:]).all()


def test_the_pool_grows_with_the_list():
    assert [pool_size(k, 0.5) for k in (1, 150, 151, 1000)] == [300, 300, 302, 2000]
    assert pool_size(7, 0.0) == 7


@pytest.mark.parametrize("bad", [-0.1, 1.1, "x", None, True, float("nan")])
def test_a_diversity_is_from_0_to_1(bad):
    with pytest.raises(OptionError, match="`diversity`"):
        checked_diversity(bad)
