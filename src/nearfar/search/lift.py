"""The weights of the items as two more coordinates, so that scores are in the order of distances.

The lists of an index are searched by Euclidean distance. With weights b_j >= 0, the largest B, any
s > 0, and

    t_j = (v_j, s b_j, s sqrt(B^2 - b_j^2)),     q = (u, x / s, 0),

the squared distances are

    |q - t_j|^2 = |u - v_j|^2 - 2 x b_j + (x / s)^2 + (s B)^2.

So the nearest t_j have the best scores at setting x of the dial, in every geometry: a weight turns
a point on a circle of radius s B. The settings differ in the query alone, so that one index serves
all of them; s only decides how much k-means separates the items by weight.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from nearfar.runtime.arrays import Float32

STRETCH: Final = 4.0
"""s. Lists around points (v_j, s b_j) or (v_j, b_j), searched by inner product, had to compare more
items for the same recall, on Last.fm and on Gowalla."""


def lifted(targets: Float32, weight: Float32 | None) -> Float32:
    """Return t_j of targets (n, d) with weights (n,), float32 (n, d + 2); v_j without weights.

    Examples
    --------
    >>> lifted(np.zeros((3, 1), np.float32), np.array([0, 3, 5], np.float32)).tolist()
    [[0.0, 0.0, 20.0], [0.0, 12.0, 16.0], [0.0, 20.0, 0.0]]
    """
    if weight is None:
        return targets
    b = weight.astype(np.float64)
    rest = np.sqrt(np.max(b, initial=0.0) ** 2 - b * b)
    turned: Float32 = (STRETCH * np.stack([b, rest], axis=1)).astype(np.float32)
    return np.hstack([targets, turned])


def aim(popularity: float) -> Float32:
    """Return the last two coordinates of q at a setting of the dial, float32 (2,).

    Examples
    --------
    >>> aim(2.0).tolist()
    [0.5, 0.0]
    """
    return np.array([popularity / STRETCH, 0.0], np.float32)
