"""What a hybrid's history says of its content: against loops, and on data whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

import nearfar as nf
from conftest import hopeless
from films import DATA, N_ITEMS, SHORT, features
from nearfar.engine import Problem
from nearfar.engine.content import make_content
from nearfar.engine.cpu.cpu_engine import CPUEngine
from nearfar.engine.problem import State
from nearfar.method.geometry import normalise
from nearfar.method.options import Options
from nearfar.method.sampling import Shared, TwoStage, Uniform
from nearfar.training import content_diagnostics as watch
from nearfar.training.content_diagnostics import (
    NOTHING,
    ContentSight,
    EncodedPoints,
    look_at_content,
)
from nearfar.training.diagnostics import Sight, look, look_at
from nearfar.training.drawn import drawn_pairs
from nearfar.training.run import Run

DIM, GROUPS = 8, 5
TWO = TwoStage(40, 0.0, towards="user", sharpness=1.0, distinct=False)
COLUMNS = ("explained_items", "similar_push", "similar_drawn", "similar_cosine")


def groups(n_users=60, n_items=200, share=0.4, seed=0):
    """Users like some items of their own group; the content of an item is its group, and noise."""
    rng = np.random.default_rng(seed)
    same = np.arange(n_users)[:, None] % GROUPS == np.arange(n_items) % GROUPS
    users, items = np.nonzero(same & (rng.random((n_users, n_items)) < share))
    data = nf.Interactions.from_pairs(list(zip(users.tolist(), items.tolist(), strict=True)))
    group = data.item_ids.values.to_numpy() % GROUPS
    noise = np.abs(rng.normal(0, 0.3, (data.n_items, 4)))
    return data, np.hstack([np.eye(GROUPS)[group], noise]).astype(np.float32)


def problem_of(sampler, content, data, **changes):
    options = Options(dim=DIM, batch=64, sampler=sampler, negatives=5, items=nf.Hybrid())
    made = make_content(data.n_users, data.n_items, None, nf.Hybrid(), None, sp.csr_array(content))
    return Problem(data, replace(options, **changes), 0, content=made)


def tables_of(problem, seed=1):
    rng = np.random.default_rng(seed)
    tables = rng.normal(size=(problem.n_table_rows, DIM)).astype(np.float32)
    tables[: problem.n_users] = normalise(tables[: problem.n_users])
    return tables


DATA_OF_GROUPS, CONTENT = groups()


@pytest.mark.parametrize(
    ("along", "across", "share"),
    [(0.0, 0.0, 1.0), (5.0, 0.0, 1.0), (0.0, 1.0, 0.5), (0.0, 2.0, 0.2), (-3.0, 0.0, 0.0)],
)
def test_content_explains_what_delta_does_not_turn(along, across, share):
    """delta = along g + across |g| e, with e at right angles to g: cos^2 = 1 / (1 + (..)^2)."""
    problem = problem_of(Uniform(), CONTENT, DATA_OF_GROUPS)
    tables, n = tables_of(problem), problem.n_users
    items = slice(n, problem.n_rows)
    g = CONTENT @ tables[problem.n_rows :]
    e = np.random.default_rng(3).normal(size=g.shape)
    e = normalise(e - np.sum(e * g, axis=1, keepdims=True) / np.sum(g * g, axis=1)[:, None] * g)
    length = np.linalg.norm(g, axis=1, keepdims=True)
    tables[items] = along * g + across * length * e
    seen = look(EncodedPoints(problem, tables), problem, None, 1).content
    assert seen.explained_items == pytest.approx(share, abs=1e-5)
    assert np.isnan(seen.explained_users)


def test_only_items_with_content_and_interactions_count():
    data, content = groups(n_items=30)
    content[:10] = 0.0
    wider = data.item_ids.union(
        nf.Interactions.from_pairs([(0, 1000 + i) for i in range(9)]).item_ids
    )
    cold = np.ones((9, content.shape[1]), np.float32)
    data = data.aligned(data.user_ids, wider)
    problem = problem_of(Uniform(), np.vstack([content, cold]), data)
    tables, n = tables_of(problem), problem.n_users
    tables[n + 10 : n + 30] = 0.0  # the others are all delta
    assert look(EncodedPoints(problem, tables), problem, None, 1).content.explained_items > 0.99999


def by_hand(problem, content, drawn, n, chance):
    """The push and the draws by loops over pairs and places, without any library."""
    push, expected, draws, by_chance, least = 0.0, 0.0, 0.0, 0.0, []

    def likeness(user, item):
        own = problem.interactions.positives(int(user))
        return max(
            float(content[k] @ content[item])
            / float(np.linalg.norm(content[k]) * np.linalg.norm(content[item]))
            for k in own
        )

    for at in range(n):
        user = drawn.user[at]
        own = set(problem.interactions.positives(int(user)).tolist())
        usual = sorted(likeness(user, j) for j in chance if int(j) not in own)
        cosine = usual[-max(1, round(0.05 * len(usual)))] - 1e-6
        base = np.mean([one >= cosine for one in usual])
        least.append(cosine)
        for item, share in zip(drawn.negatives[at], drawn.share[at], strict=True):
            if item < 0:
                continue
            alike = likeness(user, item) >= cosine
            push, draws = push + share * alike, draws + alike
            expected, by_chance = expected + share * base, by_chance + base
    return push / expected, draws / by_chance, np.mean(least)


@pytest.mark.parametrize("sampler", [Uniform(), Shared(0.0), TWO])
def test_the_similar_are_those_that_loops_find(sampler, monkeypatch):
    monkeypatch.setattr(watch, "_CHANCE", 40)
    problem = problem_of(sampler, CONTENT, DATA_OF_GROUPS)
    points = EncodedPoints(problem, tables_of(problem))
    steps = range(problem.steps_per_epoch, problem.steps_per_epoch + 1)
    drawn = drawn_pairs(points, problem, steps, 20)
    seen = look_at_content(points, problem, drawn, None, 1)
    key = watch.stream(problem.seed, watch.Purpose.DIAGNOSTICS, 1)
    chance = (watch.uniform(key, np.arange(40)) * problem.n_items).astype(int)
    found = by_hand(problem, CONTENT.astype(float), drawn, 20, chance)
    assert (seen.similar_push, seen.similar_drawn, seen.similar_cosine) == pytest.approx(
        found, rel=1e-3
    )


def test_uniform_draws_are_like_chance_and_near_ones_are_not():
    """With points by content, a second stage draws what is like the user's own."""
    plain = problem_of(Uniform(), CONTENT, DATA_OF_GROUPS, batch=512)
    near = problem_of(TWO, CONTENT, DATA_OF_GROUPS, batch=512)
    tables = tables_of(plain)
    tables[plain.n_users : plain.n_rows] = 0.0
    points = plain.encoded(tables)
    for user in range(plain.n_users):  # at what they like
        own = DATA_OF_GROUPS.positives(user)
        tables[user] = normalise(points[plain.n_users + own].mean(axis=0)[None])[0]
    by_chance = look(EncodedPoints(plain, tables), plain, None, 1).content
    by_nearness = look(EncodedPoints(near, tables), near, None, 1).content
    assert by_chance.similar_drawn == pytest.approx(1.0, abs=0.35)
    assert by_chance.similar_push > 1.3  # near ones have more of the gradient
    assert by_nearness.similar_drawn > 2 * by_chance.similar_drawn


def test_without_features_of_items_nothing_is_similar():
    data = DATA_OF_GROUPS
    users = np.eye(GROUPS, dtype=np.float32)[np.arange(data.n_users) % GROUPS]
    options = Options(dim=DIM, batch=64, sampler=Uniform(), negatives=5, users=nf.Hybrid())
    made = make_content(data.n_users, data.n_items, nf.Hybrid(), None, sp.csr_array(users), None)
    problem = Problem(data, options, 0, content=made)
    seen = look(EncodedPoints(problem, tables_of(problem)), problem, None, 1).content
    assert set(seen.to_dict()) == {"explained_users"}
    assert 0.0 < seen.explained_users < 1.0


def test_all_items_alike_are_not_similar_more_than_by_chance():
    problem = problem_of(Uniform(), np.ones_like(CONTENT), DATA_OF_GROUPS)
    seen = look(EncodedPoints(problem, tables_of(problem)), problem, None, 1).content
    assert seen.similar_push == pytest.approx(1.0)
    assert seen.similar_drawn == pytest.approx(1.0)
    assert seen.similar_cosine == pytest.approx(1.0)


def test_the_age_of_the_cache_is_the_one_that_was_noted():
    problem = problem_of(TWO, CONTENT, DATA_OF_GROUPS)
    engine, steps = CPUEngine(problem), problem.steps_per_epoch
    assert look_at(engine, None, 0).content.cache_oldest == 0.0
    engine.run(2 * steps)
    noted = np.full(problem.n_items, -1)
    for step in range(2 * steps):
        noted[np.array(problem.refreshed(step)) - problem.n_users] = step
    ages = (2 * steps - noted) / steps
    seen = look_at(engine, None, 2).content
    assert seen.cache_age == pytest.approx(ages.mean())
    assert seen.cache_oldest == ages.max() == 1.0
    engine.state.cached_at[:3] = 0  # as if they had been left out ever since
    assert look_at(engine, None, 2).content.cache_oldest == 2.0


def test_rows_without_content_are_not_read_from_the_cache():
    content = CONTENT.copy()
    content[4:] = 0.0
    problem = problem_of(TWO, content, DATA_OF_GROUPS)
    rows, at = problem.n_items, np.arange(problem.n_items)
    state = State(np.empty((0, 1, DIM)), np.empty(0), step=50, cached_at=at)
    points = EncodedPoints(problem, tables_of(problem))
    drawn = drawn_pairs(points, problem, range(1), 4)
    seen = look_at_content(points, problem, drawn, state, 1)
    assert rows > 4
    assert seen.cache_age == pytest.approx(np.mean(50 - at[:4]) / problem.steps_per_epoch)
    assert seen.cache_oldest == pytest.approx(50 / problem.steps_per_epoch)


def test_only_what_is_looked_at_is_encoded_and_once(monkeypatch):
    data, content = groups(n_users=300, n_items=3000, share=0.02)
    problem = problem_of(Uniform(), content, data)
    asked, encoded = [], Problem.encoded

    def noted(self, tables, rows=None, *, alone=False):
        assert rows is not None
        if not alone:
            asked.extend(rows.tolist())
        return encoded(self, tables, rows, alone=alone)

    monkeypatch.setattr(Problem, "encoded", noted)
    look_at(CPUEngine(problem), None, 1)
    assert len(asked) == len(set(asked))
    assert 100 < len(asked) < problem.n_rows


@pytest.mark.parametrize("sampler", [Shared(), TwoStage(10, towards="user")])
def test_the_history_of_a_hybrid_has_them(sampler):
    model = nf.CML(**{**SHORT, "sampler": sampler})
    model.fit(DATA, item_features=features(0, N_ITEMS), epochs=4)
    history, cache = model.history, ("cache_age", "cache_oldest")
    assert set(COLUMNS) <= set(history.columns)
    seen = history.filter(history["explained_items"].is_not_null())
    assert seen["epoch"].to_list() == [1, 2, 4]
    assert seen["explained_items"].is_between(0.0, 1.0).all()
    assert (set(cache) <= set(history.columns)) == (sampler.needs.candidates > 0)
    if sampler.needs.candidates:
        assert seen["cache_oldest"].to_list() == [1.0, 1.0, 1.0]
        assert seen["cache_age"].is_between(0.4, 0.7).all()
    plain = nf.CML(**{**SHORT, "items": None}).fit(DATA, epochs=1).history
    assert not {*COLUMNS, *cache} & set(plain.columns)


def test_a_delta_that_may_not_be_used_leaves_all_to_the_content():
    hybrid = nf.Hybrid(id_dropout=1.0)
    model = nf.CML(**{**SHORT, "items": hybrid}).fit(
        DATA, item_features=features(0, N_ITEMS), epochs=2
    )
    assert model.history["explained_items"].to_list() == pytest.approx([1.0, 1.0], abs=1e-5)


@hopeless
def test_what_is_seen_changes_nothing(monkeypatch):
    options = {**SHORT, "sampler": TwoStage(10, towards="user")}
    how = {"item_features": features(0, N_ITEMS), "epochs": 4}
    first = nf.CML(**options).fit(DATA, **how)
    monkeypatch.setattr(Run, "_look", lambda self, epoch: Sight(np.nan, np.nan, np.nan))
    second = nf.CML(**options).fit(DATA, **how)
    assert first.item_vectors.tobytes() == second.item_vectors.tobytes()
    assert "explained_items" not in second.history.columns


def test_the_card_shows_them(tmp_path):
    options = {**SHORT, "sampler": TwoStage(10, towards="user")}
    model = nf.CML(**options).fit(DATA, item_features=features(0, N_ITEMS), epochs=3)
    model.save(tmp_path / "hybrid")
    (card,) = (tmp_path / "hybrid").glob("card-*.md")
    text, seen = card.read_text(), model.history.row(1, named=True)  # of epoch 2, the last look
    for part in (
        "## Content",
        f"explains {100 * seen['explained_items']:.0f} % of the points of items",
        f"pushed away {seen['similar_push']:.1f} times as often",
        f"{seen['cache_age']:.2f} epochs old on average, and at most 1.00.",
        "only if they have content",
    ):
        assert part in text, part
    assert "from interactions only" not in text
    nf.CML(**{**SHORT, "items": None}).fit(DATA, epochs=1).save(tmp_path / "plain")
    (card,) = (tmp_path / "plain").glob("card-*.md")
    assert "## Content" not in card.read_text()
    assert "from interactions only" in card.read_text()


def test_what_is_not_known_is_left_out():
    assert NOTHING.to_dict() == {}
    assert ContentSight(cache_age=0.5).to_dict() == {"cache_age": 0.5}
