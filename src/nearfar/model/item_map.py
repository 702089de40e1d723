"""The items in two dimensions, for plots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nearfar.errors import OptionError
from nearfar.method.geometry import score
from nearfar.runtime.arrays import Float32, Floats
from nearfar.runtime.checks import one_of
from nearfar.runtime.extras import load_extra

METHODS = ("pca", "umap")
_NEAREST = 10
"""Number of items whose positions are averaged to place a vector on a map that is not linear."""


@dataclass(frozen=True, eq=False)
class Projection:
    """Positions of the items of a model in two dimensions; created by `project`.

    With "pca" the position of any vector x is ``(x - mean) axes``: the plane on which the variance
    of the items is largest. With "umap" there is no such formula: the position of a vector is the
    mean of its ten nearest items.
    """

    method: str
    """"pca" or "umap"."""
    points: Float32
    """(M, 2) positions of the items."""
    items: Float32
    """(M, d) points of the items in the model."""
    mean: Float32
    """(d,) mean of these points."""
    axes: Float32
    """(d, 2) orthonormal columns, in order of decreasing variance."""

    def place(self, vector: Floats) -> tuple[float, float]:
        """Return the position of a vector (d,) of the model's space, such as a user's point."""
        if self.method == "pca":
            x, y = (np.asarray(vector, np.float32) - self.mean) @ self.axes
        else:
            near = score(np.asarray(vector, np.float32), self.items)
            count = min(_NEAREST, len(near))
            x, y = self.points[np.argpartition(-near, count - 1)[:count]].mean(axis=0)
        return float(x), float(y)


def project(items: Float32, method: str = "pca", *, seed: int = 0) -> Projection:
    """Project items to two dimensions.

    Parameters
    ----------
    items : float32 array of shape (M, d)
        M at least 1, d at least 2.
    method : str
        "pca", or "umap", which preserves neighbourhoods but not distances and needs umap-learn.
    seed : int
        Seed of "umap".

    Raises
    ------
    OptionError
        There is no such method, or there are fewer than 4 items for "umap".
    MissingExtraError
        umap-learn is not installed.

    Examples
    --------
    >>> corners = np.array([[2, 1, 0], [-2, 1, 0], [2, -1, 0], [-2, -1, 0]], np.float32)
    >>> np.abs(project(corners).points).tolist()
    [[2.0, 1.0], [2.0, 1.0], [2.0, 1.0], [2.0, 1.0]]
    """
    method = one_of("method", method, METHODS)
    mean, axes = _principal(items)
    if method == "pca":
        return Projection(method, np.ascontiguousarray((items - mean) @ axes), items, mean, axes)
    return Projection(method, _umap(items, seed), items, mean, axes)


def _principal(items: Float32) -> tuple[Float32, Float32]:
    """Return the mean and the first two principal axes, the largest component of each positive."""
    mean = items.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = items - mean
    values, vectors = np.linalg.eigh(centred.T @ centred)
    axes = vectors[:, np.argsort(values)[::-1][:2]]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0)
    return mean, np.ascontiguousarray(axes * np.where(largest < 0, -1.0, 1.0), np.float32)


def _umap(items: Float32, seed: int) -> Float32:
    if len(items) < 4:
        raise OptionError(f"`method` 'umap' needs at least 4 items; got {len(items)}. Use 'pca'.")
    missing = "A map by UMAP needs umap-learn: pip install \"nearfar[umap]\". Or use 'pca'."
    umap = load_extra("umap", missing)
    neighbours = min(15, len(items) - 1)
    made = umap.UMAP(n_neighbors=neighbours, random_state=seed % 2**32, n_jobs=1)
    found = made.fit_transform(items)
    return np.ascontiguousarray(found, np.float32)
