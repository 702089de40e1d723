"""Searches over items that several ranks share, against the search of one machine."""

import numpy as np
import pytest

from nearfar.search.item_item import Terms, near_items
from nearfar.search.neighbours import Points, top_k
from nearfar.search.shard_search import ShardSearch, parts_of
from ranks import on_ranks

N, M, DIM = 43, 61, 5


def tables(seed=0):
    """Points with many equal ones, so that there are ties, and pairs of users and items."""
    rng = np.random.default_rng(seed)
    users = rng.normal(size=(N, DIM)).astype(np.float32)
    items = rng.normal(size=(M, DIM)).astype(np.float32)
    items[rng.permutation(M)[:30]] = items[0]
    has = rng.random((N, M)) < 0.2
    has[3] = True  # nothing is left for this one
    indptr = np.concatenate([[0], np.cumsum(has.sum(1))]).astype(np.int64)
    return users, items, (indptr, np.nonzero(has)[1].astype(np.int32))


def owners(size, n, seed=1):
    return np.random.default_rng(seed).integers(0, size, n)


def own_of(own, users):
    parts = [own[1][own[0][u] : own[0][u + 1]] for u in users]
    indptr = np.concatenate([[0], np.cumsum([len(p) for p in parts])]).astype(np.int64)
    return indptr, np.concatenate([np.empty(0, np.int32), *parts])


def searched(size, ask, offset=None, seed=0):
    """Return the users of each rank, and its answer; rank 0 of several has no users."""
    users, items, own = tables(seed)
    of_item = owners(size, M)
    of_user = np.minimum(1 + owners(max(size - 1, 1), N), size - 1)

    def work(group):
        numbers = np.flatnonzero(of_item == group.rank).astype(np.int32)
        part = None if offset is None else offset[numbers]
        points = Points(users[:0], items[numbers], part)
        rows = np.flatnonzero(of_user == group.rank)
        return rows, ask(ShardSearch(group, numbers, points, M), users[rows], own_of(own, rows))

    return on_ranks(size, work)


def check(found, expected):
    for rows, lists in found:
        for one, whole in zip(lists, expected, strict=True):
            assert np.array_equal(one.items, whole.items[rows])
            assert one.scores.tobytes() == whole.scores[rows].tobytes()


@pytest.mark.parametrize("size", [1, 2, 3, 70])
@pytest.mark.parametrize("k", [1, 7, 40, 500])
def test_lists_are_those_of_one_machine(size, k):
    users, items, own = tables()
    offset = np.round(np.random.default_rng(2).normal(size=M), 1).astype(np.float32)
    expected = top_k(Points(users, items, offset), np.arange(N), k, exclude=own)
    check(searched(size, lambda s, q, o: [s.best(q, o, k)], offset), [expected])
    assert len(np.unique(expected.scores[0])) < len(expected.scores[0]) or k < 40, "no ties"


def test_own_items_may_be_listed_and_others_denied():
    users, items, _ = tables()
    allow = np.arange(M) % 3 > 0
    expected = top_k(Points(users, items), np.arange(N), 9, allow=allow)
    found = searched(3, lambda s, q, o: [s.best(q, o, 9, exclude_own=False, allow=allow)])
    check(found, [expected])


def test_weights_and_terms_of_co_occurrence():
    users, items, own = tables()
    weight, near = np.linspace(0, 1, M).astype(np.float32), near_items(own, M, 6)
    points = Points(users, items).weighted(weight).near(Terms(near, 0.7, own))
    expected = top_k(points, np.arange(N), 8, exclude=own)
    found = searched(3, lambda s, q, o: [s.weighted(weight).near(near, 0.7).best(q, o, 8)])
    check(found, [expected])
    bare = top_k(Points(users, items).weighted(weight), np.arange(N), 8, exclude=own)
    assert not np.array_equal(bare.items, expected.items)


@pytest.mark.parametrize("with_terms", [False, True])
def test_several_weightings_at_once(with_terms):
    users, items, own = tables()
    weight = np.log(1 + np.bincount(own[1], minlength=M)).astype(np.float32)
    near, factors = near_items(own, M, 6), np.array([0.0, 0.1, 0.5], np.float32)
    points = Points(users, items)
    if with_terms:
        points = points.near(Terms(near, 0.7, own))
    expected = [
        top_k(points.weighted(factor * weight), np.arange(N), 8, exclude=own) for factor in factors
    ]

    def ask(search, queries, mine):
        search = search.near(near, 0.7) if with_terms else search
        return search.best_each(queries, mine, 8, weight, factors)

    check(searched(3, ask), expected)


def test_many_rounds_give_the_same_lists(monkeypatch):
    users, items, own = tables()
    monkeypatch.setattr("nearfar.search.shard_search._QUERIES", 9)
    expected = top_k(Points(users, items), np.arange(N), 5, exclude=own)
    rounds = []

    def ask(search, queries, mine):
        before = search.ranks.traffic.collectives
        found = search.best(queries, mine, 5)
        rounds.append((search.ranks.traffic.collectives - before - 1) / 5)
        return [found]

    check(searched(3, ask), [expected])
    assert len(set(rounds)) == 1
    assert rounds[0] >= N / 2 / 3


def test_all_ranks_get_the_same_number_of_parts():
    found = on_ranks(3, lambda group: parts_of(group, [0, 5, 2][group.rank], 2))
    assert [[(p.start, p.stop) for p in parts] for parts in found] == [
        [(0, 0), (0, 0), (0, 0)], [(0, 2), (2, 4), (4, 5)], [(0, 2), (2, 2), (2, 2)],
    ]  # fmt: skip
