"""Recommenders that learn nothing: values on a data set made by hand."""

import numpy as np
import pytest

from nearfar.data.interactions import Interactions
from nearfar.errors import OptionError
from nearfar.evaluation.baselines import MostPopular, Random
from nearfar.search.neighbours import top_k


@pytest.fixture
def train():
    # item 0 has 1 user, 1 has 3, 2 has 3, 3 has 2
    pairs = [(0, 1), (0, 2), (1, 1), (1, 3), (2, 2), (2, 3), (3, 0), (3, 1), (3, 2)]
    return Interactions.from_pairs(pairs)


def test_popularity_ranks_by_training_count_then_by_row(train):
    found = top_k(MostPopular(train).scorer(), [0, 3], 4)
    assert found.items.tolist() == [[1, 2, 3, 0]] * 2
    assert found.scores.tolist() == [[3, 3, 2, 1]] * 2


def test_popularity_after_exclusion(train):
    found = top_k(MostPopular(train), [0, 3], 4, exclude=(train.indptr, train.items))
    assert found.items.tolist() == [[3, 0, -1, -1], [3, -1, -1, -1]]


def scores(recommender, rows, first, width):
    out = np.full((len(rows), width), np.nan, np.float32)
    recommender.score_block(np.asarray(rows, np.int32), first, out)
    return out


def test_random_scores_are_a_function_of_user_item_and_seed():
    lots = Random(50, 300, seed=1)
    whole = scores(lots, range(50), 0, 300)
    np.testing.assert_array_equal(scores(lots, [7, 3, 7], 100, 50), whole[[7, 3, 7], 100:150])
    np.testing.assert_array_equal(scores(Random(50, 300, seed=1), range(50), 0, 300), whole)
    assert (scores(Random(50, 300, seed=2), range(50), 0, 300) != whole).mean() > 0.999


def test_random_scores_are_uniform_and_unrelated():
    lots = scores(Random(200, 500, seed=3), range(200), 0, 500).astype(np.float64)
    assert lots.min() >= 0
    assert lots.max() < 1
    cells = np.bincount((lots * 20).astype(int).ravel(), minlength=20)
    chi_square = ((cells - 5000) ** 2 / 5000).sum()
    assert chi_square < 43.8  # 99.9% of chi-square with 19 degrees of freedom
    assert abs(np.corrcoef(lots[:-1].ravel(), lots[1:].ravel())[0, 1]) < 0.013  # 4 / sqrt(n)
    assert abs(np.corrcoef(lots[:, :-1].ravel(), lots[:, 1:].ravel())[0, 1]) < 0.013


def test_random_lists_hold_every_item_equally_often():
    items = top_k(Random(4000, 20, seed=0), np.arange(4000), 5).items
    counts = np.bincount(items.ravel(), minlength=20)
    # 4000 lists hold an item with probability 1/4: mean 1000, variance 750
    assert (abs(counts - 1000) < 4.5 * np.sqrt(750)).all()


def test_a_negative_size_is_an_error():
    with pytest.raises(OptionError, match=r"`n_items` must be a whole number from 0 .*; got -1\."):
        Random(1, -1)
