"""Content in the engines: the encoder's gradients, the draw of m, and one answer everywhere."""

import numpy as np
import pytest
import scipy.sparse as sp

from conftest import random_data
from nearfar.engine import Problem, make_engine
from nearfar.engine.content import (
    as_matrix,
    has_content,
    keeps_id,
    keeps_id_at,
    make_content,
)
from nearfar.engine.cpu.cpu_engine import CPUEngine
from nearfar.engine.reference import ReferenceEngine
from nearfar.errors import OptionError
from nearfar.method.geometry import normalise
from nearfar.method.hybrid import Hybrid, Linear
from nearfar.method.loss import Decorrelate, SpreadOut, Triplet
from nearfar.method.optimiser import SGD, Adagrad, Adam, Averaging
from nearfar.method.options import Options
from nearfar.method.sampling import Popularity, Shared, TwoStage, Uniform
from nearfar.runtime.counter import Purpose, stream

DATA = random_data(crowded=True)
HYBRID = Hybrid(Linear(decay=0.02), id_dropout=0.4, id_decay=0.05)


def features(n_rows, n_columns, seed, share=0.2, empty=0.15):
    """Random sparse rows, some of them empty."""
    rng = np.random.default_rng(seed)
    dense = np.where(
        rng.random((n_rows, n_columns)) < share, rng.normal(size=(n_rows, n_columns)), 0
    )
    dense[rng.random(n_rows) < empty] = 0.0
    return sp.csr_array(dense.astype(np.float32))


def problem_of(options, data=DATA, columns=25, seed=3):
    """A problem with features of what is a hybrid."""
    content = make_content(
        data.n_users,
        data.n_items,
        options.users,
        options.items,
        None if options.users is None else features(data.n_users, 9, 1),
        None if options.items is None else features(data.n_items, columns, 2),
    )
    return Problem(data, options, seed, horizon=60, content=content)


LEARNING = {
    "shared, soft, adam": {"sampler": Shared(0.5), "negatives": 9, "optimiser": Adam(0.01)},
    "shared, covariance, sgd": {
        "sampler": Shared(0.0),
        "negatives": 12,
        "optimiser": SGD(0.02),
        "decorrelate": Decorrelate(1.0),
    },
    "popularity, spread-out, adagrad": {
        "sampler": Popularity(0.5),
        "negatives": 3,
        "optimiser": Adagrad(0.1),
        "spread_out": SpreadOut(1.0),
    },
    "2-stage, towards the user": {
        "sampler": TwoStage(12, 0.5, towards="user", sharpness=0.2),
        "negatives": 2,
        "optimiser": Adam(0.01),
    },
    "2-stage, initial": {
        "sampler": TwoStage(12, 0.5, vectors="initial"),
        "negatives": 2,
        "optimiser": Adam(0.01),
    },
    "uniform, hard, adam": {
        "sampler": Uniform(),
        "negatives": 2,
        "optimiser": Adam(0.01),
        "triplet": Triplet(0.5),
    },
}
WHOSE = {
    "items": {"items": HYBRID},
    "users": {"users": HYBRID},
    "both": {"items": HYBRID, "users": HYBRID},
}


@pytest.mark.parametrize("whose", WHOSE)
@pytest.mark.parametrize("learning", LEARNING)
def test_the_processor_agrees_with_the_reference(learning, whose):
    options = Options(dim=7, batch=16, averaging=None, **LEARNING[learning], **WHOSE[whose])
    problem = problem_of(options)
    reference, engine = ReferenceEngine(problem), CPUEngine(problem, threads=2)
    expected, found = reference.run(40), engine.run(40)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=2e-4, rtol=2e-4)
    before = engine.points()
    np.testing.assert_allclose(before, reference.points(), atol=2e-4)
    engine.settle()
    np.testing.assert_allclose(engine.tables(), reference.tables(), atol=2e-4)
    np.testing.assert_allclose(engine.points(), before, atol=1e-6)


@pytest.mark.parametrize("learning", LEARNING)
def test_the_bits_do_not_depend_on_threads_and_chunks(learning):
    options = Options(dim=7, batch=16, **LEARNING[learning], items=HYBRID, users=HYBRID)
    problem = problem_of(options)
    one, three = CPUEngine(problem, threads=1), CPUEngine(problem, threads=3)
    one.run(33)
    for count in (1, 20, 12):
        three.run(count)
    one.settle()
    three.settle()
    assert np.array_equal(one.tables(), three.tables())
    assert np.array_equal(one.points(), three.points())


def loss_of(problem, stored, step):
    """The loss of a step, with decay, as a function of all parameters (N + M + F, d)."""
    state = problem.initial_state()
    state.rows[:, 0] = stored
    engine = ReferenceEngine(problem, state)
    engine.state.rows[:, 0] = stored
    engine.state.step = step
    pairs = engine.pairs(step)
    raw, kept = engine._raw(step)
    points, n = normalise(raw), problem.n_rows
    total, touched = 0.0, set()
    if problem.options.sampler.needs.shared:
        touched |= {problem.n_users + k for k in engine.candidates(step)}
    for (user, item), drawn in zip(pairs, engine.negatives(step, pairs), strict=True):
        ks = [problem.n_users + k for k in drawn if k >= 0]
        touched |= {user, problem.n_users + item, *ks}
        term = problem.triplet.term(
            points[user], points[problem.n_users + item], points[ks], problem.n_items
        )
        total += term.loss
    content, rows = problem.content, np.array(sorted(touched))
    own = rows[kept[rows] & has_content(content)[rows]]
    side = (own >= content.n_users).astype(int)
    total += 0.5 * float(np.sum(content.decay[side, None] * stored[own] ** 2))
    read = np.unique(as_matrix(content)[rows].indices)
    pull = content.weight_decay[(read >= content.n_user_columns).astype(int), None]
    return total + 0.5 * float(np.sum(pull * stored[n + read] ** 2))


@pytest.mark.parametrize("sampler", [Shared(0.5), Popularity(0.5)])
def test_a_step_goes_down_the_gradient_of_its_loss(sampler):
    """One step of SGD is the negative gradient, here by central differences in float64."""
    options = Options(
        dim=3, batch=8, sampler=sampler, negatives=5, optimiser=SGD(1.0), averaging=None,
        items=HYBRID, users=HYBRID,
    )  # fmt: skip
    problem = problem_of(options, columns=6)
    rng, n = np.random.default_rng(0), problem.n_table_rows
    stored = rng.normal(size=(n, 3)).astype(np.float32).astype(np.float64)
    engine = ReferenceEngine(problem)
    engine.state.rows[:, 0] = stored
    engine.run(1)
    moved = stored - engine.state.rows[:, 0]
    eps, seen = 1e-5, 0
    for row in rng.permutation(n)[:60]:
        for k in range(3):
            ahead, behind = stored.copy(), stored.copy()
            ahead[row, k] += eps
            behind[row, k] -= eps
            slope = (loss_of(problem, ahead, 0) - loss_of(problem, behind, 0)) / (2 * eps)
            assert moved[row, k] == pytest.approx(slope, abs=1e-6)
            seen += abs(slope) > 1e-3
    assert seen > 20


@pytest.mark.parametrize("rho", [0.0, 0.3, 1.0])
def test_delta_is_left_out_with_probability_rho(rho):
    options = Options(dim=2, items=Hybrid(id_dropout=rho))
    content = problem_of(options).content
    n = len(content.indptr) - 1
    kept = np.array([keeps_id(content, 5, step, np.arange(n)) for step in range(400)])
    some = has_content(content)
    assert kept[:, ~some].all()
    share, size = kept[:, some].mean(), kept[:, some].size
    assert abs(share - (1 - rho)) <= 4 * np.sqrt(rho * (1 - rho) / size)
    if 0 < rho < 1:  # independent from row to row, and from step to step
        assert np.abs(np.corrcoef(kept[:, some].T) - np.eye(some.sum())).max() < 0.3
        assert np.abs(np.corrcoef(kept[:, some])[0, 1:]).mean() < 0.3
    for step in (0, 7):
        key = stream(5, Purpose.ID_DROPOUT, step)
        assert [keeps_id_at(content, key, row) for row in range(n)] == kept[step].tolist()


def test_a_row_without_interactions_is_where_its_content_is():
    data = DATA.subset(DATA.items > 5)
    problem = problem_of(Options(dim=6, batch=16, items=HYBRID), data)
    engine = CPUEngine(problem)
    for epoch in (1, 2):
        engine.run(problem.steps_per_epoch)
        engine.settle()
        engine.average(Averaging().weight(epoch))
    tables, n = engine.tables(), problem.n_rows
    cold = problem.n_users + np.arange(6)
    assert (tables[cold[has_content(problem.content)[cold]]] == 0).all()
    expected = normalise(as_matrix(problem.content)[cold] @ tables[n:].astype(float))
    seen = has_content(problem.content)[cold]
    np.testing.assert_allclose(engine.points()[cold][seen], expected[seen], atol=1e-6)
    assert seen.any()


def test_items_without_interactions_are_never_negatives():
    data = DATA.subset(DATA.items > 5)
    options = Options(dim=4, batch=16, sampler=Uniform(), items=HYBRID)
    assert problem_of(options, data).support.min() == 6
    assert Problem(data, Options(sampler=Uniform())).support.min() == 0


def test_a_step_reads_and_moves_only_what_its_rows_have():
    problem = problem_of(Options(dim=4, batch=2, sampler=Uniform(), negatives=1, items=HYBRID))
    engine = CPUEngine(problem)
    start = engine.state.rows.copy()
    engine.run(1)
    moved = np.flatnonzero((engine.state.rows != start).any(axis=(1, 2)))
    reference = ReferenceEngine(problem)
    pairs = reference.pairs(0)
    items = {item for _, item in pairs} | {k for ks in reference.negatives(0, pairs) for k in ks}
    rows = problem.n_users + np.array(sorted(items))
    columns = set((problem.n_rows + as_matrix(problem.content)[rows].indices).tolist())
    assert {int(row) for row in moved if row >= problem.n_rows} == columns
    assert {int(r) for r in moved if problem.n_users <= r < problem.n_rows} <= set(rows.tolist())


def test_what_does_not_train_hybrids_says_so():
    with pytest.raises(OptionError, match="points on the sphere"):
        Options(geometry="ball", items=Hybrid())
    with pytest.raises(OptionError, match="trains on the processor"):
        make_engine(problem_of(Options(items=HYBRID)), None, device="torch:cpu", threads=1)


@pytest.mark.parametrize("whose", WHOSE)
def test_the_cache_is_as_old_as_is_said(whose):
    """Each row has the point that it had before the last step in whose slice it was."""
    sampler = TwoStage(12, 0.5, towards="user")
    problem = problem_of(Options(dim=5, batch=64, sampler=sampler, negatives=2, **WHOSE[whose]))
    engine, steps = CPUEngine(problem), problem.steps_per_epoch
    rows, history = problem.cached, []
    assert len(rows) == problem.n_items + (problem.n_users if "users" in WHOSE[whose] else 0)
    for _ in range(2 * steps + 1):
        history.append(engine.points())
        engine.run(1)
    reference = ReferenceEngine(problem)
    reference.run(2 * steps + 1)
    age = np.full(problem.n_rows, -1)
    for step in range(2 * steps + 1):
        age[list(problem.refreshed(step))] = step
    assert (age[list(rows)] >= steps).all()
    assert engine.state.cached_at.tolist() == age[list(rows)].tolist()
    assert reference.state.cached_at.tolist() == age[list(rows)].tolist()
    for row in rows:
        expected = history[age[row]][row]
        np.testing.assert_allclose(engine.state.cache[row - rows.start], expected, atol=1e-5)


def test_a_cache_is_part_of_the_state():
    options = Options(dim=5, batch=16, sampler=TwoStage(12, 0.5, towards="user"), items=HYBRID)
    problem = problem_of(options)
    whole, first = CPUEngine(problem), CPUEngine(problem)
    whole.run(30)
    first.run(13)
    second = CPUEngine(problem, first.state.copy())
    second.run(17)
    assert np.array_equal(whole.state.rows, second.state.rows)
    assert np.array_equal(whole.state.cache, second.state.cache)
    assert np.array_equal(whole.state.cached_at, second.state.cached_at)


@pytest.mark.parametrize("engine", [CPUEngine, ReferenceEngine])
def test_points_of_some_rows_are_those_of_all(engine):
    """Only these rows are encoded; with `alone` as if every delta were 0."""
    made = engine(problem_of(Options(dim=5, batch=16, **WHOSE["both"])))
    made.run(20)
    problem, rows = made.problem, np.array([7, 3, problem_of(Options(dim=5)).n_users + 4, 3])
    np.testing.assert_array_equal(made.points(rows), made.points()[rows])
    out = np.empty((4, 5), np.float32)
    assert made.points(rows, out) is out
    tables = made.tables()
    alone = problem.encoded(tables, rows, alone=True)
    tables[: problem.n_rows] = 0.0
    np.testing.assert_array_equal(alone, problem.encoded(tables)[rows])
    assert not np.allclose(alone, made.points(rows))
