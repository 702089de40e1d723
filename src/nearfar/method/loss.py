"""The terms of the training objective, each with its analytic gradient.

The functions here are the specification: they take and return numpy arrays of any floating type,
and the engines' kernels are tested against them. All gradients are with respect to the *points*
(unit vectors on the sphere); `through_normalisation` converts them to gradients of stored rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from nearfar.errors import OptionError
from nearfar.method.geometry import score
from nearfar.runtime.arrays import Floats
from nearfar.runtime.checks import real, said, set_fields, switch


class TripletTerm(NamedTuple):
    """The contribution of one pair to the loss and the gradient."""

    loss: float
    violated: bool
    """Whether the nearest negative lies inside the margin."""
    user: Floats
    """(d,) gradient of u_i."""
    positive: Floats
    """(d,) gradient of v_j."""
    negatives: Floats
    """(n, d) gradients of the v_k; with temperature 0, zero except for the nearest."""


@dataclass(frozen=True)
class Triplet:
    """The hinge loss on the nearest negative, eq. 1 of the paper, or a soft form of it.

    ::

        w_ij [ D^2(u_i, v_j) - min_k D^2(u_i, v_k) + margin ]_+

    summed over the batch. In scores (larger is closer) the bracket is max_k x_k with
    x_k = margin - 2 (score_ij - score_ik). With a temperature T > 0 it is its soft maximum

        w_ij T log( 1 + sum_k exp(x_k / T) ),

    whose gradient is that of the hinge, divided among the negatives by their softmax: the expected
    gradient if one negative is drawn with Pr(k) ~ exp(x_k / T). The limit T -> 0 is the hinge.
    With margin 0 it is T times the cross-entropy of the positive item among the negatives, with
    logits 2 score / T; a margin reduces the positive item's own weight in it by exp(-margin / T).
    """

    margin: float = 1.0
    """alpha, in units of squared distance; it may be 0 only with a temperature."""
    rank_weight: bool = False
    """CML's w_ij = log(rank + 1), rank = floor(M * impostors / n); 1 otherwise.

    Impostors are the negatives inside the margin, n the pair's negatives, M the number of items.
    The gradient treats the weight as a constant. A pair without impostors has weight 0."""
    temperature: float | None = 0.0
    """T, in units of squared distance: how evenly the negatives share the gradient. None selects
    the recommended value, (50 / n)^(1/4) for n effective items. With shared negatives `fit` warns
    about values outside 0.4 to 4 times the recommended value."""

    def __post_init__(self) -> None:
        temperature = _checked_temperature(self.temperature)
        margin = (
            real("margin", self.margin, least=0.0)
            if temperature != 0
            else real(
                "margin", self.margin, above=0.0, remedy="(0 is allowed only with a temperature.)"
            )
        )
        rank_weight = switch("rank_weight", self.rank_weight)
        set_fields(self, margin=margin, rank_weight=rank_weight, temperature=temperature)

    def at(self, n_items: float) -> Triplet:
        """Return the loss for a number of items: T = (50 / n_items)^(1/4) if T is None.

        With more items, near and far items must be distinguished more finely. The exponent and the
        constant 50 were determined by measurement, see docs/negatives.md.

        Parameters
        ----------
        n_items : float
            Effective items, 1 / sum q_j^2 for the probabilities q_j of a draw: the items with
            training interactions if the draws are uniform, and fewer if they favour some.

        Returns
        -------
        Triplet

        Examples
        --------
        >>> Triplet(0.2, temperature=None).at(31_250)
        Triplet(margin=0.2, rank_weight=False, temperature=0.2)
        """
        if self.temperature is not None:
            return self
        return replace(self, temperature=round((50.0 / n_items) ** 0.25, 6))

    @property
    def known_temperature(self) -> float:
        """T; raises `OptionError` if it still depends on the data."""
        if self.temperature is None:
            raise OptionError("`temperature` is left to the data (None): call `at(n_items)` first.")
        return self.temperature

    def term(self, user: Floats, positive: Floats, negatives: Floats, n_items: int) -> TripletTerm:
        """Return the loss and the gradient of one pair.

        Parameters
        ----------
        user, positive : array of shape (d,)
            u_i and v_j.
        negatives : array of shape (n, d)
            The v_k, k in N_ij; n may be 0, and then the loss is 0. If several negatives are equally
            near, the first counts as the nearest.
        n_items : int
            M, for the rank weight.

        Returns
        -------
        TripletTerm
        """
        zero = TripletTerm(
            0.0, False, np.zeros_like(user), np.zeros_like(positive), np.zeros_like(negatives)
        )
        if len(negatives) == 0:
            return zero
        inside = self.margin - 2.0 * (score(user, positive) - score(user, negatives))
        weight = float(self.pair_weight(inside, n_items))
        loss, share = self.soft_maximum(inside)
        return TripletTerm(
            float(weight * loss),
            bool(inside.max() > 0),
            2.0 * weight * (share @ negatives - share.sum() * positive),
            2.0 * weight * share.sum() * (positive - user),
            2.0 * weight * share[:, None] * (user - negatives),
        )

    def pair_weight(self, inside: Floats, n_items: int) -> Floats:
        """Return w_ij, given the x_k of each pair's negatives: (..., n) to (...)."""
        if not self.rank_weight:
            return np.ones(inside.shape[:-1])
        impostors, found = np.sum(inside > 0, axis=-1), np.sum(inside > -np.inf, axis=-1)
        weight: Floats = np.log(n_items * impostors // np.maximum(found, 1) + 1.0)
        return weight

    def soft_maximum(self, inside: Floats) -> tuple[Floats, Floats]:
        """Return [max x]_+, or T log(1 + sum exp(x / T)) if T > 0, and its derivatives.

        Parameters
        ----------
        inside : array of shape (..., n)
            The x_k of each pair, n at least 1; minus infinity for an empty place.

        Returns
        -------
        loss : array of shape (...)
        share : array of shape (..., n)
            Non-negative, with a sum of at most 1 for each pair.
        """
        top = np.maximum(inside.max(axis=-1, keepdims=True), 0.0)
        temperature = self.known_temperature
        if temperature == 0:
            share = np.zeros_like(inside)
            nearest = inside.argmax(axis=-1)[..., None]
            np.put_along_axis(share, nearest, top > 0, axis=-1)
            return top[..., 0], share
        part = np.exp((inside - top) / temperature)
        whole = part.sum(axis=-1, keepdims=True) + np.exp(-top / temperature)
        return (top + temperature * np.log(whole))[..., 0], part / whole

    def shares(self, inside: Floats, n_items: int) -> Floats:
        """Return w_ij times the derivatives of the soft maximum: (..., n) to (..., n)."""
        share = self.soft_maximum(inside)[1]
        if self.rank_weight:
            share *= self.pair_weight(inside, n_items)[..., None].astype(share.dtype)
        return share


def _checked_temperature(value: float | None) -> float | None:
    if value is None:
        return None
    try:
        temperature = real("temperature", value, least=0.0)
    except OptionError:
        temperature = np.nan
    if temperature == 0.0 or temperature >= 1e-6:
        return temperature
    raise OptionError(
        "`temperature` must be 0 (only the nearest negative), at least 1e-6, or None (by the"
        f" number of items); got {said(value)}."
    )


@dataclass(frozen=True)
class SpreadOut:
    """Global orthogonal regularisation, eq. 3 of the paper.

    ::

        weight * { (1/Q sum s_jk)^2 + [ 1/Q sum s_jk^2 - 1/d ]_+ },   s_jk = v_j.v_k

    over the Q pairs of a positive item and one of its negatives in the batch. It moves the first
    two moments of s towards those of independent uniform unit vectors.

    References
    ----------
    Zhang, Yu, Kumar & Chang, ICCV 2017; Tran et al., SIGIR 2019, eq. 3.
    """

    weight: float = 0.01
    """lambda_g. In the paper 0.01 with one or two negatives, 0.001 with five."""

    def __post_init__(self) -> None:
        remedy = "Omit the term with spread_out=None."
        set_fields(self, weight=real("SpreadOut.weight", self.weight, above=0.0, remedy=remedy))

    def coefficients(self, s: Floats, dim: int) -> tuple[float, Floats]:
        """Return the loss and its derivative with respect to each product.

        Parameters
        ----------
        s : array of shape (Q,)
            The products v_j.v_k; Q may be 0.
        dim : int
            d.

        Returns
        -------
        loss : float
        derivative : array of shape (Q,)
            dL/ds: v_j receives the sum of ``derivative * v_k``, and v_k of ``derivative * v_j``.
        """
        if len(s) == 0:
            return 0.0, s
        mean, excess = s.mean(), (s * s).mean() - 1.0 / dim
        loss = self.weight * (mean * mean + max(excess, 0.0))
        derivative = self.weight / len(s) * (2.0 * mean + (2.0 * s if excess > 0 else 0.0 * s))
        return float(loss), derivative


@dataclass(frozen=True)
class Decorrelate:
    """CML's covariance loss, which penalises off-diagonal covariance.

    ::

        weight * (||C||_F - ||diag C||_2^2) / n,   C = 1/n sum (x - mean)(x - mean)^T

    over the n distinct users and items of the batch. This is the formula as printed in the paper.
    A norm and the square of a norm do not have the same unit, so ``squared`` selects the other
    reading, ||C||_F^2 - ||diag C||_2^2, which is zero exactly if no two dimensions are correlated.

    References
    ----------
    Hsieh et al., WWW 2017, section 3.4.
    """

    weight: float = 0.1
    """lambda_c."""
    squared: bool = False
    """Use the square of the Frobenius norm."""

    def __post_init__(self) -> None:
        remedy = "Omit the term with decorrelate=None."
        weight = real("Decorrelate.weight", self.weight, above=0.0, remedy=remedy)
        set_fields(self, weight=weight, squared=switch("squared", self.squared))

    def term(self, points: Floats) -> tuple[float, Floats]:
        """Return the loss and the gradient for the points of a batch.

        Parameters
        ----------
        points : array of shape (n, d)

        Returns
        -------
        loss : float
        gradient : array of shape (n, d)
            (2/n) X dL/dC with X the centred points; the mean has no effect, as X sums to zero.
        """
        n = len(points)
        centred = points - points.mean(axis=0)
        covariance = centred.T @ centred / n
        diagonal = np.diag(covariance)
        frobenius = np.sqrt(np.sum(covariance**2))
        if self.squared:
            loss = frobenius**2 - np.sum(diagonal**2)
            slope = 2.0 * (covariance - np.diag(diagonal))
        else:
            loss = frobenius - np.sum(diagonal**2)
            slope = covariance / frobenius if frobenius > 0 else np.zeros_like(covariance)
            slope = slope - 2.0 * np.diag(diagonal)
        scale = self.weight / n
        return float(scale * loss), (2.0 * scale / n) * (centred @ slope)


def through_normalisation(gradient: Floats, row: Floats) -> Floats:
    """Return the gradient of a stored row, given that of its point x = row / |row|.

    ::

        dL/drow = (g - (g.x) x) / |row|

    Parameters
    ----------
    gradient, row : array of shape (..., d)

    Returns
    -------
    array of shape (..., d)
    """
    length = np.linalg.norm(row, axis=-1, keepdims=True)
    point = row / length
    tangent: Floats = (gradient - np.sum(gradient * point, axis=-1, keepdims=True) * point) / length
    return tangent
