"""From points to scores: ranking by distance is ranking by a product and an offset a target.

``|u - v|^2 = |u|^2 - 2 u.v + |v|^2``. On the sphere the lengths are 1 and the product decides; off
the sphere the offset ``-|v|^2 / 2`` is added to it. |u|^2 is the same for all targets of a query,
so it only matters where the score itself is shown (`closeness`).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from nearfar.method.options import Options
from nearfar.runtime.arrays import Float32, Int32, Int64
from nearfar.search.neighbours import Points


class HasPairs(Protocol):
    """The training interactions of a model, by user."""

    @property
    def indptr(self) -> Int64:
        """(N + 1,) where the items of each user begin."""
        ...

    @property
    def items(self) -> Int32:
        """The items, user by user."""
        ...


class HasPoints(Protocol):
    """A fitted model, as far as searching among its points goes."""

    @property
    def options(self) -> Options:
        """What the model is; here, its geometry."""
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
        """What the users have already."""
        ...


def scorer_of(queries: Float32, targets: Float32, geometry: str) -> Points:
    """Rank targets for queries by distance: the product, less |v|^2 / 2 off the sphere.

    Parameters
    ----------
    queries : float32 array of shape (n_users, d)
    targets : float32 array of shape (n_items, d)
    geometry : {"sphere", "ball", "free"}

    Returns
    -------
    Points
    """
    offset = None if geometry == "sphere" else -0.5 * np.sum(targets * targets, axis=1)
    return Points(queries, targets, offset)


def closeness(scores: Float32, queries: Float32, geometry: str) -> Float32:
    """Turn scores (..., k) of `scorer_of` for some queries (..., d) into 1 - D^2 / 2."""
    if geometry == "sphere":
        return scores
    missing = 1.0 - 0.5 * np.sum(queries * queries, axis=-1, keepdims=True)
    return scores + np.float32(missing)
