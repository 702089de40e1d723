"""The items in two dimensions, to be looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nearfar.errors import OptionError
from nearfar.method.geometry import score
from nearfar.runtime.arrays import Float32, Floats
from nearfar.runtime.extras import load_extra

METHODS = ("pca", "umap")
_NEAREST = 10
"""Items whose places on the map are averaged, where the map is no linear one."""


@dataclass(frozen=True, eq=False)
class Projection:
    """Places of the items of a model on a plane; made by `project`.

    With "pca" the place of any vector x is ``(x - mean) axes``: the plane on which the items'
    variance is largest. With "umap" there is no such formula: a vector lies at the mean of its ten
    nearest items.
    """

    method: str
    """"pca" or "umap"."""
    points: Float32
    """(M, 2) the items' places."""
    items: Float32
    """(M, d) their points in the model."""
    mean: Float32
    """(d,) their mean."""
    axes: Float32
    """(d, 2) orthonormal columns, the variance along the first at least that along the second."""

    def place(self, vector: Floats) -> tuple[float, float]:
        """Give the place of a vector (d,) of the model's space, of a user for example."""
        if self.method == "pca":
            x, y = (np.asarray(vector, np.float32) - self.mean) @ self.axes
        else:
            near = score(np.asarray(vector, np.float32), self.items)
            count = min(_NEAREST, len(near))
            x, y = self.points[np.argpartition(-near, count - 1)[:count]].mean(axis=0)
        return float(x), float(y)


def project(items: Float32, method: str = "pca", *, seed: int = 0) -> Projection:
    """Put items on a plane.

    Parameters
    ----------
    items : float32 array of shape (M, d)
        M at least 1, d at least 2.
    method : str
        "pca", or "umap", which keeps neighbours together but no distances; it needs umap-learn.
    seed : int
        Of "umap".

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
    if method not in METHODS:
        raise OptionError(f"`method` must be one of {', '.join(METHODS)}; got {method!r}.")
    mean, axes = _principal(items)
    if method == "pca":
        return Projection(method, np.ascontiguousarray((items - mean) @ axes), items, mean, axes)
    return Projection(method, _umap(items, seed), items, mean, axes)


def _principal(items: Float32) -> tuple[Float32, Float32]:
    """Mean and first two principal axes; of each axis the largest component is positive."""
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
    found = umap.UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1).fit_transform(items)
    return np.ascontiguousarray(found, np.float32)
