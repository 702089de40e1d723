"""What a step of Adam does to a row that it does not touch, and how long a step is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nearfar.engine.spec import USE_ADAM, Spec
from nearfar.method.optimiser import Adam, adam_drift_tables
from nearfar.runtime.arrays import Float64, Int, Real
from nearfar.runtime.jit import kernel


class Decay(NamedTuple):
    """Adam's tables, so that a row costs no power; empty for the other optimisers."""

    drift: Float64
    """(2, T) `nearfar.method.optimiser.adam_drift_tables`."""
    rho1: Float64
    rho2: Float64
    """(G,) rho_1^g and rho_2^g for gaps g < G; rho as there."""
    beta1: Float64
    beta2: Float64
    """(G,) b1^g and b2^g."""


_LONGEST_GAP = 2**15


def make_decay(adam: Adam | None, horizon: int) -> Decay:
    """Tabulate what a gap of Adam does, up to step `horizon`."""
    if adam is None or adam.beta1 == 0.0:
        tables = np.zeros((2, 1))
    else:
        tables = adam_drift_tables(adam, horizon)
    gaps = np.arange(min(horizon, _LONGEST_GAP) + 2, dtype=np.float64)
    if adam is None:
        return Decay(tables, *[np.zeros(2)] * 4)
    b1, b2 = adam.beta1, adam.beta2
    return Decay(tables, *[base**gaps for base in (b1 / b2**0.5, b1 / b2, b1, b2)])


@kernel
def power(powers: Float64, gap: Int) -> Real:
    """Look up base^gap in a table of powers; longer gaps cost a power."""
    if gap < powers.shape[0]:
        return powers[gap]
    return powers[1] ** np.float64(gap)


@kernel
def drift(spec: Spec, decay: Decay, t0: Int, t: Int) -> tuple[Real, Real]:
    """How far a row with last update t0 has moved by step t: (x, e) for x m / (sqrt(v) + e).

    x is the learning rate times S(t0, t), e the mean epsilon of the gap; see
    `nearfar.method.optimiser`.
    """
    if t0 == 0 or t0 == t or spec.beta1 == 0.0:
        return 0.0, spec.epsilon
    end, gap = decay.drift.shape[1] - 1, t - t0
    at0, at = min(t0, end), min(t, end)
    weight = decay.drift[0, at0] - power(decay.rho1, gap) * decay.drift[0, at]
    with_eps = decay.drift[1, at0] - power(decay.rho2, gap) * decay.drift[1, at]
    return spec.learning_rate * weight, spec.epsilon * with_eps / weight


@kernel
def step_size(spec: Spec, t: Int) -> tuple[Real, Real]:
    """Learning rate and epsilon of step t = 1, 2, ..., Adam's bias corrections included."""
    if spec.optimiser != USE_ADAM:
        return spec.learning_rate, spec.epsilon
    now = np.float64(t)
    unbiased = np.sqrt(1.0 - spec.beta2**now)
    rate = spec.learning_rate * unbiased / (1.0 - spec.beta1**now)
    return rate, spec.epsilon * unbiased
