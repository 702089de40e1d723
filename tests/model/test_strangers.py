"""Users and items without training interactions, and lists of ids that come from elsewhere."""

from contextlib import nullcontext

import numpy as np
import polars as pl
import pytest

import nearfar as nf
from conftest import PLAIN, random_data
from nearfar.errors import DataError, EmptyDataError, NearfarWarning, OptionError, UnknownIdError

NEW_USERS, NEW_ITEMS = [0, 4, 29], [2, 59]


@pytest.fixture(scope="module")
def train():
    """On axes with three users and two items that have no pairs."""
    data = random_data()
    new = np.isin(data.pair_users(), NEW_USERS) | np.isin(data.items, NEW_ITEMS)
    return data.subset(~new)


@pytest.fixture(scope="module")
def model(train):
    return nf.CML(PLAIN, dim=8).fit(train, epochs=1)


@pytest.fixture(scope="module")
def small(train):
    """The same model without these users and items."""
    made = nf.CML(PLAIN, dim=8).fit(train.compact(), epochs=1)
    users, items = np.flatnonzero(train.user_counts), np.flatnonzero(train.item_counts)
    whole = nf.CML(PLAIN, dim=8).fit(train, epochs=1)._fitted
    made._take(made._fitted._replace(users=whole.users[users], items=whole.items[items]))
    return made


# --------------------------------------------------------------- without training interactions


@pytest.mark.parametrize(
    "ask",
    [
        lambda m: m.recommend([1, 3], k=80),
        lambda m: m.recommend(5, k=80, exclude_seen=False),
        lambda m: m.recommend([1, 3], k=9, deny=[5, 7]),
        lambda m: m.similar_items([5, 8], k=80),
        lambda m: m.similar_users([5, 8], k=80),
    ],
)
def test_they_are_in_no_list(model, small, ask):
    """The lists are those of a model that never knew them."""
    found, expected = ask(model), ask(small)
    assert found.drop("score").equals(expected.drop("score"))
    assert found["score"].to_numpy() == pytest.approx(expected["score"].to_numpy(), abs=1e-6)
    assert len(found) > 10


def test_a_folded_in_user_does_not_get_them_either(model):
    found = model.recommend(liked=[5, 7], k=80)
    assert len(found) == np.count_nonzero(model.interactions.item_counts) - 2
    assert not set(NEW_ITEMS) & set(found["item_id"])


def test_an_index_lists_none_of_them_either(model):
    pytest.importorskip("faiss")
    index = nf.ItemIndex.build(model, 0.5, k=5)
    for asked in (model.recommend_all, lambda **how: model.similar_items([5, 8], **how)):
        with pytest.warns(NearfarWarning) if asked == model.recommend_all else nullcontext():
            found = asked(k=70, index=index)
        assert not set(NEW_ITEMS) & set(found["item_id"])


def test_recommending_to_everybody_leaves_new_users_out_and_counts_them(model):
    message = r"3 of the 30 users have no training interactions.*`recommend\(liked=\.\.\.\)`"
    with pytest.warns(NearfarWarning, match=message):
        found = model.recommend_all(k=2)
    assert found["user_id"].unique(maintain_order=True).to_list() == [
        user for user in range(30) if user not in NEW_USERS
    ]


@pytest.mark.parametrize(
    ("ask", "named", "remedy"),
    [
        (lambda m: m.recommend(4), "user id 4", "`liked`.*unknown='skip'"),
        (lambda m: m.recommend([1, 4, 0]), "user ids 4, 0", "`liked`.*unknown='skip'"),
        (lambda m: m.recommend(liked=[5, 59]), "item id 59", "Leave them out of `liked`"),
        (lambda m: m.fold_in([59]), "item id 59", "Leave them out of `liked`"),
        (lambda m: m.fold_in_item([1, 4]), "user id 4", "Leave them out of `liked_by`"),
        (lambda m: m.similar_items([2, 3]), "item id 2", "partial_fit"),
        (lambda m: m.similar_users(29), "user id 29", "partial_fit"),
    ],
)
def test_asked_for_by_id_they_are_refused_with_the_remedy(model, ask, named, remedy):
    message = rf"The model has no training interactions of {named}, so .*{remedy}"
    with pytest.raises(UnknownIdError, match=message):
        ask(model)


def test_partial_fit_starts_them_where_it_starts_new_ones(model):
    again = nf.CML(PLAIN, dim=8, optimiser=nf.SGD(1e-9))
    again._fitted = model._fitted
    again.partial_fit(nf.Interactions.from_pairs([(4, 5), (4, 7), (1, 59)]), epochs=1)
    mean = model.item_vectors[[5, 7]].mean(axis=0)
    np.testing.assert_allclose(again.user_vectors[4], mean / np.linalg.norm(mean), atol=1e-5)
    np.testing.assert_allclose(again.item_vectors[59], model.user_vectors[1], atol=1e-5)
    assert len(again.recommend(4, k=3)) == len(again.similar_items(59, k=3)) == 3


# ------------------------------------------------------------------------ lists from elsewhere


def test_unknown_users_are_skipped_if_wanted(model):
    expected = model.recommend([3, 1], k=4)
    message = r"4 of the 6 ids in `users` are unknown.* skipped: 99, None, '3', 4\."
    with pytest.warns(NearfarWarning, match=message):
        found = model.recommend([3, 99, 1, None, "3", 4], k=4, unknown="skip")
    assert found.equals(expected)
    with pytest.warns(NearfarWarning, match="1 of the 1 ids"):
        assert len(model.recommend(99, unknown="skip")) == 0
    with pytest.warns(NearfarWarning, match=r"2 of the 4 ids in `liked`.*: 99, 59\."):
        found = model.recommend(liked=[5, 99, 7, 59], k=4, unknown="skip")
    assert found.equals(model.recommend(liked=[5, 7], k=4))
    with pytest.raises(EmptyDataError, match=r"`liked` has no id that the model knows \(99\)"):
        model.recommend(liked=[99], unknown="skip")
    with pytest.raises(UnknownIdError, match=r"Unknown user ids \(2 of them\): 99, 98"):
        model.recommend([3, 99, 98])
    for wrong in ("drop", None, True):
        with pytest.raises(OptionError, match="`unknown` must be one of error, skip; got"):
            model.recommend(3, unknown=wrong)


def test_unknown_ids_of_filters_are_ignored_and_counted(model):
    with pytest.warns(NearfarWarning, match=r"1 of the 3 ids in `deny` .*ignored: 777\."):
        found = model.recommend(3, k=9, deny=[5, 777, 7])
    assert found.equals(model.recommend(3, k=9, deny=[5, 7]))
    with pytest.warns(NearfarWarning, match=r"2 of the 4 ids in `allow` .*ignored: 777, 888\."):
        found = model.recommend(3, k=9, allow=iter([5, 777, 7, 888]), exclude_seen=False)
    assert set(found["item_id"]) == {5, 7}
    with pytest.warns(NearfarWarning, match=r"7 of the 7 .*: 90, 91, 92, 93, 94 and 2 more\."):
        assert len(model.recommend(3, allow=range(90, 97))) == 0
    with pytest.warns(NearfarWarning, match="1 of the 2 .*: 'tea'"):
        model.recommend(3, deny=["tea", 5])
    assert model.recommend(3, deny=[]).equals(model.recommend(3))
    assert len(model.recommend(3, allow=NEW_ITEMS)) == 0


def test_a_filter_of_another_type_is_refused_because_it_would_change_the_lists(model):
    for name in ("allow", "deny"):
        with pytest.raises(UnknownIdError, match=r"Unknown item ids .*'5', '7'.*`int\(id\)`"):
            model.recommend(3, **{name: ["5", 777, "7"]})
    text = nf.CML(PLAIN, dim=2).fit(nf.Interactions.from_pairs([("a", "1"), ("b", "2")]), epochs=1)
    for wrong in (1, np.int64(2), 1.0):
        with pytest.raises(UnknownIdError, match=r"`str\(id\)`"):
            text.recommend("a", deny=[wrong])
    for wrong in (None, float("nan"), 2.5, b"5", True, [5], pl.Series([None, 5])):
        listed = wrong if isinstance(wrong, pl.Series) else [wrong]
        with pytest.raises(UnknownIdError, match=r"Unknown item id: .*`int\(id\)`"):
            model.recommend(3, deny=listed)


def test_a_filter_that_is_no_list_is_refused(model):
    for name in ("allow", "deny"):
        for wrong in ("5", 5, 5.5, True):
            with pytest.raises(DataError, match=rf"`{name}` must be a list of ids; got "):
                model.recommend(3, **{name: wrong})


# ------------------------------------------------------------------ an axis with more users


@pytest.mark.parametrize("sampler", [nf.Uniform(), nf.TwoStage(20, vectors="initial")])
def test_a_wider_axis_changes_nothing_else(train, sampler):
    model = nf.CML(PLAIN, dim=8, sampler=sampler).fit(train, epochs=1)
    wide = model.with_users(train.user_ids.union(nf.Interactions.from_pairs([(-7, 1)]).user_ids))
    assert wide.interactions.n_users == 31
    assert wide.recommend([1, 3]).equals(model.recommend([1, 3]))
    assert wide.recommend(liked=[5, 7]).equals(model.recommend(liked=[5, 7]))
    assert np.array_equal(wide.fold_in_item([5, 7]), model.fold_in_item([5, 7]))
    with pytest.raises(UnknownIdError, match="no training interactions of user id -7"):
        wide.recommend(-7)
    with pytest.raises(OptionError, match="lacks 29 of the 30 users"):
        model.with_users(train.user_ids.subset([1]))
