"""Models whose score has a co-occurrence term."""

import json
import pickle

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import nearfar as nf
from conftest import TORCH_DEVICES, hopeless, random_data
from nearfar.cli import app
from nearfar.errors import NearfarWarning, OptionError, StoreError
from nearfar.method.co_occurrence import CoOccurrence, similarities
from nearfar.method.geometry import score
from nearfar.method.prior import Prior, log_popularity
from nearfar.model.batch import recommend_to
from nearfar.runtime import store
from nearfar.serve import create_app
from served import listed, pairs, post, serving

pytestmark = hopeless
SHORT = nf.Options(dim=4, batch=32, sampler=nf.Shared(0.5), negatives=8)
NEAR = CoOccurrence(10, weight=3.0)


def fitted(**options):
    return nf.CML(SHORT, **options).fit(random_data(), epochs=2, threads=1)


@pytest.fixture(scope="module")
def model():
    return fitted(prior=Prior(gamma=0.2), neighbours=NEAR)


@pytest.fixture(scope="module")
def bare():
    return fitted(prior=Prior(gamma=0.2))


def term(data, liked, nearest=10, weight=3.0):
    """The term by its definition, for a user who likes these rows."""
    table = np.zeros((data.n_users, data.n_items), bool)
    table[data.pair_users(), data.items] = True
    return weight / np.sqrt(len(liked)) * similarities(table, nearest)[liked].sum(axis=0)


@pytest.mark.parametrize("geometry", ["sphere", "ball"])
@pytest.mark.parametrize("popularity", [0, 1])
def test_lists_are_by_closeness_weight_and_term(popularity, geometry):
    model = fitted(prior=Prior(gamma=0.2), geometry=geometry, neighbours=NEAR)
    data = model.interactions
    liked = data.positives(3)
    scores = score(model.user_vectors[3], model.item_vectors) + term(data, liked)
    scores += popularity * 0.2 * log_popularity(data.item_counts)
    scores[liked] = -np.inf
    found = model.recommend(3, k=8, popularity=popularity)
    assert found["item_id"].to_list() == np.argsort(-scores, kind="stable")[:8].tolist()
    assert np.allclose(found["score"], np.sort(scores)[::-1][:8], atol=1e-5)


def test_the_points_are_those_without_neighbours(model, bare):
    assert np.array_equal(bare.item_vectors, model.item_vectors)
    assert not bare.recommend(3).equals(model.recommend(3))


def test_all_ways_to_ask_agree(model, tmp_path):
    everybody = model.recommend_all(k=5)
    assert everybody.filter(user_id=7).drop("user_id").equals(model.recommend(7, k=5))
    few = model.recommend([3, 7], k=5)
    assert few.equals(everybody.filter(pl.col("user_id").is_in([3, 7])))
    recommend_to(tmp_path / "lists", model, k=5, progress=False)
    assert pl.read_parquet(tmp_path / "lists" / "part-*.parquet").equals(everybody)
    data, test = model.interactions, random_data(seed=1).without(model.interactions)
    hits = nf.evaluate(model, data, test, k=5).per_user.select("user_id", "precision")
    wanted = set(zip(test.pair_users().tolist(), test.items.tolist(), strict=True))
    for user, precision in hits.iter_rows():
        items = everybody.filter(user_id=user)["item_id"]
        assert precision == pytest.approx(sum((user, one) in wanted for one in items) / 5)
    front = nf.front(model, data, test, popularity=[1, 0.5], k=5)
    for setting in (1, 0.5):
        at = nf.evaluate(model, data, test, k=5, popularity=setting)
        assert front.frame.filter(popularity=setting)["ndcg"][0] == pytest.approx(at["ndcg"])


def test_a_new_user_has_the_term_of_a_known_one_with_the_same_items(model, bare):
    liked = model.interactions.positives(7)
    new = model.recommend(liked=liked.tolist(), k=60)
    without = bare.recommend(liked=liked.tolist(), k=60)
    both = new.join(without, on="item_id")
    added = both["score"] - both["score_right"]
    expected = term(model.interactions, liked)[both["item_id"]]
    assert np.allclose(added, expected, atol=1e-6)
    assert expected.max() > 0.1
    given = nf.Interactions.from_rows(np.zeros(len(liked), int), liked,
                                      user_ids=model.interactions.user_ids,
                                      item_ids=model.interactions.item_ids)  # fmt: skip
    scores = np.empty((1, 60), np.float32)
    model.fold_in_scorer(given, [0]).score_block(np.array([0], np.int32), 0, scores)
    near = model.recommend(liked=liked.tolist(), k=60, exclude_seen=False)
    assert np.argsort(-scores[0])[:9].tolist() == near["item_id"][:9].to_list()


def test_similar_items_and_users_are_without_the_term(model, bare):
    assert model.similar_items(3).equals(bare.similar_items(3))
    assert model.similar_users(3).equals(bare.similar_users(3))


def test_weight_0_is_no_neighbours():
    plain, none = fitted(), fitted(neighbours=CoOccurrence(weight=0))
    assert none.neighbours is None
    assert none.neighbour_weight == 0
    assert none.recommend_all(9).equals(plain.recommend_all(9))


def test_neighbours_are_saved_and_in_the_card(model, tmp_path):
    model.save(tmp_path / "m")
    for mmap in (False, True):
        again = nf.CML.load(tmp_path / "m", mmap=mmap)
        assert again.neighbour_weight == 3.0
        assert again.options.neighbours == NEAR
        assert again.recommend_all(3).equals(model.recommend_all(3))
    assert pickle.loads(pickle.dumps(again)).recommend_all(3).equals(model.recommend_all(3))
    card = next((tmp_path / "m").glob("card*")).read_text()
    assert "`CoOccurrence(nearest=10, weight=3.0)`" in card
    assert f"a term of weight 3. It has {len(model.neighbours.items):,} values" in card


def test_neighbours_that_do_not_fit_are_refused(model, tmp_path, monkeypatch):
    near = model.neighbours
    for name, spoilt in (
        ("items", near.items[::-1].copy()),
        ("items", near.items + 1),
        ("values", near.values[1:]),
        ("values", near.values.astype(np.float64)),
        ("indptr", near.indptr[1:]),
    ):
        bad = {"indptr": near.indptr, "items": near.items, "values": near.values, name: spoilt}
        monkeypatch.setattr(
            "nearfar.model.fitted._arrays_of", lambda _, bad=bad: {"neighbours": bad}
        )
        model.save(tmp_path / "m")
        with pytest.raises(StoreError, match="the neighbours"):
            nf.CML.load(tmp_path / "m")
    monkeypatch.setattr("nearfar.model.fitted._arrays_of", lambda _: {})
    model.save(tmp_path / "m")
    with pytest.raises(StoreError, match="there are no neighbours"):
        nf.CML.load(tmp_path / "m")


def test_a_model_saved_before_there_were_neighbours_is_loaded(tmp_path):
    plain = fitted()
    plain.save(tmp_path / "m")
    folder = store.load_folder(tmp_path / "m", kind="model")
    del folder.meta["neighbour_weight"], folder.meta["options"]["neighbours"]
    store.save_folder(tmp_path / "m", kind="model", meta=folder.meta, arrays=folder.arrays,
                      frames=folder.frames, texts=folder.texts)  # fmt: skip
    again = nf.CML.load(tmp_path / "m")
    assert again.neighbours is None
    assert again.recommend_all(3).equals(plain.recommend_all(3))


def test_more_training_computes_the_neighbours_again():
    model = fitted(neighbours=NEAR)
    before = model.neighbours
    model.partial_fit(nf.Interactions.from_pairs([(0, 99), (1, 99)]), epochs=1, threads=1)
    assert model.neighbour_weight == 3.0
    assert model.neighbours.n_items == before.n_items + 1
    assert model.neighbours.largest[-1] > 0


def test_the_server_has_the_lists_of_the_model(model, tmp_path):
    model.save(tmp_path / "m")
    with serving(create_app(tmp_path / "m")) as client:
        assert client.get("/v1/model").json()["neighbour_weight"] == 3
        for how in ({}, {"popularity": 0}, {"allow": [1, 2, 3, 4, 5, 6, 7]}):
            expected = listed(model.recommend(3, **how))
            assert pairs(post(client, "/v1/recommend", user=3, **how)) == expected
        everything = listed(model.recommend(3, exclude_seen=False))
        found = pairs(post(client, "/v1/recommend", user=3, exclude_seen=False))
        assert found == everything
        expected = listed(model.recommend(liked=[2, 5]))
        assert pairs(post(client, "/v1/recommend", items=[5, 2])) == expected
        expected = listed(model.similar_items(3))
        assert pairs(post(client, "/v1/similar/items", item=3)) == expected


def test_an_index_is_for_similar_items(model, bare, tmp_path):
    pytest.importorskip("faiss")
    index = nf.ItemIndex.build(model, recall=1, k=5)
    assert model.similar_items(3, index=index).equals(bare.similar_items(3, index=index))
    for ask in (model.recommend_all, lambda **how: model.recommend(3, **how)):
        with pytest.raises(OptionError, match=r"`index` cannot be used: .*without an index"):
            ask(index=index)
    with pytest.raises(OptionError, match="`index` cannot be used"):
        recommend_to(tmp_path / "lists", model, index=index)
    assert not (tmp_path / "lists").exists()
    model.save(tmp_path / "m")
    index.save(tmp_path / "i")
    with serving(create_app(tmp_path / "m", index=tmp_path / "i")) as client:
        expected = listed(model.recommend(3))
        assert pairs(post(client, "/v1/recommend", user=3)) == expected
        expected = listed(model.similar_items(3, index=index))
        assert pairs(post(client, "/v1/similar/items", item=3)) == expected


@pytest.mark.parametrize("device", TORCH_DEVICES)
def test_a_device_is_refused(model, device):
    with pytest.raises(OptionError, match=r"`device` is .*rank with device='cpu'"):
        model.recommend(3, device=device)
    assert model.similar_items(3, device=device).height == 10


def test_an_export_says_that_it_is_without_them(model, tmp_path):
    for what in ("items", "users"):
        with pytest.warns(NearfarWarning, match="is not in the exported files"):
            nf.export(model, tmp_path / f"{what}.parquet", what=what)
        metadata = pq.read_metadata(tmp_path / f"{what}.parquet").metadata
        assert metadata[b"nearfar.left_out"] == str(NEAR).encode()


def test_a_batch_is_of_one_term(model, bare, tmp_path):
    recommend_to(tmp_path, model, k=3, progress=False)
    with pytest.raises(StoreError, match="other neighbours"):
        recommend_to(tmp_path, bare, k=3, progress=False)


def test_the_command_line_has_flags(tmp_path):
    random_data().save(tmp_path / "data")
    words = ["fit", str(tmp_path / "data"), "-o", str(tmp_path / "m"), "--epochs", "1", "--dim",
             "4", "--neighbours", "10", "--neighbours-weight", "3", "--threads", "1"]  # fmt: skip
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    model = nf.CML.load(tmp_path / "m")
    assert model.options.neighbours == NEAR
    words = ["crossvalidate", *words[1:2], *words[4:], "--folds", "2", "--device", "torch:cpu"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    words = ["recommend", str(tmp_path / "m"), "--user", "3", "--json"]
    shown = json.loads(CliRunner().invoke(app, words).output)["recommendations"][0]["nearest"]
    assert [one["item_id"] for one in shown] == model.recommend(3)["item_id"].to_list()
