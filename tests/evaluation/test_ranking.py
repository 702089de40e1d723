"""Full ranking of a data set made by hand, of random ones against brute force, and errors."""

import math

import numpy as np
import pytest

from nearfar import CML
from nearfar.data.ids import Ids
from nearfar.data.interactions import Interactions
from nearfar.errors import DataError, EmptyDataError, OptionError
from nearfar.evaluation import metrics
from nearfar.evaluation import ranking as evaluation
from nearfar.evaluation.baselines import MostPopular, Random
from nearfar.evaluation.metrics import overall, per_user
from nearfar.evaluation.ranking import evaluate
from nearfar.method.optimiser import Adam

NAMES = ["ann", "bob", "cid", "dan"]


def interactions(pairs, n_items=5, names=NAMES):
    users, items = zip(*pairs, strict=True) if pairs else ((), ())
    return Interactions.from_rows(
        np.array(users, int), np.array(items, int), Ids(names), Ids(range(n_items))
    )


@pytest.fixture
def train():
    # training counts of items 0..4: 3, 3, 2, 1, 0
    return interactions([(0, 0), (0, 1), (1, 0), (1, 2), (2, 1), (2, 2), (3, 0), (3, 1), (3, 3)])


@pytest.fixture
def test():
    return interactions([(0, 2), (0, 4), (1, 3), (2, 0)])


def test_popularity_on_a_data_set_made_by_hand(train, test):
    # What is left, by count: ann 2 3 4, bob 1 3 4, cid 0 3 4; dan has no test item. k = 2.
    # ann: 2 is a hit, 3 is not; R = 2. bob: 1 is none, 3 is a hit; R = 1. cid: 0 is a hit; R = 1.
    found = evaluate(MostPopular(train), train, test, k=2, threads=1)
    assert (found.k, found.n_users, found.n_skipped) == (2, 3, 1)
    discount = 1 / math.log2(3)
    expected = {
        "map": [(1 / 1) / 2, (1 / 2) / 1, 1],
        "ndcg": [1 / (1 + discount), discount, 1],
        "recall": [1 / 2, 1, 1],
        "precision": [1 / 2, 1 / 2, 1 / 2],
        "mrr": [1, 1 / 2, 1],
        "hit_rate": [1, 1, 1],
        # counts of (2, 3), (1, 3), (0, 3): 2 1, 3 1, 3 1
        "mmr": [1.5, 2, 2],
        "mean_popularity": [1.5, 2, 2],
    }
    assert list(expected) == list(per_user())
    assert found.per_user.columns == ["user_id", "n_relevant", *per_user()]
    assert found.per_user["user_id"].to_list() == ["ann", "bob", "cid"]
    assert found.per_user["n_relevant"].to_list() == [2, 1, 1]
    for name, values in expected.items():
        np.testing.assert_allclose(found.per_user[name].to_numpy(), values, rtol=1e-14)
        assert found[name] == pytest.approx(np.mean(values))
    # recommended: 0, 1, 2 once each, 3 three times, 4 never; counts 3 3 2 1
    assert found["mmr_distinct"] == 2.5
    assert found["coverage"] == 4 / 5
    # sorted 0 1 1 1 3, weights -4 -2 0 2 4: (-2 + 0 + 2 + 12) / (5 * 6)
    assert found["gini"] == pytest.approx(12 / 30)
    assert set(found.metrics) == {*per_user(), *overall()}


def test_the_right_answers_score_one(train, test):
    class Oracle(Random):
        def score_block(self, rows, first_item, out):
            items = np.arange(first_item, first_item + out.shape[1])
            out[:] = test.contains(rows[:, None], items[None])

    found = evaluate(Oracle(4, 5), train, test, k=5)
    assert [found[name] for name in ("map", "ndcg", "recall", "mrr", "hit_rate")] == [1] * 5


def test_lists_longer_than_the_catalogue(train, test):
    short, long = (evaluate(MostPopular(train), train, test, k=k) for k in (3, 40))
    for name in set(per_user()) - {"precision"}:  # it divides by k
        assert long[name] == pytest.approx(short[name])
    assert long["precision"] == pytest.approx(short["precision"] * 3 / 40)


def random_split(n_users=300, n_items=150):
    rng = np.random.default_rng(8)
    data = interactions(
        np.argwhere(rng.random((n_users, n_items)) < 0.1).tolist(), n_items, range(n_users)
    )
    mask = rng.random(data.n_pairs) < 0.2
    return data.subset(~mask), data.subset(mask)


def test_against_brute_force_over_threads_and_parts(monkeypatch):
    train, test = random_split()
    lots = Random(300, 150, seed=4)
    scores = np.empty((300, 150), np.float32)
    lots.score_block(np.arange(300, dtype=np.int32), 0, scores)
    scores[train.to_csr().toarray() > 0] = -np.inf
    lists = np.argsort(-scores, axis=1, kind="stable")[:, :20]
    relevant = test.to_csr().toarray() > 0
    hits = np.take_along_axis(relevant, lists, axis=1)
    ap = metrics.average_precision(hits, relevant.sum(axis=1))
    found = evaluate(lots, train, test, k=20, threads=1)
    assert found["map"] == pytest.approx(np.nanmean(ap))
    monkeypatch.setattr(evaluation, "_PART", 37)
    for threads in (1, 2, 4):
        again = evaluate(lots, train, test, k=20, threads=threads)
        assert again.per_user.equals(found.per_user)
        assert again.metrics == found.metrics


def test_random_recall_is_that_of_chance():
    train, test = random_split()
    found = evaluate(Random(300, 150, seed=0), train, test, k=20)
    left = 150 - train.user_counts
    chance = np.mean(20 / left[test.user_counts > 0])
    assert found["recall"] == pytest.approx(chance, abs=4 * found.standard_error("recall"))


def test_the_next_users_item_is_no_hit():
    # ann's test item is 1, bob's are 3 and 4
    indptr, relevant = np.array([0, 1, 3]), np.array([1, 3, 4], np.int32)
    items = np.array([[3, 1, 0], [4, 1, 3]], np.int32)
    hits = np.empty((2, 3), bool)
    evaluation._mark_hits(items, np.array([0, 1], np.int32), indptr, relevant, hits)
    assert hits.tolist() == [[False, True, False], [True, False, True]]


def test_exclude_replaces_what_is_left_out(train, test):
    nothing = train.subset(np.zeros(train.n_pairs, bool))
    found = evaluate(MostPopular(train), train, test, k=1, exclude=nothing)
    assert found["mmr"] == 3  # item 0 for everybody
    assert found["mmr_distinct"] == 3
    both = evaluate(MostPopular(train), train, test, k=1)
    assert both["mmr"] == pytest.approx((2 + 3 + 3) / 3)


def test_a_list_with_nothing_left_has_no_popularity():
    train = interactions([(0, 0), (0, 1), (1, 0)], 2, ["ann", "bob"])
    test = interactions([(1, 1)], 2, ["ann", "bob"])
    everything = interactions([(1, 0)], 2, ["ann", "bob"])
    found = evaluate(MostPopular(train), train, test, k=3, exclude=everything)
    assert found["mmr"] == 1
    assert found["precision"] == pytest.approx(1 / 3)


def test_a_progress_bar_is_shown_in_a_terminal_if_wanted(train, test, capsys, monkeypatch):
    evaluate(MostPopular(train), train, test, k=2, progress=True)
    monkeypatch.setenv("FORCE_COLOR", "1")  # what stands for a terminal
    evaluate(MostPopular(train), train, test, k=2)
    assert capsys.readouterr().err == ""
    evaluate(MostPopular(train), train, test, k=2, progress=True)
    assert "Ranking users" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["k", "threads"])
def test_numbers_below_one_are_an_error(train, test, option):
    with pytest.raises(OptionError, match=rf"`{option}` must be a whole number.*; got 0\."):
        evaluate(MostPopular(train), train, test, **{option: 0})


def test_a_recommender_that_knows_one_device_is_not_sent_to_another(train, test, monkeypatch):
    class Scorer:
        n_users, n_items = 4, 5
        score_block = Random(4, 5).score_block

    monkeypatch.setattr(evaluation, "resolve_ranking", lambda device: "cuda")
    message = "`device` is 'cuda', but a {} cannot use it; omit `device`"
    for recommender, kind in ((MostPopular(train), "MostPopular"), (Scorer(), "Scorer")):
        with pytest.raises(OptionError, match=message.format(kind)):
            evaluate(recommender, train, test, k=2, device="cuda")
        found = evaluate(recommender, train, test, k=2, device="auto")
        assert found.n_users == 3


def test_a_model_that_takes_a_device_gets_it(train, test, monkeypatch):
    class Model:
        def scorer(self, device="cpu"):
            asked.append(device)
            return MostPopular(train)

    asked = []
    evaluate(Model(), train, test, k=2)
    monkeypatch.setattr(evaluation, "resolve_ranking", lambda device: "cuda:1")
    evaluate(Model(), train, test, k=2, device="auto")
    assert asked == ["cpu", "cuda:1"]


def test_something_that_cannot_score_is_an_error(train, test):
    with pytest.raises(OptionError, match=r"`recommender` must have scorer\(\).*; got a str\."):
        evaluate("popularity", train, test)


def test_a_recommender_of_another_size_is_an_error(train, test):
    with pytest.raises(DataError, match=r"has 4 users and 6 items, `train` has 4 and 5; pass"):
        evaluate(Random(4, 6), train, test)


def test_no_test_items_is_an_error(train, test):
    with pytest.raises(EmptyDataError, match="No user has a test item"):
        evaluate(MostPopular(train), train, test.subset(np.zeros(test.n_pairs, bool)))


def test_other_axes_are_an_error(train, test):
    renamed = interactions([(0, 2)], names=["ann", "bob", "cid", "eve"])
    shorter = interactions([(0, 2)], n_items=4)
    remedy = "split both from the same interactions"
    with pytest.raises(DataError, match=rf"users of `test` and `train` differ \(4 and .*{remedy}"):
        evaluate(MostPopular(train), train, renamed)
    with pytest.raises(DataError, match=r"items of `test` and `train` differ \(4 and 5 ids\)"):
        evaluate(MostPopular(train), train, shorter)
    with pytest.raises(DataError, match="users of `exclude` and `train` differ"):
        evaluate(MostPopular(train), train, test, exclude=renamed)
    with pytest.raises(DataError, match="users of the recommender and `train` differ"):
        evaluate(MostPopular(renamed), train, test)


def test_a_test_pair_that_is_left_out_is_an_error(train, test):
    with pytest.raises(DataError, match=r"^2 of the 3 test pairs are left out .*`exclude`"):
        evaluate(MostPopular(train), train, interactions([(0, 1), (2, 1), (1, 3)]))


# ------------------------------------------------------------------------------------ candidates


class Fixed:
    """Scores (N, M) that are given."""

    def __init__(self, scores):
        self.scores = np.asarray(scores, np.float32)
        self.n_users, self.n_items = self.scores.shape

    def score_block(self, rows, first_item, out):
        out[:] = self.scores[rows, first_item : first_item + out.shape[1]]


def test_candidates_are_ranked_among_themselves():
    """Items 0 to 3 are warm, 4 and 5 cold; user 0 is to find 2 and 5, user 1 only 3."""
    train = Interactions.from_pairs([(0, 0), (0, 1), (1, 2), (1, 0), (2, 3)])
    axis = Interactions.from_pairs([(0, item) for item in range(6)]).item_ids
    train = train.aligned(train.user_ids, axis)
    test = Interactions.from_pairs([(0, 2), (0, 5), (1, 3)]).aligned(train.user_ids, axis)
    model = Fixed([[9, 8, 4, 5, 7, 6], [0, 1, 2, 3, 4, 5], [0] * 6])
    found = {
        which: evaluate(model, train, test, k=2, candidates=which)
        for which in ("all", "warm", "cold")
    }
    # user 0: all 4 5 | 3 2, warm 3 2, cold 4 5; user 1: all 5 4 | 3 1, warm 3 1
    assert found["all"].per_user["recall"].to_list() == [0.5, 0.0]
    assert found["warm"].per_user["recall"].to_list() == [1.0, 1.0]
    assert found["warm"].per_user["mrr"].to_list() == [0.5, 1.0]
    assert found["cold"].per_user["recall"].to_list() == [1.0]
    assert found["cold"].per_user["mrr"].to_list() == [0.5]
    assert [one.n_users for one in found.values()] == [2, 2, 1]
    assert [one.candidates for one in found.values()] == ["all", "warm", "cold"]
    assert "among cold items" in str(found["cold"])
    assert found["cold"].to_dict()["candidates"] == "cold"
    longer = evaluate(model, train, test, k=50, candidates="cold")
    assert longer["recall"] == 1.0
    with pytest.raises(OptionError, match="`candidates`"):
        evaluate(model, train, test, candidates="new")
    with pytest.raises(EmptyDataError, match=r"No test item is cold.*ranks the 2"):
        evaluate(model, train, test.subset(test.items < 4), candidates="cold")


def test_candidates_of_folded_in_users():
    """A new user who has items 0 and 2 gets 4 and 6 among the warm, 8 among the cold."""
    data = Interactions.from_pairs(
        [(u, i) for u in range(12) for i in range(10) if (u + i) % 2 == 0]
    )
    train = data.subset((data.pair_users() > 1) & (data.items < 8))
    test = data.subset((data.pair_users() < 2) & (data.items > 3))
    given = data.subset((data.pair_users() < 2) & (data.items < 4))
    model = CML(dim=4, batch=16, optimiser=Adam(0.05)).fit(train, epochs=20)
    how = {"k": 2, "new_users": "fold_in", "given": given}
    assert evaluate(model, train, test, **how, candidates="warm")["recall"] == 1.0
    cold = evaluate(model, train, test, **how, candidates="cold")
    assert cold.per_user["n_relevant"].to_list() == [1, 1]
