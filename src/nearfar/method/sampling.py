"""Which items a pair is contrasted with: the proposals, and the distribution each one draws from.

All of them leave out the user's known positives, exactly: a draw that hits one is drawn again.
A place that cannot be filled stays **empty**: it takes no part in the loss, it is counted, and the
count is in the history as ``missed``. It is never filled with a positive.

f(j) is the number of training interactions of item j, and eq. 4 of the paper reads

    Pr(j) ~ f(j)^beta.

beta = 0 is uniform over all items. For any other beta an item without training interactions has
weight 0: for beta > 0 the formula says so, and for beta < 0 its weight would be infinite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from nearfar.errors import OptionError
from nearfar.method.geometry import released_overflow_gap, stage_two_weight
from nearfar.runtime.arrays import Float64, Floats, Int, Int32
from nearfar.runtime.checks import check_count
from nearfar.runtime.counter import uniform_at
from nearfar.runtime.jit import kernel


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


@dataclass(frozen=True)
class TwoStage:
    """The paper's 2-stage sampling.

    Stage 1 draws ``candidates`` items by eq. 4, shared by the whole batch. Stage 2 draws each
    negative n of a pair (i, j) independently among them, the user's positives left out, by

        Pr(n | v_j) ~ 1 / p(v_j.v_n)   if 0 <= v_j.v_n <= 1,  else 0

    with p the density of the product of two random unit vectors
    (`nearfar.method.geometry.density`) and the vectors of the moment, taken at length 1. If no
    candidate is left with a positive weight, because all are positives of the user or lie beyond
    a right angle, the place stays empty.
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

    def weight(self, s: npt.ArrayLike, dim: int, allowed: npt.ArrayLike) -> Floats:
        """Weigh the candidates of each pair for stage 2, up to a factor a row.

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


Sampler = Uniform | Popularity | TwoStage | Shared
"""What draws negatives."""


def popularity_weight(item_counts: npt.ArrayLike, beta: float) -> Float64:
    """f(j)^beta, scaled so that the largest is 1 (eq. 4).

    Parameters
    ----------
    item_counts : array_like of int of shape (M,)
        f(j), training interactions of each item.
    beta : float
        Any real number.

    Returns
    -------
    float64 array of shape (M,)
        1 for all when beta is 0; otherwise 0 where f(j) = 0.

    Raises
    ------
    OptionError
        When no item has a positive weight.

    Examples
    --------
    >>> popularity_weight([4, 2, 0], beta=1.0).tolist()
    [1.0, 0.5, 0.0]
    >>> popularity_weight([4, 2, 0], beta=0.0).tolist()
    [1.0, 1.0, 1.0]
    """
    f = np.asarray(item_counts, np.float64)
    if beta == 0.0:
        return np.ones_like(f)
    seen = f > 0
    if not seen.any():
        raise OptionError(
            f"no item has a training interaction, so popularity with `beta`={beta!r} has nothing to"
            f" draw from; use Uniform() or beta=0."
        )
    log_weight = beta * np.log(f, where=seen, out=np.full_like(f, -np.inf))
    log_weight[~seen] = -np.inf
    weight: Float64 = np.exp(log_weight - log_weight[seen].max())
    return weight


class AliasTable(NamedTuple):
    """Draws from a fixed discrete distribution in constant time (Walker 1977, Vose 1991).

    Column j of n keeps its own item with probability ``keep[j]`` and gives ``other[j]`` otherwise.
    Both arrays are empty for the uniform distribution, which needs no table.
    """

    n: int
    keep: Float64
    other: Int32
    weight: Float64


def alias_table(weight: Float64) -> AliasTable:
    """Build the table for probabilities proportional to `weight` (M,), in time O(M)."""
    n = weight.shape[0]
    if (weight == weight[0]).all():
        return AliasTable(n, np.empty(0), np.empty(0, np.int32), weight)
    keep = weight * (n / weight.sum())
    other = np.arange(n, dtype=np.int32)
    _pair_columns(keep, other)
    return AliasTable(n, keep, other, weight)


@kernel
def _pair_columns(keep: Float64, other: Int32) -> None:
    """Vose's method: fill each column below 1 from one above 1 until none is left."""
    n = keep.shape[0]
    small = np.empty(n, np.int32)
    large = np.empty(n, np.int32)
    n_small = n_large = 0
    scaled = keep.copy()
    for j in range(n):
        if scaled[j] < 1.0:
            small[n_small] = j
            n_small += 1
        else:
            large[n_large] = j
            n_large += 1
    while n_small > 0 and n_large > 0:
        n_small -= 1
        poor, rich = small[n_small], large[n_large - 1]
        keep[poor] = scaled[poor]
        other[poor] = rich
        scaled[rich] -= 1.0 - scaled[poor]
        if scaled[rich] < 1.0:
            n_large -= 1
            small[n_small] = rich
            n_small += 1
    for i in range(n_large):
        keep[large[i]] = 1.0
    for i in range(n_small):  # only rounding leaves these; a weight of zero stays impossible
        if scaled[small[i]] > 0.5:
            keep[small[i]] = 1.0
    return


@kernel
def draw_at(table: AliasTable, key: np.uint64, position: Int, attempt: Int) -> Int:
    """Draw the item for (position, attempt) of the stream `key`.

    One uniform number gives the column and the coin: its integer part after scaling by n, and what
    is left.
    """
    x = uniform_at(key, position, attempt) * table.n
    column = np.int64(x)
    if table.keep.shape[0] == 0 or x - column < table.keep[column]:
        return column
    return np.int64(table.other[column])
