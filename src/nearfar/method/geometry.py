"""The geometry of the points: distance, score, and the density of a random product.

**One sign.** Inside nearfar only the *score* is used, and larger is closer::

    score(u, v) = 1 - D^2(u, v) / 2 = u.v - (|u|^2 - 1) / 2 - (|v|^2 - 1) / 2

with D the Euclidean distance. On the unit sphere both corrections vanish and the score is the
cosine. A difference of squared distances is minus twice a difference of scores, in any geometry.

**Three geometries** (`Geometry`):

- ``"sphere"``: stored rows have any length and are divided by it when they are used; the gradient
  is propagated through that division. As in the 2019 paper.
- ``"ball"``: rows are used as stored and clipped to length 1 after each step. As in CML, 2017.
- ``"free"``: rows are used as stored. As in the paper's released script for two of the samplers.
"""

from __future__ import annotations

from math import lgamma
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from nearfar.runtime.arrays import Floats

Geometry = Literal["sphere", "ball", "free"]
"""The set in which the points lie."""

GEOMETRIES: tuple[Geometry, ...] = get_args(Geometry)

GAP_FLOOR = 2.0**-22
"""Approximately the smallest 1 - s^2 that a float32 product of unit vectors can distinguish from 0.
It is compiled into kernels, see `nearfar.runtime.jit`."""


MOST_SHARPNESS = 8.0
"""The largest `sharpness` of `stage_two_weight`: sums of float32 weights would overflow for d = 2
with a larger one."""


def normalise(x: npt.ArrayLike) -> Floats:
    """Divide each row by its length; a row of zeros is unchanged.

    Parameters
    ----------
    x : array_like of shape (..., d)

    Returns
    -------
    array of the same shape
        Unit vectors, in the floating type of `x`.

    Examples
    --------
    >>> normalise([[3.0, 4.0]])
    array([[0.6, 0.8]])
    """
    rows = np.asarray(x)
    if not np.issubdtype(rows.dtype, np.floating):
        rows = rows.astype(np.float64)
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    unit: Floats = rows / np.where(length > 0, length, 1).astype(rows.dtype)
    return unit


def squared_distance(u: npt.ArrayLike, v: npt.ArrayLike) -> Floats:
    """Return D^2(u, v) = |u - v|^2 over the last axis; shapes (..., d) broadcast to (...)."""
    difference = np.asarray(u) - np.asarray(v)
    squared: Floats = np.sum(difference * difference, axis=-1)
    return squared


def score(u: npt.ArrayLike, v: npt.ArrayLike) -> Floats:
    """Return the score 1 - D^2(u, v) / 2 over the last axis; on the sphere it is the cosine.

    Examples
    --------
    >>> float(score([1.0, 0.0], [0.0, 1.0]))
    0.0
    """
    closeness: Floats = 1.0 - 0.5 * squared_distance(u, v)
    return closeness


def log_density(s: npt.ArrayLike, dim: int) -> Floats:
    """Return the logarithm of `density`; minus infinity at s = -1 and 1 if dim > 3."""
    s = np.asarray(s, np.float64)
    power = 0.5 * (dim - 3)
    with np.errstate(divide="ignore"):
        log_gap = np.log1p(-s * s) if power else np.zeros_like(s)
    log_beta = lgamma(0.5 * (dim - 1)) + lgamma(0.5) - lgamma(0.5 * dim)
    log_p: Floats = power * log_gap - log_beta
    return log_p


def density(s: npt.ArrayLike, dim: int) -> Floats:
    """Return the density of s = p.q for two independent uniform unit vectors in R^dim.

    ::

        p(s) = (1 - s^2)^((d-1)/2 - 1) / Beta((d-1)/2, 1/2),   -1 <= s <= 1

    Parameters
    ----------
    s : array_like of float in [-1, 1]
    dim : int
        d >= 2.

    Returns
    -------
    float64 array

    References
    ----------
    Tran et al., SIGIR 2019, section 3.1.

    Examples
    --------
    >>> round(float(density(0.3, 3)), 9)  # on the ordinary sphere a coordinate is uniform
    0.5
    """
    return np.exp(log_density(s, dim))


def stage_two_weight(
    s: npt.ArrayLike,
    dim: int,
    allowed: npt.ArrayLike | None = None,
    *,
    sharpness: float = 1.0,
    cut: bool = True,
) -> Floats:
    """Return the weight of each candidate in the second stage (eq. 5), up to a factor per row.

    ::

        p(s)^-sharpness  ~  (top / (1 - s^2))^(sharpness (d-3)/2)   if s >= 0,
        else 0 with the cut of eq. 5, and the weight of s = 0 without it,

    with ``top`` the smallest 1 - s^2 among the row's candidates of positive weight. For d >= 3
    every factor is in [0, 1] and the row's largest weight is 1, so no value overflows or is NaN
    for any d. Values of 1 - s^2 below 2^-22 are set to 2^-22, the resolution of float32.

    Parameters
    ----------
    s : array_like of shape (..., C)
        Products of unit vectors; values that rounding puts outside [-1, 1] are taken as -1 or 1,
        and NaN as 0: if it is drawn, the loss is NaN, which stops a run.
    dim : int
        d >= 2.
    allowed : array_like of bool of shape (..., C), optional
        Candidates that may be drawn; the others have weight 0 and do not affect ``top``.
    sharpness : float
        From 0, with which all candidates of positive weight are equally likely, to
        `MOST_SHARPNESS`. 1 is eq. 5.
    cut : bool
        Whether a negative product has weight 0 (eq. 5) or that of 0.

    Returns
    -------
    float64 array of shape (..., C)

    References
    ----------
    Tran et al., SIGIR 2019, section 3.2, eq. 5.

    Examples
    --------
    >>> stage_two_weight([0.0, 0.6, -0.6], 5).round(9).tolist()  # 1 - s^2 = 1, 0.64
    [0.64, 1.0, 0.0]
    >>> stage_two_weight([0.0, 0.6, -0.6], 5, sharpness=0.5, cut=False).round(9).tolist()
    [0.8, 1.0, 0.8]
    """
    s = np.asarray(s, np.float64)
    admissible = ~(s < (0.0 if cut else -np.inf))
    if allowed is not None:
        admissible = admissible & np.asarray(allowed)
    ahead = np.where(s > 0.0, s, 0.0)
    gap = np.maximum((1.0 - ahead) * (1.0 + ahead), GAP_FLOOR)
    top = np.min(gap, axis=-1, where=admissible, initial=1.0, keepdims=True)
    ratio = np.where(admissible, top / gap, 0.0)
    power = stage_two_power(dim, sharpness)
    weight: Floats = np.where(admissible, np.where(admissible, ratio, 1.0) ** power, 0.0)
    return weight


def stage_two_power(dim: int, sharpness: float = 1.0) -> float:
    """Return the exponent of 1 / (1 - s^2) in `stage_two_weight`: sharpness (d-3)/2."""
    return sharpness * (0.5 * (dim - 3))


def released_overflow_gap(dim: int) -> float:
    """Return the 1 - s^2 + 1e-8 below which the released script's weight overflows to infinity.

    The script raises ``1 - s^2 + 1e-8`` to the power -(d-3)/2 in float64. A row with an infinite
    weight becomes NaN when it is divided by its sum, and the pair falls back to a uniform choice
    among the candidates. The result is 0 if no s overflows (d <= 3).
    """
    power = 0.5 * (dim - 3)
    if power <= 0:
        return 0.0
    return float(np.exp(-np.log(np.finfo(np.float64).max) / power))
