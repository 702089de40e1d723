"""Diversity, wherever lists are asked for, is that of `nearfar.search.diversity`."""

import json

import numpy as np
import polars as pl
import pytest

import nearfar as nf
from conftest import hopeless, random_data
from nearfar.errors import OptionError, StoreError
from nearfar.model.batch import recommend_to
from nearfar.search.diversity import POOL, diversified, intra_list_distances
from nearfar.search.neighbours import top_k
from nearfar.serve import create_app
from served import listed, pairs, post, serving

pytestmark = hopeless
SHORT = nf.Options(dim=4, batch=256, sampler=nf.Shared(0.5), negatives=8)
X = 0.4


def data():
    return random_data(40, 500, 0.06)


@pytest.fixture(scope="module", params=["sphere", "ball"])
def model(request):
    train, _ = nf.split.ratio(data(), test=0.3, seed=0)
    near = nf.CoOccurrence(5, weight=0.5)
    options = nf.CML(SHORT, prior=nf.Prior(gamma=0.05), neighbours=near, geometry=request.param)
    return options.fit(train, epochs=2, threads=1)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("diverse") / "model"
    model.save(path)
    return path


def expected(model, rows, k, x=X, popularity=None, allow=None):
    seen = model.interactions.indptr, model.interactions.items
    best = top_k(model.scorer(popularity=popularity), rows, POOL, exclude=seen, allow=allow)
    on_sphere = model.options.geometry == "sphere"
    return diversified(best, model.item_vectors, k, x, on_sphere=on_sphere)


def ids_of(frame):
    return frame["item_id"].to_list()


def test_recommend_takes_it(model):
    for popularity in (0.0, 1.0):
        found = model.recommend([3, 17], k=9, diversity=X, popularity=popularity)
        rows = model.interactions.user_ids.rows([3, 17])
        chosen = expected(model, rows, 9, popularity=popularity, allow=model.placed_items)
        assert ids_of(found) == model.interactions.item_ids.take(chosen.items.ravel()).to_list()
        assert ids_of(found) != ids_of(model.recommend([3, 17], k=9, popularity=popularity))
    scores = dict(model.recommend(3, k=500).select("item_id", "score").iter_rows())
    one = model.recommend(3, k=9, diversity=X)
    assert all(scores[item] == score for _, item, score in one.iter_rows())
    assert ids_of(model.recommend(3, k=4, diversity=X)) == ids_of(one)[:4]
    allowed = list(range(30, 60))
    some = model.recommend(3, k=9, diversity=X, allow=allowed, deny=[31])
    assert set(ids_of(some)) <= set(allowed) - {31}
    assert model.recommend(3, k=9, diversity=0).equals(model.recommend(3, k=9))


def test_every_way_to_ask_has_the_same_lists(model, folder, tmp_path, run):
    whole = model.recommend_all(k=7, diversity=X, threads=2)
    assert whole.equals(model.recommend_all(k=7, diversity=X, threads=1))
    one, taste = model.recommend(3, k=7, diversity=X), [3, 40, 77]
    assert whole.filter(user_id=3).drop("user_id").equals(one)
    recommend_to(tmp_path / "lists", model, k=7, diversity=X, progress=False)
    assert pl.read_parquet(tmp_path / "lists" / "part-*.parquet").equals(whole)
    with pytest.raises(StoreError, match="other diversity"):
        recommend_to(tmp_path / "lists", model, k=7, progress=False)
    words = ["recommend", folder, "--user", 3, "--k", 7, "--diversity", X, "--json"]
    shown = json.loads(run(*words)[1])["recommendations"][0]["nearest"]
    assert [entry["item_id"] for entry in shown] == ids_of(one)
    out = tmp_path / "by-command"
    assert run("batch", folder, "-o", out, "--k", 7, "--diversity", X)[0] == 0
    assert pl.read_parquet(out / "part-*.parquet").equals(whole)
    with serving(create_app(folder)) as client:
        for asked, how in (
            ({"user": 3}, {"users": 3}),
            ({"items": taste}, {"liked": taste}),
            ({"user": 3, "allow": list(range(30, 60))}, {"users": 3, "allow": range(30, 60)}),
            ({"user": 3, "exclude_seen": False}, {"users": 3, "exclude_seen": False}),
        ):
            answer = post(client, "/v1/recommend", **asked, k=7, diversity=X)
            assert listed(model.recommend(**how, k=7, diversity=X)) == pairs(answer)
        for bad in (-0.1, 1.5, "0.5", True):
            post(client, "/v1/recommend", 422, user=3, diversity=bad)


def test_an_index_finds_the_pool():
    model = nf.CML(SHORT, prior=nf.Prior(gamma=0.05)).fit(data(), epochs=2, threads=1)
    index = nf.ItemIndex.build(model, recall=1.0, k=10)
    found = model.recommend([3, 17], k=9, diversity=X, index=index)
    assert len(found) == 18
    assert found["item_id"].n_unique() > 9
    assert ids_of(found)[0] == ids_of(model.recommend(3, k=1))[0]


def test_the_front_has_a_row_for_each_setting(model, folder, tmp_path, run):
    train, test = nf.split.ratio(data(), test=0.3, seed=0)
    found = nf.front(model, train, test, diversity=(0, X), k=5, threads=1)
    assert found.frame["diversity"].to_list() == [0, X]
    assert found.frame["popularity"].to_list() == [1, 1]
    plain = nf.front(model, train, test, popularity=[1], k=5)
    assert found.frame[:1].select(plain.frame.columns).equals(plain.frame)
    users = np.flatnonzero((test.user_counts > 0) & (train.user_counts > 0)).astype(np.int32)
    for row, x in enumerate((0.0, X)):
        lists = expected(model, users, 5, x).items
        on_sphere = model.options.geometry == "sphere"
        apart = intra_list_distances(lists, model.item_vectors, on_sphere=on_sphere).mean()
        assert found.frame["intra_list_distance"][row] == pytest.approx(apart)
        hits = [len(set(test.positives(u)) & set(one)) for u, one in zip(users, lists, strict=True)]
        assert found.frame["precision"][row] == pytest.approx(np.mean(hits) / 5)
    apart = found.frame["intra_list_distance"]
    assert apart[1] > apart[0]
    both = nf.front(model, train, test, diversity=(0, X), popularity=(0, 1), k=5, threads=2)
    assert both.frame.select("popularity", "diversity").rows() == [(0, 0), (0, X), (1, 0), (1, X)]
    assert both.frame[2:].equals(found.frame)
    assert "intra_list_" in str(found)
    found.plot(tmp_path / "front.svg")
    assert (tmp_path / "front.svg").stat().st_size > 1000
    data().save(tmp_path / "data")
    words = ["front", folder, tmp_path / "data", "--diversity", 0, "--diversity", X, "--k", 5]
    assert json.loads(run(*words, "--json")[1])["settings"] == found.frame.to_dicts()
    assert "intra_list" in run(*words)[1]
    with pytest.raises(OptionError, match="`diversity` must have at least one"):
        nf.front(model, train, test, diversity=[])


def test_a_model_without_a_prior_has_a_front_of_diversity():
    train, test = nf.split.ratio(data(), test=0.3, seed=0)
    model = nf.CML(SHORT, prior=None).fit(train, epochs=1)
    found = nf.front(model, train, test, diversity=(0, 1), k=5)
    assert found.frame["popularity"].to_list() == [0, 0]
    assert found.frame["ndcg"][0] == pytest.approx(nf.evaluate(model, train, test, k=5)["ndcg"])
