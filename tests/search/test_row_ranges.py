"""Rows that change their owners."""

import numpy as np
import pytest

from nearfar.search import row_ranges
from nearfar.search.row_ranges import even_bounds, in_ranges
from ranks import on_ranks


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("multiple", [1, 16, 1000])
def test_each_rank_gets_its_range(size, multiple, monkeypatch):
    monkeypatch.setattr(row_ranges, "_ROWS", 10)  # many rounds
    rng = np.random.default_rng(0)
    table, owner = rng.normal(size=(103, 3)).astype(np.float32), rng.integers(0, size, 103)
    bounds = even_bounds(103, size, multiple)

    def work(group):
        rows = rng_of(group.rank).permutation(np.flatnonzero(owner == group.rank))
        return in_ranges(group, rows, table[rows], bounds)

    found = on_ranks(size, work)
    assert np.array_equal(np.concatenate(found), table)
    assert [len(one) for one in found] == np.diff(bounds).tolist()


def rng_of(rank):
    return np.random.default_rng(rank)


@pytest.mark.parametrize("n", [0, 1, 7, 100, 1001])
@pytest.mark.parametrize("size", [1, 3, 16])
@pytest.mark.parametrize("multiple", [1, 4, 128])
def test_ranges_begin_at_multiples_and_are_about_equal(n, size, multiple):
    bounds = even_bounds(n, size, multiple)
    assert (bounds[0], bounds[-1], len(bounds)) == (0, n, size + 1)
    assert np.all(np.diff(bounds) >= 0)
    assert all(b % multiple == 0 or b == n for b in bounds)
    assert np.diff(bounds).max() <= -(-n // size) + multiple
