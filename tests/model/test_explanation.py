"""The reasons of a recommendation: their sum is the score, and they are what they are called."""

import numpy as np
import polars as pl
import pytest

import nearfar as nf
from conftest import hopeless, random_data, titled
from nearfar.data.ids import Ids
from nearfar.errors import DataError, NearfarError, OptionError, UnknownIdError
from nearfar.method.co_occurrence import similarities
from nearfar.method.geometry import score
from nearfar.method.prior import log_popularity

pytestmark = hopeless
SHORT = nf.Options(dim=4, batch=32, sampler=nf.Shared(0.5), negatives=8)
GAMMA, WEIGHT = 0.2, 3.0


def fitted(geometry="sphere"):
    options = nf.CML(
        SHORT,
        geometry=geometry,
        prior=nf.Prior(gamma=GAMMA),
        neighbours=nf.CoOccurrence(10, weight=WEIGHT),
    )
    return options.fit(titled(random_data()), epochs=2, threads=1)


@pytest.fixture(scope="module")
def model():
    return fitted()


def scores_of(frame):
    return dict(zip(frame["item_id"], frame["score"], strict=True))


@pytest.mark.parametrize("popularity", [0, 0.7, None])
def test_the_parts_add_up_to_the_score_to_the_last_bit(model, popularity):
    for user in range(0, 30, 7):
        lists = model.recommend(user, k=60, exclude_seen=False, popularity=popularity)
        assert len(lists) == 60
        for item, shown in scores_of(lists).items():
            why = model.explain(user, item, popularity=popularity)
            assert why.score == shown == float(np.float32(sum(why.parts.values())))


def test_so_do_those_of_a_new_user(model):
    liked = [3, 8, 21]
    for item, shown in scores_of(model.recommend(liked=liked, k=60)).items():
        why = model.explain(item=item, liked=liked)
        assert why.score == shown == float(np.float32(sum(why.parts.values())))
        assert why.user is None
        assert set(why.nearest["item_id"]) == set(liked)


@pytest.mark.parametrize("geometry", ["ball", "free"])
def test_off_the_sphere_they_do_but_for_the_rounding(geometry):
    model = fitted(geometry)
    points = model.user_vectors, model.item_vectors
    for item, shown in scores_of(model.recommend(2, k=40)).items():
        why = model.explain(2, item)
        lengths = sum(
            float(np.sum(table[at] ** 2)) for table, at in zip(points, (2, item), strict=True)
        )
        assert why.score == shown
        assert abs(sum(why.parts.values()) - shown) <= 2.0**-22 * (1 + lengths + abs(shown))


def test_each_part_is_what_its_name_says(model):
    data = model.interactions
    table = np.zeros((data.n_users, data.n_items), bool)
    table[data.pair_users(), data.items] = True
    g = similarities(table, 10)
    for user, item in [(0, 5), (7, 50), (29, 1)]:
        liked = data.positives(user)
        why = model.explain(user, item, popularity=0.5, k=100)
        near = score(model.user_vectors[user], model.item_vectors[item])
        assert why.closeness == pytest.approx(float(near), abs=1e-6)
        expected = 0.5 * GAMMA * log_popularity(data.item_counts)[item]
        assert why.prior == pytest.approx(float(expected), rel=1e-6)
        shares = WEIGHT / np.sqrt(len(liked)) * g[liked, item]
        assert why.neighbours == pytest.approx(shares.sum(), rel=1e-5)
        of_each = dict(zip(liked.tolist(), shares, strict=True))
        for own, share in why.nearest.select("item_id", "neighbours").iter_rows():
            assert share == pytest.approx(of_each[own], rel=1e-5)
        assert (why.content, why.own, why.popularity) == (None, None, 0.5)


@pytest.mark.parametrize("geometry", ["sphere", "ball"])
def test_the_nearest_are_the_users_own_items_by_similarity(geometry):
    model = fitted(geometry)
    for user, item in [(0, 5), (3, 50), (29, int(model.interactions.positives(29)[0]))]:
        own = [one for one in model.interactions.positives(user).tolist() if one != item]
        near = model.similar_items(item, k=60)
        expected = [(one, s) for one, s in near.select("item_id", "score").iter_rows()
                    if one in own]  # fmt: skip
        why = model.explain(user, item, k=4)
        assert why.n_own == len(own)
        assert list(why.nearest.select("item_id", "similarity").iter_rows()) == expected[:4]
        assert why.nearest["title"].to_list() == model.interactions.titles(
            [one for one, _ in expected[:4]]
        )


def test_content_and_the_rest_add_up_to_the_closeness():
    data = random_data()
    kinds = pl.DataFrame({"item_id": range(62), "kind": ["a", "b"] * 31, "size": np.arange(62) / 9})
    content = nf.Features.from_frame(kinds, categories="kind", numbers="size")
    old = content.of(range(56))
    model = nf.CML(SHORT, items=nf.Hybrid()).fit(data, item_features=old, epochs=2)
    model.add_items(content.of([60, 61]))
    n = model.interactions.n_users
    points = np.concatenate([model.user_vectors, model.item_vectors])
    encoders = model._known().encoders
    delta = encoders.deltas(points)[n:]
    for item in (0, 17, 39, 61):
        why = model.explain(4, item)
        part = model.user_vectors[4] @ delta[item] / encoders.lengths[n + item]
        assert why.own == pytest.approx(float(part), abs=1e-5)
        assert why.content + why.own == pytest.approx(why.closeness, abs=1e-12)
        assert float(np.float32(sum(why.parts.values()))) == why.score
        assert list(why.parts) == ["content", "own", "prior", "neighbours"]
    assert model.explain(4, 61).own == pytest.approx(0, abs=1e-5)
    assert abs(model.explain(4, 17).own) > 1e-3
    without = model.explain(4, 58)
    assert without.content is None
    assert without.own is None


def test_it_is_printed(model):
    text = str(model.explain(0, 5))
    assert "user 0, item 5 (Film 5" in text
    for name in ("closeness", "prior", "neighbours", "at popularity 1"):
        assert name in text
    assert "title" not in model.explain(0, 5).parts
    assert str(model.explain(item=5, liked=[1])).startswith("a new user, item 5")
    assert len(text.splitlines()) == 1 + 3 + 1 + 3


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        ({"user": 0}, DataError, "`item` must be a single id"),
        ({"item": 5}, OptionError, "needs either `user` or `liked`; got neither"),
        ({"user": 0, "liked": [1], "item": 5}, OptionError, "got both"),
        ({"user": [0, 1], "item": 5}, DataError, "`user` must be a single id"),
        ({"user": 0, "item": [5]}, DataError, "`item` must be a single id"),
        ({"user": 99, "item": 5}, UnknownIdError, "99"),
        ({"user": 0, "item": 99}, UnknownIdError, "99"),
        ({"user": "0", "item": 5}, UnknownIdError, "'0'"),
        ({"user": 0, "item": 5, "k": 0}, OptionError, "`k`"),
        ({"user": 0, "item": 5, "popularity": -1}, OptionError, "`popularity`"),
        ({"liked": [99], "item": 5}, UnknownIdError, "99"),
    ],
)
def test_what_cannot_be_explained_is_refused(model, how, error, said):
    with pytest.raises(error, match=said):
        model.explain(**how)


def test_an_item_without_interactions_has_no_reasons():
    train = random_data()
    train = train.aligned(train.user_ids, train.item_ids.union(Ids([77], "item")))
    model = nf.CML(SHORT).fit(train, epochs=1)
    with pytest.raises(UnknownIdError, match="no training interactions of item id 77"):
        model.explain(0, 77)
    with pytest.raises(NearfarError, match="has not been fitted"):
        nf.CML(SHORT).explain(0, 5)


def test_who_has_nothing_else_is_told_so(model):
    why = model.explain(item=3, liked=[3])
    assert why.n_own == 0
    assert str(why).endswith("the user has no other item")
