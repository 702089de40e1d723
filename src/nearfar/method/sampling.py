"""The samplers, which draw the negatives of pairs.

All of them exclude the user's known positives exactly: such a draw is repeated. A place that cannot
be filled stays **empty**: it does not contribute to the loss, and the history reports the number of
empty places as ``missed``. It is never filled with a positive.

f(j) is the number of training interactions of item j, and eq. 4 of the paper reads

    Pr(j) ~ f(j)^beta.

beta = 0 is uniform over all items. For any other beta an item without training interactions has
weight 0: for beta > 0 this follows from the formula, and for beta < 0 its weight would be infinite.

A sampler is a frozen dataclass that implements the protocol `Sampler`: what it needs from an engine
(`Needs`), the weight by which it proposes items, and `draw`, which specifies the draws in plain
numpy. `nearfar.engine.reference` trains with `draw` itself; the other engines have kernels for the
four kinds of drawing here, which draw the same integers. Your own sampler trains on the reference
engine. If it draws like one of the four kinds and only its weights differ, it names that kind in
``Needs.kernel`` and trains on every engine. Register it with
`nearfar.method.options.register_sampler`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from nearfar.errors import OptionError
from nearfar.method.draws import Batch, Drawn, Kernel, Needs, draw_own
from nearfar.method.geometry import MOST_SHARPNESS, released_overflow_gap, stage_two_weight
from nearfar.method.proposal import different, popularity_weight
from nearfar.runtime.arrays import Float64, Floats
from nearfar.runtime.checks import one_of, real, set_fields, switch, whole
from nearfar.runtime.counter import Purpose, uniform


class Sampler(Protocol):
    """A sampler of negatives; a frozen dataclass."""

    @property
    def needs(self) -> Needs:
        """What it needs from an engine."""
        ...

    def proposal(self, item_counts: npt.ArrayLike) -> Float64:
        """Return the weight (M,) by which items are drawn, given their training interactions."""
        ...

    def draw(self, batch: Batch) -> Drawn:
        """Draw the negatives of the pairs of a step."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Draws every item that is not one of the user's positives with equal probability.

    A pair's negatives are independent of each other, so the same item may occur twice.
    """

    redraws: int = 100
    """How often a known positive is drawn again before its place stays empty."""

    def __post_init__(self) -> None:
        set_fields(self, redraws=whole("redraws", self.redraws, 1, 1_000_000))

    @property
    def needs(self) -> Needs:
        """Separate negatives for each pair."""
        return Needs(redraws=self.redraws, kernel="independent")

    def proposal(self, item_counts: npt.ArrayLike) -> Float64:
        """Return the weight 1 for each item, (M,)."""
        return popularity_weight(item_counts, 0.0)

    def draw(self, batch: Batch) -> Drawn:
        """Draw each place until the user does not have the item."""
        return draw_own(batch, self.redraws)


@dataclass(frozen=True)
class Popularity:
    """Draws items that are not the user's positives with Pr(j) ~ f(j)^beta (eq. 4).

    beta = 1 draws items in proportion to their training interactions, 0 is uniform, and negative
    values favour rare items.
    """

    beta: float = 1.0
    """Exponent of the popularity; any real number."""
    distinct: bool = False
    """Draw the negatives of the whole batch without replacement, as the released script did.

    A redraw after a known positive is then an independent draw by eq. 4."""
    redraws: int = 100
    """How often a known positive is drawn again before its place stays empty."""

    def __post_init__(self) -> None:
        set_fields(
            self,
            beta=real("beta", self.beta),
            distinct=switch("distinct", self.distinct),
            redraws=whole("redraws", self.redraws, 1, 1_000_000),
        )

    @property
    def needs(self) -> Needs:
        """Separate negatives for each pair; with `distinct`, all those of a batch differ."""
        kernel: Kernel = "distinct" if self.distinct else "independent"
        return Needs(distinct=self.distinct, redraws=self.redraws, kernel=kernel)

    def proposal(self, item_counts: npt.ArrayLike) -> Float64:
        """Return f(j)^beta, (M,)."""
        return popularity_weight(item_counts, self.beta)

    def draw(self, batch: Batch) -> Drawn:
        """Draw each place until the user does not have the item.

        With `distinct`, if there are fewer items than places, the drawn items are repeated in turn.
        """
        if not self.distinct:
            return draw_own(batch, self.redraws)
        places, key = len(batch.users) * batch.negatives, batch.source.stream(Purpose.NEGATIVE)
        first = different(batch.table, batch.support, key, places)
        return draw_own(batch, self.redraws, np.resize(first, places))


@dataclass(frozen=True)
class TwoStage:
    """The paper's 2-stage sampling.

    Stage 1 draws ``candidates`` items by eq. 4, shared by the whole batch. Stage 2 draws each
    negative n of a pair (i, j) independently among them, the user's positives left out, by eq. 5,

        Pr(n | v_j) ~ 1 / p(v_j.v_n)   if 0 <= v_j.v_n <= 1,  else 0

    with p the density of the product of two random unit vectors
    (`nearfar.method.geometry.density`) and the current vectors, normalised to length 1. If no
    candidate has a positive weight, because all are positives of the user or have a negative
    product, the place stays empty.

    In high dimensions 1 / p is so steep that stage 2 mostly returns the few candidates that are
    most similar to the positive item, and the cut at 0 leaves only related ones: the user would
    have liked many of them. With ``towards="user"`` stage 2 looks for what is near the user
    instead, with a milder weight and without the cut:

        Pr(n | u_i) ~ p(max(0, u_i.v_n))^-sharpness  ~  (1 - max(0, u_i.v_n)^2)^(-sharpness (d-3)/2)

    A negative product weighs as much as 0, because an item far from the user is a harmless
    negative: a place is empty only if the user has all candidates.

    References
    ----------
    Tran et al., SIGIR 2019, section 3.2, eq. 4 and 5.
    """

    candidates: int = 2000
    """C, the number of candidates that a batch shares."""
    beta: float = 1.0
    """Exponent of the popularity in stage 1."""
    distinct: bool = True
    """Draw the candidates without replacement, each by eq. 4 among the items not yet drawn.

    If fewer than C items have a positive weight, all of them are candidates. With False the
    candidates are independent draws, and the same item may occur several times."""
    vectors: Literal["live", "initial"] = "live"
    """The vectors that stage 2 compares: the current ones, or those before the first step, which
    the forked workers of the released script used."""
    released_weight: bool = False
    """Compute 1 / p as the released script did: if (1 - s^2 + 1e-8)^-((d-3)/2) overflows for any
    candidate (as it does if the positive item is itself a candidate and d > 80), the pair chooses
    uniformly among its candidates. This is a property of the script's arithmetic, not of the
    method, and is refused with another `towards` or `sharpness`."""
    towards: Literal["positive", "user"] = "positive"
    """What stage 2 compares the candidates with: the pair's positive item, as in the paper, or its
    user, without the cut at 0."""
    sharpness: float = 1.0
    """Power to which the weight 1 / p is raised, 0 to 8: 1 as in the paper, 0 for equal weights."""

    def __post_init__(self) -> None:
        set_fields(
            self,
            candidates=whole("candidates", self.candidates, 1, 2**24),
            beta=real("beta", self.beta),
            distinct=switch("distinct", self.distinct),
            vectors=one_of("vectors", self.vectors, ("live", "initial")),
            released_weight=switch("released_weight", self.released_weight),
            towards=one_of("towards", self.towards, ("positive", "user")),
            sharpness=real("sharpness", self.sharpness, least=0.0, most=MOST_SHARPNESS),
        )
        if self.released_weight and (self.towards, self.sharpness) != ("positive", 1.0):
            raise OptionError(
                "`released_weight` is the script's arithmetic for the weight 1 / p(v_j.v_n); got"
                f" released_weight=True with towards={self.towards!r} and"
                f" sharpness={self.sharpness:g}. Use released_weight=False."
            )

    @property
    def needs(self) -> Needs:
        """Candidates shared by the batch, and what to compare in order to choose among them."""
        return Needs(
            candidates=self.candidates,
            distinct=self.distinct,
            vectors=self.vectors,
            released_weight=self.released_weight,
            towards=self.towards,
            sharpness=self.sharpness,
            kernel="two-stage",
        )

    def proposal(self, item_counts: npt.ArrayLike) -> Float64:
        """Return f(j)^beta, (M,)."""
        return popularity_weight(item_counts, self.beta)

    def draw(self, batch: Batch) -> Drawn:
        """Choose the first candidate whose cumulative `weight` exceeds U times the total."""
        n, candidates = batch.negatives, batch.candidates
        allowed = ~batch.known.shared(batch.users, candidates)
        weight = self.weight(batch.compare(candidates), batch.dim, allowed)
        cumulative = np.cumsum(weight, axis=1)
        places = batch.first * n + np.arange(len(batch.users) * n)
        u = uniform(batch.source.stream(Purpose.CHOICE), places).reshape(-1, n)
        target = u * cumulative[:, -1:]
        at = [
            np.searchsorted(row, t, side="right") for row, t in zip(cumulative, target, strict=True)
        ]
        found = np.minimum(np.reshape(at, (-1, n)), len(candidates) - 1)
        some = np.broadcast_to(cumulative[:, -1:] > 0, target.shape)
        return Drawn(candidates[found], some, weight)

    def weight(self, s: npt.ArrayLike, dim: int, allowed: npt.ArrayLike) -> Floats:
        """Return the weights of each pair's candidates in stage 2, up to a row factor.

        Parameters
        ----------
        s : array_like of shape (..., C)
            Products of the pair's positive item, or with ``towards="user"`` of its user, with the
            candidates, at length 1.
        dim : int
            d >= 2.
        allowed : array_like of bool of shape (..., C)
            Candidates that may be negatives of the pair.

        Returns
        -------
        float64 array of shape (..., C)
            `nearfar.method.geometry.stage_two_weight`; with `released_weight`, 1 for every allowed
            candidate of a row where the script's weight overflows for any.
        """
        cut = self.towards == "positive"
        weight = stage_two_weight(s, dim, allowed, sharpness=self.sharpness, cut=cut)
        if self.released_weight:
            squares = np.minimum(np.asarray(s, np.float64) ** 2, 1.0)
            overflows = 1.0 - squares + 1e-8 < released_overflow_gap(dim)
            weight = np.where(overflows.any(axis=-1, keepdims=True), allowed, weight)
        return weight


@dataclass(frozen=True)
class Shared:
    """Draws negatives that all pairs of the batch share: |N_ij| distinct items, by eq. 4.

    N_ij contains all of them that user i does not have, so no place stays empty and no item is
    redrawn. With some hundreds of negatives the loss includes every pair's hardest negatives at the
    cost of a few rows, because the products of all pairs with all negatives are one matrix product.
    """

    beta: float = 0.8
    """Exponent of the popularity; any real number.

    0 is uniform. The default takes popularity out of the score nearly as far as it can be given
    back: with a `nearfar.method.prior.Prior` the lists are as popular as is asked for. Without one
    it makes them long-tailed and less accurate. The negatives are distinct, so popular items are
    drawn less often than by eq. 4 with replacement."""

    def __post_init__(self) -> None:
        set_fields(self, beta=real("beta", self.beta))

    @property
    def needs(self) -> Needs:
        """Many distinct items that the batch shares."""
        return Needs(usual=512, shared=True, distinct=True, kernel="shared")

    def proposal(self, item_counts: npt.ArrayLike) -> Float64:
        """Return f(j)^beta, (M,)."""
        return popularity_weight(item_counts, self.beta)

    def draw(self, batch: Batch) -> Drawn:
        """Return the candidates, allowing for each pair those that its user does not have."""
        return Drawn(batch.candidates[None], ~batch.known.shared(batch.users, batch.candidates))
