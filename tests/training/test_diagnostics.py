"""The watch: it sees what is wrong with a run, says so once, and is silent when all goes well."""

import re
import warnings
from dataclasses import replace

import numpy as np
import pytest

import nearfar as nf
from conftest import hopeless, random_data
from nearfar import CML, Interactions, split
from nearfar.engine import Problem
from nearfar.errors import NearfarWarning
from nearfar.method.geometry import normalise
from nearfar.method.loss import Triplet
from nearfar.method.options import Options
from nearfar.method.sampling import Popularity, Shared, TwoStage, Uniform
from nearfar.training import diagnostics as watch
from nearfar.training.diagnostics import Sight, look, remedy
from nearfar.training.drawn import sampled
from nearfar.training.run import Run

TRAIN, HELD_OUT = split.ratio(random_data(60, 90, 0.2, seed=4), 0.2, seed=1)
UNIFORM = Options(dim=16, batch=64, sampler=Uniform(), negatives=5, triplet=Triplet())


def groups(n_users=80, n_items=40, n_groups=4, seed=0):
    """Users like most items of their own group and no others."""
    rng = np.random.default_rng(seed)
    same = np.arange(n_users)[:, None] % n_groups == np.arange(n_items) % n_groups
    liked = same & (rng.random((n_users, n_items)) < 0.8)
    return Interactions.from_pairs(
        [(int(u), int(i)) for u, i in zip(*np.nonzero(liked), strict=True)]
    )


def points_like(kind, n, dim=16):
    rng = np.random.default_rng(7)
    if kind == "one":
        return np.tile(normalise(rng.normal(size=(1, dim))), (n, 1)).astype(np.float32)
    plane = 2 if kind == "plane" else dim
    return normalise(np.pad(rng.normal(size=(n, plane)), ((0, 0), (0, dim - plane)))).astype(
        np.float32
    )


@pytest.mark.parametrize(("kind", "dimension"), [("one", 1.0), ("plane", 2.0), ("random", 16.0)])
def test_the_dimension_is_that_of_the_items(kind, dimension):
    points = points_like(kind, TRAIN.n_users + TRAIN.n_items)
    points[: TRAIN.n_users] = points_like("random", TRAIN.n_users)  # users do not matter
    seen = look(points.__getitem__, Problem(TRAIN, UNIFORM), None, 1)
    assert seen.dimension == pytest.approx(dimension, rel=0.1)
    assert np.isnan(seen.false_push)
    assert set(seen.to_dict()) == {"effective", "dimension"}


def test_false_push_is_in_units_of_chance():
    problem = Problem(TRAIN, UNIFORM)
    points = points_like("random", problem.n_rows)
    hits = places = 0.0
    for user in range(TRAIN.n_users):
        had, hidden = len(TRAIN.positives(user)), len(HELD_OUT.positives(user))
        hits += had * hidden / (TRAIN.n_items - had)
        places += had
    seen = look(points.__getitem__, problem, HELD_OUT, 3)
    first = 3 * problem.steps_per_epoch
    drawn = sampled(points.__getitem__, problem, [HELD_OUT], range(first, first + 8), 512)
    assert seen.false_push == pytest.approx(drawn["false_push"] / (hits / places), rel=1e-9)
    assert seen.false_push == pytest.approx(1.0, abs=0.3)  # they know nothing of who likes what
    assert seen.effective == drawn["effective_mean"]

    users = np.repeat(np.arange(TRAIN.n_users), np.diff(HELD_OUT.indptr))
    for user, item in zip(users, HELD_OUT.items, strict=True):  # held-out items very near
        points[TRAIN.n_users + item] = points[user]
    assert look(points.__getitem__, problem, HELD_OUT, 3).false_push > 1.5 * seen.false_push


def test_another_epoch_is_another_look():
    problem = Problem(TRAIN, UNIFORM)
    points = points_like("random", problem.n_rows)
    one, again, other = (look(points.__getitem__, problem, HELD_OUT, e) for e in (1, 1, 2))
    assert one == again != other


@pytest.mark.parametrize(
    ("sampler", "sight", "says"),
    [
        (TwoStage(50), Sight(3.0, 5.0, 9.0), r"among 3 of 50 .* 5\.0 times .*Use Shared\(\)"),
        (
            TwoStage(50, towards="user", sharpness=0.4),
            Sight(3.0, 5.0, 9.0),
            r"among 3 of 50 .* selects items near the user.* a sharpness below 0\.4\.",
        ),
        (TwoStage(50), Sight(30.0, 5.0, 1.2), r"1\.2 of 16 directions"),
        (Shared(), Sight(30.0, 5.0, 1.2), r"1\.2 of 16 directions.*temperature"),
        (Popularity(), Sight(30.0, 7.0, 12.0), r"too hard: .* 7\.0 times .* or Shared\(\)"),
        (Shared(), Sight(30.0, 7.0, 12.0), r"too hard: .* a higher Triplet\(temperature"),
        (Uniform(), Sight(30.0, 1.0, 15.0), r"15 of 16 directions: not much .*it is 0.001"),
        (Uniform(), Sight(30.0, np.nan, 5.0), r"5 of 16 directions\) .* another learning rate"),
    ],
)
def test_the_remedy_is_for_what_is_the_matter(sampler, sight, says):
    options = Options(dim=16, sampler=sampler, negatives=5, optimiser=nf.Adam(0.001))
    with_many = Problem(random_data(20, 60, seed=2), options)
    text = remedy(sight, with_many)
    assert re.search(says, text), text


@pytest.mark.parametrize(
    ("share", "sampler", "warns"),
    [
        (0.39, Shared(0.5), True),
        (0.0, Shared(), True),  # the hard maximum
        (0.41, Shared(), False),
        (3.9, Shared(), False),
        (4.1, Shared(), True),
        (None, Shared(), False),
        (0.1, Uniform(), False),
    ],
)
def test_a_temperature_far_from_the_usual_warns_before_the_first_step(share, sampler, warns):
    usual = (50 / Problem(TRAIN, replace(UNIFORM, sampler=sampler)).effective_items) ** 0.25
    given = None if share is None else share * usual
    options = replace(UNIFORM, sampler=sampler, triplet=Triplet(temperature=given))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = CML(options).fit(TRAIN, epochs=1)
    assert model.history.height == 1
    assert [str(w.message).split("(")[0] for w in said] == ["Triplet"] * warns
    assert all(w.filename == __file__ for w in said)
    effect = "few of the shared" if share is None or share < 1 else "almost equally"
    named = f"recommended value is {usual:.2g}"
    assert all(named in (text := str(w.message)) and effect in text for w in said)


def test_a_good_run_is_left_alone():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = CML(UNIFORM, optimiser=nf.Adam(0.01)).fit(groups(), epochs=20, validation=0.2, k=10)
    history = model.history
    seen = history.filter(history["dimension"].is_not_null())["epoch"].to_list()
    assert seen == [1, 2, 4, 8, 16]
    assert history["dimension"][0] > history["dimension"][15]
    assert history["effective"][0] == pytest.approx(30, abs=5)  # 40 items, 8 of them the user's


def test_a_run_that_learns_nothing_is_told_to_learn_faster():
    with pytest.warns(NearfarWarning, match=r"no more than recommending .* higher learning rate"):
        CML(UNIFORM, optimiser=nf.Adam(1e-9)).fit(TRAIN, epochs=10, validation=HELD_OUT, k=10)
    with warnings.catch_warnings():  # too early to say
        warnings.simplefilter("error")
        CML(UNIFORM, optimiser=nf.Adam(1e-9)).fit(TRAIN, epochs=9, validation=HELD_OUT, k=10)
    with pytest.warns(NearfarWarning, match="no more than") as said:  # it gave up by itself
        CML(UNIFORM, optimiser=nf.Adam(1e-9)).fit(
            TRAIN, epochs=9, validation=HELD_OUT, k=10, patience=2
        )
    assert [one.filename for one in said] == [__file__]


def test_a_fall_is_said_once_and_when_it_happens(monkeypatch):
    figures = iter([0.2, 0.5, 0.36, 0.34, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    monkeypatch.setattr(
        Run, "_validate", lambda self, validation: {"validation_ndcg": next(figures)}
    )
    with pytest.warns(NearfarWarning) as caught:
        CML(UNIFORM).fit(TRAIN, epochs=12, validation=HELD_OUT)
    assert len(caught) == 1
    said = str(caught[0].message)
    assert "was 0.5000 and is 0.3400 after epoch 4" in said
    assert caught[0].filename == __file__
    assert 0.36 > watch.FALLEN * 0.5 > 0.34


@hopeless
def test_what_is_seen_changes_nothing(monkeypatch):
    first = CML(UNIFORM).fit(TRAIN, epochs=4, validation=HELD_OUT)
    monkeypatch.setattr(Run, "_look", lambda self, epoch: Sight(np.nan, np.nan, np.nan))
    second = CML(UNIFORM).fit(TRAIN, epochs=4, validation=HELD_OUT)
    assert first.user_vectors.tobytes() == second.user_vectors.tobytes()
    assert "dimension" not in second.history.columns
