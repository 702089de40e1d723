"""Models whose items a torch module encodes: pictures with two patterns, two kinds of users."""

import copy
import pickle

import numpy as np
import pytest

import nearfar as nf
from films import DATA, N_ITEMS, N_USERS, NEW, features
from nearfar.data.ids import Ids
from nearfar.errors import DataError, NearfarWarning, OptionError, StoreError
from nearfar.training.run import Run
from nearfar.training.schedule import Schedule

torch = pytest.importorskip("torch")

SHAPE = (1, 4, 6)


def pictures(numbers):
    """Stripes across where the number is even, and down where it is odd, with noise."""
    made = []
    for number in numbers:
        noise = np.random.default_rng(number).normal(0, 0.3, SHAPE)
        stripes = np.ones((1, 4, 1)) if number % 2 else np.ones((1, 1, 6))
        stripes = stripes * (np.arange(6) % 2 if number % 2 else np.arange(4)[:, None] % 2)
        made.append(noise + np.broadcast_to(stripes, SHAPE))
    return np.array(made, np.float32)


def contents(first=0, last=N_ITEMS):
    numbers = list(range(first, last))
    return nf.Contents.from_array(pictures(numbers), numbers)


def small_net(dim):
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Dropout(0.1), torch.nn.Flatten(),
        torch.nn.Linear(32, dim),
    )  # fmt: skip


SHORT = {
    "dim": 8, "batch": 32, "negatives": 8, "optimiser": nf.Adam(0.02),
    "items": nf.Hybrid(nf.Module(small_net, learning_rate=0.005)),
}  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return nf.CML(**SHORT).fit(DATA, item_features=contents(), epochs=15)


def fits(found, user):
    return all((user + item) % 2 == 0 for item in found["item_id"])


def test_items_that_nobody_has_used_are_placed_by_what_they_look_like(model):
    for user in (4, 7):
        found = model.recommend(user, k=5, among=range(30, 40))
        assert found.height == 5
        assert fits(found, user)
    assert all(item % 2 == 1 for item in model.similar_items(31, k=6)["item_id"])
    mixed = model.recommend_all(k=20)["item_id"]
    assert set(range(30, 40)) & set(mixed.to_list())


def test_the_history_says_what_the_pictures_explain():
    """Contents have no columns, of which a cosine could be taken."""
    options = {**SHORT, "sampler": nf.TwoStage(10, towards="user"), "negatives": 2}
    model = nf.CML(**options).fit(DATA, item_features=contents(), epochs=2)
    history = model.history
    assert history["explained_items"].is_between(0.0, 1.0).all()
    assert history["cache_oldest"].to_list() == [1.0, 1.0]
    assert history["cache_age"].is_between(0.4, 0.7).all()
    assert not {"similar_push", "similar_cosine", "explained_users"} & set(history.columns)


def test_without_pictures_that_tell_them_apart_they_are_not(model):
    numbers = np.random.default_rng(0).permutation(N_ITEMS)
    wrong = nf.Contents.from_array(pictures(numbers), range(N_ITEMS))
    shuffled = nf.CML(**SHORT).fit(DATA, item_features=wrong, epochs=15)
    users = list(range(N_USERS))

    def hits(one):
        found = one.recommend(users, k=5, among=range(30, 40))
        return ((found["user_id"] + found["item_id"]) % 2 == 0).mean()

    assert hits(model) > 0.95
    assert hits(shuffled) < 0.8


def test_new_items_are_added_before_and_after_saving(model, tmp_path):
    new = contents(N_ITEMS, N_ITEMS + NEW)
    asked = model.recommend(3, k=4, among=new)
    assert asked["item_id"].min() >= N_ITEMS
    assert fits(asked, 3)
    assert model.interactions.n_items == N_ITEMS
    near = model.similar_items(features=new, k=3)
    model.save(tmp_path / "m")
    again = nf.CML.load(tmp_path / "m", encoder=small_net)
    assert again.recommend_all(k=9).equals(model.recommend_all(k=9))
    assert again.similar_items(features=new, k=3).equals(near)
    again.add_items(new)
    assert again.recommend(3, k=4, among=range(N_ITEMS, N_ITEMS + NEW)).equals(asked)
    again.save(tmp_path / "m")
    third = nf.CML.load(tmp_path / "m", encoder=small_net)
    np.testing.assert_array_equal(third.item_vectors, again.item_vectors)
    assert again.features_of("items") == {"content": "array of shape (1, 4, 6)"}
    assert again.features_of("users") == {}


def test_a_score_is_explained_by_content_and_the_rest(model, tmp_path):
    why = model.explain(3, 5)
    own = model._fitted.encoders.own[5]
    assert why.content + why.own == pytest.approx(why.closeness, abs=1e-12)
    shown = model.recommend(3, k=N_ITEMS, exclude_seen=False)
    assert dict(shown.select("item_id", "score").iter_rows())[5] == why.score
    # v = z / |z| and z = g + own, so that own.v / |z| + g.v / |z| = 1
    length = np.linalg.norm(model._fitted.encoders.encoded(np.array([N_USERS + 5]))[0] + own)
    assert why.own == pytest.approx(float(model.user_vectors[3] @ own / length), abs=1e-5)
    model.save(tmp_path / "m")
    again = nf.CML.load(tmp_path / "m", encoder=small_net)
    assert again.explain(3, 5).content is None  # the contents are not saved with the model
    assert again.explain(3, 5).score == why.score


def test_weights_are_saved_by_their_names_without_code(model, tmp_path):
    from safetensors.numpy import load_file

    model.save(tmp_path / "m")
    [file] = (tmp_path / "m").glob("encoders-*.safetensors")
    saved = load_file(file)
    assert saved["module.0.weight"].shape == (4, 1, 3, 3)
    assert saved["module.4.bias"].shape == (8,)
    net = small_net(8)
    named = {name.removeprefix("module."): one for name, one in saved.items() if "module." in name}
    net.load_state_dict({name: torch.from_numpy(one) for name, one in named.items()})
    with torch.no_grad():
        g = net.eval()(torch.from_numpy(pictures([31]))).numpy()[0]
    np.testing.assert_allclose(g / np.linalg.norm(g), model.item_vectors[31], atol=1e-5)


def test_a_model_without_its_code_recommends_and_refuses_new_content(model, tmp_path):
    model.save(tmp_path / "m")
    loaded = nf.CML.load(tmp_path / "m")
    assert loaded.recommend_all(k=9).equals(model.recommend_all(k=9))
    with pytest.raises(OptionError, match=r"CML\.load\(path, encoder=small_net\)"):
        loaded.add_items(contents(N_ITEMS, N_ITEMS + NEW))
    loaded.save(tmp_path / "again")
    assert nf.CML.load(tmp_path / "again", encoder=small_net).options.items == model.options.items


def test_code_of_another_module_is_refused(model, tmp_path):
    model.save(tmp_path / "m")
    new = contents(N_ITEMS, N_ITEMS + NEW)

    def wider(dim):
        return torch.nn.Sequential(
            torch.nn.Conv2d(1, 5, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(40, dim)
        )

    with pytest.raises(OptionError, match=r"'0.weight' is \(5, 1, 3, 3\).* \(4, 1, 3, 3\)"):
        nf.CML.load(tmp_path / "m", encoder=wider).add_items(new)
    plain = nf.CML(**{**SHORT, "items": None}).fit(DATA, epochs=1)
    plain.save(tmp_path / "plain")
    with pytest.raises(OptionError, match="no Module encodes the items"):
        nf.CML.load(tmp_path / "plain", encoder=small_net)


def test_a_damaged_encoder_is_refused(model, tmp_path):
    model.save(tmp_path / "m")
    data = model._fitted.encoders._replace(own=np.zeros((3, 8), np.float32))
    broken = copy.copy(model)
    broken._fitted = model._fitted._replace(encoders=data)
    broken.save(tmp_path / "b")
    with pytest.raises(StoreError, match="do not fit together"):
        nf.CML.load(tmp_path / "b")


def test_training_goes_on_with_new_items(model, tmp_path):
    new_pairs = nf.Interactions.from_pairs([(u, 44) for u in range(0, 40, 2)])
    grown = copy.copy(model).partial_fit(
        new_pairs, item_features=contents(44, 46), epochs=2, seed=1
    )
    assert 44 in grown.recommend(50, k=12)["item_id"].to_list()
    model.save(tmp_path / "m")
    loaded = nf.CML.load(tmp_path / "m", encoder=small_net)
    with pytest.raises(OptionError, match=r"those of 40 of 41 items were not given"):
        copy.copy(loaded).partial_fit(new_pairs, item_features=contents(44, 46), epochs=1)
    of_all = contents().updated(contents(44, 46))
    loaded.partial_fit(new_pairs, item_features=of_all, epochs=2, seed=1)
    np.testing.assert_allclose(loaded.item_vectors, grown.item_vectors, atol=1e-5)


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path):
    options = {**SHORT, "sampler": nf.TwoStage(10, 0.5), "negatives": 2}
    part = {"item_features": contents(), "epochs": 4, "validation": 0.2}
    whole = nf.CML(**options).fit(DATA, **part)

    def stop(event):
        if event.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nf.CML(**options).fit(
            DATA, **part, callbacks=[stop], checkpoint=tmp_path / "c", checkpoint_seconds=0
        )
    resumed = nf.CML(**options).fit(DATA, **part, checkpoint=tmp_path / "c")
    np.testing.assert_array_equal(resumed.item_vectors, whole.item_vectors)
    np.testing.assert_array_equal(resumed._fitted.encoders.vectors, whole._fitted.encoders.vectors)
    assert resumed.best_epoch == whole.best_epoch


def test_a_model_is_pickled_with_its_module(model):
    again = pickle.loads(pickle.dumps(model))
    new = contents(N_ITEMS, N_ITEMS + NEW)
    assert again.recommend(3, k=4, among=new).equals(model.recommend(3, k=4, among=new))


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(OptionError, match="`item_features` must be of type Contents"):
        nf.CML(**SHORT).fit(DATA, item_features=features(), epochs=1)
    with pytest.raises(OptionError, match="`item_features` must be of type Features"):
        nf.CML(**{**SHORT, "items": nf.Hybrid()}).fit(DATA, item_features=contents(), epochs=1)
    with pytest.raises(OptionError, match=r"needs `item_features`, nearfar.Contents"):
        nf.CML(**SHORT).fit(DATA, epochs=1)
    with pytest.raises(OptionError, match="Module encodes items only"):
        nf.CML(**SHORT, users=nf.Hybrid())
    with pytest.raises(OptionError, match="Module encodes items only"):
        nf.CML(users=nf.Hybrid(nf.Module(small_net)))
    with pytest.raises(OptionError, match="`gains` are of the fields of Features"):
        nf.Hybrid(nf.Module(small_net), gains={"a": 2})
    with pytest.raises(OptionError, match="`fresh`=4 is of negatives that a batch shares"):
        nf.CML(sampler=nf.Uniform(), items=nf.Hybrid(nf.Module(small_net, fresh=4)))
    with pytest.raises(OptionError, match="`build` must be"):
        nf.Module(3)


def test_contents_of_another_shape_are_refused(model):
    other = nf.Contents.from_array(np.ones((2, 1, 5, 6)), [90, 91])
    for call in (
        lambda: model.recommend(3, among=other),
        lambda: model.similar_items(features=other),
        lambda: copy.copy(model).add_items(other),
    ):
        with pytest.raises(DataError, match=r"shape \(1, 4, 6\).*got \(1, 5, 6\)"):
            call()


def test_ids_that_do_not_match_are_told():
    text = nf.Contents.from_array(pictures(range(4)), ["0", "1", "2", "3"])
    with pytest.raises(DataError, match="contents are strings"):
        nf.CML(**SHORT).fit(DATA, item_features=text, epochs=1)
    with pytest.warns(NearfarWarning, match="only 4 of the 30 .* have contents"):
        nf.CML(**SHORT).fit(DATA, item_features=text.with_ids_like(Ids([0])), epochs=1)


def test_a_bad_content_ends_training_with_its_id():
    def load(ids):
        if 7 in ids:
            raise OSError("the disk is gone")
        return pictures(ids)

    with pytest.raises(DataError, match="id 7 cannot be read: OSError: the disk is gone"):
        nf.CML(**SHORT).fit(DATA, item_features=nf.Contents.from_callable(load, range(N_ITEMS)))


def test_options_are_saved_with_the_name_of_the_module():
    plain = nf.CML(**SHORT).options.to_dict()
    assert plain["items"]["encoder"]["build"].endswith("test_modules.small_net")
    again = nf.Options.from_dict(plain)
    assert again.to_dict() == plain
    with pytest.raises(OptionError, match="not saved"):
        again.items.encoder.build(8)


def test_threads_of_torch_are_those_of_the_run():
    asked = []

    def load(ids):
        asked.append(torch.get_num_threads())
        return pictures(ids)

    before = torch.get_num_threads()
    lazy = nf.Contents.from_callable(load, range(N_ITEMS))
    nf.CML(**SHORT).fit(DATA, item_features=lazy, epochs=1, threads=2)
    assert 2 in asked
    assert torch.get_num_threads() == before


def test_runs_without_contents_are_refused():
    from nearfar.engine import Problem

    problem = Problem(DATA, nf.CML(**SHORT).options)
    with pytest.raises(OptionError, match="there are no features to learn from"):
        Run(problem, Schedule(epochs=1))
