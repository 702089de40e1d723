"""What an optimiser does to a row: how it moved while no step touched it, and a step.

The numbers of each optimiser are a record of its own, and there is a kernel for each; which one is
meant is known when a step is compiled (`nearfar.runtime.jit.by_record`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nearfar.engine.spec import USE_ADAGRAD, USE_ADAM, Spec
from nearfar.method.optimiser import Adam, adam_drift_tables
from nearfar.runtime.arrays import Float64, Floats, Int, Real
from nearfar.runtime.jit import by_record, inlined, kernel, reduction

_LONGEST_GAP = 2**15


class AdamRule(NamedTuple):
    """Adam, with its tables, so that a row costs no power."""

    learning_rate: float
    epsilon: float
    beta1: float
    beta2: float
    drift: Float64
    """(2, T) `nearfar.method.optimiser.adam_drift_tables`."""
    rho1: Float64
    rho2: Float64
    """(G,) rho_1^g and rho_2^g for gaps g < G; rho as there."""
    powers1: Float64
    powers2: Float64
    """(G,) beta1^g and beta2^g."""


class AdagradRule(NamedTuple):
    """Adagrad."""

    learning_rate: float
    epsilon: float


class SGDRule(NamedTuple):
    """Plain gradient descent."""

    learning_rate: float


class PartRule(NamedTuple):
    """A table followed by copies of rows of other tables; see `nearfar.engine.cluster`.

    Rows of the table move by their rule. Rows beyond its end are the copies, which are up to date:
    each receives its slope in its own place, because whoever owns the row moves it; or -0 in every
    component if it has none. As -0 is the sum of -0 and -0 only, a sum of slopes says whether there
    was any.
    """

    rule: AdamRule | AdagradRule | SGDRule
    copies: Floats
    """(m, d)."""


Rule = AdamRule | AdagradRule | SGDRule | PartRule


class Pace(NamedTuple):
    """Learning rate and epsilon of a step, Adam's bias corrections included."""

    rate: float
    epsilon: float


class Change(NamedTuple):
    """What flows into a row: gradient (total[r] - radial * current[at]) * inverse of the row."""

    total: Floats
    r: int
    current: Floats
    at: int
    radial: Real
    inverse: Real


def make_rule(spec: Spec, horizon: int) -> Rule:
    """Return the record of the optimiser, with tables up to step `horizon`."""
    if spec.optimiser == USE_ADAGRAD:
        return AdagradRule(spec.learning_rate, spec.epsilon)
    if spec.optimiser != USE_ADAM:
        return SGDRule(spec.learning_rate)
    b1, b2 = spec.beta1, spec.beta2
    adam = Adam(spec.learning_rate, b1, b2, spec.epsilon)
    tables = adam_drift_tables(adam, horizon) if b1 > 0.0 else np.zeros((2, 1))
    gaps = np.arange(min(horizon, _LONGEST_GAP) + 2, dtype=np.float64)
    powers = [base**gaps for base in (b1 / b2**0.5, b1 / b2, b1, b2)]
    return AdamRule(spec.learning_rate, spec.epsilon, b1, b2, tables, *powers)


# ------------------------------------------------------------------------------ how long a step is


@kernel
def _adam_pace(rule: AdamRule, t: Int) -> Pace:
    now = np.float64(t)
    unbiased = np.sqrt(1.0 - rule.beta2**now)
    rate = rule.learning_rate * unbiased / (1.0 - rule.beta1**now)
    return Pace(rate, rule.epsilon * unbiased)


@kernel
def _adagrad_pace(rule: AdagradRule, t: Int) -> Pace:
    return Pace(rule.learning_rate, rule.epsilon)


@kernel
def _sgd_pace(rule: SGDRule, t: Int) -> Pace:
    return Pace(rule.learning_rate, 0.0)


step_size = by_record({AdamRule: _adam_pace, AdagradRule: _adagrad_pace, SGDRule: _sgd_pace})
"""`step_size(rule, t)`: the pace of step t = 1, 2, ..."""


# ---------------------------------------------------------------------------------- between steps


@kernel
def power(powers: Float64, gap: Int) -> Real:
    """Look up base^gap in a table of powers; longer gaps cost a power."""
    if gap < powers.shape[0]:
        return powers[gap]
    return powers[1] ** np.float64(gap)


@kernel
def drift(rule: AdamRule, t0: Int, t: Int) -> tuple[Real, Real]:
    """How far a row with last update t0 has moved by step t: (x, e) for x m / (sqrt(v) + e).

    x is the learning rate times S(t0, t), e the mean epsilon of the gap; see
    `nearfar.method.optimiser`.
    """
    if t0 == 0 or t0 == t or rule.beta1 == 0.0:
        return 0.0, rule.epsilon
    end, gap = rule.drift.shape[1] - 1, t - t0
    at0, at = min(t0, end), min(t, end)
    weight = rule.drift[0, at0] - power(rule.rho1, gap) * rule.drift[0, at]
    with_eps = rule.drift[1, at0] - power(rule.rho2, gap) * rule.drift[1, at]
    return rule.learning_rate * weight, rule.epsilon * with_eps / weight


@inlined
def _adam_catch_up(
    rule: AdamRule, rows: Floats, row: Int, t0: Int, t: Int, current: Floats, at: Int
) -> bool:
    moved64, eps64 = drift(rule, t0, t)
    moved, eps = current.dtype.type(moved64), current.dtype.type(eps64)
    if moved == 0.0:
        for k in range(rows.shape[2]):
            current[at, k] = rows[row, 0, k]
        return False
    for k in range(rows.shape[2]):
        step = moved * rows[row, 1, k] / (np.sqrt(rows[row, 2, k]) + eps)
        current[at, k] = rows[row, 0, k] - step
    return True


@inlined
def _stay(rule: Rule, rows: Floats, row: Int, t0: Int, t: Int, current: Floats, at: Int) -> bool:
    for k in range(rows.shape[2]):
        current[at, k] = rows[row, 0, k]
    return False


_catch_up_own = by_record({AdamRule: _adam_catch_up, AdagradRule: _stay, SGDRule: _stay})


@inlined
def _part_catch_up(
    rule: PartRule, rows: Floats, row: Int, t0: Int, t: Int, current: Floats, at: Int
) -> bool:
    if row < rows.shape[0]:
        return bool(_catch_up_own(rule.rule, rows, row, t0, t, current, at))
    copies, copy = rule.copies, row - rows.shape[0]
    for k in range(copies.shape[1]):
        current[at, k] = copies[copy, k]
    return False


catch_up = by_record(
    {AdamRule: _adam_catch_up, AdagradRule: _stay, SGDRule: _stay, PartRule: _part_catch_up}
)
"""`catch_up(rule, rows, row, t0, t, current, at)`: put a row, as it is after t steps, into
current[at]; returns whether it has moved since t0, when it was last up to date."""


@kernel
def _adam_replay(
    rule: AdamRule, rows: Floats, row: Int, t0: Int, t: Int, current: Floats, at: Int
) -> Real:
    dim, real = rows.shape[2], current.dtype.type
    for k in range(dim):
        current[at, k] = rows[row, 0, k]
    squares, step = real(0.0), t0
    keep1, keep2 = 1.0, 1.0
    while step < t and keep1 > 1e-12:
        step += 1
        keep1 *= rule.beta1
        keep2 *= rule.beta2
        pace = _adam_pace(rule, step)
        rate1, root2 = real(pace.rate * keep1), real(np.sqrt(keep2))
        eps = real(pace.epsilon)
        for k in range(dim):
            way = rate1 * rows[row, 1, k] / (root2 * np.sqrt(rows[row, 2, k]) + eps)
            current[at, k] -= way
        squares = clip(current, at)
    return squares


@kernel
def _never(rule: Rule, rows: Floats, row: Int, t0: Int, t: Int, current: Floats, at: Int) -> Real:
    return current.dtype.type(0.0)


_replay_own = by_record({AdamRule: _adam_replay, AdagradRule: _never, SGDRule: _never})


@kernel
def _part_replay(
    rule: PartRule, rows: Floats, row: Int, t0: Int, t: Int, current: Floats, at: Int
) -> Real:
    return _replay_own(rule.rule, rows, row, t0, t, current, at)


replay = by_record(
    {AdamRule: _adam_replay, AdagradRule: _never, SGDRule: _never, PartRule: _part_replay}
)
"""`replay(rule, rows, row, t0, t, current, at)`: move a row from step t0 to t one step at a time,
clipped to the ball after each; returns its squared length. It is needed only where the straight way
of `catch_up` would end outside: a way that ends inside never left the ball, which is convex."""


@reduction
def dot(x: Floats, a: Int, y: Floats, b: Int) -> Real:
    """Inner product of row a of `x` and row b of `y`, in their type."""
    total = x.dtype.type(0.0)
    for k in range(x.shape[1]):
        total += x[a, k] * y[b, k]
    return total


@kernel
def clip(x: Floats, at: Int) -> Real:
    """Shorten row `at` of `x` to length 1 if it is longer; returns its squared length then."""
    one, squares = x.dtype.type(1.0), dot(x, at, x, at)
    if squares <= one:
        return squares
    scale = one / np.sqrt(squares)
    for k in range(x.shape[1]):
        x[at, k] *= scale
    return one


# ----------------------------------------------------------------------------------------- a step


@inlined
def _adam_step(
    rule: AdamRule, rows: Floats, row: Int, gap: Int, pace: Pace, change: Change
) -> None:
    real = change.total.dtype.type
    rate, eps = real(pace.rate), real(pace.epsilon)
    new1, new2 = real(1.0 - rule.beta1), real(1.0 - rule.beta2)
    keep1, keep2 = real(power(rule.powers1, gap)), real(power(rule.powers2, gap))
    total, r, cur, u = change.total, change.r, change.current, change.at
    radial, inverse = real(change.radial), real(change.inverse)
    for k in range(rows.shape[2]):
        slope = (total[r, k] - radial * cur[u, k]) * inverse
        m = keep1 * rows[row, 1, k] + new1 * slope
        v = keep2 * rows[row, 2, k] + new2 * slope * slope
        rows[row, 1, k] = m
        rows[row, 2, k] = v
        rows[row, 0, k] = cur[u, k] - rate * m / (np.sqrt(v) + eps)


@inlined
def _adagrad_step(
    rule: AdagradRule, rows: Floats, row: Int, gap: Int, pace: Pace, change: Change
) -> None:
    real = change.total.dtype.type
    rate, eps = real(pace.rate), real(pace.epsilon)
    total, r, cur, u = change.total, change.r, change.current, change.at
    radial, inverse = real(change.radial), real(change.inverse)
    for k in range(rows.shape[2]):
        slope = (total[r, k] - radial * cur[u, k]) * inverse
        a = rows[row, 1, k] + slope * slope
        rows[row, 1, k] = a
        rows[row, 0, k] = cur[u, k] - rate * slope / (np.sqrt(a) + eps)


@inlined
def _sgd_step(rule: SGDRule, rows: Floats, row: Int, gap: Int, pace: Pace, change: Change) -> None:
    real = change.total.dtype.type
    rate = real(pace.rate)
    total, r, cur, u = change.total, change.r, change.current, change.at
    radial, inverse = real(change.radial), real(change.inverse)
    for k in range(rows.shape[2]):
        slope = (total[r, k] - radial * cur[u, k]) * inverse
        rows[row, 0, k] = cur[u, k] - rate * slope


_step_own = by_record({AdamRule: _adam_step, AdagradRule: _adagrad_step, SGDRule: _sgd_step})


@inlined
def _part_step(
    rule: PartRule, rows: Floats, row: Int, gap: Int, pace: Pace, change: Change
) -> None:
    if row < rows.shape[0]:
        _step_own(rule.rule, rows, row, gap, pace, change)
        return
    copies, copy, total, r = rule.copies, row - rows.shape[0], change.total, change.r
    for k in range(copies.shape[1]):
        copies[copy, k] = total[r, k] + total.dtype.type(0.0)  # never -0, which is no slope


take_step = by_record(
    {
        AdamRule: _adam_step,
        AdagradRule: _adagrad_step,
        SGDRule: _sgd_step,
        PartRule: _part_step,
    }
)
"""`take_step(rule, rows, row, gap, pace, change)`: change a row, last up to date `gap` steps ago,
by its gradient."""


# ---------------------------------------------------------------------------------- between epochs


@kernel
def _adam_settle(rule: AdamRule, rows: Floats, row: Int, gap: Int) -> None:
    real = rows.dtype.type
    keep1, keep2 = real(power(rule.powers1, gap)), real(power(rule.powers2, gap))
    for k in range(rows.shape[2]):
        rows[row, 1, k] *= keep1
        rows[row, 2, k] *= keep2


@kernel
def _nothing_decays(rule: Rule, rows: Floats, row: Int, gap: Int) -> None:
    pass


settle = by_record({AdamRule: _adam_settle, AdagradRule: _nothing_decays, SGDRule: _nothing_decays})
"""`settle(rule, rows, row, gap)`: let the moments of a row decay as they do in `gap` steps."""
