"""Users without training interactions: left out, folded in or refused, and counted."""

import json

import numpy as np
import polars as pl
import pytest

import nearfar as nf
from conftest import PLAIN, random_data
from nearfar.errors import DataError, EmptyDataError, NearfarWarning, OptionError
from nearfar.evaluation import ranking

LEFT_OUT = r"{} of the {} users with test items have no training interactions.*left out"


@pytest.fixture(scope="module")
def parts():
    """Train, given and test parts; every item has training interactions."""
    made = nf.split.by_user(random_data(40, 30, share=0.4), 0.25, given=0.5, seed=1)
    assert made[0].item_counts.min() > 0
    return made


@pytest.fixture(scope="module")
def model(parts):
    return nf.CML(PLAIN, dim=8).fit(parts[0], epochs=1)


def mixed(parts):
    """Test pairs of the new users and of some known ones; the latter are not trained on."""
    train, given, test = parts
    some = (np.arange(train.n_pairs) % 4 == 0) & (train.user_counts > 1)[train.pair_users()]
    some &= train.indptr[train.pair_users()] != np.arange(train.n_pairs)  # everybody keeps one
    return train.subset(~some), given, train.subset(some).union(test)


def test_new_users_are_left_out_counted_and_named(parts):
    train, _, test = mixed(parts)
    popular, n_new = nf.baselines.MostPopular(train), np.count_nonzero(parts[2].user_counts)
    n_tested = np.count_nonzero(test.user_counts)
    with pytest.warns(NearfarWarning, match=LEFT_OUT.format(n_new, n_tested)) as said:
        found = nf.evaluate(popular, train, test, k=5)
    assert len(said) == 1
    assert said[0].filename == __file__
    known = test.subset((train.user_counts > 0)[test.pair_users()])
    expected = nf.evaluate(popular, train, known, k=5)
    assert found.metrics == expected.metrics
    assert found.per_user.equals(expected.per_user)
    assert (found.n_new_users, found.n_folded_in, expected.n_new_users) == (n_new, 0, 0)
    assert found.n_users + found.n_skipped + found.n_new_users == train.n_users
    assert f"; {n_new} left out without training interactions" in str(found).splitlines()[0]
    assert "without training" not in str(expected)
    assert f"n_new_users={n_new}" in repr(found)
    plain = json.loads(json.dumps(found.to_dict()))
    assert (plain["n_new_users"], plain["n_folded_in"]) == (n_new, 0)


def test_folds_of_users_with_one_item_do_not_test_them():
    pairs = [(u, i) for u in range(12) for i in range(9) if (u + i) % 2 == 0]
    singles = [(100 + u, u % 9) for u in range(16)]
    data, counts = nf.Interactions.from_pairs([*pairs, *singles]), []
    for train, test in nf.split.k_fold(data, 4):
        with pytest.warns(NearfarWarning, match="no training interactions"):
            found = nf.evaluate(nf.baselines.MostPopular(train), train, test, k=3)
        assert max(found.per_user["user_id"]) < 100
        counts.append(found.n_new_users)
    assert sum(counts) == 16


def test_new_users_can_be_refused(parts, model):
    train, _, test = parts
    with pytest.raises(DataError, match=r"10 of the 10 users.*such as \d+.*new_users='fold_in'"):
        nf.evaluate(model, train, test, new_users="error")
    known = train.subset(np.arange(train.n_pairs) % 2 == 0)
    nothing = train.subset(np.zeros(train.n_pairs, bool))
    found = nf.evaluate(model, train, known, exclude=nothing, new_users="error")
    assert found.n_new_users == 0


def test_if_nobody_is_left_the_remedy_is_named(model):
    train, test = nf.split.by_user(random_data(40, 30, share=0.4), 0.25)
    with pytest.raises(EmptyDataError, match=r"Nobody is left.*split\.by_user\(data, given=0\.8\)"):
        nf.evaluate(model, train, test)


# ------------------------------------------------------------------------------------ folded in


@pytest.mark.parametrize("part_size", [3, 256])
def test_folded_in_users_have_the_lists_of_recommend(parts, model, monkeypatch, part_size):
    monkeypatch.setattr(ranking, "_FOLDED_PART", part_size)
    train, given, test = parts
    found = nf.evaluate(model, train, test, k=7, new_users="fold_in", given=given)
    assert (found.n_users, found.n_new_users, found.n_folded_in) == (10, 10, 10)
    assert "; 10 folded in without training interactions" in str(found)
    for row in found.per_user.iter_rows(named=True):
        user = train.user_ids.row(row["user_id"])
        liked = train.item_ids.take(given.positives(user)).to_list()
        listed = model.recommend(liked=liked, k=7)["item_id"].to_list()
        wanted = train.item_ids.take(test.positives(user)).to_list()
        assert not set(listed) & set(liked)
        assert row["n_relevant"] == len(wanted)
        assert row["recall"] == pytest.approx(len(set(listed) & set(wanted)) / len(wanted))
        counts = train.item_counts[train.item_ids.rows(listed)]
        assert row["mean_popularity"] == pytest.approx(counts.mean())


def test_known_and_folded_in_users_come_together_in_the_order_of_the_axis(parts):
    train, given, test = mixed(parts)
    model = nf.CML(PLAIN, dim=8).fit(train, epochs=1)
    found = nf.evaluate(model, train, test, k=5, new_users="fold_in", given=given)
    new = (train.user_counts == 0)[test.pair_users()]
    apart = [
        nf.evaluate(model, train, test.subset(~new), k=5),
        nf.evaluate(model, train, test.subset(new), k=5, new_users="fold_in", given=given),
    ]
    assert found.per_user["user_id"].is_sorted()
    assert found.per_user.equals(pl.concat(one.per_user for one in apart).sort("user_id"))
    assert found.n_users == apart[0].n_users + apart[1].n_users
    assert found.n_folded_in == apart[1].n_users == found.n_new_users


def test_baselines_can_be_compared_with_a_folded_in_model(parts):
    train, given, test = parts
    every = {"k": 5, "new_users": "fold_in", "given": given}
    found = nf.evaluate(nf.baselines.MostPopular(train), train, test, **every)
    order = np.argsort(-train.item_counts, kind="stable")
    for row in found.per_user.iter_rows(named=True):
        user = train.user_ids.row(row["user_id"])
        left = [item for item in order if item not in given.positives(user)][:5]
        assert row["recall"] == np.isin(left, test.positives(user)).sum() / row["n_relevant"]
    lots = nf.baselines.Random(train.n_users, train.n_items, seed=3)
    one = nf.evaluate(lots, train, test, **every)
    assert one.per_user.equals(nf.evaluate(lots, train, test, threads=2, **every).per_user)
    # as if they were known: the score of a pair is the same
    as_known = nf.evaluate(lots, given, test, k=5)
    assert one.per_user["recall"].equals(as_known.per_user["recall"])


def test_users_without_a_given_item_that_was_trained_on_are_left_out_and_counted(parts, model):
    train, given, test = parts
    new = np.flatnonzero(given.user_counts)
    fewer = given.subset(~np.isin(given.pair_users(), new[:3]))
    message = r"3 of the 10 users.*neither training interactions nor a given item"
    with pytest.warns(NearfarWarning, match=message):
        found = nf.evaluate(model, train, test, k=5, new_users="fold_in", given=fewer)
    assert (found.n_users, found.n_new_users, found.n_folded_in) == (7, 10, 7)
    assert "; 7 folded in and 3 left out without training interactions" in str(found)


def test_an_untrained_given_item_does_not_move_a_user(parts):
    train, given, test = parts
    lost = given.items[0]  # nobody has it in training, but a new user does
    train = train.subset(train.items != lost)
    test = test.subset(test.items != lost)
    model = nf.CML(PLAIN, dim=8).fit(train, epochs=1)
    every = {"k": 5, "new_users": "fold_in"}
    found = nf.evaluate(model, train, test, given=given, **every)
    fewer = given.subset(given.items != lost)
    hidden = nf.evaluate(model, train, test, given=fewer, exclude=given, **every)
    assert found.per_user.equals(hidden.per_user)


def test_what_does_not_go_together_is_refused(parts, model):
    train, given, test = parts
    for error, options, message in [
        (OptionError, {"new_users": "drop"}, "`new_users` must be one of leave_out, fold_in, err"),
        (OptionError, {"new_users": True}, "`new_users` must be one of .* of|`new_users` must be"),
        (OptionError, {"new_users": "fold_in"}, r"needs `given`.*by_user\(data, given=0\.8\)"),
        (OptionError, {"given": given}, "`given` is only used with new_users='fold_in'"),
        (DataError, {"new_users": "fold_in", "given": 0.8}, "`given` must be nearfar.Interactions"),
        (DataError, {"new_users": "fold_in", "given": test}, "are also in `given`"),
        (DataError, {"new_users": "fold_in", "given": train}, "of 30 users with training inter"),
        (
            DataError,
            {"new_users": "fold_in", "given": given.compact()},
            r"users of `given` and `train` differ.*given\.aligned\(train\.user_ids",
        ),
    ]:
        with pytest.raises(error, match=message):
            nf.evaluate(model, train, test, **options)


def test_a_recommender_that_cannot_fold_in_is_named(parts, model):
    train, given, test = parts
    with pytest.raises(OptionError, match=r"fold_in_scorer\(given, users\).*; got a Points"):
        nf.evaluate(model.scorer(), train, test, new_users="fold_in", given=given)


# ------------------------------------------------------------------------- data from elsewhere


def test_data_from_elsewhere_is_told_of_aligned(parts, model):
    train, _, test = parts
    elsewhere = nf.Interactions.from_pairs([(0, 1), (1, 2), (99, 0)])
    with pytest.raises(DataError, match=r"test\.aligned\(train\.user_ids, train\.item_ids\)"):
        nf.evaluate(model, train, elsewhere)
    with pytest.raises(DataError, match=r"exclude\.aligned\(train\.user_ids, train\.item_ids\)"):
        nf.evaluate(model, train, test, exclude=elsewhere)
    with pytest.raises(DataError, match=r"strings and integers: convert one.*aligned"):
        nf.evaluate(model, train, nf.Interactions.from_pairs([("0", "1")]))
    moved = elsewhere.aligned(train.user_ids, train.item_ids).without(train)
    assert moved.n_pairs > 0
    with pytest.raises(DataError, match=r"validation\.aligned\(train\.user_ids, train\.item_ids\)"):
        nf.CML(PLAIN).fit(train, validation=elsewhere, epochs=1)


@pytest.mark.parametrize("name", ["train", "test", "exclude"])
def test_what_is_not_interactions_is_refused(parts, model, name):
    train, _, test = parts
    for wrong in (test.to_frame(), test.to_csr(), [("a", 1)], "test.csv", 0.25):
        given = {"train": train, "test": test, name: wrong}
        message = rf"`{name}` must be nearfar\.Interactions; got .*{type(wrong).__name__}.*aligned"
        if isinstance(wrong, float):
            message = rf"`{name}` must be nearfar\.Interactions; got 0\.25"
        with pytest.raises(DataError, match=message):
            nf.evaluate(model, **given)


# ------------------------------------------------------------------------------------ in training


def test_a_validation_part_leaves_new_users_out_and_says_so_once(parts):
    train, _, test = mixed(parts)
    known = test.subset((train.user_counts > 0)[test.pair_users()])
    every = {"epochs": 3, "k": 5, "threads": 1}
    expected = nf.CML(PLAIN, dim=8).fit(train, validation=known, **every)
    message = r"10 of the \d+ users of the validation part have no training interactions"
    with pytest.warns(NearfarWarning, match=message) as said:
        found = nf.CML(PLAIN, dim=8).fit(train, validation=test, **every)
    assert len(said) == 1
    assert found.history.drop("seconds").equals(expected.history.drop("seconds"), null_equal=True)
    new = test.subset((train.user_counts == 0)[test.pair_users()])
    with pytest.raises(EmptyDataError, match="nobody is left to validate on"):
        nf.CML(PLAIN, dim=8).fit(train, validation=new, **every)
