"""Coordinates with which the score of a model is one inner product.

::

    item j:   (v_j)                                   on the sphere, without a prior
              (v_j, gamma log f_j)                    on the sphere, with a popularity prior
              (v_j, -|v_j|^2 / 2)                     off the sphere
              (v_j, -|v_j|^2 / 2, gamma log f_j)      both
    user i:   (u_i [, 1] [, x])                       x: the setting of the popularity dial

Their inner product is the score u.v + x gamma log f of `CML.recommend` on the sphere, and off the
sphere the score less 1 - |u|^2 / 2, which is the same for all items. The dial is a coordinate of
the user alone: one table of items serves every setting.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError
from nearfar.model.cml import CML
from nearfar.runtime.arrays import Float32
from nearfar.runtime.checks import an_array, an_instance


def on_sphere(model: CML) -> bool:
    """Return whether the points of a model have length 1."""
    return model.options.geometry == "sphere"


def item_coordinates(model: CML) -> Float32:
    """Return the vectors of the items, float32 (M, width)."""
    points = model.item_vectors
    columns: list[npt.NDArray[Any]] = [points]
    if not on_sphere(model):
        columns.append(-0.5 * np.sum(points * points, axis=1))
    if model.gamma != 0.0:
        weight = model.item_weight(1.0)
        columns.append(np.zeros(len(points), np.float32) if weight is None else weight)
    return np.column_stack(columns).astype(np.float32, copy=False)


def queries(model: CML, points: npt.ArrayLike, *, popularity: float | None = None) -> Float32:
    """Return the vectors with which points of users search a store.

    Parameters
    ----------
    model : CML
        A fitted model.
    points : array_like of shape (n, d)
        Points of users: ``model.user_vectors``, or those that `CML.fold_in` made.
    popularity : float, optional
        The setting of the popularity dial; if None, that of the model's `Prior`.

    Returns
    -------
    float32 array of shape (n, width)

    Raises
    ------
    OptionError
        `model` is not a model, or `popularity` is given for a model without a prior.
    DataError
        `points` is not an array of d columns.

    Examples
    --------
    >>> import nearfar as nf
    >>> model = nf.CML(dim=2, batch=4, prior=nf.Prior(gamma=0.1))
    >>> model = model.fit(nf.Interactions.from_pairs([("a", 1), ("b", 2)]), epochs=1)
    >>> queries(model, [[0.6, 0.8]], popularity=0.5).round(1).tolist()
    [[0.6..., 0.8..., 0.5]]
    """
    model, rows = an_instance("model", model, CML), an_array("points", points, 2)
    setting, dim = model.dial(popularity), model.item_vectors.shape[1]
    if rows.shape[1] != dim:
        raise DataError(
            f"`points` must have the {dim} columns of the model's points; got {rows.shape[1]}."
        )
    columns = [rows.astype(np.float32, copy=False)]
    if not on_sphere(model):
        columns.append(np.ones((len(rows), 1), np.float32))
    if model.gamma != 0.0:
        columns.append(np.full((len(rows), 1), setting, np.float32))
    return np.hstack(columns)
