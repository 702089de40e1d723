"""Which items a pair is contrasted with: the samplers, each with what it draws and what it needs.

All of them leave out the user's known positives, exactly: a draw that hits one is drawn again.
A place that cannot be filled stays **empty**: it takes no part in the loss, it is counted, and the
count is in the history as ``missed``. It is never filled with a positive.

f(j) is the number of training interactions of item j, and eq. 4 of the paper reads

    Pr(j) ~ f(j)^beta.

beta = 0 is uniform over all items. For any other beta an item without training interactions has
weight 0: for beta > 0 the formula says so, and for beta < 0 its weight would be infinite.

A sampler is a frozen dataclass with three more properties, the protocol `Sampler`: what it needs
of an engine (`Needs`), the weight it proposes items by, and `draw`, which says in plain numpy what
is drawn. `nearfar.engine.reference` trains with `draw` itself; the other engines have kernels for
the four kinds of drawing here, which draw the same integers. A sampler of your own trains on the
reference engine; where it draws as one of the four does, and only its weights are new, it names
that kind in ``Needs.kernel`` and trains on every engine. Make it known with
`nearfar.method.options.register_sampler`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from nearfar.errors import OptionError
from nearfar.method.draws import Batch, Drawn, Kernel, Needs, draw_own
from nearfar.method.geometry import released_overflow_gap, stage_two_weight
from nearfar.method.proposal import different, popularity_weight
from nearfar.runtime.arrays import Float64, Floats
from nearfar.runtime.checks import check_count
from nearfar.runtime.counter import Purpose, uniform


class Sampler(Protocol):
    """What draws negatives; a frozen dataclass."""

    @property
    def needs(self) -> Needs:
        """What it needs of an engine."""
        ...

    def proposal(self, item_counts: npt.ArrayLike) -> Float64:
        """Return the weight (M,) by which items are drawn, given their training interactions."""
        ...

    def draw(self, batch: Batch) -> Drawn:
        """Draw the negatives of the pairs of a step."""
        ...


def _check_beta(beta: float) -> None:
    if not np.isfinite(beta):
        raise OptionError(f"`beta` must be a finite number; got {beta!r}.")


@dataclass(frozen=True)
class Uniform:
    """Every item that is not one of the user's positives, equally likely.

    A pair's negatives are independent of each other, so the same item may come twice.
    """

    redraws: int = 100
    """How often a draw that hits a known positive is drawn again before its place stays empty."""

    def __post_init__(self) -> None:
        check_count("redraws", self.redraws)

    @property
    def needs(self) -> Needs:
        """Negatives of its own for each pair."""
        return Needs(redraws=self.redraws, kernel="independent")

    def proposal(self, item_counts: npt.ArrayLike) -> Float64:
        """1 for each item, (M,)."""
        return popularity_weight(item_counts, 0.0)

    def draw(self, batch: Batch) -> Drawn:
        """Draw each place until the user does not have the item."""
        return draw_own(batch, self.redraws)


@dataclass(frozen=True)
class Popularity:
    """Pr(j) ~ f(j)^beta over the items that are not the user's positives (eq. 4).

    beta = 1 draws items as often as they occur, 0 is uniform, negative values favour rare items.
    """

    beta: float = 1.0
    """Exponent of the popularity; any real number."""
    distinct: bool = False
    """Draw the negatives of the whole batch without replacement, as the released script did.

    A redraw after a known positive is then an ordinary draw by eq. 4."""
    redraws: int = 100
    """How often a draw that hits a known positive is drawn again before its place stays empty."""

    def __post_init__(self) -> None:
        _check_beta(self.beta)
        check_count("redraws", self.redraws)

    @property
    def needs(self) -> Needs:
        """Negatives of its own for each pair; of a batch, all different with `distinct`."""
        kernel: Kernel = "distinct" if self.distinct else "independent"
        return Needs(distinct=self.distinct, redraws=self.redraws, kernel=kernel)

    def proposal(self, item_counts: npt.ArrayLike) -> Float64:
        """f(j)^beta, (M,)."""
        return popularity_weight(item_counts, self.beta)

    def draw(self, batch: Batch) -> Drawn:
        """Draw each place until the user does not have the item.

        With `distinct` the places of more pairs than the items suffice for begin again.
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
    (`nearfar.method.geometry.density`) and the vectors of the moment, taken at length 1. If no
    candidate is left with a positive weight, because all are positives of the user or lie beyond
    a right angle, the place stays empty.

    References
    ----------
    Tran et al., SIGIR 2019, section 3.2, eq. 4 and 5.
    """

    candidates: int = 2000
    """C, the number of candidates a batch shares."""
    beta: float = 1.0
    """Exponent of the popularity in stage 1."""
    distinct: bool = True
    """Draw the candidates without replacement: each next one by eq. 4 among those not drawn yet.

    When fewer than C items have a positive weight all of them are candidates. With False the
    candidates are independent draws and one item may be several of them."""
    vectors: Literal["live", "initial"] = "live"
    """The vectors that stage 2 looks at: the current ones, or those from before the first step,
    which is what the released script's forked workers saw."""
    released_weight: bool = False
    """Compute 1 / p as the released script did: where (1 - s^2 + 1e-8)^-((d-3)/2) overflows for any
    candidate (as it does when the positive item is itself a candidate and d > 80), the pair
    chooses uniformly among its candidates. A property of the script's arithmetic, not of the
    method."""

    def __post_init__(self) -> None:
        check_count("candidates", self.candidates)
        _check_beta(self.beta)
        if self.vectors not in ("live", "initial"):
            raise OptionError(f"`vectors` must be 'live' or 'initial'; got {self.vectors!r}.")

    @property
    def needs(self) -> Needs:
        """Candidates that the batch shares, and vectors to choose among them by."""
        return Needs(
            candidates=self.candidates,
            distinct=self.distinct,
            vectors=self.vectors,
            released_weight=self.released_weight,
            kernel="two-stage",
        )

    def proposal(self, item_counts: npt.ArrayLike) -> Float64:
        """f(j)^beta, (M,)."""
        return popularity_weight(item_counts, self.beta)

    def draw(self, batch: Batch) -> Drawn:
        """Choose among the candidates by `weight`: the first whose cumulative weight exceeds U."""
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
        """Weigh the candidates of each pair for stage 2 (eq. 5), up to a factor a row.

        Parameters
        ----------
        s : array_like of shape (..., C)
            Products of the pair's positive item with the candidates, at length 1.
        dim : int
            d >= 2.
        allowed : array_like of bool of shape (..., C)
            Candidates that the pair may have.

        Returns
        -------
        float64 array of shape (..., C)
            `nearfar.method.geometry.stage_two_weight`; with `released_weight`, 1 for every allowed
            candidate of a row where the script's weight overflows for any.
        """
        weight = stage_two_weight(s, dim, allowed)
        if self.released_weight:
            squares = np.minimum(np.asarray(s, np.float64) ** 2, 1.0)
            overflows = 1.0 - squares + 1e-8 < released_overflow_gap(dim)
            weight = np.where(overflows.any(axis=-1, keepdims=True), allowed, weight)
        return weight


@dataclass(frozen=True)
class Shared:
    """Negatives that all pairs of the batch share: |N_ij| different items, drawn by eq. 4.

    N_ij is all of them that user i does not have, so no place stays empty and nothing is drawn a
    second time. With many of them (some hundreds) the loss sees every pair's hardest negatives at
    the price of a few rows: the products of all pairs with all negatives are one matrix product.
    """

    beta: float = 0.0
    """Exponent of the popularity; any real number.

    0 is uniform. Negatives are different from each other, so popular items come less often than
    eq. 4 says."""

    def __post_init__(self) -> None:
        _check_beta(self.beta)

    @property
    def needs(self) -> Needs:
        """Different items, many of them, that the batch shares."""
        return Needs(usual=512, shared=True, distinct=True, kernel="shared")

    def proposal(self, item_counts: npt.ArrayLike) -> Float64:
        """f(j)^beta, (M,)."""
        return popularity_weight(item_counts, self.beta)

    def draw(self, batch: Batch) -> Drawn:
        """Take the candidates, for each pair those that its user does not have."""
        return Drawn(batch.candidates[None], ~batch.known.shared(batch.users, batch.candidates))
