"""What the samplers draw: chi-square tests against the formulas, that can fail, and exact facts.

All draws here are those of the CPU engine's kernels; tests/test_engine.py shows that the reference
engine draws the same.
"""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from conftest import plain, random_data
from nearfar.data.interactions import Interactions
from nearfar.engine import Problem
from nearfar.engine.cpu.cpu_engine import CPUEngine
from nearfar.engine.cpu.plan import draw_distinct
from nearfar.engine.cpu.plan_records import make_sketch
from nearfar.errors import EmptyDataError, OptionError
from nearfar.method.geometry import density, normalise, stage_two_weight
from nearfar.method.loss import Triplet
from nearfar.method.optimiser import SGD
from nearfar.method.proposal import alias_table, draw_at, popularity_weight
from nearfar.method.sampling import Popularity, Shared, TwoStage, Uniform
from nearfar.runtime import counter

STILL = SGD(1e-30)
"""An optimiser that does not move anything: the vectors stay what they were."""


def drawn(data, sampler, steps, dim=8, negatives=4, batch=64, seed=0):
    """(user, positive, negatives) rows of the entries of `steps` steps, items as item rows."""
    options = plain(dim=dim, sampler=sampler, negatives=negatives, batch=batch, optimiser=STILL)
    engine = CPUEngine(Problem(data, options, seed))
    entries = []
    for _ in range(steps):
        engine.run(1)
        size = engine._plans.size[0, 0]
        entries.append(engine._plans.entries[0, :size].copy())
    points = engine.points()[data.n_users :]
    engine.close()
    entries = np.concatenate(entries)
    entries[:, 1:] = np.where(entries[:, 1:] >= 0, entries[:, 1:] - data.n_users, -1)
    return entries, points


def p_value(items, probability):
    """Chi-square of drawn items against probabilities, rare ones pooled."""
    seen = np.bincount(items, minlength=len(probability)).astype(float)
    assert not seen[probability == 0].any(), "an item of probability 0 was drawn"
    expected = probability / probability.sum() * seen.sum()
    order = np.argsort(expected)[::-1]
    seen, expected = seen[order], expected[order]
    n_rare = int((expected < 8).sum())
    if n_rare:
        cut = len(expected) - n_rare - 1
        seen = np.append(seen[:cut], seen[cut:].sum())
        expected = np.append(expected[:cut], expected[cut:].sum())
    return stats.chisquare(seen, expected).pvalue


def law(data, user, weight):
    """Probabilities of a user's negatives: the weights, known positives left out."""
    p = weight.copy()
    p[data.positives(user)] = 0
    return p / p.sum()


BETAS = [1.0, 0.5, 0.0, -0.5, 2.0]


@pytest.mark.parametrize("sampler", [Uniform(), *(Popularity(beta) for beta in BETAS)])
def test_negatives_follow_eq_4(sampler):
    data = random_data(6, 25, 0.3, seed=2)
    entries, _ = drawn(data, sampler, steps=800)
    beta = getattr(sampler, "beta", 0.0)
    f = data.item_counts.astype(float)
    for user in range(3):
        items = entries[entries[:, 0] == user, 2:].ravel()
        assert len(items) > 3000
        assert p_value(items, law(data, user, f**beta)) > 1e-3
        # and the test can fail: another exponent is rejected
        assert p_value(items, law(data, user, f ** (beta + 0.25))) < 1e-4


def test_the_negatives_of_a_pair_are_independent():
    data = random_data(6, 25, 0.3, seed=2)
    entries, _ = drawn(data, Uniform(), steps=800, negatives=2)
    mine = entries[entries[:, 0] == 1]
    n = data.n_items - data.user_counts[1]
    assert np.mean(mine[:, 2] == mine[:, 3]) == pytest.approx(
        1 / n, abs=4 * (1 / n / len(mine)) ** 0.5
    )


@pytest.mark.parametrize("dim", [2, 3, 4, 8, 17])
def test_stage_two_follows_the_density(dim):
    data = random_data(5, 40, 0.2, seed=4)
    sampler = TwoStage(candidates=1000, beta=1.0)  # more than there are: all are candidates
    entries, items = drawn(data, sampler, steps=1500, dim=dim, negatives=6, batch=32)
    unit = normalise(items.astype(np.float64))
    pairs, counts = np.unique(entries[:, :2], axis=0, return_counts=True)
    rejected = []
    for user, positive in pairs[np.argsort(-counts)][:6]:
        s = unit @ unit[positive]
        weight = stage_two_weight(s, dim, law(data, user, np.ones(len(s))) > 0)
        mine = entries[(entries[:, 0] == user) & (entries[:, 1] == positive), 2:].ravel()
        if not weight.any():
            assert (mine == -1).all()
            continue
        assert p_value(mine, weight) > 1e-3
        rejected.append(p_value(mine, stage_two_weight(s, dim + 3, weight > 0)))
    # and the test can fail: with the exponent of another dimension it does
    assert dim < 8 or min(rejected) < 1e-6


@pytest.mark.parametrize("dim", [2, 3, 8, 17])
@pytest.mark.parametrize("vectors", ["live", "initial"])
def test_stage_two_towards_the_user_follows_the_power_of_the_density(dim, vectors):
    data = random_data(5, 40, 0.2, seed=4)
    sampler = TwoStage(1000, vectors=vectors, towards="user", sharpness=0.7)
    entries, items = drawn(data, sampler, steps=900, dim=dim, negatives=6, batch=32)
    unit = normalise(items.astype(np.float64))
    options = plain(dim=dim, sampler=sampler)
    users = normalise(Problem(data, options).initial_state().rows[: data.n_users, 0])
    assert (entries >= 0).all()
    rejected = []
    for user in range(data.n_users):
        s = unit @ users[user].astype(np.float64)
        allowed = law(data, user, np.ones(len(s))) > 0
        exact = allowed * density(np.maximum(s, 0.0), dim) ** -0.7
        mine = entries[entries[:, 0] == user, 2:].ravel()
        assert p_value(mine, exact) > 1e-3
        # and the test can fail: with eq. 5's power, and with another weight beyond a right angle
        rejected.append(p_value(mine, allowed * density(np.maximum(s, 0.0), dim) ** -1.0))
        assert p_value(mine, np.where(s < 0, 1.2, 1.0) * exact) < 1e-3
    assert dim < 8 or min(rejected) < 1e-6


@pytest.mark.parametrize("towards", ["positive", "user"])
def test_with_sharpness_0_candidates_are_equally_likely(towards):
    data = random_data(5, 40, 0.2, seed=4)
    entries, items = drawn(data, TwoStage(1000, towards=towards, sharpness=0.0), steps=300)
    unit = normalise(items.astype(np.float64))
    pairs, counts = np.unique(entries[:, :2], axis=0, return_counts=True)
    for user, positive in pairs[np.argsort(-counts)][:4]:
        allowed = law(data, user, np.ones(data.n_items)) > 0
        if towards == "positive":
            allowed &= unit @ unit[positive] >= 0
        mine = entries[(entries[:, 0] == user) & (entries[:, 1] == positive), 2:].ravel()
        assert p_value(mine, allowed.astype(float)) > 1e-3


def test_stage_one_with_replacement_follows_eq_4():
    data = random_data(6, 30, 0.3, seed=5)
    options = plain(dim=4, sampler=TwoStage(50, beta=0.7, distinct=False), batch=8, optimiser=STILL)
    engine, candidates = CPUEngine(Problem(data, options)), []
    for _ in range(300):
        engine.run(1)
        candidates.append(engine._plans.candidates[0].copy())
    engine.close()
    f = data.item_counts.astype(float)
    assert p_value(np.concatenate(candidates), f**0.7) > 1e-3
    assert p_value(np.concatenate(candidates), f**0.9) < 1e-4


def successive(weight, count):
    """Exact law of ordered draws without replacement."""
    law = {}
    for order in permutations(range(len(weight)), count):
        p, left = 1.0, weight.sum()
        for item in order:
            p *= weight[item] / left
            left -= weight[item]
        law[order] = p
    return law


@pytest.mark.parametrize(
    "weight",
    [[1.0, 0.5, 0.25, 0.8, 0.6], [1.0, 1e-3, 2e-3, 1e-4, 3e-3]],
    ids=["by repetition", "by exponential clocks"],
)
def test_draws_without_replacement_are_successive_sampling(weight):
    weight = np.array(weight)
    table, support = alias_table(weight), np.arange(5, dtype=np.int32)
    exact, seen, out = successive(weight, 3), {}, np.empty(3, np.int32)
    runs, sketch = 30_000, make_sketch(1, 0, 0, 3)
    for step in range(runs):
        key = counter.stream(0, counter.Purpose.CANDIDATE, step)
        draw_distinct(table, support, key, sketch, out)
        seen[tuple(out.tolist())] = seen.get(tuple(out.tolist()), 0) + 1
    common = [order for order in exact if exact[order] * runs >= 8]
    rest = runs - sum(seen.get(order, 0) for order in common)
    counts = [*(seen.get(order, 0) for order in common), rest]
    expected = [*(exact[order] * runs for order in common)]
    expected.append(runs - sum(expected))
    assert stats.chisquare(counts, expected).pvalue > 1e-3
    flat = successive(np.sqrt(weight), 3)
    wrong = [*(flat[order] * runs for order in common)]
    wrong.append(max(runs - sum(wrong), 1e-9))
    scale = sum(counts) / sum(wrong)
    assert stats.chisquare(counts, [w * scale for w in wrong]).pvalue < 1e-6


def shared(data, sampler, negatives, steps, seed=0):
    """The shared negatives of at least `steps` steps, in the order in which they were drawn."""
    options = plain(dim=2, sampler=sampler, negatives=negatives, batch=1, optimiser=STILL)
    engine, found = CPUEngine(Problem(data, options, seed)), []
    for _ in range(0, steps, len(engine._plans.candidates)):
        engine.run(len(engine._plans.candidates))
        found.append(engine._plans.candidates.copy())
    engine.close()
    return np.concatenate(found)


@pytest.mark.parametrize("beta", [1.0, 0.0, -0.5])
def test_shared_negatives_are_successive_draws_by_eq_4(beta):
    f = np.array([20, 9, 5, 3, 1])  # item j is liked by users 0 ... f_j - 1
    data = Interactions.from_pairs([(u, j) for u in range(20) for j in range(5) if u < f[j]])
    assert data.item_counts.tolist() == f.tolist()
    draws = shared(data, Shared(beta), 3, 20_000)
    exact = successive(f**beta, 3)
    place = {order: n for n, order in enumerate(exact)}
    orders = np.array([place[tuple(draw)] for draw in draws.tolist()])
    assert p_value(orders, np.array(list(exact.values()))) > 1e-3
    # and the test can fail: with another exponent, and if all orders of a set were equally likely
    wrong = [np.array(list(successive(f ** (beta + 0.1), 3).values()))]
    if beta != 0:
        wrong.append(np.array([np.prod(f[list(order)] ** beta) for order in exact]))
    assert max(p_value(orders, law) for law in wrong) < 1e-6


@settings(max_examples=20)
@given(
    beta=st.sampled_from([0.0, 1.0, -1.0, 3.0]),
    negatives=st.integers(1, 40),
    seed=st.integers(0, 1000),
)
def test_shared_negatives_are_different_from_each_other(beta, negatives, seed):
    data = random_data(12, 30, 0.2, seed)
    kept = data.subset(data.items % 7 > 0)
    draws = shared(kept, Shared(beta), negatives, 100, seed)
    possible = np.arange(30) if beta == 0 else np.flatnonzero(kept.item_counts)
    assert draws.shape[1] == min(negatives, len(possible))
    assert set(draws.ravel().tolist()) <= set(possible.tolist())
    for draw in draws:
        assert len(set(draw.tolist())) == len(draw)
    if negatives >= len(possible):  # all of them then
        assert (draws == possible).all()
    elif negatives < len(possible) - 1:
        assert len(np.unique(np.sort(draws, axis=1), axis=0)) > 1


@settings(max_examples=30)
@given(
    temperature=st.sampled_from([0.0, 3.0]),
    negatives=st.integers(1, 40),
    batch=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_a_user_pushes_no_item_they_have(temperature, negatives, batch, seed):
    """Item rows that a step moves: the positives, and shared negatives that a user has not."""
    data = random_data(4, 30, 0.3, seed, crowded=True)
    options = plain(
        dim=3, geometry="free", sampler=Shared(), negatives=negatives, batch=batch,
        triplet=Triplet(100.0, temperature=temperature), optimiser=SGD(0.01),
    )  # fmt: skip
    engine = CPUEngine(Problem(data, options, seed))
    for _ in range(10):
        before = engine.points()[data.n_users :]
        engine.run(1)
        moved = (engine.points()[data.n_users :] != before).any(axis=1)
        entries = engine._plans.entries[0, : engine._plans.size[0, 0]]
        drawn, pulled, free = set(engine._plans.candidates[0].tolist()), set(), set()
        for user, row in entries.tolist():
            others = drawn - set(data.positives(user).tolist())
            pulled |= {row - data.n_users} if others else set()
            free |= others
        moved = set(np.flatnonzero(moved).tolist())
        if temperature > 0:  # everybody in N_ij is pushed
            assert moved == pulled | free
        else:
            assert pulled <= moved <= pulled | free
            assert len(moved - pulled) <= len(entries)
    engine.close()


@given(
    weight=st.lists(
        st.floats(0, 1).map(lambda x: x if x > 1e-6 else 0.0), min_size=1, max_size=40
    ).filter(any)
)
def test_alias_table_holds_exactly_its_distribution(weight):
    w = np.array(weight)
    table = alias_table(w)
    if len(table.keep) == 0:
        assert (w == w[0]).all()
        return
    share = table.keep / table.n
    np.add.at(share, table.other, (1 - table.keep) / table.n)
    assert share == pytest.approx(w / w.sum(), abs=1e-12)
    assert (share[w == 0] < 1e-12).all()


def test_items_of_weight_zero_are_never_drawn():
    table = alias_table(np.array([0.0, 1.0, 0.0, 3.0, 1e-12]))
    key = counter.stream(0, counter.Purpose.NEGATIVE)
    items = {draw_at(table, key, position, 0) for position in range(20_000)}
    assert items == {1, 3}


@pytest.mark.parametrize("beta", [1.0, -1.0, 300.0, -300.0])
def test_popularity_weight_is_finite_for_any_beta(beta):
    f = np.array([1, 5, 0, 100_000])
    weight = popularity_weight(f, beta)
    assert weight.max() == 1
    assert np.isfinite(weight).all()
    assert weight[2] == 0
    order = np.argsort(weight[[0, 1, 3]])
    assert order.tolist() == ([0, 1, 2] if beta > 0 else [2, 1, 0]) or abs(beta) > 100


SAMPLERS = st.sampled_from(
    [
        Uniform(),
        Popularity(1.0),
        Popularity(-1.0),
        Popularity(0.5, distinct=True, redraws=2),
        TwoStage(7),
        TwoStage(30, 0.3, distinct=False),
        TwoStage(500, vectors="initial"),
        TwoStage(30, towards="user", sharpness=0.2),
    ]
)


@settings(max_examples=40, deadline=None)
@given(sampler=SAMPLERS, seed=st.integers(0, 1000), share=st.floats(0.02, 0.9))
def test_no_known_positive_is_ever_drawn(sampler, seed, share):
    data = random_data(12, 30, share, seed, crowded=True)
    entries, _ = drawn(data, sampler, steps=3, negatives=2, batch=8, seed=seed)
    users = np.repeat(entries[:, 0], 2)
    items = entries[:, 2:].ravel()
    found = items >= 0
    assert not data.contains(users[found], items[found]).any()
    assert items.max() < data.n_items


def test_places_that_cannot_be_filled_are_empty_and_counted():
    # user 0 has every item, user 1 all but item 3
    pairs = [(0, i) for i in range(6)] + [(1, i) for i in range(6) if i != 3]
    data = Interactions.from_pairs(pairs)
    user = TwoStage(100, towards="user")
    for sampler in (Uniform(), Popularity(1.0), TwoStage(100), user):
        options = plain(dim=2, sampler=sampler, negatives=3, batch=11, optimiser=STILL)
        engine = CPUEngine(Problem(data, options))
        log = engine.run(1)
        entries = engine._plans.entries[0]
        engine.close()
        assert (entries[entries[:, 0] == 0, 2:] == -1).all()
        others = entries[entries[:, 0] == 1, 2:]
        assert set(others.ravel().tolist()) <= {-1, data.n_users + 3}
        assert log["missed"][0] == (entries == -1).sum() >= 6 * 3
        if sampler != TwoStage(100):  # there item 3 may lie beyond a right angle
            assert (others == data.n_users + 3).all()
        assert np.isfinite(log["triplet"][0])


def test_distinct_popularity_draws_a_batch_without_repetition():
    data = random_data(20, 80, 0.05, seed=1)
    entries, _ = drawn(data, Popularity(1.0, distinct=True), steps=20, negatives=2, batch=10)
    firsts = entries.reshape(-1, entries.shape[1])[:10, 2:].ravel()
    # only a redraw after a known positive may repeat an item
    assert len(np.unique(firsts)) >= 18
    plain, _ = drawn(data, Popularity(1.0), steps=20, negatives=2, batch=10)
    assert len(np.unique(plain[:10, 2:])) < 18


def test_distinct_popularity_refuses_a_batch_larger_than_the_catalogue():
    options = plain(sampler=Popularity(distinct=True), batch=100, negatives=5, dim=4)
    with pytest.raises(OptionError, match=r"batch x negatives = 500 different items"):
        Problem(random_data(), options)


def test_released_weight_is_uniform_where_the_scripts_weight_overflows():
    data = random_data(5, 30, 0.2, seed=6)
    entries, items = drawn(data, TwoStage(1000, released_weight=True), 600, dim=128, batch=32)
    # the positive is always a candidate here, so every pair is uniform over the non-positives,
    # also over those beyond a right angle
    for user in range(3):
        mine = entries[entries[:, 0] == user, 2:].ravel()
        assert p_value(mine, law(data, user, np.ones(data.n_items))) > 1e-3
    literal, _ = drawn(data, TwoStage(1000), 100, dim=128, batch=32)
    row = literal[0]
    assert (items[row[2:]] @ items[row[1]] >= 0).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Popularity(float("nan")), "`beta` must be a finite number; got nan"),
        (lambda: Shared(float("inf")), "`beta` must be a finite number; got inf"),
        (lambda: TwoStage(0), "`candidates` must be a whole number from 1 to 16,777,216; got 0"),
        (lambda: TwoStage(2.5), "candidates"),
        (lambda: Uniform(redraws=0), "redraws"),
        (
            lambda: TwoStage(vectors="frozen"),
            "`vectors` must be one of live, initial; got 'frozen'",
        ),
        (
            lambda: TwoStage(towards="item"),
            "`towards` must be one of positive, user; got 'item'",
        ),
        (lambda: TwoStage(sharpness=-0.1), "`sharpness` must be .* 0 and at most 8; got -0.1"),
        (lambda: TwoStage(sharpness=8.1), "`sharpness` must be .* 0 and at most 8; got 8.1"),
        (
            lambda: TwoStage(released_weight=True, towards="user"),
            "`released_weight` is the script's .* with towards='user' and sharpness=1. Use rel",
        ),
        (
            lambda: TwoStage(released_weight=True, sharpness=0.2),
            "with towards='positive' and sharpness=0.2. Use released_weight=False",
        ),
        (lambda: popularity_weight([0, 0], 1.0), "no item has a training interaction"),
    ],
)
def test_bad_options_are_refused(make, message):
    with pytest.raises(OptionError, match=message):
        make()


def test_nothing_to_train_on_is_refused(board):
    with pytest.raises(EmptyDataError, match="no interactions"):
        Problem(board.subset(np.zeros(len(board), bool)), plain())
