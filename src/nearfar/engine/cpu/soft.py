"""How a pair's loss is shared among its negatives: eq. 1 with its maximum, hard or soft.

All kernels work on row r of a matrix whose first n numbers are score_ik, minus infinity for what is
no negative of the pair, and put the derivatives of the loss in their place. With `near` = score_ij
the x_k of `nearfar.method.loss.Triplet` is margin - 2 (near - score_ik).
"""

from __future__ import annotations

import numpy as np

from nearfar.runtime.arrays import Float32, Floats, Int, Real
from nearfar.runtime.jit import inlined, kernel, reduction

_LOG2E, _LN2_HIGH, _LN2_LOW = 1.442695041, 0.693359375, -2.12194440e-4
_LEAST = -87.0
"""exp of less is 0 here; it would be a subnormal number."""


@reduction
def total_of(x: Floats, r: Int, n: Int) -> Real:
    """Sum x[r, :n], in its type."""
    total = x.dtype.type(0.0)
    for k in range(n):
        total += x[r, k]
    return total


@reduction
def most_of(x: Floats, r: Int, n: Int) -> Real:
    """Largest of x[r, :n], minus infinity if there is none; a NaN may be passed over."""
    most = x.dtype.type(-np.inf)
    for k in range(n):
        most = max(most, x[r, k])
    return most


@inlined
def count_inside(s: Floats, r: Int, n: Int, near: Real, margin: Real) -> Int:
    """How many x_k are positive."""
    real, count = s.dtype.type, 0
    positive, far, two = real(near), real(margin), real(2.0)
    for k in range(n):
        count += far - two * (positive - s[r, k]) > real(0.0)
    return count


@kernel
def exp_row(x: Float32, r: Int, n: Int, scale: Real, top: Real, power: Float32) -> None:
    """Put exp((x - top) * scale) in the place of x[r, :n]; (x - top) * scale must be at most 87.

    2^whole times a polynomial of the rest, as in the Cephes library: no branch, so it vectorises,
    and the error is below 2e-7. A NaN stays one. `power` is room for n numbers.
    """
    scale32, top32, least = np.float32(scale), np.float32(top), np.float32(_LEAST)
    log2e, high, low = np.float32(_LOG2E), np.float32(_LN2_HIGH), np.float32(_LN2_LOW)
    half, one, zero = np.float32(0.5), np.float32(1.0), np.float32(0.0)
    c0, c1, c2 = (
        np.float32(1.9875691500e-4),
        np.float32(1.3981999507e-3),
        np.float32(8.3334519073e-3),
    )
    c3, c4, c5 = (
        np.float32(4.1665795894e-2),
        np.float32(1.6666665459e-1),
        np.float32(5.0000001201e-1),
    )
    bits = power.view(np.int32)
    for k in range(n):
        y = (x[r, k] - top32) * scale32
        inside = least if y < least else y
        whole = np.floor(inside * log2e + half)
        whole = whole if whole > np.float32(-127.0) else np.float32(-126.0)
        f = inside - whole * high - whole * low
        p = ((((c0 * f + c1) * f + c2) * f + c3) * f + c4) * f + c5
        bits[k] = (np.int32(whole) + np.int32(127)) << np.int32(23)
        x[r, k] = zero if y < least else p * f * f + f + one
    for k in range(n):
        x[r, k] *= power[k]


@kernel
def exp_scores(x: Floats, r: Int, n: Int, scale: Real, top: Real, power: Floats) -> None:
    """Do what `exp_row` does, and in float64 to full precision."""
    if x.itemsize == 4:  # known when the kernel is compiled
        exp_row(x, r, n, scale, top, power)
        return
    for k in range(n):
        x[r, k] = np.exp((x[r, k] - top) * scale)


@kernel
def scale_row(x: Floats, r: Int, n: Int, factor: Real) -> None:
    """Multiply x[r, :n] by a number."""
    f = x.dtype.type(factor)
    for k in range(n):
        x[r, k] *= f


@kernel
def soften(
    s: Floats, r: Int, n: Int, zero: Real, temperature: Real, factor: Real, power: Floats
) -> Real:
    """T log(1 + sum exp(x_k / T)), and `factor` times its derivatives in the place of the scores.

    `zero` is the score at which x_k = 0, and `power` room for n numbers.
    """
    top = max(np.float64(most_of(s, r, n)), zero)
    exp_scores(s, r, n, 2.0 / temperature, top, power)
    whole = np.float64(total_of(s, r, n)) + np.exp(2.0 * (zero - top) / temperature)
    scale_row(s, r, n, factor / whole)
    return 2.0 * (top - zero) + temperature * np.log(whole)


@inlined
def harden(s: Floats, r: Int, n: Int, near: Real, margin: Real, factor: Real) -> Real:
    """[max x_k]_+, and `factor` in the place of the first nearest if it is positive, else 0."""
    real, nearest = s.dtype.type, -1
    best, zero = real(-np.inf), real(0.0)
    for k in range(n):
        # written so that a NaN is chosen rather than passed over: it has to reach the loss
        if not s[r, k] <= best and best == best:
            best, nearest = s[r, k], k
        s[r, k] = zero
    inside = real(margin) - real(2.0) * (real(near) - best)
    if nearest < 0 or inside <= zero:
        return zero
    s[r, nearest] = real(factor)
    return inside
