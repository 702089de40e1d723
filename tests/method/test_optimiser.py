"""Adam row by row against torch's dense Adam; SGD and Adagrad beside it."""

import numpy as np
import pytest

from conftest import plain
from nearfar.data.interactions import Interactions
from nearfar.engine import Problem
from nearfar.engine.cpu.descent import make_rule, step_size
from nearfar.engine.cpu.rows import (
    Learner,
    Moved,
    bring_up_to_date,
    gather,
    make_gathered,
    update,
)
from nearfar.engine.spec import make_spec
from nearfar.errors import OptionError
from nearfar.method.optimiser import SGD, Adagrad, Adam, adam_drift_tables

torch = pytest.importorskip("torch")
F32, F64 = torch.float32, torch.float64


def learner_of(optimiser, start, horizon, geometry):
    """Tables that begin with the rows `start`, under an optimiser."""
    problem = Problem(
        Interactions.from_pairs([(0, 0)]), plain(geometry=geometry, optimiser=optimiser)
    )
    spec, (n, dim) = make_spec(problem), start.shape
    rows = np.zeros((n, optimiser.n_slots, dim), np.float32)
    rows[:, 0] = start
    optimiser.start(rows)
    return Learner(rows, np.zeros(n, np.int64), spec.geometry, make_rule(spec, horizon))


class Sparse:
    """The engine's kernels, fed with gradients of our own."""

    def __init__(self, optimiser, start, horizon, geometry="free"):
        self.learner = learner_of(optimiser, start, horizon, geometry)
        self.rows, self.last = self.learner.rows, self.learner.last
        self.now = make_gathered(16, start.shape[1])
        self.nowhere = np.empty((0, start.shape[1]), np.float32)

    def step(self, row, gradient, t):
        listed = np.array([row])
        gather(listed, 0, 1, t, self.learner, self.now)
        moved = Moved(gradient[None].copy(), np.zeros(1, np.int64))
        pace = step_size(self.learner.rule, t + 1)
        update(1, moved, listed, t, pace, self.learner, self.now)

    def settle(self, t):
        n = len(self.rows)
        bring_up_to_date(np.arange(n), t, self.learner, self.now, self.nowhere)


def touches(seed, n_rows, steps):
    """Rows touched in each step: some always, some rarely, one once, one never."""
    rng = np.random.default_rng(seed)
    rate = np.array([1.0, 0.5, 0.1, 0.01, 0.002, 0.0, 0.0])[:n_rows]
    hit = rng.random((steps, n_rows)) < rate
    hit[17, 5] = True  # once, and never again before the end
    return hit, rng


@pytest.mark.parametrize(
    "adam",
    [
        Adam(1e-2),
        pytest.param(Adam(1e-3, beta1=0.5, beta2=0.9), marks=pytest.mark.full),
        Adam(1e-3, beta1=0.0, beta2=0.99),
        pytest.param(Adam(1e-3, beta1=0.99, beta2=0.9999), marks=pytest.mark.full),
        pytest.param(Adam(1e-3, epsilon=1e-3), marks=pytest.mark.full),
    ],
)
def test_adam_is_torch_adam(adam):
    """No further from float64 than twice torch's own float32, which takes every step."""
    steps, n_rows, dim = 4000, 7, 6
    hit, rng = touches(1, n_rows, steps)
    start = rng.normal(size=(n_rows, dim)).astype(np.float32)
    sparse = Sparse(adam, start, steps)
    exact, single = (torch.nn.Parameter(torch.tensor(start, dtype=t)) for t in (F64, F32))
    betas = (adam.beta1, adam.beta2)
    dense = torch.optim.Adam(
        [exact, single], lr=adam.learning_rate, betas=betas, eps=adam.epsilon, foreach=False
    )
    for t in range(steps):
        gradient = (hit[t][:, None] * rng.normal(1, 1, (n_rows, dim))).astype(np.float32)
        for theta in (exact, single):
            theta.grad = torch.tensor(gradient, dtype=theta.dtype)
        dense.step()
        for row in np.flatnonzero(hit[t]):
            sparse.step(row, gradient[row], t)
        if t in (50, 1999, steps - 1):
            sparse.settle(t + 1)
            expected = exact.detach().numpy()
            error = np.abs(sparse.rows[:, 0] - expected).max(axis=1)
            theirs = np.abs(single.detach().numpy() - expected).max(axis=1)
            assert (error <= 2 * theirs + 1e-6).all()
    assert np.array_equal(sparse.rows[6, 0], start[6])  # the row never touched stayed


@pytest.mark.parametrize(("after", "limit"), [(100, 1e-2), (1000, 1e-4)])
@pytest.mark.parametrize("size", [1e-8, 1e-6])
def test_the_approximation_of_epsilon_is_as_good_as_stated(after, limit, size):
    """Gradients so small that sqrt(v) is about epsilon: relative error of a gap's movement."""
    adam = Adam(1e-2)
    sparse = Sparse(adam, np.zeros((1, 1), np.float32), 2000)
    theta = torch.nn.Parameter(torch.zeros(1, 1, dtype=F64))
    dense = torch.optim.Adam([theta], lr=1e-2)
    for t in range(after + 300):
        theta.grad = torch.full((1, 1), size if t == after else 0.0, dtype=F64)
        dense.step()
        if t == after:
            sparse.step(0, np.full(1, size, np.float32), t)
    sparse.settle(after + 300)
    assert sparse.rows[0, 0, 0] == pytest.approx(theta.item(), rel=limit)
    assert theta.item() < -1e-4


def test_a_lazy_adam_would_be_noticed():
    """Without the drift the row touched once would be far from where dense Adam takes it."""
    adam = Adam(1e-2)
    start = np.zeros((1, 2), np.float32)
    sparse = Sparse(adam, start, 1000)
    sparse.step(0, np.ones(2, np.float32), 0)
    lazy = sparse.rows[0, 0].copy()
    sparse.settle(1000)
    assert abs(sparse.rows[0, 0, 0]) > 2.5 * abs(lazy[0])


def test_settling_more_often_changes_nothing():
    adam, rng = Adam(1e-2), np.random.default_rng(0)
    gradients = rng.normal(size=(500, 3)).astype(np.float32)
    once, often = (Sparse(adam, np.ones((1, 3), np.float32), 500) for _ in range(2))
    for t in range(500):
        if t % 37 == 0:
            once.step(0, gradients[t], t)
            often.step(0, gradients[t], t)
        if t % 5 == 0:
            often.settle(t + 1)
    once.settle(500)
    often.settle(500)
    assert once.rows == pytest.approx(often.rows, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("q", "power"), [(0, 0.5), (1, 1.0)])
def test_drift_tables_equal_the_sums(q, power):
    adam = Adam(beta1=0.9, beta2=0.999)
    table = adam_drift_tables(adam, 5000)[q]
    rho = 0.9 / 0.999**power
    for t0, t in [(1, 2), (1, 50), (3, 400), (1000, 1003), (2500, 5000)]:
        s = np.arange(t0 + 1, t + 1)
        expected = np.sum(rho ** (s - t0) * (1 - 0.999**s) ** power / (1 - 0.9**s))
        assert table[t0] - rho ** (t - t0) * table[t] == pytest.approx(expected, rel=1e-10)
    longer = adam_drift_tables(adam, 10**9)[q]
    assert len(longer) < 100_000
    assert longer[:5000] == pytest.approx(table[:5000], rel=1e-12)


@pytest.mark.parametrize("kind", ["sgd", "adagrad"])
def test_sgd_and_adagrad_are_torchs(kind):
    rng = np.random.default_rng(0)
    start = rng.normal(size=(3, 4)).astype(np.float32)
    theta = torch.nn.Parameter(torch.tensor(start, dtype=torch.float64))
    if kind == "sgd":
        optimiser, dense = SGD(0.05), torch.optim.SGD([theta], lr=0.05)
    else:
        optimiser = Adagrad(0.1, initial=0.1, epsilon=1e-10)
        dense = torch.optim.Adagrad([theta], lr=0.1, initial_accumulator_value=0.1, eps=1e-10)
    sparse = Sparse(optimiser, start, 500)
    for t in range(500):
        gradient = rng.normal(size=(3, 4)).astype(np.float32)
        gradient[rng.random(3) < 0.5] = 0
        theta.grad = torch.tensor(gradient, dtype=torch.float64)
        dense.step()
        for row in np.flatnonzero(gradient.any(axis=1)):
            sparse.step(row, gradient[row], t)
    assert sparse.rows[:, 0] == pytest.approx(theta.detach().numpy(), abs=1e-4)


@pytest.mark.parametrize("optimiser", [SGD(0.05), Adagrad(), Adam(1e-2)])
def test_the_dense_formulas_are_torchs(optimiser):
    """The reference engine's float64 steps."""
    rng = np.random.default_rng(2)
    start = rng.normal(size=(3, 4))
    rows = np.zeros((3, optimiser.n_slots, 4))
    rows[:, 0] = start
    theta = torch.nn.Parameter(torch.tensor(start))
    if isinstance(optimiser, SGD):
        dense = torch.optim.SGD([theta], lr=0.05)
    elif isinstance(optimiser, Adam):
        dense = torch.optim.Adam([theta], lr=1e-2)
    else:
        rows[:, 1] = 0.1
        dense = torch.optim.Adagrad([theta], lr=0.1, initial_accumulator_value=0.1)
    for t in range(1, 200):
        gradient = rng.normal(size=(3, 4))
        theta.grad = torch.tensor(gradient)
        dense.step()
        optimiser.step(rows, gradient, t)
    assert rows[:, 0] == pytest.approx(theta.detach().numpy(), abs=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adam(0.0), "`learning_rate` must be a positive number; got 0.0"),
        (lambda: Adam(float("inf")), "learning_rate"),
        (lambda: Adam(beta1=1.0), "`beta1` must be a finite number at least 0 and below 1"),
        (lambda: Adam(beta1=0.95, beta2=0.9), "`beta1` must be below `beta2`"),
        (lambda: SGD(-1.0), "learning_rate"),
        (lambda: Adagrad(initial=-0.1), "initial"),
    ],
)
def test_bad_options_are_refused(make, message):
    with pytest.raises(OptionError, match=message):
        make()
