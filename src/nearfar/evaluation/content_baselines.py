"""Baselines for content: what a cosine, and a ridge regression on factors, achieve with features.

Both rank items that nobody has used yet. A hybrid earns its place if it is above them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import lsmr

from nearfar.data.feature_space import FeatureSpace, row_lengths
from nearfar.data.features import Features, checked_features
from nearfar.data.interactions import Interactions, checked_interactions
from nearfar.runtime.arrays import Float32, Float64, Int32
from nearfar.runtime.checks import checked_seed, real, whole
from nearfar.runtime.counter import Purpose, normal, stream


class ContentCosine:
    """Scores an item by the cosine of its features with those of the user's training items.

    ::

        score_ij = (sum of x_k over the user's items k) . x_j / (its length),     |x_j| = 1

    with the rows x of `nearfar.data.feature_space.FeatureSpace`, TF-IDF for text, fitted on the
    items with training interactions. Items without features have score 0.

    Parameters
    ----------
    train : Interactions
    features : Features
        Of the items.

    Examples
    --------
    >>> from nearfar.data.features import Features
    >>> from nearfar.search.neighbours import top_k
    >>> train = Interactions.from_pairs([(1, "a"), (1, "b"), (2, "c")])
    >>> about = Features.from_matrix([[1, 0], [1, 1], [0, 1]], ["a", "b", "c"])
    >>> top_k(ContentCosine(train, about), [0], k=3).items.tolist()
    [[0, 1, 2]]
    """

    def __init__(self, train: Interactions, features: Features) -> None:
        self.interactions = checked_interactions("train", train)
        self.n_users, self.n_items = train.n_users, train.n_items
        items = rows_of(train, features)
        profiles = sp.csr_array(train.to_csr().astype(np.float32) @ items)
        length = row_lengths(profiles)
        scale = 1.0 / np.where(length > 0.0, length, 1.0)
        self._profiles = sp.csr_array(profiles.multiply(scale[:, None]).astype(np.float32))
        self._columns = sp.csc_array(items.T)

    def scorer(self) -> ContentCosine:
        """Return this object, which is itself a scorer."""
        return self

    def score_block(self, rows: Int32, first_item: int, out: Float32) -> None:
        """Write the cosines of some users and items; see `nearfar.search.neighbours.Scorer`."""
        some = self._columns[:, first_item : first_item + out.shape[1]]
        out[:] = (self._profiles[rows] @ some).toarray()


class ContentRidge:
    """Scores by matrix factorisation, whose factors of new items are predicted from features.

    The factors of users and items minimise the implicit-feedback loss ::

        sum over pairs (1 - u_i.v_j)^2 + a sum over all (u_i.v_j)^2
            + r (sum_i (n_i + a M) |u_i|^2 + sum_j (n_j + a N) |v_j|^2)

    by alternating least squares, n being the interactions of a row. A ridge regression maps
    features to the factors of the items with training interactions, which keep their own factors;
    those of the others are predicted.

    Parameters
    ----------
    train : Interactions
    features : Features
        Of the items.
    dim : int
        Number of factors.
    unobserved : float
        a, the weight of all pairs.
    regularisation : float
        r.
    ridge : float
        The penalty of the regression.
    iterations : int
        Passes over users and items.
    seed : int

    References
    ----------
    Hu, Koren & Volinsky, ICDM 2008; the regularisation by frequency is that of Rendle et al.,
    "Revisiting the performance of iALS on item recommendation benchmarks", RecSys 2022.
    """

    def __init__(
        self,
        train: Interactions,
        features: Features,
        *,
        dim: int = 64,
        unobserved: float = 0.1,
        regularisation: float = 0.003,
        ridge: float = 1.0,
        iterations: int = 8,
        seed: int = 0,
    ) -> None:
        self.interactions = checked_interactions("train", train)
        self.n_users, self.n_items = train.n_users, train.n_items
        dim, iterations = whole("dim", dim, 1, 4096), whole("iterations", iterations, 1, 1000)
        a = real("unobserved", unobserved, above=0.0)
        r = real("regularisation", regularisation, least=0.0)
        penalty = real("ridge", ridge, least=0.0)
        content, seen = rows_of(train, features), train.to_csr().astype(np.float64)
        key = stream(checked_seed(seed), Purpose.INITIAL)
        start = normal(key, np.arange(train.n_items * dim)).reshape(-1, dim) * 0.1 / dim**0.5
        users, items = np.zeros((train.n_users, dim)), start
        by_item = sp.csr_array(seen.T)
        for _ in range(iterations):
            users = _solved(seen, items, a, r)
            items = _solved(by_item, users, a, r)
        warm = train.item_counts > 0
        items[~warm] = content[~warm] @ _regressed(content[warm], items[warm], penalty)
        self._users, self._items = users.astype(np.float32), items.astype(np.float32)

    def scorer(self) -> ContentRidge:
        """Return this object, which is itself a scorer."""
        return self

    def score_block(self, rows: Int32, first_item: int, out: Float32) -> None:
        """Write the products of some users and items; see `nearfar.search.neighbours.Scorer`."""
        out[:] = self._users[rows] @ self._items[first_item : first_item + out.shape[1]].T


def rows_of(train: Interactions, features: Features) -> sp.csr_array:
    """Return the rows x of all items, (M, F) float32, fitted on those with interactions."""
    checked_features("features", features)
    space = FeatureSpace.fit(features, train.item_ids, train.item_counts > 0)
    return space.encode(features, train.item_ids).matrix


def _solved(seen: Any, others: Float64, unobserved: float, regularisation: float) -> Float64:
    """Return the factors of the rows of `seen`, given those of its columns."""
    n, (m, dim) = seen.shape[0], others.shape
    found, everywhere = np.zeros((n, dim)), unobserved * (others.T @ others)
    for row in range(n):
        liked = others[seen.indices[seen.indptr[row] : seen.indptr[row + 1]]]
        if len(liked):
            pull = regularisation * (len(liked) + unobserved * m)
            left = everywhere + liked.T @ liked + pull * np.eye(dim)
            found[row] = np.linalg.solve(left, liked.sum(axis=0))
    return found


def _regressed(content: Any, factors: Float64, penalty: float) -> Float64:
    """Return B that minimises |content B - factors|^2 + penalty |B|^2, column by column."""
    content = sp.csr_array(content, dtype=np.float64)
    columns = [
        lsmr(content, column, damp=penalty**0.5, atol=1e-6, btol=1e-6)[0] for column in factors.T
    ]
    return np.stack(columns, axis=1)
