"""The popularity prior: a weight of each item that is added to its score.

    score_ij = u_i.v_j + b_j,     b_j = gamma log f_j,

f_j being the training interactions of item j.

**Why.** With a soft maximum of temperature T over negatives drawn by q_j ~ f_j^beta, the loss is
least where 2 score_ij / T = log(p(j|i) / q_j) + const, p(j|i) being the probability that the next
item of user i is j. Ranking by the bare score is therefore ranking by p / q: the larger beta is,
the less popular are the lists, and the less accurate. Adding T / 2 log q_j ranks by p again:

    gamma* = beta T / 2.

Between gamma = 0 (distance alone) and gamma* lie lists of all degrees of popularity, from one
trained model: gamma is chosen when lists are asked for, not when the model is trained.

**Geometry.** The order by u.v_j + b_j is that by the power distance D^2(u, v_j) - 2 b_j: an item is
a ball of squared radius 2 b_j around its point, and a user's list holds the balls to which the
tangents from the user's point are shortest. With one coordinate more it is an inner product:
(u, 1).(v_j, b_j).

References
----------
Bengio and Senécal, *Adaptive Importance Sampling to Accelerate Training of a Neural Probabilistic
Language Model*, 2008, and Yi et al., *Sampling-Bias-Corrected Neural Modeling*, RecSys 2019, for
the correction by log q; Menon et al., *Long-Tail Learning via Logit Adjustment*, ICLR 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.sparse.linalg import lsmr

from nearfar.method.sampling import Sampler
from nearfar.runtime.arrays import Float32, Float64
from nearfar.runtime.checks import real, set_fields, switch

MOST: Final = 1000.0
"""The largest gamma, and setting of the dial; from far less on, popularity alone decides."""
HARD: Final = 0.1
"""gamma* / beta for the hard maximum, which has no temperature: measured. With the paper's five
negatives on four folds of Last.fm, the best gamma on the validation part is on average .040 for
beta .5 and .103 for beta 1 (docs/results/README.md)."""


def checked_setting(popularity: float) -> float:
    """Return a setting of the dial, a number from 0 to `MOST`.

    Raises
    ------
    OptionError
        It is another number, or no number.
    """
    return real("popularity", popularity, least=0.0, most=MOST)


@dataclass(frozen=True)
class Prior:
    """A popularity prior in the score of a model: x gamma log f_j at setting x of the dial."""

    popularity: float = 1.0
    """The setting of the dial where none is asked for; at 1 the weight is gamma log f_j."""
    gamma: float | None = None
    """The factor of log f_j. None finds it: on the validation part if there is one, and otherwise
    by the rule beta T / 2."""
    one_error: bool = False
    """On a validation part: take the smallest gamma within one standard error of the best."""

    def __post_init__(self) -> None:
        gamma = None if self.gamma is None else real("gamma", self.gamma, least=0.0, most=MOST)
        popularity = checked_setting(self.popularity)
        one_error = switch("one_error", self.one_error)
        set_fields(self, popularity=popularity, gamma=gamma, one_error=one_error)


@dataclass(frozen=True, eq=False)
class ItemWeights:
    """The weights of the items of a model at every setting of the dial."""

    gamma: float
    """The factor of log f_j at setting 1; 0 without a prior."""
    log_popularity: Float32
    """log f_j of each item, float32 (M,); see the function `log_popularity`."""

    def at(self, popularity: float) -> Float32 | None:
        """Return b_j = popularity gamma log f_j, float32 (M,); None if the factor is 0."""
        factor = np.float32(popularity * self.gamma)
        weight: Float32 | None = None if factor == 0.0 else factor * self.log_popularity
        return weight

    def agree(self, other: ItemWeights) -> bool:
        """Return whether these are the same weights."""
        mine, theirs = self.log_popularity, other.log_popularity
        return self.gamma == other.gamma and (
            self.gamma == 0.0 or mine is theirs or np.array_equal(mine, theirs)
        )


def log_popularity(item_counts: npt.ArrayLike, content: sp.csr_array | None = None) -> Float32:
    """Return log f_j of each item, float32 (M,); 0, as with one interaction, if it has none.

    An item without interactions that has content counts as popular as items like it: with m the
    mean of log f over the items with interactions, it has m + x_j.b, where b minimises ::

        sum over items with interactions (log f_j - m - x_j.b)^2 + |b|^2,

    but no less than 0 and no more than any other item. 0 alone would put new items behind all
    others, and their content often says how popular they will be: newer films are, for example.

    Parameters
    ----------
    item_counts : int array of shape (M,)
    content : sparse array of shape (M, F), optional
        The features x_j of the items; an empty row is no content.

    Examples
    --------
    >>> log_popularity([0, 1, 10]).astype(float).round(3).tolist()
    [0.0, 0.0, 2.303]
    >>> content = sp.csr_array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    >>> log_popularity([0, 1, 10], content).astype(float).round(3).tolist()
    [1.727, 0.0, 2.303]
    """
    counts = np.asarray(item_counts, np.float64)
    logs, known = np.log(np.maximum(counts, 1.0)), counts > 0
    if content is not None and known.any():
        new = ~known & (np.diff(content.indptr) > 0)
        mean = logs[known].mean()
        rows = sp.csr_array(content[known].astype(np.float64))
        slopes = lsmr(rows, logs[known] - mean, damp=1.0)[0]
        logs[new] = np.clip(mean + content[new] @ slopes, 0.0, logs.max())
    return logs.astype(np.float32)


def item_weight(gamma: float, item_counts: npt.ArrayLike) -> Float32:
    """Return b_j = gamma log f_j of each item, float32 (M,)."""
    weight: Float32 = np.float32(gamma) * log_popularity(item_counts)
    return weight


def inclusion(weight: npt.ArrayLike, n: int) -> Float64:
    """Return about how likely each item is among n distinct ones drawn by weight, (M,).

    ::

        1 - exp(-t w_j),   t such that their sum is n

    Drawing without replacement is taking the n smallest of independent exponential clocks with
    rates w_j (Efraimidis & Spirakis, 2006); t is the time at which n are expected to have rung,
    which is close for some dozens of draws.
    If no more than n items have a positive weight, all of them are drawn.

    Examples
    --------
    >>> inclusion([1, 1, 2, 0], 3).tolist()
    [1.0, 1.0, 1.0, 0.0]
    >>> inclusion([1, 1, 2], 1).round(2).tolist()
    [0.27, 0.27, 0.46]
    """
    w = np.asarray(weight, np.float64)
    if np.count_nonzero(w) <= n:
        return (w > 0.0).astype(np.float64)
    w, t = w / w.max(), 0.0
    drawn: Float64 = np.zeros_like(w)
    while (missing := n - drawn.sum()) > 1e-9 * n:
        t += missing / np.sum(w * np.exp(-t * w))  # Newton's step; from the left, so never too far
        drawn = -np.expm1(-t * w)
    return drawn


def exponent(sampler: Sampler, item_counts: npt.ArrayLike, negatives: int) -> float:
    """Return beta as it is drawn: the slope of log q_j over log f_j.

    q_j is the chance of item j to be among the items of a step. For independent draws it is the
    proposal, so the slope is the sampler's own beta. Distinct draws take the most popular items
    nearly always (`inclusion`), which flattens q. Each item counts f_j times in the slope, because
    popular items compete for the places of a list.

    Parameters
    ----------
    sampler : Sampler
    item_counts : int array of shape (M,)
    negatives : int
        |N_ij|.

    Examples
    --------
    >>> from nearfar.method.sampling import Popularity, Shared
    >>> round(exponent(Popularity(0.7), [1, 5, 9, 0], 5), 6), exponent(Popularity(0.7), [3, 3], 5)
    (0.7, 0.0)
    >>> round(exponent(Shared(0.7), [1, 5, 9, 0], 2), 2)
    0.38
    """
    counts, needs = np.asarray(item_counts, np.float64), sampler.needs
    q = sampler.proposal(item_counts)
    together = needs.n_candidates(negatives, int(np.count_nonzero(q)))
    if needs.distinct and together > 0:
        q = inclusion(q, together)
    there = (counts > 0) & (q > 0)
    f = counts[there]
    if not len(f) or np.ptp(np.log(q[there])) < 1e-12:  # equal but for rounding
        return 0.0
    x = np.log(f) - np.average(np.log(f), weights=f)
    spread = float(f @ (x * x))
    return float((f * x) @ np.log(q[there])) / spread if spread > 0.0 else 0.0


def gamma_by_rule(
    sampler: Sampler, item_counts: npt.ArrayLike, temperature: float, negatives: int
) -> float:
    """Return gamma* = beta T / 2, or `HARD` beta for the hard maximum.

    It is 0 if beta is negative, and at most `MOST`.

    Parameters
    ----------
    sampler : Sampler
        The sampler of the training; beta is the `exponent` of its draws.
    item_counts : int array of shape (M,)
    temperature : float
        T of the triplet loss; 0 is the hard maximum.
    negatives : int
        |N_ij|.

    Examples
    --------
    >>> from nearfar.method.sampling import Popularity
    >>> round(gamma_by_rule(Popularity(0.5), [1, 5, 9], 0.2, 5), 6)
    0.05
    """
    beta = max(0.0, exponent(sampler, item_counts, negatives))
    return min(beta * (temperature / 2.0 if temperature > 0.0 else HARD), MOST)
