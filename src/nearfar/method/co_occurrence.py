"""The co-occurrence term: items that a user's own items are often found with score higher.

    score_ij = u_i.v_j + b_j + lambda |S_i|^(-1/2)  sum over k in S_i of g_kj,

    g_kj = sum over users u who have both k and j of  1 / (|S_u| sqrt(f_k f_j)),      g_kk = 0.

S_i are the training items of user i (of a new user: the items that they like), f_j the training
interactions of item j, and b_j its weight (`nearfar.method.prior`). Of each k only the `nearest`
largest g_kj are kept, of equals those with the smaller item number.

With A = U^(-1/2) X I^(-1/2), X the 0-1 matrix of interactions, U and I the diagonal matrices of the
counts of users and items, g is A'A without its diagonal, and the sum with |S_i|^(-1/2) is row i of
U^(-1/2) X g: a linear filter of the user's own row. It needs no training. It adds what a few
coordinates cannot hold, which items are found together.

**Memory.** At most M x nearest x 8 bytes, and 8 bytes for each item: an int32 item number and a
float32 value for each kept g_kj. **Time.** The sum over users of |S_u|^2 additions.

References
----------
Shen et al., *How Powerful is Graph Convolution for Recommendation?*, CIKM 2021: the linear filter
of GF-CF, there on its own and with every g_kj.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from nearfar.runtime.arrays import Bool, Float32
from nearfar.runtime.checks import real, set_fields, whole

WEIGHTS: Final = (0.0, 2.0, 4.0, 8.0, 16.0)
"""The values of lambda that are tried on a validation part."""
DEFAULT_WEIGHT: Final = 8.0
"""lambda without a validation part."""
MOST_WEIGHT: Final = 1e6
"""From far less on, the term alone decides."""
MOST: Final = 100_000
"""More neighbours of each item are refused: they would not fit into memory."""


@dataclass(frozen=True)
class CoOccurrence:
    """A term in the score of a model: which items are found together with those of the user."""

    nearest: int = 200
    """The number of neighbours kept of each item. They take 8 bytes each."""
    weight: float | None = None
    """lambda, the factor of the term. None finds it: the best of 0, 2, 4, 8 and 16 on the
    validation part if there is one, and otherwise 8."""

    def __post_init__(self) -> None:
        weight = self.weight
        if weight is not None:
            weight = real("weight", weight, least=0.0, most=MOST_WEIGHT)
        set_fields(self, nearest=whole("nearest", self.nearest, 1, MOST), weight=weight)


def similarities(liked: Bool, nearest: int) -> Float32:
    """Return g of a small table of interactions, by its definition.

    `nearfar.search.item_item.near_items` computes the same of large data.

    Parameters
    ----------
    liked : bool array of shape (N, M)
        Whether each user has each item.
    nearest : int

    Returns
    -------
    float32 array of shape (M, M)
        g_kj in row k and column j; 0 where it is not kept.

    Examples
    --------
    >>> similarities(np.array([[True, True], [True, False]]), 1).astype(float).round(4).tolist()
    [[0.0, 0.3536], [0.3536, 0.0]]
    """
    of_users, of_items = (np.maximum(liked.sum(axis=axis), 1.0) for axis in (1, 0))
    normal = liked / np.sqrt(np.multiply.outer(of_users, of_items))
    g: Float32 = (normal.T @ normal).astype(np.float32)
    np.fill_diagonal(g, 0.0)
    left_out = np.argsort(-g, axis=1, kind="stable")[:, nearest:]
    np.put_along_axis(g, left_out, np.float32(0.0), axis=1)
    return g
