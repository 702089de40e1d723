"""The popularity dial of a model."""

import json

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

import nearfar as nf
from conftest import TORCH_DEVICES, hopeless, random_data
from nearfar.cli import app
from nearfar.errors import OptionError, StoreError
from nearfar.method.geometry import score
from nearfar.method.prior import Prior, log_popularity
from nearfar.model.batch import recommend_to
from nearfar.serve import create_app
from served import listed, pairs, post, serving

pytestmark = hopeless
SHORT = nf.Options(dim=4, batch=32, sampler=nf.Shared(0.5), negatives=8, prior=None)


@pytest.fixture(scope="module", params=["sphere", "ball"])
def model(request):
    options = nf.CML(SHORT, prior=Prior(gamma=0.2), geometry=request.param)
    return options.fit(random_data(), epochs=2, threads=1)


@pytest.mark.parametrize("popularity", [0, 0.3, 1, None, 4])
def test_lists_are_by_closeness_plus_the_weight(model, popularity):
    dial = 1.0 if popularity is None else popularity
    data = model.interactions
    weight = dial * 0.2 * log_popularity(data.item_counts)
    found = model.recommend(3, k=8, popularity=popularity)
    scores = score(model.user_vectors[3], model.item_vectors) + weight
    scores[data.positives(3)] = -np.inf
    assert found["item_id"].to_list() == np.argsort(-scores, kind="stable")[:8].tolist()
    assert np.allclose(found["score"], np.sort(scores)[::-1][:8], atol=1e-5)


def test_all_ways_to_ask_agree(model):
    everybody = model.recommend_all(k=5, popularity=2)
    one = model.recommend(7, k=5, popularity=2)
    assert everybody.filter(user_id=7).drop("user_id").equals(one)
    liked = model.interactions.positives(7).tolist()
    new = [model.recommend(liked=liked, k=5, popularity=x)["item_id"].to_list() for x in (0, 9)]
    counts = model.interactions.item_counts
    assert counts[new[0]].sum() < counts[new[1]].sum()


def test_similar_items_are_by_distance_alone_unless_asked(model):
    near, popular = model.similar_items(3, k=5), model.similar_items(3, k=5, popularity=9)
    assert near["item_id"].to_list() != popular["item_id"].to_list()
    counts = model.interactions.item_counts
    assert counts[near["item_id"]].sum() < counts[popular["item_id"]].sum()


@pytest.mark.parametrize("device", TORCH_DEVICES)
def test_a_device_has_the_same_lists(model, device):
    here = model.recommend_all(k=5, popularity=1.5)
    there = model.recommend_all(k=5, popularity=1.5, device=device)
    assert here["item_id"].to_list() == there["item_id"].to_list()


def test_the_dial_is_saved_and_in_the_card(model, tmp_path):
    model.save(tmp_path / "model")
    again = nf.CML.load(tmp_path / "model")
    assert again.gamma == model.gamma == 0.2
    assert again.recommend_all(3).equals(model.recommend_all(3))
    assert "Prior(popularity=1.0, gamma=0.2" in next((tmp_path / "model").glob("card*")).read_text()


def test_without_a_prior_there_is_no_dial():
    plain = nf.CML(SHORT).fit(random_data(), epochs=1, threads=1)
    assert plain.gamma == 0
    assert plain.recommend(3).equals(plain.recommend(3, popularity=0))
    for ask in (plain.recommend, plain.similar_items):
        with pytest.raises(OptionError, match=r"`popularity` is 0.5, but the dial .* has no pop"):
            ask(3, popularity=0.5)
    for bad in (-1, "1", np.nan, 1e300):
        with pytest.raises(OptionError, match="`popularity` must be a finite number"):
            plain.recommend(3, popularity=bad)


def test_every_way_to_ask_has_the_same_bounds(model):
    data = model.interactions
    ways = [
        lambda x: model.recommend(3, popularity=x),
        lambda x: model.similar_items(3, popularity=x),
        lambda x: nf.evaluate(model, data, data, popularity=x),
        lambda x: nf.front(model, data, data, popularity=[x]),
    ]
    for ask in ways:
        for bad in (-1, 1001, np.nan):
            with pytest.raises(OptionError, match=r"`popularity` must .* 0 and at most 1000; got"):
                ask(bad)


def test_a_dial_without_effect_says_why():
    """Of the 60 items all are drawn in each step, so popularity is not taken out."""
    model = nf.CML(dim=4, negatives=512).fit(random_data(), epochs=1, threads=1)
    assert model.gamma == 0
    assert model.dial() == 0
    with pytest.raises(OptionError, match=r"was found to be 0.*fewer than half of the items"):
        model.recommend(3, popularity=0.5)
    given = nf.CML(SHORT, prior=Prior(gamma=0)).fit(random_data(), epochs=1, threads=1)
    with pytest.raises(OptionError, match=r"has Prior\(gamma=0\). Train it with prior=Prior\(\)"):
        given.recommend(3, popularity=0.5)


def test_the_setting_of_the_prior_is_used_where_none_is_asked_for():
    data = random_data()
    half = nf.CML(SHORT, prior=Prior(0.5, gamma=0.2)).fit(data, epochs=1, threads=1)
    assert half.recommend(3).equals(half.recommend(3, popularity=0.5))
    assert not half.recommend(3).equals(half.recommend(3, popularity=1))


def test_a_batch_is_of_one_setting(model, tmp_path):
    recommend_to(tmp_path, model, k=3, popularity=2, progress=False)
    found = pl.read_parquet(tmp_path / "part-*.parquet")
    assert found.equals(model.recommend_all(3, popularity=2))
    with pytest.raises(StoreError, match="other popularity"):
        recommend_to(tmp_path, model, k=3, progress=False)
    other = nf.CML(model.options, prior=Prior(gamma=0.4)).fit(random_data(), epochs=2, threads=1)
    assert (other.item_vectors == model.item_vectors).all()
    with pytest.raises(StoreError, match="other gamma"):
        recommend_to(tmp_path, other, k=3, popularity=2, progress=False)


def test_the_server_and_the_command_line_have_the_dial(model, tmp_path):
    model.save(tmp_path / "m")
    with serving(create_app(tmp_path / "m")) as client:
        for dial in (None, 0, 3):
            expected = listed(model.recommend(3, popularity=dial))
            assert pairs(post(client, "/v1/recommend", user=3, popularity=dial)) == expected
            some = {"popularity": dial, "allow": [1, 2, 3, 4, 5, 6, 7]}
            expected = listed(model.recommend(3, **some))
            assert pairs(post(client, "/v1/recommend", user=3, **some)) == expected
        for bad in (-1, 1001, True, "0.5"):
            post(client, "/v1/recommend", 422, user=3, popularity=bad)
        assert client.get("/v1/model").json()["gamma"] == 0.2
        expected = listed(model.similar_items(3))
        assert pairs(post(client, "/v1/similar/items", item=3)) == expected
        expected = listed(model.similar_items(3, popularity=2))
        found = post(client, "/v1/similar/items", item=3, popularity=2)
        assert pairs(found) == expected
        counts = model.interactions.item_counts
        assert all(entry["popularity"] == counts[entry["id"]] for entry in found["results"])
        alike = post(client, "/v1/similar/users", user=3)["results"]
        assert {entry["popularity"] for entry in alike} == {None}
        assert client.get("/v1/model").json()["dial"] == {"popularity": 1, "k": None, "front": []}
    words = ["recommend", str(tmp_path / "m"), "--user", "3", "--popularity", "3", "--json"]
    shown = json.loads(CliRunner().invoke(app, words).output)["recommendations"][0]["nearest"]
    found = model.recommend(3, popularity=3)["item_id"].to_list()
    assert [one["item_id"] for one in shown] == found
    words = ["similar", str(tmp_path / "m"), "--item", "3", "--popularity", "2", "--json"]
    shown = json.loads(CliRunner().invoke(app, words).output)["neighbours"][0]["nearest"]
    assert [one["item_id"] for one in shown] == [one for one, _ in expected]
    words[2:4] = ["--user", "3"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "`--popularity` is for items" in result.output


def test_the_command_line_measures_the_front(model, tmp_path):
    model.save(tmp_path / "m")
    random_data(seed=1).save(tmp_path / "data")
    words = ["front", str(tmp_path / "m"), str(tmp_path / "data"), "--popularity", "0", "--k", "5"]
    result = CliRunner().invoke(app, [*words, "--popularity", "4", "-o", str(tmp_path / "f.csv")])
    assert result.exit_code == 0, result.output
    assert "popularity" in result.output
    frame = pl.read_csv(tmp_path / "f.csv")
    assert frame["popularity"].to_list() == [0, 4]
    assert frame["mmr"][0] < frame["mmr"][1]
    result = CliRunner().invoke(app, [*words, "--plot", str(tmp_path / "f.png")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "f.png").read_bytes()[1:4] == b"PNG"
    for flag in ("-o", "--plot"):
        result = CliRunner().invoke(app, [*words, flag, str(tmp_path / "f.txt")])
        assert result.exit_code == 2
