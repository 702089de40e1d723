"""The contract of a model, over engines and geometries, on data whose right answer is known."""

import inspect

import numpy as np
import polars as pl
import pytest

import nearfar as nf
from conftest import PLAIN, TORCH_DEVICES, checkerboard, random_data
from nearfar import CML, Interactions, evaluate, presets
from nearfar.engine import Problem
from nearfar.errors import DataError, NotFittedError, OptionError, StoreError, UnknownIdError
from nearfar.method.optimiser import SGD, Adagrad, Adam, Averaging
from nearfar.method.options import Options
from nearfar.method.sampling import Popularity, Shared, TwoStage, Uniform
from nearfar.model import fitted as fitted_module
from nearfar.model import retrieval
from nearfar.model.item_map import project
from nearfar.runtime import store
from nearfar.search.scoring import scorer_of

VARIANTS = {
    "sphere, uniform": {},
    "sphere, popularity": {"sampler": Popularity()},
    # with live vectors the second stage would draw the right answer as the negative, always
    "sphere, two-stage": {"sampler": TwoStage(40, vectors="initial")},
    "ball, adagrad": {"geometry": "ball", "optimiser": Adagrad(0.2)},
    "free, sgd": {"geometry": "free", "optimiser": SGD(0.02)},
    "like the default": {
        "sampler": Shared(),
        "negatives": 12,
        "triplet": Options().triplet,
        "averaging": Averaging(),
        "optimiser": Adam(0.1),
    },
}


ON_TORCH = ["sphere, uniform", "like the default"]
"""Variants for devices of PyTorch, where steps as small as these are slow."""


@pytest.fixture(
    scope="module",
    params=[
        *(("cpu", name) for name in VARIANTS),
        # the engines agree step by step: every variant is learned once, and two on each device
        *(
            pytest.param(("reference", name), marks=() if name in ON_TORCH else pytest.mark.full)
            for name in VARIANTS
        ),
        *(
            pytest.param((*device.values, name), marks=device.marks)
            for device in TORCH_DEVICES
            for name in ON_TORCH
        ),
    ],
)
def fitted(request):
    device, name = request.param
    options = {"dim": 3, "batch": 8, "negatives": 3, "optimiser": Adam(0.03), **VARIANTS[name]}
    return CML(PLAIN, **options).fit(checkerboard(), epochs=20, device=device, threads=1)


@pytest.fixture(scope="module")
def model():
    return CML(dim=16, batch=8, optimiser=Adam(0.03)).fit(checkerboard(), epochs=40)


def test_the_one_right_answer_comes_first(fitted):
    """User u has every item of their parity but u itself: that one is next."""
    found = fitted.recommend_all(k=1)
    right = (found["user_id"] == found["item_id"]).mean()
    assert right >= 0.9


def test_a_batch_equals_single_requests(fitted):
    many = fitted.recommend([3, 7, 4], k=5)
    for user in (3, 7, 4):
        one = fitted.recommend(user, k=5)
        mine = many.filter(pl.col("user_id") == user).drop("user_id")
        assert one["item_id"].equals(mine["item_id"])
        assert one["score"].to_numpy() == pytest.approx(mine["score"].to_numpy(), abs=1e-6)
    assert many["user_id"].to_list() == [3] * 5 + [7] * 5 + [4] * 5


def test_scores_are_one_minus_half_the_squared_distance(fitted):
    u = fitted.user_vectors[6]
    for item, score in fitted.recommend(6, k=4).select("item_id", "score").iter_rows():
        v = fitted.item_vectors[item]
        assert score == pytest.approx(1 - 0.5 * np.sum((u - v) ** 2), abs=1e-5)


def test_nearest_first_and_nothing_nearer_left_out(fitted):
    found = fitted.recommend(2, k=6)
    scores = found["score"].to_list()
    assert scores == sorted(scores, reverse=True)
    assert found["rank"].to_list() == [1, 2, 3, 4, 5, 6]
    distance = np.sum((fitted.item_vectors - fitted.user_vectors[2]) ** 2, axis=1)
    distance[fitted.interactions.positives(2)] = np.inf
    assert found["item_id"].to_list() == np.argsort(distance, kind="stable")[:6].tolist()


def test_similar_items_are_of_the_same_kind(fitted):
    found = fitted.similar_items([2, 5], k=9)
    assert (found["query_id"] != found["item_id"]).all()
    same = (found["query_id"] % 2) == (found["item_id"] % 2)
    assert same.mean() > 0.85
    others = fitted.similar_users(4, k=9)
    assert 4 not in others["user_id"].to_list()
    assert (others["user_id"] % 2 == 0).mean() > 0.85


def test_save_and_load_give_the_same_model(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    loaded = CML.load(tmp_path / "model")
    assert loaded.options == fitted.options
    assert loaded.recommend_all(k=4).equals(fitted.recommend_all(k=4))
    assert loaded.similar_items(3).equals(fitted.similar_items(3))
    assert loaded.history.equals(fitted.history)
    assert loaded.best_epoch == fitted.best_epoch
    assert loaded.interactions == fitted.interactions


# ------------------------------------------------------------------------------ on other devices


@pytest.fixture(scope="module", params=["sphere", "free"])
def elsewhere(request):
    """No two of its scores are nearly equal, so lists do not depend on the last bits."""
    return CML(PLAIN, dim=8, geometry=request.param).fit(random_data(), epochs=1)


def assert_alike(found, expected):
    assert found.drop("score").equals(expected.drop("score"))
    assert found.schema == expected.schema
    assert found["score"].to_numpy() == pytest.approx(expected["score"].to_numpy(), abs=1e-5)


@pytest.mark.parametrize("device", TORCH_DEVICES)
@pytest.mark.parametrize(
    ("method", "asked", "options"),
    [
        ("recommend_all", 100, {}),
        ("recommend", 3, {"k": 5, "exclude_seen": False}),
        ("recommend", [5, 3], {"k": 9, "allow": range(30), "deny": [1, 2, 3]}),
        ("similar_items", [2, 5, 2], {"k": 12}),
        ("similar_users", 4, {"k": 100}),
    ],
)
def test_lists_from_a_device_are_those_of_the_processor(elsewhere, device, method, asked, options):
    make = getattr(elsewhere, method)
    assert_alike(make(asked, **options, device=device), make(asked, **options))


@pytest.mark.parametrize("device", TORCH_DEVICES)
def test_evaluate_on_a_device_gives_the_figures_of_the_processor(elsewhere, device):
    train, test = nf.split.ratio(random_data(), seed=3)
    found = evaluate(elsewhere, train, test, k=7, device=device)
    assert found.per_user.equals(evaluate(elsewhere, train, test, k=7).per_user)


def test_auto_ranks_somewhere(elsewhere):
    assert_alike(elsewhere.recommend_all(k=9, device="auto"), elsewhere.recommend_all(k=9))


@pytest.mark.parametrize(
    "ask",
    [
        lambda model, device: model.scorer(device),
        lambda model, device: model.recommend(3, device=device),
        lambda model, device: model.similar_items(3, device=device),
        lambda model, device: model.similar_users(3, device=device),
        lambda model, device: evaluate(model, random_data(), random_data(), device=device),
    ],
)
def test_devices_that_cannot_rank_are_refused(elsewhere, ask):
    with pytest.raises(OptionError, match=r"'reference', which is for training only; rank with"):
        ask(elsewhere, "reference")
    with pytest.raises(OptionError, match=r"`device` must be one of cpu, .*; got 'tpu'\."):
        ask(elsewhere, "tpu")


def test_fit_hands_on_where_and_how_it_runs(board):
    with pytest.raises(OptionError, match=r"`device` must be one of cpu, .*; got 'tpu'\."):
        CML(PLAIN).fit(board, device="tpu")
    with pytest.raises(OptionError, match=r"`fast` .* `device` is 'cpu'"):
        CML(PLAIN).fit(board, fast=True)


# ------------------------------------------------------------------------- requests at the edge


def test_seen_items_are_left_out_unless_asked_for(model):
    seen = set(model.interactions.positives(0).tolist())
    assert not seen & set(model.recommend(0, k=20)["item_id"].to_list())
    assert seen & set(model.recommend(0, k=5, exclude_seen=False)["item_id"].to_list())


def test_allow_and_deny_come_before_the_cut(model):
    allowed = model.recommend(0, k=3, allow=[1, 3, 5, 7])
    assert set(allowed["item_id"]) < {1, 3, 5, 7}
    assert len(allowed) == 3
    first = model.recommend(0, k=1)["item_id"][0]
    without = model.recommend(0, k=20, deny=[first])
    assert first not in without["item_id"].to_list()
    both = model.recommend(0, k=20, allow=[1, 3], deny=[3])
    assert both["item_id"].to_list() == [1]


@pytest.mark.parametrize("how", [{}, {"allow": range(9), "deny": [3]}, {"exclude_seen": False}])
def test_everybody_gets_what_each_would_get(model, how):
    found = model.recommend_all(7, **how)
    assert found.equals(model.recommend(model.interactions.user_ids.to_list(), 7, **how))


def test_recommend_asks_whom_to_recommend_to(model):
    with pytest.raises(OptionError, match=r"needs `users` .* or `liked` .* call recommend_all\(\)"):
        model.recommend(k=3)


def test_k_larger_than_the_catalogue_gives_what_there_is(model):
    found = model.recommend([0, 1], k=1000)
    assert found.group_by("user_id").len()["len"].to_list() == [20 - 9, 20 - 9]
    assert len(model.similar_items(0, k=1000)) == 19


@pytest.mark.filterwarnings("ignore::nearfar.errors.NearfarWarning")
def test_a_user_with_nothing_left_gets_an_empty_list():
    data = Interactions.from_pairs([("all", i) for i in range(4)] + [("one", 0)])
    model = CML(dim=4).fit(data, epochs=2)
    empty = model.recommend("all")
    assert len(empty) == 0
    assert empty.columns == ["rank", "item_id", "score"]
    many = model.recommend(["all", "one"])
    assert set(many["user_id"]) == {"one"}
    assert len(model.recommend("one", allow=[0])) == 0


def test_unknown_ids_are_named(model):
    with pytest.raises(UnknownIdError, match="99"):
        model.recommend(99)
    with pytest.raises(UnknownIdError, match="'0'"):
        model.recommend("0")
    with pytest.raises(UnknownIdError, match="77"):
        model.recommend([1, 77])
    with pytest.raises(UnknownIdError):
        model.similar_items(-1)


def test_bad_k_is_refused(model):
    with pytest.raises(OptionError, match="k"):
        model.recommend(1, k=0)


def test_ids_keep_their_type():
    frame = pl.DataFrame(
        {"u": [1, 2, 2, 3], "i": ["a", "b", "a", "c"]}, schema={"u": pl.Int16, "i": pl.String}
    )
    model = CML(dim=4, batch=4).fit(Interactions.from_frame(frame, user="u", item="i"), epochs=2)
    assert model.recommend_all()["user_id"].dtype == pl.Int16
    assert model.recommend(1)["item_id"].dtype == pl.String
    assert model.recommend(pl.Series([1, 3], dtype=pl.Int16))["user_id"].dtype == pl.Int16


def test_an_unfitted_model_says_so():
    for use in (
        lambda m: m.recommend(1),
        lambda m: m.item_vectors,
        lambda m: m.history,
        lambda m: m.save("nowhere"),
        lambda m: m.scorer(),
    ):
        with pytest.raises(NotFittedError, match="has not been fitted"):
            use(CML())


def test_loading_something_else_is_refused(tmp_path):
    checkerboard().save(tmp_path / "data")
    with pytest.raises(StoreError, match="interactions"):
        CML.load(tmp_path / "data")
    with pytest.raises(StoreError):
        CML.load(tmp_path / "nothing")


def test_saving_twice_replaces(model, tmp_path):
    model.save(tmp_path)
    other = CML(dim=4).fit(random_data(), epochs=1)
    other.save(tmp_path)
    assert CML.load(tmp_path).options.dim == 4


def test_signature_and_repr_show_the_options():
    assert list(inspect.signature(CML).parameters)[1:4] == ["dim", "geometry", "sampler"]
    assert repr(CML(dim=64, sampler=Uniform())) == "CML(dim=64, sampler=Uniform(redraws=100))"


@pytest.mark.parametrize(
    ("given", "n_items", "negatives"),
    [
        ({}, 10_000, 512),
        ({}, 2_560, 512),
        ({}, 2_559, 511),
        ({}, 200, 40),
        ({}, 160, 32),
        ({}, 40, 32),
        ({"sampler": Uniform()}, 10_000, 5),
        ({"sampler": Uniform()}, 3, 5),
        ({"negatives": 512}, 40, 512),
    ],
)
def test_the_usual_number_of_negatives_is_the_samplers_and_suits_the_data(
    given, n_items, negatives
):
    data = Interactions.from_pairs([(0, item) for item in range(n_items)] + [(1, 0)])
    assert Problem(data, CML(**given).options).n_negatives == negatives


def test_a_number_of_negatives_can_be_replaced_by_the_usual_one():
    data = random_data()
    assert Problem(data, CML(Options(negatives=7), negatives=None).options).n_negatives == 32
    assert Problem(data, CML(presets.long_tail(), sampler=Popularity()).options).n_negatives == 5


def test_only_items_that_can_be_drawn_count_for_the_usual_number_of_negatives():
    data = random_data(n_items=400)
    data = data.subset(data.items < 200)
    assert Problem(data, Options(sampler=Shared(0.5))).n_negatives == 40
    assert Problem(data, Options(sampler=Shared(0.0))).n_negatives == 80


def test_with_few_items_the_dial_still_moves_the_lists():
    data = random_data(n_users=60, n_items=40)
    assert CML(dim=8, batch=16).fit(data, epochs=1).gamma > 0.01
    assert CML(dim=8, batch=16, negatives=512).fit(data, epochs=1).gamma == 0.0


def test_the_repr_shows_a_number_of_negatives_that_was_given():
    assert repr(CML(sampler=Uniform(), negatives=512)).endswith(", negatives=512)")
    assert repr(CML(negatives=512)) == "CML(negatives=512)"
    assert repr(CML()) == "CML()"


def test_a_loaded_model_follows_the_sampler_unless_a_number_was_given(tmp_path):
    for given, found in (({}, 5), ({"negatives": 512}, 512), ({"negatives": 7}, 7)):
        model = CML(dim=2, batch=4, sampler=Shared(), **given).fit(random_data(), epochs=1)
        model.save(tmp_path / "m")
        loaded = CML.load(tmp_path / "m")
        assert loaded.options == model.options
        again = CML(loaded.options, sampler=Uniform()).options
        assert Problem(random_data(), again).n_negatives == found


# --------------------------------------------------------------------------- quality, in small


def test_it_beats_popularity_and_random_where_there_is_taste():
    """Two groups with separate tastes, and a few items that are liked by both."""
    rng = np.random.default_rng(0)
    pairs = set()
    for user in range(120):
        group = user % 2
        own = rng.choice(np.arange(group * 60, group * 60 + 60), 25, replace=False)
        popular = rng.choice(np.arange(120, 130), 2, replace=False)
        pairs |= {(user, int(item)) for item in (*own, *popular)}
    data = Interactions.from_pairs(sorted(pairs))
    train, test = nf.split.ratio(data, 0.25, seed=0)
    model = CML(dim=16, batch=32, optimiser=Adam(5e-3)).fit(train, epochs=30, threads=2)
    ours = evaluate(model, train, test, k=10)["ndcg"]
    popularity = evaluate(nf.baselines.MostPopular(train), train, test, k=10)["ndcg"]
    chance = evaluate(nf.baselines.Random(data.n_users, data.n_items), train, test, k=10)["ndcg"]
    assert ours > 1.3 * popularity
    assert ours > 1.6 * chance


def test_evaluating_on_other_axes_is_refused(model):
    other = random_data(5, 5)
    with pytest.raises(DataError):
        evaluate(model, other, other)


def grown(model, new, epochs=5, **how):
    """A copy of a model that has learned from more."""
    again = CML(model.options)
    again._fitted = model._fitted
    return again.partial_fit(new, epochs=epochs, **how)


def test_partial_fit_learns_new_users_items_and_pairs(model):
    """New users and items of both colours, who know each other and some of the old ones."""
    items = [*range(12), 200, 201]
    pairs = [(u, i) for u in (100, 101) for i in items if (u + i) % 2 == 0 and i != u - 94]
    pairs += [(u, i) for u in range(12) for i in (200, 201) if (u + i) % 2 == 0]
    new = Interactions.from_pairs(pairs)
    again = grown(model, new, epochs=30)
    data = again.interactions
    assert set(data.to_frame().rows()) == set(
        model.interactions.to_frame().rows() + new.to_frame().rows()
    )
    assert again.recommend(100, k=1)["item_id"].to_list() == [6]
    assert again.recommend(101, k=1)["item_id"].to_list() == [7]
    assert all(i % 2 == 0 for i in again.similar_items(200, k=3)["item_id"].to_list())


def test_partial_fit_goes_on_where_the_model_was(model):
    nothing_new = model.interactions.subset(np.arange(len(model.interactions.items)) < 4)
    rate = CML(model.options, optimiser=SGD(1e-9))
    rate._fitted = model._fitted
    still = rate.partial_fit(nothing_new, epochs=2)
    assert still.interactions == model.interactions
    np.testing.assert_allclose(still.user_vectors, model.user_vectors, atol=1e-5)
    np.testing.assert_allclose(still.item_vectors, model.item_vectors, atol=1e-5)
    n = model.history.height
    assert still.history["epoch"].to_list() == list(range(1, n + 3))
    assert still.best_epoch == n + 2
    assert still.history[:n].equals(model.history.select(still.history.columns), null_equal=True)


def test_partial_fit_gives_the_same_bits_for_the_same_seed(model):
    new = Interactions.from_pairs([(3, 4), (77, 2), (77, 4), (5, 88)])
    one, same = grown(model, new, seed=2), grown(model, new, seed=2, threads=2)
    assert np.array_equal(one.user_vectors, same.user_vectors)
    assert np.array_equal(one.item_vectors, same.item_vectors)
    assert not np.array_equal(one.item_vectors, grown(model, new, seed=3).item_vectors)


def test_a_newcomer_begins_at_the_mean_of_what_they_like(model):
    new = Interactions.from_pairs([(77, 2), (77, 4), (5, 88), (7, 88), (78, 88), (79, 89)])
    frozen = CML(model.options, optimiser=SGD(1e-9))
    frozen._fitted = model._fitted
    frozen.partial_fit(new, epochs=1)
    users, items, known = (
        frozen.interactions.user_ids,
        frozen.interactions.item_ids,
        model.interactions,
    )
    mean = model.item_vectors[known.item_ids.rows([2, 4])].mean(axis=0)
    np.testing.assert_allclose(
        frozen.user_vectors[users.row(77)], mean / np.linalg.norm(mean), atol=1e-5
    )
    mean = model.user_vectors[known.user_ids.rows([5, 7])].mean(axis=0)
    np.testing.assert_allclose(
        frozen.item_vectors[items.row(88)], mean / np.linalg.norm(mean), atol=1e-5
    )
    for strangers in (frozen.user_vectors[users.row(79)], frozen.item_vectors[items.row(89)]):
        assert np.linalg.norm(strangers) == pytest.approx(1, abs=1e-5)


def test_what_partial_fit_cannot_use_leaves_the_model_as_it_was(model):
    with pytest.raises(NotFittedError):
        CML().partial_fit(checkerboard())
    before = model._fitted
    with pytest.raises(
        DataError, match=r"Ids of different types cannot be combined: .*Convert one"
    ):
        model.partial_fit(Interactions.from_pairs([("ann", "tea")]))
    with pytest.raises(OptionError, match="epochs"):
        model.partial_fit(checkerboard(), epochs=0)
    assert model._fitted is before


def test_a_model_on_disk_can_be_mapped_into_memory(model, tmp_path):
    model.save(tmp_path / "m")
    read, mapped = CML.load(tmp_path / "m"), CML.load(tmp_path / "m", mmap=True)
    for name in ("user_vectors", "item_vectors"):
        table = getattr(mapped, name)
        assert isinstance(table, np.memmap)
        assert not table.flags.writeable
        assert np.array_equal(table, getattr(read, name))
        assert np.array_equal(table, getattr(model, name))
    assert mapped.recommend(3, k=4).equals(model.recommend(3, k=4))
    assert np.array_equal(mapped.fold_in([2, 4]), model.fold_in([2, 4]))
    mapped.save(tmp_path / "m")  # onto itself
    assert np.array_equal(CML.load(tmp_path / "m").item_vectors, model.item_vectors)


def test_what_is_known_of_the_quality_goes_with_the_model(tmp_path):
    data = random_data()
    train, test = nf.split.ratio(data, test=0.3, seed=0)
    model = CML(PLAIN, dim=4, batch=32).fit(train, epochs=4, validation=0.2, metric="map", k=7)
    best = model.history.filter(pl.col("epoch") == model.best_epoch)
    assert model.metrics.keys() == {"validation"}
    assert model.metrics["validation"]["map"] == best["validation_map"][0]
    assert model.metrics["validation"]["mmr"] == best["validation_mmr"][0]
    found = evaluate(model, train, test, k=5)
    model.keep_evaluation(found)
    model.save(tmp_path / "m")
    again = CML.load(tmp_path / "m")
    assert again.metrics == model.metrics
    assert again.metrics["test"]["ndcg"] == found["ndcg"]
    assert (again.metrics["test"]["k"], again.metrics["test"]["n_users"]) == (5, found.n_users)
    assert again.fingerprint == model.fingerprint == train.fingerprint
    again.partial_fit(test, epochs=1)
    assert "test" not in again.metrics
    assert CML(PLAIN, dim=4, batch=32).fit(train, epochs=1).metrics == {}


def test_a_saved_model_has_a_card(tmp_path):
    data = random_data()
    train, test = nf.split.ratio(data, test=0.3, seed=0)
    model = CML(PLAIN, dim=4, batch=32).fit(train, epochs=2)
    model.save(tmp_path / "m")
    (card,) = (tmp_path / "m").glob("card-*.md")
    text = card.read_text()
    assert "The model has not been evaluated" in text
    found = evaluate(model, train, test, k=5)
    model.keep_evaluation(found)
    model.save(tmp_path / "m")
    (card,) = (tmp_path / "m").glob("card-*.md")
    text = card.read_text()
    for part in (
        f"| users | {train.n_users:,} |", f"`{train.fingerprint}`", f"nearfar {nf.__version__}",
        "| **dim** | `4` |", "| geometry | `'sphere'` |", f"| ndcg | {found['ndcg']:.4f} |",
        "(test: the best 5)", "2 epochs",
    ):  # fmt: skip
        assert part in text, part


def card_of(folder):
    (card,) = folder.glob("card-*.md")
    return card.read_text()


def test_the_card_shows_the_temperature_and_the_negatives_that_training_used(tmp_path):
    data = random_data()
    model = CML(dim=4, batch=32).fit(data, epochs=1)
    used = Problem(data, Options()).triplet
    for part in (f"| triplet | `{used!r}` |", "| negatives | `32` |"):
        model.save(tmp_path / "m")
        assert part in card_of(tmp_path / "m")
        model = CML.load(tmp_path / "m")
    CML(dim=4, sampler=Uniform(), triplet=nf.Triplet(0.5)).fit(data, epochs=1).save(tmp_path / "m")
    text = card_of(tmp_path / "m")
    assert "| negatives | `5` |" in text
    assert f"| **triplet** | `{nf.Triplet(0.5)!r}` |" in text


@pytest.mark.filterwarnings("ignore::nearfar.errors.NearfarWarning")
def test_the_card_has_the_temperature_of_the_items_that_were_learned_from(tmp_path):
    data = random_data()
    model = CML(dim=4, batch=32).fit(data, epochs=1, validation=0.9)
    learned, _ = nf.split.ratio(data, test=0.9, seed=0)
    used, of_all = (Problem(part, Options()).triplet for part in (learned, data))
    assert used != of_all
    model.save(tmp_path / "m")
    assert repr(used) in card_of(tmp_path / "m")


def test_the_places_of_the_items_on_a_plane_go_with_the_model(model, tmp_path):
    assert model.projection.method == "pca"
    assert model.projection is model.projection
    model.save(tmp_path / "m")
    again = CML.load(tmp_path / "m").projection
    for name in ("points", "mean", "axes", "items"):
        assert np.array_equal(getattr(again, name), getattr(model.projection, name))
    assert again.place(model.user_vectors[0]) == model.projection.place(model.user_vectors[0])
    with pytest.raises(OptionError, match="`method`"):
        model.project("tsne")


def test_a_model_of_before_the_first_release_is_refused(model, tmp_path):
    _, frames = model.interactions.to_store()
    model.save(tmp_path / "new")
    whole = store.load_folder(tmp_path / "new", kind="model")
    table = {"points": {"users": model.user_vectors, "items": model.item_vectors}}
    options = {k: v for k, v in model.options.to_dict().items() if k != "averaging"}
    for meta, arrays, named in (
        (whole.meta, table, "'projection'"),
        (whole.meta | {"options": options}, whole.arrays, r"missing option\(s\) averaging"),
        ({k: v for k, v in whole.meta.items() if k != "evaluation"}, whole.arrays, "'evaluation'"),
    ):
        store.save_folder(
            tmp_path / "old",
            kind="model",
            meta=meta,
            arrays=arrays,
            frames={**frames, "history": model.history},
        )
        with pytest.raises(StoreError, match=rf"is not a readable model: .*{named}"):
            CML.load(tmp_path / "old")


@pytest.mark.parametrize("mmap", [False, True])
def test_what_is_known_of_a_table_is_computed_once(model, tmp_path, mmap, monkeypatch):
    model.save(tmp_path)
    loaded, expected, made = CML.load(tmp_path, mmap=mmap), model.recommend(1), []
    monkeypatch.setattr(retrieval, "scorer_of", lambda *asked: made.append(1) or scorer_of(*asked))
    for _ in range(3):
        assert loaded.recommend(1).equals(expected)
        loaded.similar_items(1)
        loaded.similar_users(1)
    assert len(made) == 2  # the table of items, and that of users


def test_saving_twice_projects_once(tmp_path, monkeypatch):
    model = CML(PLAIN, dim=4).fit(random_data(), epochs=1)
    made = []
    monkeypatch.setattr(fitted_module, "project", lambda *asked: made.append(1) or project(*asked))
    for _ in range(2):
        model.save(tmp_path)
    assert len(made) == 1


def test_similar_items_are_those_that_are_allowed():
    model = CML(PLAIN, dim=4, batch=32).fit(random_data(), epochs=1)
    whole = model.similar_items([3, 9], k=60)
    allow, deny = list(range(2, 40)), [4, 5, 6, 7, 8]
    kept = pl.col("item_id").is_in(allow) & ~pl.col("item_id").is_in(deny)
    expected = whole.filter(kept).group_by("query_id", maintain_order=True).head(5)
    found = model.similar_items([3, 9], k=5, allow=allow, deny=deny)
    assert found.drop("rank").equals(expected.drop("rank"))
    assert found["rank"].to_list() == [1, 2, 3, 4, 5] * 2
    assert model.similar_items(3, allow=[]).is_empty()
    with pytest.raises(UnknownIdError, match="'4'"):
        model.similar_items(3, deny=["4"])
