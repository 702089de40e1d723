r"""Optimisers for tables of which each step touches only a few rows.

`Adam` here is the *dense* Adam of Kingma & Ba (ICLR 2015): in every step its momentum also moves
the rows that the batch did not touch. Skipping those rows, as "sparse" and "lazy" variants do, is
a different optimiser. A row whose gradient is zero from step t0 + 1 to t only follows
m <- b1 m, v <- b2 v, so its updates can be applied together when it is next read::

    theta_t = theta_t0 - lr * sum_{s = t0+1..t} w_s m_t0 / (sqrt(v_t0) + e_s)
    w_s = rho^(s-t0) sqrt(1 - b2^s) / (1 - b1^s),      rho = b1 / sqrt(b2),
    e_s = eps sqrt(1 - b2^s) b2^(-(s-t0)/2)

Without eps that is one factor, S(t0, t) = sum w_s, and S(t0, t) = T(t0) - rho^(t-t0) T(t), where
T(t) = rho (c_{t+1} + T(t+1)), c_s = sqrt(1 - b2^s) / (1 - b1^s), tends to rho / (1 - rho): one
small table. The e_s are replaced by their mean e over the gap, weighted by w_s, which needs a
second table of the same form (`adam_drift_tables`). That is the only approximation. Its relative
error in the movement over a gap is at most var(e_s) / (sqrt(v) + e)^2, which is negligible if
sqrt(v) is well above eps, and otherwise below 10^-4 after 1 / (1 - b2) steps.

A gradient that is exactly zero is the same as no gradient, so a row is updated only if it receives
a gradient. `SGD` and `Adagrad` never move a row without a gradient and need no such correction.

An optimiser declares what engines need to know: ``n_slots``, the vectors in a row of the tables
(the parameter and its moments); ``start``, the initial moments; ``drifts``, whether a row still
changes in steps that do not touch it; ``kernel``, the compiled rule that does the same as
``step``; and ``beta1``, ``beta2`` and ``epsilon``, 0 if it has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from nearfar.errors import OptionError
from nearfar.runtime.arrays import Float64, Floats, Int64
from nearfar.runtime.checks import real, set_fields


@dataclass(frozen=True)
class SGD:
    """Plain stochastic gradient descent: theta <- theta - lr g."""

    learning_rate: float = 0.05
    """Step size."""

    kernel: ClassVar[Literal["sgd"]] = "sgd"
    n_slots: ClassVar[int] = 1
    drifts: ClassVar[bool] = False
    beta1: ClassVar[float] = 0.0
    beta2: ClassVar[float] = 0.0
    epsilon: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        set_fields(self, learning_rate=real("learning_rate", self.learning_rate, above=0.0))

    def step(self, rows: Floats, gradient: Floats, t: int) -> None:
        """Update `rows` (n, 1, d) in place with `gradient` (n, d)."""
        rows[:, 0] -= self.learning_rate * gradient

    def start(self, rows: Floats) -> None:
        """Leave new rows unchanged, because there are no moments."""


@dataclass(frozen=True)
class Adagrad:
    """Adagrad: a <- a + g^2, theta <- theta - lr g / (sqrt(a) + eps).

    References
    ----------
    Duchi, Hazan & Singer, JMLR 2011. CML (2017) was trained with it.
    """

    learning_rate: float = 0.1
    """Step size."""
    initial: float = 0.1
    """Initial value of the sum of squares."""
    epsilon: float = 1e-10
    """Added to the square root."""

    kernel: ClassVar[Literal["adagrad"]] = "adagrad"
    n_slots: ClassVar[int] = 2
    drifts: ClassVar[bool] = False
    beta1: ClassVar[float] = 0.0
    beta2: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        set_fields(
            self,
            learning_rate=real("learning_rate", self.learning_rate, above=0.0),
            initial=real("initial", self.initial, least=0.0),
            epsilon=real("epsilon", self.epsilon, above=0.0),
        )

    def step(self, rows: Floats, gradient: Floats, t: int) -> None:
        """Update `rows` (n, 2, d), theta and a, in place with `gradient` (n, d)."""
        rows[:, 1] += gradient**2
        rows[:, 0] -= self.learning_rate * gradient / (np.sqrt(rows[:, 1]) + self.epsilon)

    def start(self, rows: Floats) -> None:
        """Set the sums of squares of new rows (n, 2, d), which are 0, to `initial`."""
        rows[:, 1] = self.initial


@dataclass(frozen=True)
class Adam:
    """Dense Adam, at the cost of only the rows that a step touches.

    References
    ----------
    Kingma & Ba, ICLR 2015; the defaults and the place of epsilon are PyTorch's.
    """

    learning_rate: float = 1e-3
    """Step size."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.999
    """Decay of the second moment."""
    epsilon: float = 1e-8
    """Added to the square root of the second moment."""

    kernel: ClassVar[Literal["adam"]] = "adam"
    n_slots: ClassVar[int] = 3
    drifts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        set_fields(
            self,
            learning_rate=real("learning_rate", self.learning_rate, above=0.0),
            beta1=real("beta1", self.beta1, least=0.0, below=1.0),
            beta2=real("beta2", self.beta2, least=0.0, below=1.0),
            epsilon=real("epsilon", self.epsilon, above=0.0),
        )
        if self.beta1 >= self.beta2:
            raise OptionError(
                f"`beta1` must be below `beta2`, or an untouched row might never stop moving; got"
                f" beta1={self.beta1!r}, beta2={self.beta2!r}."
            )

    def step(self, rows: Floats, gradient: Floats, t: int) -> None:
        """Update every row of `rows` (n, 3, d), theta, m and v, in place: step t = 1, 2, ..."""
        theta, m, v = rows[:, 0], rows[:, 1], rows[:, 2]
        m[...] = self.beta1 * m + (1 - self.beta1) * gradient
        v[...] = self.beta2 * v + (1 - self.beta2) * gradient**2
        denominator = np.sqrt(v) / np.sqrt(1 - self.beta2**t) + self.epsilon
        theta -= self.learning_rate / (1 - self.beta1**t) * m / denominator

    def start(self, rows: Floats) -> None:
        """Leave new rows unchanged, because moments start at 0."""


@dataclass(frozen=True)
class Averaging:
    """Use as the model a mean of the points after each epoch, with more weight on later epochs.

    ::

        mean_t = mean_{t-1} + (x_t - mean_{t-1}) (eta + 1) / (eta + t)

    for the points x_t after epoch t = 1, 2, ...: polynomial-decay averaging. The mean covers about
    the last t / (eta + 1) epochs, so the first epochs lose their influence in runs of any length,
    and it removes the noise that a constant learning rate leaves. On the sphere the means are
    normalised. Averaging does not affect training itself.

    References
    ----------
    Shamir & Zhang, ICML 2013.
    """

    eta: float = 3.0
    """The larger it is, the fewer epochs the mean covers; near 0 it is the plain mean."""

    def __post_init__(self) -> None:
        remedy = "Omit averaging with averaging=None."
        set_fields(self, eta=real("Averaging.eta", self.eta, above=0.0, remedy=remedy))

    def weight(self, epoch: int) -> float:
        """Return the weight of the points after `epoch` (from 1) relative to the previous mean."""
        return (self.eta + 1.0) / (self.eta + epoch)


Optimiser = SGD | Adagrad | Adam
"""The optimisers, which turn gradients into steps."""


def adam_drift_tables(adam: Adam, horizon: int) -> Float64:
    """Tabulate T(t) of the module docstring, and its analogue for the mean epsilon.

    ::

        T_q(t) = rho_q (c_{q,t+1} + T_q(t+1)),    rho_1 = b1 / sqrt(b2),   rho_2 = b1 / b2,
        c_{1,s} = sqrt(1 - b2^s) / (1 - b1^s),    c_{2,s} = (1 - b2^s) / (1 - b1^s)

    for t = 0, 1, ..., so that sum w_s = T_1(t0) - rho_1^(t-t0) T_1(t), and sum w_s e_s / eps is
    the same with index 2.

    Parameters
    ----------
    adam : Adam
    horizon : int
        The last step that will be taken.

    Returns
    -------
    float64 array of shape (2, length)
        T_1 and T_2; the last entries apply to every later t. The tables end where the bias
        corrections vanish in float64, or after horizon + 1 entries.

    Examples
    --------
    >>> tables = adam_drift_tables(Adam(beta1=0.9, beta2=0.999), horizon=100_000)
    >>> round(float(tables[0, -1]), 3)  # rho / (1 - rho)
    9.045
    """
    if adam.beta1 == 0.0:
        return np.zeros((2, 1))
    settled = int(np.ceil(np.log(1e-17) / np.log(adam.beta2))) + 1
    length = min(horizon, settled) + 1
    last, tables = length - 1, np.empty((2, length))
    for q, power in enumerate((0.5, 1.0)):
        rho = adam.beta1 / adam.beta2**power
        beyond = np.arange(1, int(np.ceil(np.log(1e-18) / np.log(rho))) + 2)
        tables[q, last] = np.sum(rho**beyond * _corrections(adam, last + beyond, power))
        corrections = _corrections(adam, np.arange(1, length), power)
        for t in range(last - 1, -1, -1):
            tables[q, t] = rho * (corrections[t] + tables[q, t + 1])
    return tables


def _corrections(adam: Adam, s: Int64, power: float) -> Float64:
    """Return (1 - b2^s)^power / (1 - b1^s) for an array of steps s >= 1."""
    corrected: Float64 = (-np.expm1(s * np.log(adam.beta2))) ** power / (
        1 - adam.beta1 ** s.astype(np.float64)
    )
    return corrected
