"""Keys of 64 bits have the order of lists."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nearfar.search.sort_keys import NOTHING, Candidates, key_of, read_keys, score_of, write_keys

NUMBERS = st.floats(width=32, allow_nan=False)


@given(NUMBERS, NUMBERS)
def test_keys_of_scores_have_their_order(one, other):
    one, other = np.float32(one), np.float32(other)
    assert (key_of(one) < key_of(other)) == (one < other)
    assert (key_of(one) == key_of(other)) == (one == other)
    assert score_of(np.int32(key_of(one))) == one


def candidates(items, scores, **other):
    shape = np.shape(items)
    parts = {
        "weight": np.zeros(shape, np.float32),
        "offset": np.zeros(shape, np.float32),
        "terms": np.zeros(shape),
    } | other
    return Candidates(np.array(items, np.int32), np.array(scores, np.float64), **parts)


def lists_of(some, factor=0.0, floors=None, k=4):
    keys = np.zeros(some.items.shape, np.int64)
    floors = np.full(len(keys), -np.inf) if floors is None else np.array(floors)
    n = write_keys(some, np.float32(factor), floors.astype(np.float32), keys)
    assert np.all(keys[:, n:] == NOTHING)
    items, scores = np.full((len(keys), k), -1, np.int32), np.full((len(keys), k), -np.inf, "f4")
    read_keys(np.sort(keys[:, :n], axis=1), items, scores)
    return items.tolist(), scores.tolist(), n


def test_the_larger_score_comes_first_and_of_ties_the_smaller_item():
    some = candidates([[7, 2**31 - 1, 0, 3, 5], [4, 1, 2, -1, -1]],
                      [[-0.5, 2, 0.0, -0.0, -np.inf], [1, 1, 1, 9, 9]])  # fmt: skip
    items, scores, n = lists_of(some)
    assert items == [[2**31 - 1, 0, 3, 7], [1, 2, 4, -1]]
    assert scores == [[2, 0, 0, -0.5], [1, 1, 1, -np.inf]]
    assert n == 4


def test_a_list_has_k_items_and_none_below_the_floor():
    some = candidates([[0, 1, 2, 3], [0, 1, 2, 3]], [[1, 4, 3, 2], [1, 4, 3, 2]])
    items, _, n = lists_of(some, floors=[2, 3], k=2)
    assert (items, n) == ([[1, 2], [1, 2]], 3)
    assert lists_of(some, floors=[2, 3])[0] == [[1, 2, 3, -1], [1, 2, -1, -1]]


def test_a_score_is_the_sum_of_its_parts_rounded_as_everywhere():
    rng = np.random.default_rng(0)
    products, terms = rng.normal(size=(1, 50)), rng.normal(size=(1, 50))
    weight, offset = rng.normal(size=(2, 1, 50)).astype(np.float32)
    some = candidates([range(50)], products, weight=weight, offset=offset, terms=terms)
    expected = (products + (offset + np.float32(0.3) * weight) + terms).astype(np.float32)[0]
    items, scores, _ = lists_of(some, factor=0.3, k=50)
    np.testing.assert_array_equal(scores[0], expected[items[0]])
    assert sorted(items[0]) == list(range(50))
    assert np.all(np.diff(scores[0]) <= 0)
