"""Models that learn from content: films in two genres, liked by two kinds of users."""

import copy
import pickle

import numpy as np
import polars as pl
import pytest

import nearfar as nf
from films import DATA, N_ITEMS, N_USERS, NEW, SHORT, features, films
from nearfar.engine import Problem
from nearfar.engine.content import as_matrix
from nearfar.errors import DataError, OptionError, StoreError, UnknownIdError
from nearfar.method.geometry import normalise
from nearfar.training.run import Run
from nearfar.training.schedule import Schedule


@pytest.fixture(scope="module")
def model():
    return nf.CML(**SHORT).fit(DATA, item_features=features(0, N_ITEMS), epochs=12)


def test_items_that_nobody_has_used_are_near_those_like_them(model):
    for user in (4, 7):
        found = model.recommend(user, k=5, among=range(30, 40))["item_id"].to_list()
        assert len(found) == 5
        assert all((user + item) % 2 == 0 for item in found)
    near = model.similar_items(31, k=6)["item_id"].to_list()
    assert all(item % 2 == 1 for item in near)
    mixed = model.recommend_all(k=20)["item_id"]
    assert set(range(30, 40)) & set(mixed.to_list())


def test_without_content_they_are_in_no_list(model):
    plain = nf.CML(**{**SHORT, "items": None}).fit(DATA, epochs=2)
    assert max(plain.recommend_all(k=40)["item_id"]) < 30
    with pytest.raises(UnknownIdError, match="31"):
        plain.similar_items(31)


def test_a_point_is_that_of_its_content_and_delta(model):
    encoders = model._fitted.encoders
    points = np.concatenate([model.user_vectors, model.item_vectors])
    z = encoders.encoded(np.arange(len(points))) + np.where(
        encoders.placed[:, None], encoders.deltas(points), 0
    )
    some = encoders.placed
    np.testing.assert_allclose(normalise(z[some]), points[some], atol=1e-5)
    delta = encoders.deltas(points)[model.interactions.n_users :]
    assert np.abs(delta[30:]).max() < 1e-5
    assert np.linalg.norm(delta[:30], axis=1).min() > 0.01


def test_shuffled_features_do_not_help_cold_items(model):
    rng = np.random.default_rng(3)
    wrong = films(0, N_ITEMS).with_columns(item_id=pl.Series(rng.permutation(N_ITEMS)))
    other = nf.Features.from_frame(wrong, categories="genres", text="plot")
    shuffled = nf.CML(**SHORT).fit(DATA, item_features=other, epochs=12)

    def hits(one):
        found = one.recommend(list(range(N_USERS)), k=5, among=range(30, 40))
        return ((found["user_id"] + found["item_id"]) % 2 == 0).mean()

    assert hits(model) > 0.95
    assert hits(shuffled) < 0.8


def test_items_can_be_added_later(model, tmp_path):
    new = features(N_ITEMS, N_ITEMS + NEW)
    asked = model.recommend(3, k=4, among=new)
    assert all(item % 2 == 1 and item >= N_ITEMS for item in asked["item_id"])
    assert model.interactions.n_items == N_ITEMS
    near = model.similar_items(features=new, k=3)
    some = model.similar_items(features=new, k=9, allow=[1, 3, 6], deny=[3])
    assert sorted(set(some["item_id"])) == [1, 6]
    model.save(tmp_path / "m")
    again = nf.CML.load(tmp_path / "m").add_items(new)
    assert again.interactions.n_items == N_ITEMS + NEW
    assert again.recommend(3, k=4, among=range(N_ITEMS, N_ITEMS + NEW)).equals(asked)
    assert np.array_equal(again.item_vectors[:N_ITEMS], model.item_vectors)
    one = again.similar_items(N_ITEMS + 1, k=30)
    kept = one.filter(pl.col("item_id") < N_ITEMS)["item_id"].to_list()[:3]
    assert near.filter(query_id=N_ITEMS + 1)["item_id"].to_list() == kept
    again.save(tmp_path / "n")
    reread = nf.CML.load(tmp_path / "n")
    assert reread.recommend_all(k=7).equals(again.recommend_all(k=7))
    # ids need not be last: rows move, points do not
    before = nf.Features.from_frame(
        films(0, 2).with_columns(pl.col("item_id") - 5), categories="genres", text="plot"
    )
    again.add_items(before)
    assert again.interactions.item_ids.to_list()[:3] == [-5, -4, 0]
    assert np.array_equal(again.item_vectors[2 : 2 + N_ITEMS], model.item_vectors)
    assert again.recommend(3, k=4, among=range(N_ITEMS, N_ITEMS + NEW)).equals(asked)


def test_a_saved_model_is_the_same(model, tmp_path):
    model.save(tmp_path / "m")
    again = nf.CML.load(tmp_path / "m", mmap=True)
    assert again.options == model.options
    assert again.recommend_all(k=9).equals(model.recommend_all(k=9))
    assert again.features_of("items") == {"genres": "categories", "plot": "text"}
    assert again.features_of("users") == {}
    folder = next((tmp_path / "m").glob("encoders*"))
    folder.unlink()
    with pytest.raises(StoreError):
        nf.CML.load(tmp_path / "m")


def test_training_goes_on_with_new_items(model):
    again = nf.CML(model.options)
    again._take(model._fitted)
    new = nf.Interactions.from_pairs([(0, 40), (2, 40), (100, 41), (100, 1), (0, 30)])
    again.partial_fit(new, item_features=features(40, 43), epochs=1)
    assert again.interactions.n_items == 42  # 42 is in no pair
    assert all(item % 2 == 1 for item in again.recommend(100, k=3)["item_id"])
    still = nf.CML(model.options, optimiser=nf.SGD(1e-9))
    still._take(model._fitted)
    still.partial_fit(DATA.subset(np.arange(DATA.n_pairs) < 3), epochs=1)
    np.testing.assert_allclose(still.item_vectors, model.item_vectors, atol=1e-4)
    np.testing.assert_allclose(still.user_vectors, model.user_vectors, atol=1e-4)


def test_users_have_features_too():
    people = pl.DataFrame(
        {
            "user_id": range(N_USERS + 4),
            "club": ["even" if u % 2 == 0 else "odd" for u in range(64)],
        }
    )
    about = nf.Features.from_frame(people, categories="club")
    axis = nf.Interactions.from_pairs([(u, 0) for u in range(64)]).user_ids
    data = DATA.aligned(axis, DATA.item_ids)
    model = nf.CML(**{**SHORT, "items": None, "users": nf.Hybrid()})
    model.fit(data, user_features=about, epochs=8)
    for user in (60, 61):  # nobody has seen them
        found = model.recommend(user, k=5)["item_id"].to_list()
        assert all((user + item) % 2 == 0 for item in found)


def test_a_killed_run_resumes_to_the_same_bits(tmp_path):
    given = {"item_features": features(0, N_ITEMS), "epochs": 6, "validation": 0.2, "seed": 1}
    sampler = nf.TwoStage(12, 0.5, towards="user")
    for options in (SHORT, {**SHORT, "sampler": sampler}):
        whole = nf.CML(**options).fit(DATA, **given)
        where = tmp_path / type(options.get("sampler")).__name__

        def stop(epoch):
            if epoch.epoch == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            nf.CML(**options).fit(DATA, **given, checkpoint=where, callbacks=[stop])
        again = nf.CML(**options).fit(DATA, **given, checkpoint=where)
        assert np.array_equal(again.item_vectors, whole.item_vectors)
        assert np.array_equal(again.user_vectors, whole.user_vectors)
        assert np.array_equal(again._fitted.encoders.vectors, whole._fitted.encoders.vectors)


def test_a_cold_item_counts_as_popular_as_items_like_it():
    few = DATA.subset((DATA.items % 2 == 0) | (np.arange(DATA.n_pairs) % 4 == 0))
    model = nf.CML(**SHORT).fit(few, item_features=features(0, N_ITEMS), epochs=1)
    logs, counts = model.weights.log_popularity, few.item_counts
    np.testing.assert_allclose(logs[:30], np.log(np.maximum(counts[:30], 1)), rtol=1e-6)
    for parity in (0, 1):
        like = np.log(counts[parity:30:2]).mean()
        other = np.log(counts[1 - parity : 30 : 2]).mean()
        found = logs[30 + parity :: 2]
        assert (np.abs(found - like) < np.abs(found - other)).all()
    content = model._fitted.encoders.content
    rows = as_matrix(content)[few.n_users :].toarray()
    centred = np.log(counts[:30]) - np.log(counts[:30]).mean()
    gram = rows[:30].T @ rows[:30] + np.eye(rows.shape[1])
    expected = np.log(counts[:30]).mean() + rows[30:] @ np.linalg.solve(gram, rows[:30].T @ centred)
    np.testing.assert_allclose(logs[30:], expected, atol=1e-4)


def test_what_does_not_go_together_says_so(model):
    given = features(0, N_ITEMS)
    with pytest.raises(OptionError, match=r"`item_features` was given, but.*items=nearfar.Hybrid"):
        nf.CML(dim=4).fit(DATA, item_features=given, epochs=1)
    with pytest.raises(OptionError, match="fit needs `item_features`"):
        nf.CML(**SHORT).fit(DATA, epochs=1)
    with pytest.raises(OptionError, match="`item_features` must be of type Features"):
        nf.CML(**SHORT).fit(DATA, item_features=films(), epochs=1)
    with pytest.raises(OptionError, match="a grid has no features"):
        nf.experiment.Setting("hybrid", nf.Options(items=nf.Hybrid()))
    with pytest.raises(OptionError, match="no features to learn from"):
        Run(Problem(DATA, nf.Options(**SHORT)), Schedule(1))
    with pytest.raises(OptionError, match="trains on the processor"):
        nf.CML(**SHORT).fit(DATA, item_features=given, epochs=1, device="torch:cpu")
    with pytest.raises(OptionError, match="the sphere"):
        nf.CML(geometry="free", items=nf.Hybrid())
    with pytest.raises(OptionError, match="encoder"):
        nf.Hybrid(encoder="linear")
    with pytest.raises(OptionError, match="gains"):
        nf.CML(**{**SHORT, "items": nf.Hybrid(gains={"plott": 2.0})}).fit(
            DATA, item_features=given, epochs=1
        )
    with pytest.raises(DataError, match=r"the model has 3 of the 5 items already: 37"):
        model.add_items(features(37, 42))
    strange = nf.Features.from_frame(
        films(50, 52).with_columns(genres=pl.lit("comedy"), plot=pl.lit("unheard")),
        categories="genres", text="plot",
    )  # fmt: skip
    with pytest.raises(DataError, match=r"2 of the 2 items have no feature that.*: 50, 51"):
        model.add_items(strange)
    with pytest.raises(OptionError, match="without features of items"):
        nf.CML(dim=4).fit(DATA, epochs=1).add_items(features(40, 42))
    with pytest.raises(UnknownIdError):
        model.recommend(3, among=[999])
    with pytest.raises(OptionError, match="either `items` or `features`"):
        model.similar_items()
    with pytest.raises(OptionError, match="either `items` or `features`"):
        model.similar_items(3, features=given)
    with pytest.raises(OptionError, match="without features of users"):
        model.partial_fit(DATA, user_features=given, epochs=1)


def test_a_hybrid_can_be_copied(model):
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert again.recommend_all(k=3).equals(model.recommend_all(k=3))
        assert again.add_items(features(40, 42)).interactions.n_items == 42
    assert model.interactions.n_items == 40


def test_gains_weigh_the_fields():
    only = nf.Hybrid(gains={"genres": 1e-6})
    assert only.gains == (("genres", 1e-6),)
    assert nf.Options.from_dict(nf.Options(items=only).to_dict()) == nf.Options(items=only)
    model = nf.CML(**{**SHORT, "items": only}).fit(DATA, item_features=features(), epochs=1)
    spaces = model._fitted.encoders.spaces["items"]
    genres = next(field.columns for field in spaces.fields if field.name == "genres")
    assert abs(spaces.encode(features()).matrix[:, genres]).max() < 1e-5


def test_an_index_an_export_and_a_front_have_cold_items(model, tmp_path):
    index = nf.ItemIndex.build(model, recall=1.0)
    exact = model.recommend(4, k=8, among=range(25, 40))
    assert model.recommend(4, k=8, among=range(25, 40), index=index).equals(exact)
    nf.export(model, tmp_path / "items.parquet")
    assert pl.read_parquet(tmp_path / "items.parquet").height == N_ITEMS
    test = nf.Interactions.from_pairs([(4, 36), (7, 33)]).aligned(DATA.user_ids, DATA.item_ids)
    assert nf.front(model, DATA, test, k=20).frame["recall"].max() > 0
