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

from nearfar.method.sampling import Sampler
from nearfar.runtime.arrays import Float32
from nearfar.runtime.checks import real, set_fields, switch

HARD: Final = 0.1
"""gamma* / beta for the hard maximum, which has no temperature; a rule of thumb: with the paper's
five negatives on Last.fm, gamma .05 is best for beta .5 and .1 for beta 1."""


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
        gamma = None if self.gamma is None else real("gamma", self.gamma, least=0.0)
        popularity = real("popularity", self.popularity, least=0.0)
        one_error = switch("one_error", self.one_error)
        set_fields(self, popularity=popularity, gamma=gamma, one_error=one_error)


def log_popularity(item_counts: npt.ArrayLike) -> Float32:
    """Return log f_j of each item, float32 (M,); 0, as with one interaction, if it has none.

    Examples
    --------
    >>> log_popularity([0, 1, 10]).astype(float).round(3).tolist()
    [0.0, 0.0, 2.303]
    """
    counts = np.maximum(np.asarray(item_counts, np.float64), 1.0)
    return np.log(counts).astype(np.float32)


def item_weight(gamma: float, item_counts: npt.ArrayLike) -> Float32:
    """Return b_j = gamma log f_j of each item, float32 (M,)."""
    weight: Float32 = np.float32(gamma) * log_popularity(item_counts)
    return weight


def exponent(sampler: Sampler, item_counts: npt.ArrayLike) -> float:
    """Return beta, the slope of log(proposal) over log f_j; exact for a proposal f_j^beta.

    Examples
    --------
    >>> from nearfar.method.sampling import Popularity
    >>> round(exponent(Popularity(0.7), [1, 5, 9, 0]), 6), exponent(Popularity(0.7), [3, 3])
    (0.7, 0.0)
    """
    counts = np.asarray(item_counts, np.float64)
    weight = sampler.proposal(item_counts)
    there = (counts > 0) & (weight > 0)
    x = np.log(counts[there])
    x -= x.mean() if len(x) else 0.0
    spread = float(x @ x)
    return float(x @ np.log(weight[there])) / spread if spread > 0.0 else 0.0


def gamma_by_rule(sampler: Sampler, item_counts: npt.ArrayLike, temperature: float) -> float:
    """Return gamma* = beta T / 2, or `HARD` beta for the hard maximum; 0 if beta is negative.

    Parameters
    ----------
    sampler : Sampler
        The sampler of the training; beta is the `exponent` of its proposal.
    item_counts : int array of shape (M,)
    temperature : float
        T of the triplet loss; 0 is the hard maximum.

    Examples
    --------
    >>> from nearfar.method.sampling import Popularity
    >>> round(gamma_by_rule(Popularity(0.5), [1, 5, 9], 0.2), 6)
    0.05
    """
    beta = max(0.0, exponent(sampler, item_counts))
    return beta * (temperature / 2.0 if temperature > 0.0 else HARD)
