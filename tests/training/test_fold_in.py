"""Fold-in against the reference: the same negatives, the loop's gradient, the right answers."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

import nearfar as nf
from conftest import PLAIN, SAMPLERS, checkerboard, plain, random_data
from nearfar.engine import Problem
from nearfar.engine.negatives import OneUser, TrainingUsers
from nearfar.engine.reference import ReferenceEngine
from nearfar.errors import DataError, EmptyDataError, OptionError, UnknownIdError
from nearfar.method.geometry import normalise
from nearfar.method.loss import Triplet
from nearfar.method.optimiser import SGD, Adagrad, Adam, Averaging
from nearfar.method.sampling import Shared, TwoStage
from nearfar.runtime.counter import Source
from nearfar.training.fold_in import Folding, _Others

DATA = random_data(crowded=True)
GEOMETRIES = ["sphere", "ball", "free"]


def options_of(sampler, **changes):
    negatives = 11 if isinstance(sampler, Shared) else 3
    return plain(**({"sampler": sampler, "negatives": negatives, "batch": 16, "dim": 6} | changes))


def folding_of(options, data=DATA, seed=0):
    engine = ReferenceEngine(Problem(data, options, seed=seed))
    engine.run(5)
    points = engine.points()
    made = Folding(points[: data.n_users], points[data.n_users :], data, options)
    return made, engine


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_negatives_are_those_of_a_training_step(sampler):
    folding, engine = folding_of(options_of(SAMPLERS[sampler]))
    for step in range(4):
        pairs = engine.pairs(step)
        expected = engine.negatives(step, pairs)
        users, items = (np.array(column) for column in zip(*pairs, strict=True))
        drawn = folding.negatives(0, step, TrainingUsers(DATA), users, items)
        wide = np.broadcast_to(drawn.items, drawn.allowed.shape)
        for g, wanted in enumerate(expected):
            found = np.where(drawn.allowed[g], wide[g], -1)
            if isinstance(SAMPLERS[sampler], Shared):
                found = found[found >= 0]
            assert found.tolist() == wanted


@pytest.mark.parametrize("rank_weight", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 0.3])
def test_shares_are_those_of_the_triplet_term(temperature, rank_weight):
    rng = np.random.default_rng(0)
    triplet = Triplet(0.5, rank_weight=rank_weight, temperature=temperature)
    users, positives = rng.normal(size=(9, 4)), rng.normal(size=(9, 4))
    negatives = rng.normal(size=(9, 5, 4))
    inside = np.array([
        0.5 - 2 * (u @ p - 0.5 * p @ p - (n @ u - 0.5 * (n * n).sum(1)))
        for u, p, n in zip(users, positives, negatives, strict=True)
    ])  # fmt: skip
    share = triplet.shares(inside, 50)
    assert (share > 0).any()
    for g in range(9):
        term = triplet.term(users[g], positives[g], negatives[g], 50)
        np.testing.assert_allclose(
            2 * share[g][:, None] * (users[g] - negatives[g]), term.negatives, atol=1e-12
        )
    nothing = np.full((1, 3), -np.inf)
    assert triplet.shares(nothing, 50).tolist() == [[0.0, 0.0, 0.0]]


def loss_of(folding, liked, seed, step):
    """The triplet loss of a newcomer with these items, as a plain function of their point."""
    data = folding.train
    own = OneUser(liked, data.n_items)
    drawn = folding.negatives(seed, step, own, np.zeros(len(liked), int), np.array(liked))
    triplet = folding.problem.triplet

    def loss(point):
        total = 0.0
        wide = np.broadcast_to(drawn.items, (len(liked), drawn.items.shape[1]))
        allowed = np.broadcast_to(drawn.allowed, wide.shape)
        for j, some, there in zip(liked, wide, allowed, strict=True):
            rows = folding.items[some[there]].astype(float)
            total += triplet.term(point, folding.items[j].astype(float), rows, data.n_items).loss
        return total

    return loss


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("sampler", ["uniform", "two-stage", "shared"])
def test_one_step_of_sgd_goes_down_the_loss(sampler, geometry):
    """Finite differences, through the normalisation on the sphere."""
    rate, liked = 1e-3, np.array([1, 4, 9], np.int32)
    options = options_of(
        SAMPLERS[sampler], geometry=geometry, optimiser=SGD(rate), triplet=Triplet(temperature=0.4)
    )
    folding, _ = folding_of(options)
    start = folding.items[liked].mean(axis=0).astype(float)
    if geometry == "sphere":
        start = normalise(start[None])[0]
    loss, on_sphere = loss_of(folding, liked, 0, 0), geometry == "sphere"
    slope = np.zeros(len(start))
    for k, e in enumerate(1e-5 * np.eye(len(start))):
        ahead, behind = start + e, start - e
        if on_sphere:
            ahead, behind = normalise(ahead[None])[0], normalise(behind[None])[0]
        slope[k] = (loss(ahead) - loss(behind)) / 2e-5
    expected = start - rate * slope
    if on_sphere:
        expected = normalise(expected[None])[0]
    if geometry == "ball":
        expected /= max(1.0, np.linalg.norm(expected))
    found = folding.user(liked, seed=0, steps=1)
    assert np.linalg.norm(found - start) > 1e-4
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_fold_in_lowers_the_loss(sampler, geometry):
    options = options_of(SAMPLERS[sampler], geometry=geometry, optimiser=Adam(0.02))
    folding, _ = folding_of(replace(options, triplet=Triplet(0.5, temperature=0.3)))
    liked = np.array([0, 3, 7, 12], np.int32)
    losses = [loss_of(folding, liked, 5, step) for step in range(20)]
    start = folding.items[liked].mean(axis=0).astype(float)
    if geometry == "sphere":
        start = normalise(start[None])[0]
    found = folding.user(liked, seed=0, steps=80).astype(float)
    if geometry == "sphere":
        assert np.linalg.norm(found) == pytest.approx(1.0, abs=1e-6)
    if geometry == "ball":
        assert np.linalg.norm(found) <= 1 + 1e-6
    assert sum(loss(found) for loss in losses) < sum(loss(start) for loss in losses)


@pytest.mark.parametrize(
    "optimiser", [Adam(0.03), Adagrad(0.2), SGD(0.05)], ids=lambda found: type(found).__name__
)
@pytest.mark.parametrize("averaging", [None, Averaging()])
def test_the_same_seed_gives_the_same_bits(optimiser, averaging):
    folding, _ = folding_of(options_of(Shared(0.0), optimiser=optimiser, averaging=averaging))
    liked, fans = np.array([2, 5], np.int32), np.array([0, 4, 6], np.int32)
    for fold, rows in ((folding.user, liked), (folding.item, fans)):
        one = fold(rows, seed=3)
        assert one.dtype == np.float32
        assert np.array_equal(one, fold(rows, seed=3))
        assert not np.array_equal(one, fold(rows, seed=4))
        assert not np.array_equal(one, fold(rows, seed=3, steps=59))


def item_loss(folding, fans, point, steps):
    """The mean over steps of the objective over a new item: of its pairs, and of others' pairs."""
    data = folding.train
    total = 0.0
    everybody = data.pair_users()
    for step in range(steps):
        nowhere = np.full(len(fans), -1)
        positive = np.broadcast_to(point, (len(fans), len(point))).astype(np.float32)
        drawn = folding.negatives(9, step, TrainingUsers(data), fans, nowhere, positive)
        wide = np.broadcast_to(drawn.items, drawn.allowed.shape)
        for u, some, there in zip(fans, wide, drawn.allowed, strict=True):
            rows = folding.items[some[there]].astype(float)
            total += folding.problem.triplet.term(folding.users[u], point, rows, data.n_items).loss
        drawn = folding.negatives(9, step, TrainingUsers(data), everybody, data.items)
        wide = np.broadcast_to(drawn.items, drawn.allowed.shape)
        chance = 1 / (data.n_items + 1)
        for u, j, some, there in zip(everybody, data.items, wide, drawn.allowed, strict=True):
            if u in fans:
                continue
            rows = folding.items[some[:-1][there[:-1]]].astype(float)
            rows = np.concatenate([rows, [point]])
            positive = folding.items[j].astype(float)
            term = folding.problem.triplet.term(folding.users[u], positive, rows, data.n_items)
            total += folding.problem.n_negatives * chance * term.loss
    return total / steps


@pytest.mark.parametrize(
    ("sampler", "geometry"),
    [  # a fold-in draws first, then moves: what is drawn and where it moves do not interact
        ("shared", "ball"),
        pytest.param("uniform", "sphere", marks=pytest.mark.full),
        pytest.param("uniform", "free", marks=pytest.mark.full),
        pytest.param("uniform", "ball", marks=pytest.mark.full),
        pytest.param("shared", "sphere", marks=pytest.mark.full),
        pytest.param("shared", "free", marks=pytest.mark.full),
    ],
)
def test_an_item_goes_down_the_objective_of_its_own_and_others_pairs(sampler, geometry):
    options = options_of(
        SAMPLERS[sampler],
        geometry=geometry,
        optimiser=Adam(0.02),
        triplet=Triplet(0.5, temperature=0.3),
    )
    folding, _ = folding_of(options)
    fans = np.array([1, 2, 8], np.int32)
    found = folding.item(fans, seed=0, steps=150).astype(float)
    mean = folding.users[fans].mean(axis=0).astype(float)
    mean = normalise(mean[None])[0] if geometry == "sphere" else mean
    at = item_loss(folding, fans, found, 5)
    assert at < item_loss(folding, fans, mean, 5)
    rng = np.random.default_rng(1)
    worse = 0
    for _ in range(12):  # a minimum, to the noise of the draws
        other = found + 0.25 * rng.normal(size=len(found))
        if geometry == "sphere":
            other = normalise(other[None])[0]
        if geometry == "ball":
            other /= max(1.0, np.linalg.norm(other))
        worse += item_loss(folding, fans, other, 5) > at
    assert worse >= 11


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_item_is_folded_in_with_every_sampler(sampler):
    folding, _ = folding_of(options_of(SAMPLERS[sampler]))
    near, far = np.array([0, 1, 2], np.int32), np.array([9, 10], np.int32)
    one, other = folding.item(near, seed=0), folding.item(far, seed=0)
    assert one @ folding.users[near].mean(axis=0) > other @ folding.users[near].mean(axis=0)


@pytest.mark.parametrize("vectors", ["live", "initial"])
def test_stage_two_looks_towards_a_new_user_where_they_are(vectors, monkeypatch):
    sampler = TwoStage(20, vectors=vectors, towards="user", sharpness=0.5)
    folding, _ = folding_of(options_of(sampler, optimiser=SGD(0.05)))
    liked, seen, draws = np.array([0, 3, 7], np.int32), [], folding.negatives

    def negatives(*args):
        seen.append(args[-1].copy())
        return draws(*args)

    monkeypatch.setattr(folding, "negatives", negatives)
    folding.user(liked, seed=0, steps=4)
    start = folding.items[liked].mean(axis=0)
    assert len(seen) == 4
    for step, anchors in enumerate(seen):
        assert anchors.shape == (3, 6)
        assert (anchors == anchors[0]).all()
        still = np.allclose(normalise(anchors[0]), normalise(start), atol=1e-6)
        assert still == (step == 0 or vectors == "initial")


def test_a_new_item_is_as_often_a_negative_as_it_is_near_the_user():
    sampler = TwoStage(20, 0.0, towards="user", sharpness=0.5)
    folding, _ = folding_of(options_of(sampler))
    others, source = _Others(folding, np.array([1, 2], np.int32)), Source(0, 3)
    point = normalise(np.arange(1.0, 7.0))
    users, items = DATA.pair_users()[::40], DATA.items[::40]
    candidates = folding._candidates(source)
    expected = []
    for user in users:
        rows = np.vstack([folding.items[candidates[:-1]], point])
        weight = sampler.weight(rows @ folding.users[user], 6, np.ones(20, bool))
        expected.append(3 * 20 * others.chance * weight[-1] / weight.sum())
    times = others._times(point, users, items, source)
    assert times == pytest.approx(np.array(expected), rel=1e-4)
    assert times.max() > 1.2 * times.min()


@pytest.mark.parametrize("beta", [1.0, 0.0, -0.5])
def test_the_chance_of_a_new_item_is_that_of_an_item_as_popular(beta):
    folding, _ = folding_of(options_of(Shared(beta)))
    counts = DATA.item_counts.astype(float)
    for n in (1, 5, int(counts.max()) + 3):
        others = _Others(folding, np.arange(n, dtype=np.int32))
        assert others.chance == pytest.approx(n**beta / (np.sum(counts**beta) + n**beta))


@pytest.fixture(scope="module")
def model():
    return nf.CML(PLAIN, dim=8, batch=8, optimiser=Adam(0.03)).fit(checkerboard(), epochs=60)


@pytest.mark.parametrize("parity", [0, 1])
def test_an_unseen_user_of_the_checkerboard_gets_the_squares_of_their_colour(model, parity):
    items = model.interactions.item_ids.to_list()
    own = [i for i in items if i % 2 == parity]
    liked, rest = own[:-2], own[-2:]
    found = model.recommend(liked=liked, k=2)
    assert set(found["item_id"].to_list()) == set(rest)
    assert found.columns == ["rank", "item_id", "score"]
    vector = model.fold_in(liked)
    rows = model.interactions.item_ids.rows(found["item_id"])
    np.testing.assert_allclose(found["score"], model.item_vectors[rows] @ vector, atol=1e-6)
    assert set(liked) <= set(model.recommend(liked=liked, k=99, exclude_seen=False)["item_id"])
    assert set(model.recommend(liked=liked, k=99)["item_id"]) == set(items) - set(liked)
    assert model.recommend(liked=liked, k=3, allow=rest[:1])["item_id"].to_list() == rest[:1]


def test_an_unseen_item_comes_near_the_users_of_its_colour(model):
    users = model.interactions.user_ids.to_list()
    for parity in (0, 1):
        vector = model.fold_in_item([u for u in users if u % 2 == parity])
        near = model.user_vectors @ vector
        order = np.array(users)[np.argsort(-near)][: len(users) // 2]
        assert (order % 2 == parity).all()


def test_order_and_repetition_of_what_is_liked_do_not_matter(model):
    some = model.interactions.item_ids.to_list()[:3]
    for listed in itertools.permutations([*some, some[0]]):
        assert np.array_equal(model.fold_in(listed), model.fold_in(some))


def test_a_fold_in_leaves_the_model_alone_and_a_fit_forgets_it(model):
    before = model.user_vectors.copy(), model.item_vectors.copy()
    some = model.interactions.item_ids.to_list()[:3]
    other = nf.CML(PLAIN, dim=8, batch=8, optimiser=Adam(0.03)).fit(checkerboard(), epochs=1)
    first = other.fold_in(some)
    other.fit(checkerboard(), epochs=40)
    assert not np.array_equal(first, other.fold_in(some))
    model.fold_in(some)
    assert np.array_equal(before[0], model.user_vectors)
    assert np.array_equal(before[1], model.item_vectors)


def test_what_cannot_be_folded_in_is_refused(model):
    some = model.interactions.item_ids.to_list()[:1]
    with pytest.raises(UnknownIdError):
        model.fold_in([*some, 12345])
    with pytest.raises(EmptyDataError, match="`liked` is empty"):
        model.recommend(liked=[])
    with pytest.raises(EmptyDataError, match="`liked_by` is empty"):
        model.fold_in_item([])
    with pytest.raises(DataError, match=r"`liked` must be a list of ids; got the single 'tea'"):
        model.fold_in("tea")
    with pytest.raises(OptionError, match="`users` and `liked` were both given"):
        model.recommend(0, liked=some)
    with pytest.raises(OptionError, match="steps"):
        model.fold_in(some, steps=0)
