"""What each sampler draws, against loops over single draws; and what it says that it needs."""

import numpy as np
import pytest

from conftest import SAMPLERS, plain, random_data
from nearfar.engine import Problem
from nearfar.engine.negatives import TrainingUsers, candidates_of, draw, pairs_of
from nearfar.method.geometry import normalise
from nearfar.method.proposal import SPARE, alias_table, different, draw_at, proposed
from nearfar.method.sampling import Popularity, Shared, TwoStage, Uniform
from nearfar.runtime.counter import Purpose, Source, stream, uniform

DATA = random_data(crowded=True)
VECTORS = normalise(np.random.default_rng(0).normal(size=(DATA.n_items, 8)))


def compare_with(positives):
    """Products of the items' vectors with those of the pairs' positives."""
    return lambda items: VECTORS[positives] @ VECTORS[items].T


def different_by_loop(table, support, key, count):
    """Successive draws without replacement: repetitions skipped, then exponential clocks."""
    if count >= len(support):
        return support.tolist()
    drawn = []
    for t in range(SPARE * count):
        item = int(draw_at(table, key, t, 0))
        if item not in drawn and len(drawn) < count:
            drawn.append(item)
    clocks = []
    for item in support.tolist():
        if item not in drawn:
            u = float(uniform(key, SPARE * count + item)[0])
            clocks.append((-np.log1p(-u) / table.weight[item], item))
    return drawn + [item for _, item in sorted(clocks)[: count - len(drawn)]]


def candidates_by_loop(problem, sampler, step):
    """Stage 1, or the shared negatives."""
    table, key = problem.proposal, stream(problem.seed, Purpose.CANDIDATE, step)
    if isinstance(sampler, Shared):
        return different_by_loop(table, problem.support, key, problem.options.negatives)
    if not isinstance(sampler, TwoStage):
        return []
    if sampler.distinct:
        return different_by_loop(table, problem.support, key, sampler.candidates)
    return [int(draw_at(table, key, t, 0)) for t in range(sampler.candidates)]


def own_by_loop(problem, sampler, step, users):
    """Each place until the user does not have the item; -1 where it stays empty."""
    n, key = problem.options.negatives, stream(problem.seed, Purpose.NEGATIVE, step)
    first, drawn = [], []
    if isinstance(sampler, Popularity) and sampler.distinct:
        first = different_by_loop(problem.proposal, problem.support, key, len(users) * n)
    for g, user in enumerate(users):
        had = set(DATA.positives(user).tolist())
        drawn.append([])
        for k in range(n):
            place, found = g * n + k, -1
            for attempt in range(sampler.redraws + 1):
                item = int(draw_at(problem.proposal, key, place, attempt))
                if first and attempt == 0:
                    item = first[place]
                if item not in had:
                    found = item
                    break
            drawn[g].append(found)
    return drawn


def second_stage_by_loop(problem, sampler, step, pairs, candidates):
    """Each place by the cumulative weights of its pair."""
    n, key = problem.options.negatives, stream(problem.seed, Purpose.CHOICE, step)
    drawn = []
    for g, (user, positive) in enumerate(pairs):
        had = set(DATA.positives(user).tolist())
        s = np.array([VECTORS[positive] @ VECTORS[c] for c in candidates])
        allowed = np.array([c not in had for c in candidates])
        cumulative = np.cumsum(sampler.weight(s, problem.options.dim, allowed))
        drawn.append([])
        for k in range(n):
            target = float(uniform(key, g * n + k)[0]) * cumulative[-1]
            c = int(np.searchsorted(cumulative, target, side="right"))
            drawn[g].append(candidates[c] if cumulative[-1] > 0 else -1)
    return drawn


def by_loop(problem, step, users, items):
    """Negatives of all pairs, -1 for an empty place or an item that the user has."""
    sampler = problem.options.sampler
    candidates = candidates_by_loop(problem, sampler, step)
    if isinstance(sampler, Shared):
        return [[k if k not in DATA.positives(u) else -1 for k in candidates] for u in users]
    if isinstance(sampler, TwoStage):
        pairs = list(zip(users, items, strict=True))
        return second_stage_by_loop(problem, sampler, step, pairs, candidates)
    return own_by_loop(problem, sampler, step, users)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_draws_what_loops_over_single_draws_do(name):
    sampler = SAMPLERS[name]
    negatives = 11 if isinstance(sampler, Shared) else 3
    problem = Problem(DATA, plain(dim=8, sampler=sampler, negatives=negatives, batch=16), seed=4)
    for step in range(5):
        source = Source(4, step)
        users, items = pairs_of(problem, step)
        candidates = candidates_of(problem, source)
        assert candidates.tolist() == candidates_by_loop(problem, sampler, step)
        drawn = draw(problem, source, users, TrainingUsers(DATA), candidates, compare_with(items))
        found = np.where(drawn.allowed, drawn.items, -1).tolist()
        assert found == by_loop(problem, step, users.tolist(), items.tolist())
        assert (drawn.weight is not None) == isinstance(sampler, TwoStage)


def test_pairs_that_share_candidates_are_drawn_for_in_parts():
    problem = Problem(DATA, plain(dim=8, sampler=TwoStage(20), negatives=3, batch=16), seed=4)
    users, items = pairs_of(problem, 2)
    source, known = Source(4, 2), TrainingUsers(DATA)
    candidates = candidates_of(problem, source)
    whole = draw(problem, source, users, known, candidates, compare_with(items))
    rest = draw(problem, source, users[5:], known, candidates, compare_with(items[5:]), first=5)
    assert np.array_equal(whole.items[5:], rest.items)
    assert np.array_equal(whole.allowed[5:], rest.allowed)


@pytest.mark.parametrize("weight", [[1.0] * 5, [1.0, 0.5, 0.0, 0.8, 0.6], [1.0, 0, 1e-9, 1e-4, 1]])
def test_arrays_of_draws_are_single_draws(weight):
    table = alias_table(np.array(weight))
    support = np.flatnonzero(table.weight).astype(np.int32)
    for step in range(50):
        key = stream(1, Purpose.CANDIDATE, step)
        for attempt in range(3):
            one = [draw_at(table, key, place, attempt) for place in range(40)]
            assert proposed(table, key, np.arange(40), attempt).tolist() == one
        for count in range(6):
            expected = different_by_loop(table, support, key, count)
            assert different(table, support, key, count).tolist() == expected


def test_what_samplers_need():
    assert [s.needs.usual for s in (Uniform(), Popularity(), TwoStage(), Shared())] == [
        5,
        5,
        5,
        512,
    ]
    assert [name for name, s in SAMPLERS.items() if s.needs.shared] == ["shared", "shared popular"]
    assert [n for n, s in SAMPLERS.items() if s.needs.distinct_places] == ["popularity distinct"]
    assert Shared().needs.n_candidates(7, n_support=5) == 5
    assert TwoStage(7, distinct=False).needs.n_candidates(3, n_support=5) == 7
    assert Uniform().needs.n_candidates(3, n_support=5) == 0
