from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import random_data
from nearfar import split
from nearfar.data.interactions import Interactions
from nearfar.errors import DataError, OptionError

PAIRS = st.lists(
    st.tuples(st.integers(0, 8), st.integers(0, 30), st.integers(0, 5)), min_size=4, max_size=120
)
SEEDS = st.integers(0, 2**64 - 1)


def pair_set(data):
    return set(zip(data.pair_users().tolist(), data.items.tolist(), strict=True))


def many(n_users=400, per_user=7):
    return Interactions.from_pairs(
        [(u, i, 10 * i + u % 3) for u in range(n_users) for i in range(per_user)]
    )


CUTS = {
    "k_fold": lambda d, s: split.k_fold(d, 3, seed=s)[1],
    "ratio": lambda d, s: split.ratio(d, 0.3, seed=s),
    "leave_one_out": lambda d, s: split.leave_one_out(d, seed=s),
    "last": lambda d, s: split.leave_one_out(d, seed=s, last=True),
    "by_time": lambda d, s: split.by_time(d, 0.3, seed=s),
    "by_user": lambda d, s: split.by_user(d, 0.3, seed=s),
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS.keys())
@settings(max_examples=25, deadline=None)
@given(pairs=PAIRS, seed=SEEDS, shuffle=st.randoms(use_true_random=False))
def test_cuts_partition_on_the_same_axes_whatever_the_input_order(cut, pairs, seed, shuffle):
    pairs = [*pairs, (90, 1, 0), (91, 1, 9), (92, 1, 9), (92, 2, 9)]
    data = Interactions.from_pairs(pairs)
    train, test = cut(data, seed)
    assert pair_set(train) | pair_set(test) == pair_set(data)
    assert not pair_set(train) & pair_set(test)
    assert train.user_ids is data.user_ids
    assert test.item_ids is data.item_ids
    shuffle.shuffle(pairs)
    again = cut(Interactions.from_pairs(pairs), seed)
    assert (train, test) == again


@pytest.mark.parametrize("name", ["k_fold", "ratio", "leave_one_out", "by_user", "by_time"])
def test_another_seed_cuts_differently(name):
    data = many()
    assert CUTS[name](data, 0)[1] != CUTS[name](data, 1)[1]


@settings(max_examples=40, deadline=None)
@given(pairs=PAIRS, folds=st.integers(2, 6), seed=SEEDS)
def test_k_fold_tests_every_pair_once_in_parts_of_equal_size(pairs, folds, seed):
    data = Interactions.from_pairs(pairs)
    cuts = split.k_fold(data, folds, seed=seed)
    tested = [pair for _, test in cuts for pair in pair_set(test)]
    assert sorted(tested) == sorted(pair_set(data))
    sizes = np.array([test.user_counts for _, test in cuts])
    assert (sizes.max(0) - sizes.min(0) <= 1).all()


def test_k_fold_starts_at_random_so_that_short_users_do_not_fill_the_first_fold():
    singles = Interactions.from_pairs([(u, 0) for u in range(4000)])
    sizes = np.array([len(test) for _, test in split.k_fold(singles, 4)])
    assert abs(sizes - 1000).max() < 150  # 5 standard deviations


def test_places_are_shuffled_and_not_those_of_the_item_order():
    data = many(2000, 4)
    _, test = split.leave_one_out(data)
    assert abs(test.item_counts - 500).max() < 100
    chosen = split.ratio(data, 0.25)[1].item_counts
    assert abs(chosen - 500).max() < 100


def test_ratio_has_the_right_share_on_average_and_leaves_everyone_an_item():
    data = many(3000, 3)
    _, test = split.ratio(data, 0.25)
    assert abs(len(test) / len(data) - 0.25) < 0.01
    assert set(test.user_counts) == {0, 1}
    assert split.ratio(data, 0.99)[0].user_counts.min() == 1
    lonely = Interactions.from_pairs([(u, 0) for u in range(50)])
    assert len(split.ratio(lonely, 0.9)[1]) == 0
    exact = split.ratio(many(100, 8), 0.25)[1]
    assert set(exact.user_counts) == {2}


def test_leave_one_out_takes_one_of_each_user_with_two():
    data = Interactions.from_pairs([("a", 1, 5), ("a", 2, 9), ("a", 3, 7), ("b", 1, 1)])
    for seed in range(5):
        _, test = split.leave_one_out(data, seed=seed)
        assert test.user_counts.tolist() == [1, 0]
    _, latest = split.leave_one_out(data, last=True)
    assert latest.to_frame().rows() == [("a", 2, 9)]


def test_by_time_cuts_at_one_moment():
    data = Interactions.from_pairs([("a", i, i) for i in range(10)])
    assert split.by_time(data, 0.3)[1].times.tolist() == [7, 8, 9]
    assert split.by_time(data, at=4)[1].times.tolist() == [4, 5, 6, 7, 8, 9]
    tied = Interactions.from_pairs([(u, 0, 5) for u in range(40)])
    assert len(split.by_time(tied, 0.25)[1]) == 10


def test_by_user_holds_whole_users_out_even_twice():
    data = many(100, 3)
    train, test = split.by_user(data, 0.1)
    assert (test.user_counts > 0).sum() == 10
    assert not ((train.user_counts > 0) & (test.user_counts > 0)).any()
    _, again = split.by_user(train, 0.1)
    assert (again.user_counts > 0).sum() == 9


@settings(max_examples=40, deadline=None)
@given(pairs=PAIRS, share=st.floats(0.01, 0.99), seed=SEEDS)
def test_by_user_gives_a_part_of_each_test_user_s_items(pairs, share, seed):
    data = Interactions.from_pairs([*pairs, (90, 1, 0), (91, 1, 9)])
    train, tested = split.by_user(data, 0.5, seed=seed)
    same, given_part, test = split.by_user(data, 0.5, given=share, seed=seed)
    assert same == train
    assert pair_set(given_part) | pair_set(test) == pair_set(tested)
    assert not pair_set(given_part) & pair_set(test)
    for n, shown, hidden in zip(
        tested.user_counts, given_part.user_counts, test.user_counts, strict=True
    ):
        assert shown + hidden == n
        if n >= 2:
            assert shown == min(max(round(n * share), 1), n - 1)
        else:  # a user with a single item is not tested
            assert hidden == 0


def test_given_items_are_drawn_by_the_seed():
    data = many(60, 5)
    parts = [split.for_fold_in(data, seed=seed) for seed in (0, 0, 1)]
    assert parts[0] == parts[1]
    assert parts[0] != parts[2]
    assert set(parts[0][0].user_counts) == {4}
    assert set(parts[0][1].item_counts > 0) == {True}


def test_what_cannot_be_cut_is_said():
    data = Interactions.from_pairs([("a", 1), ("a", 2)])
    for folds in (1, 2.0, True):
        with pytest.raises(OptionError, match=r"`folds` must be a whole number from 2 to"):
            split.k_fold(data, folds)
    for cut in (split.ratio, split.by_user):
        for share in (0, 1, -0.1, float("nan"), "0.2"):
            with pytest.raises(OptionError, match=r"`test` must lie between 0 and 1"):
                cut(data, share)
    for share in (0, 1, "0.8", float("nan")):
        for cut in (split.for_fold_in, lambda d, share: split.by_user(d, given=share)):
            with pytest.raises(OptionError, match=r"`given` must"):
                cut(data, share)
    for cut in (split.by_time, lambda d: split.leave_one_out(d, last=True)):
        with pytest.raises(DataError, match=r"needs the times .* `time=`"):
            cut(data)
    timed = Interactions.from_pairs([("a", 1, 3), ("a", 2, 4)])
    with pytest.raises(OptionError, match=r"`test` must lie"):
        split.by_time(timed, 1.5)
    with pytest.raises(DataError, match=r"at=9.* leaves one part .* times go from 3 to 4"):
        split.by_time(timed, at=9)
    with pytest.raises(DataError, match=r"needs at least 2 users .* got 1"):
        split.by_user(data)


# ------------------------------------------------------------------------------------ cold items


@pytest.mark.parametrize("by", ["random", "popularity", "time"])
@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.99])
def test_cold_items_have_all_their_pairs_in_the_test_part(by, share):
    data = random_data(n_items=50)
    times = np.random.default_rng(1).integers(0, 1000, data.n_pairs)
    data = replace(data, times=times)
    train, test = split.cold_items(data, share, by=by, seed=3)
    assert train.union(test) == data
    cold = test.item_counts > 0
    assert (train.item_counts[cold] == 0).all()
    assert cold.sum() == min(max(1, round(share * 50)), 49)
    again = split.cold_items(data, share, by=by, seed=3)
    assert again[0] == train
    if by != "time" and share < 0.9:
        assert split.cold_items(data, share, by=by, seed=4)[0] != train


def test_cold_items_by_popularity_are_as_popular_as_the_others():
    data = random_data(n_users=300, n_items=200)
    counts = data.item_counts
    for seed in range(5):
        _, test = split.cold_items(data, 0.25, by="popularity", seed=seed)
        cold = test.item_counts > 0
        assert abs(np.log(counts[cold]).mean() - np.log(counts).mean()) < 0.05
        order = np.sort(counts)
        for quarter in range(4):  # of each quarter a quarter, but for ties and rounding
            low, high = order[50 * quarter], order[50 * quarter + 49]
            among = cold[(counts >= low) & (counts <= high)].mean()
            assert 0.15 < among < 0.35


def test_cold_items_by_time_are_the_newest():
    frame = pl.DataFrame({"u": [1, 2, 3, 1, 2], "i": [1, 1, 2, 3, 3], "t": [5, 9, 6, 7, 1]})
    data = Interactions.from_frame(frame, user="u", item="i", time="t")
    train, test = split.cold_items(data, 0.34, by="time")
    assert test.to_frame()["item_id"].unique().to_list() == [2]  # 3 was there at 1
    assert train.n_pairs == 4


def test_cold_items_refuse_what_they_cannot_split():
    data = random_data()
    with pytest.raises(OptionError, match="`by`"):
        split.cold_items(data, by="age")
    with pytest.raises(OptionError, match="`share`"):
        split.cold_items(data, 1.0)
    with pytest.raises(DataError, match="cold items by time needs the times"):
        split.cold_items(data, by="time")
    with pytest.raises(DataError, match="at least two items"):
        split.cold_items(Interactions.from_pairs([(1, 1), (2, 1)]))
