"""The losses that tie all pairs of a batch together: spread-out (eq. 3) and covariance.

Their numbers and room are records; where a step has no such loss there is None instead, and the
kernels for that do nothing (`nearfar.runtime.jit.by_record`).
"""

from __future__ import annotations

from types import NoneType
from typing import NamedTuple

import numpy as np

from nearfar.engine.cpu.descent import dot
from nearfar.engine.cpu.plan_records import N_PAIRS, Plan
from nearfar.engine.cpu.products import product
from nearfar.engine.cpu.rows import Gathered
from nearfar.engine.spec import Spec
from nearfar.runtime.arrays import DType, Float64, Floats, Int, Real
from nearfar.runtime.jit import by_record, inlined, kernel


class Spread(NamedTuple):
    """Spread-out regularisation, eq. 3."""

    weight: float
    products: Floats
    """(batch, N) v_j.v_k, 0 for an empty place."""
    moments: Float64
    """(batch, 3) sums over the pair's negatives of 1, s and s^2."""
    slopes: Float64
    """(3,) dL/ds = slopes[0] + slopes[1] * s; the loss."""


class Covariance(NamedTuple):
    """CML's covariance loss."""

    weight: float
    squared: bool
    loss: Float64
    """(1,)."""
    centred: Floats
    gradient: Floats
    """(U, d) each, of the step's points."""
    slope: Floats
    """(d, d)."""


def make_spread(spec: Spec, batch: int, negatives: int, dtype: DType = np.float32) -> Spread | None:
    """Make room for the spread-out loss, if there is one."""
    if spec.spread_out == 0.0:
        return None
    products = np.empty((batch, negatives), dtype)
    return Spread(spec.spread_out, products, np.empty((batch, 3)), np.zeros(3))


def make_covariance(
    spec: Spec, rows: int, dim: int, dtype: DType = np.float32
) -> Covariance | None:
    """Make room for the covariance loss, if there is one."""
    if spec.decorrelate == 0.0:
        return None
    return Covariance(
        weight=spec.decorrelate,
        squared=spec.decorrelate_squared,
        loss=np.zeros(1),
        centred=np.empty((rows, dim), dtype),
        gradient=np.empty((rows, dim), dtype),
        slope=np.empty((dim, dim), dtype),
    )


# ---------------------------------------------------------------------------------- spread-out


@kernel
def _note_products(spread: Spread, begin: Int, end: Int, plan: Plan, now: Gathered) -> None:
    real = spread.products.dtype.type
    for g in range(begin, end):
        j = plan.slots[g, 1]
        count, first, second = 0.0, 0.0, 0.0
        for k in range(plan.slots.shape[1] - 2):
            n = plan.slots[g, 2 + k]
            s = real(0.0)
            if n >= 0:
                s = now.inverse[j] * now.inverse[n] * dot(now.current, j, now.current, n)
                count += 1.0
                first += s
                second += np.float64(s) * np.float64(s)
            spread.products[g, k] = s
        spread.moments[g, 0] = count
        spread.moments[g, 1] = first
        spread.moments[g, 2] = second


@kernel
def _no_products(spread: None, begin: Int, end: Int, plan: Plan, now: Gathered) -> None:
    pass


note_products = by_record({Spread: _note_products, NoneType: _no_products})
"""`note_products(spread, begin, end, plan, now)`: the products v_j.v_k of pairs begin..end-1, and
each pair's part of their moments."""


@kernel
def _spread_slopes(spread: Spread, plan: Plan, dim: Int) -> Real:
    count, first, second = 0.0, 0.0, 0.0
    for g in range(plan.size[N_PAIRS]):
        count += spread.moments[g, 0]
        first += spread.moments[g, 1]
        second += spread.moments[g, 2]
    slopes = spread.slopes
    slopes[0] = slopes[1] = slopes[2] = 0.0
    if count > 0.0:
        mean, excess = first / count, second / count - 1.0 / dim
        slopes[0] = spread.weight * 2.0 * mean / count
        if excess > 0.0:
            slopes[1] = spread.weight * 2.0 / count
        slopes[2] = spread.weight * (mean * mean + max(excess, 0.0))
    return slopes[2]


@kernel
def _no_slopes(spread: None, plan: Plan, dim: Int) -> Real:
    return 0.0


spread_slopes = by_record({Spread: _spread_slopes, NoneType: _no_slopes})
"""`spread_slopes(spread, plan, dim)`: find dL/ds over the whole batch; returns the loss."""


# ---------------------------------------------------------------------------------- covariance


@kernel
def _decorrelate(covariance: Covariance, n: Int, now: Gathered) -> Real:
    dim, squared = now.current.shape[1], covariance.squared
    centred, slope, real = covariance.centred[:n], covariance.slope, covariance.slope.dtype.type
    _centre(now, n, centred)
    product(centred.T, centred, slope)
    whole, diagonal = 0.0, 0.0
    for a in range(dim):
        for b in range(dim):
            slope[a, b] /= real(n)
            whole += np.float64(slope[a, b]) ** 2
        diagonal += np.float64(slope[a, a]) ** 2
    frobenius = np.sqrt(whole)
    scale = 2.0 if squared else 1.0 / max(frobenius, 1e-30)
    for a in range(dim):
        on_diagonal = np.float64(slope[a, a])
        for b in range(dim):
            slope[a, b] *= real(scale)
        slope[a, a] -= real(2.0 * on_diagonal)
    weight = covariance.weight / n
    covariance.loss[0] = weight * ((whole if squared else frobenius) - diagonal)
    gradient, factor = covariance.gradient[:n], real(2.0 * weight / n)
    product(centred, slope, gradient)
    for u in range(n):
        for k in range(dim):
            gradient[u, k] *= factor
    return covariance.loss[0]


@kernel
def _centre(now: Gathered, n: Int, centred: Floats) -> None:
    """Put n points, less their mean, into `centred`."""
    inverse, current = now.inverse, now.current
    for k in range(centred.shape[1]):
        mean = 0.0
        for u in range(n):
            centred[u, k] = inverse[u] * current[u, k]
            mean += centred[u, k]
        mean /= n
        for u in range(n):
            centred[u, k] -= centred.dtype.type(mean)


@kernel
def _leave_covariance(covariance: None, n: Int, now: Gathered) -> Real:
    return 0.0


decorrelate = by_record({Covariance: _decorrelate, NoneType: _leave_covariance})
"""`decorrelate(covariance, n, now)`: `nearfar.method.loss.Decorrelate.term` over the n unique
points of the step; returns the loss."""


@inlined
def _covariance_flow(covariance: Covariance, total: Floats, at: Int, u: Int) -> bool:
    gradient = covariance.gradient
    for k in range(total.shape[1]):
        total[at, k] += gradient[u, k]
    return True


@inlined
def _no_flow(covariance: None, total: Floats, at: Int, u: Int) -> bool:
    return False


add_covariance = by_record({Covariance: _covariance_flow, NoneType: _no_flow})
"""`add_covariance(covariance, total, at, u)`: add the gradient of point u to row `at` of `total`;
returns whether there is one."""
