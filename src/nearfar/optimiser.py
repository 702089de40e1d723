r"""Optimisers, written for tables of which a step touches a few rows.

`Adam` here is the *dense* Adam of Kingma & Ba (ICLR 2015): in every step its momentum also moves
the rows that the batch did not touch. Skipping those rows, as "sparse" and "lazy" variants do, is
another optimiser. But a row whose gradient is zero from step t0 + 1 to t only follows
m <- b1 m, v <- b2 v, so all it did can be made up for when it is next read::

    theta_t = theta_t0 - lr * m_t0 / (sqrt(v_t0) + eps') * S(t0, t)
    S(t0, t) = sum_{s = t0+1..t} rho^(s-t0) c_s,    rho = b1 / sqrt(b2),
    c_s      = sqrt(1 - b2^s) / (1 - b1^s)

and S(t0, t) = T(t0) - rho^(t-t0) T(t), where T(t) = rho (c_{t+1} + T(t+1)) tends to rho / (1 - rho):
one small table, `adam_drift_table`. ``eps'`` = eps sqrt(1 - b2^(t0+1)) / sqrt(b2) is what eps amounts
to in the first step of the gap, where most of the movement is; that is the only approximation, and
it is below float32 rounding unless sqrt(v) is as small as eps.

A gradient that is exactly zero is the same as no gradient, so a row is updated only when something
flows into it. `SGD` and `Adagrad` never move a row without a gradient and need no catching up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from nearfar.errors import OptionError

Floats = npt.NDArray[np.floating[Any]]


def _check_positive(name: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise OptionError(f"`{name}` must be a positive number; got {value!r}.")


@dataclass(frozen=True)
class SGD:
    """Plain stochastic gradient descent: theta <- theta - lr g."""

    learning_rate: float = 0.05
    """Step length."""

    n_slots: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _check_positive("learning_rate", self.learning_rate)

    def step(self, rows: Floats, gradient: Floats, t: int) -> None:
        """Update `rows` (n, 1, d) in place with `gradient` (n, d)."""
        rows[:, 0] -= self.learning_rate * gradient


@dataclass(frozen=True)
class Adagrad:
    """Adagrad: a <- a + g^2, theta <- theta - lr g / (sqrt(a) + eps).

    References
    ----------
    Duchi, Hazan & Singer, JMLR 2011. CML (2017) was trained with it.
    """

    learning_rate: float = 0.1
    """Step length."""
    initial: float = 0.1
    """What the sum of squares starts from."""
    epsilon: float = 1e-10
    """Added to the square root."""

    n_slots: ClassVar[int] = 2

    def __post_init__(self) -> None:
        _check_positive("learning_rate", self.learning_rate)
        if not (np.isfinite(self.initial) and self.initial >= 0):
            raise OptionError(f"`initial` must be a number >= 0; got {self.initial!r}.")
        _check_positive("epsilon", self.epsilon)

    def step(self, rows: Floats, gradient: Floats, t: int) -> None:
        """Update `rows` (n, 2, d), theta and a, in place with `gradient` (n, d)."""
        rows[:, 1] += gradient**2
        rows[:, 0] -= self.learning_rate * gradient / (np.sqrt(rows[:, 1]) + self.epsilon)


@dataclass(frozen=True)
class Adam:
    """Dense Adam, at the cost of the rows a step touches.

    References
    ----------
    Kingma & Ba, ICLR 2015; the defaults and the place of epsilon are PyTorch's.
    """

    learning_rate: float = 1e-3
    """Step length."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.999
    """Decay of the second moment."""
    epsilon: float = 1e-8
    """Added to the square root of the second moment."""

    n_slots: ClassVar[int] = 3

    def __post_init__(self) -> None:
        _check_positive("learning_rate", self.learning_rate)
        _check_positive("epsilon", self.epsilon)
        for name, value in (("beta1", self.beta1), ("beta2", self.beta2)):
            if not 0.0 <= value < 1.0:
                raise OptionError(f"`{name}` must be at least 0 and below 1; got {value!r}.")
        if self.beta1 >= np.sqrt(self.beta2):
            raise OptionError(
                f"`beta1` must be below the square root of `beta2`, or an untouched row would never"
                f" come to rest; got beta1={self.beta1!r}, beta2={self.beta2!r}."
            )

    def step(self, rows: Floats, gradient: Floats, t: int) -> None:
        """Update every row of `rows` (n, 3, d), theta, m and v, in place: step t = 1, 2, ..."""
        theta, m, v = rows[:, 0], rows[:, 1], rows[:, 2]
        m[...] = self.beta1 * m + (1 - self.beta1) * gradient
        v[...] = self.beta2 * v + (1 - self.beta2) * gradient**2
        denominator = np.sqrt(v) / np.sqrt(1 - self.beta2**t) + self.epsilon
        theta -= self.learning_rate / (1 - self.beta1**t) * m / denominator


Optimiser = SGD | Adagrad | Adam
"""What turns gradients into steps."""


def adam_drift_table(adam: Adam, horizon: int) -> npt.NDArray[np.float64]:
    """Tabulate T(t) of the module docstring for t = 0, 1, ...

    Parameters
    ----------
    adam : Adam
    horizon : int
        The last step that will be taken.

    Returns
    -------
    float64 array
        T(0), T(1), ...; its last entry stands for every later t. It is as long as the bias
        corrections take to vanish in float64, and never longer than horizon + 1.

    Examples
    --------
    >>> table = adam_drift_table(Adam(beta1=0.9, beta2=0.999), horizon=100_000)
    >>> round(float(table[-1]), 3)  # rho / (1 - rho)
    9.047
    """
    rho = adam.beta1 / np.sqrt(adam.beta2)
    if rho == 0.0:
        return np.zeros(1)
    settled = int(np.ceil(np.log(1e-17) / np.log(max(adam.beta2, adam.beta1)))) + 1
    length = min(horizon, settled) + 1
    n_terms = int(np.ceil(np.log(1e-18) / np.log(rho))) + 1
    last = length - 1
    s = np.arange(last + 1, last + 1 + n_terms)
    table = np.empty(length)
    table[last] = np.sum(rho ** (s - last) * _bias_correction(adam, s))
    correction = _bias_correction(adam, np.arange(1, length))
    for t in range(last - 1, -1, -1):
        table[t] = rho * (correction[t] + table[t + 1])
    return table


def _bias_correction(adam: Adam, s: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """c_s = sqrt(1 - b2^s) / (1 - b1^s) for an array of steps s >= 1."""
    corrected: npt.NDArray[np.float64] = np.sqrt(-np.expm1(s * np.log(adam.beta2))) / (
        1 - adam.beta1 ** s.astype(np.float64)
    )
    return corrected
