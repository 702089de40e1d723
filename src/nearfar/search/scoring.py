"""From points to scores: ranking by distance is ranking by a product plus an offset per target.

``|u - v|^2 = |u|^2 - 2 u.v + |v|^2``. On the sphere the lengths are 1, and targets are ranked by
the product; off the sphere the offset ``-|v|^2 / 2`` is added to it. |u|^2 is the same for all
targets of a query, so it is needed only where the score itself is shown (`closeness`).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from nearfar.method.options import Options
from nearfar.method.prior import ItemWeights
from nearfar.runtime.arrays import Float32, Int32, Int64
from nearfar.search.neighbours import Points


class HasPairs(Protocol):
    """The training interactions of a model, by user."""

    @property
    def indptr(self) -> Int64:
        """(N + 1,) the start of each user's items."""
        ...

    @property
    def items(self) -> Int32:
        """The items of all users, in the order of users."""
        ...

    @property
    def item_counts(self) -> Int64:
        """(M,) the number of users of each item."""
        ...


class HasPoints(Protocol):
    """The parts of a fitted model that are needed to search among its points."""

    @property
    def options(self) -> Options:
        """The hyper-parameters, of which the geometry is used."""
        ...

    @property
    def user_vectors(self) -> Float32:
        """(N, d) points of the users."""
        ...

    @property
    def item_vectors(self) -> Float32:
        """(M, d) points of the items."""
        ...

    @property
    def interactions(self) -> HasPairs:
        """The items that users already have."""
        ...

    @property
    def weights(self) -> ItemWeights:
        """The weights of the items at every setting of the popularity dial."""
        ...

    @property
    def gamma(self) -> float:
        """The factor of log f_j in the score at popularity 1; 0 without a prior."""
        ...

    def dial(self, popularity: float | None = None) -> float:
        """Return a checked setting of the popularity dial; for None the model's own."""
        ...


def scorer_of(
    queries: Float32, targets: Float32, geometry: str, weight: Float32 | None = None
) -> Points:
    """Return a scorer by distance: the product, minus |v|^2 / 2 off the sphere, plus the weight.

    Parameters
    ----------
    queries : float32 array of shape (n_users, d)
    targets : float32 array of shape (n_items, d)
    geometry : {"sphere", "ball", "free"}
    weight : float32 array of shape (n_items,), optional
        b_j of each target; see `nearfar.method.prior`.

    Returns
    -------
    Points
    """
    offset = None if geometry == "sphere" else -0.5 * np.sum(targets * targets, axis=1)
    return Points(queries, targets, offset).weighted(weight)


def closeness(scores: Float32, queries: Float32, geometry: str) -> Float32:
    """Convert scores (..., k) of `scorer_of` for queries (..., d) to 1 - D^2 / 2."""
    if geometry == "sphere":
        return scores
    missing = 1.0 - 0.5 * np.sum(queries * queries, axis=-1, keepdims=True)
    return scores + np.float32(missing)
