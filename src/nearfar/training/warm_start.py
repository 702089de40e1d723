"""Warm start: the initial points for training a model further on more data."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from nearfar.data.interactions import Interactions
from nearfar.engine import Problem, State
from nearfar.method.geometry import normalise
from nearfar.runtime.arrays import Bool, Float32, Int64


class Deltas(Protocol):
    """What a hybrid has learned, on the axes of the new data."""

    @property
    def vectors(self) -> Float32:
        """The vectors of the encoder, (F, d)."""
        ...

    @property
    def placed(self) -> Bool:
        """Which joint rows have content."""
        ...

    def encoded(self, rows: Int64) -> Float32:
        """Return g(x) of joint rows, not normalised."""
        ...

    def deltas(self, points: Float32) -> Float32:
        """Return delta of the joint rows with content, and the points of the others."""
        ...


def grown_state(
    problem: Problem,
    users: Float32,
    items: Float32,
    known: Interactions,
    encoders: Deltas | None = None,
) -> State:
    """Return the initial state for training on more data.

    Users and items of `known` with interactions start at their points. A new user starts at the
    mean of the known items they like, and a new item at the mean of its users that have a point
    after that. Any others start at a random point, as in `nearfar.CML.fit`.

    Parameters
    ----------
    problem : Problem
        Its interactions must have all users and items of `known`.
    users, items : float32 arrays of shapes (N, d) and (M, d)
        The points of the users and items of `known`.
    known : Interactions
    encoders : optional
        Those of a hybrid. Users and items with content start at what their content says, and known
        ones at their delta too.
    """
    state, data = problem.initial_state(), problem.interactions
    n, on_sphere = problem.n_users, problem.options.geometry == "sphere"
    points = state.rows[: problem.n_rows, 0]
    placed = np.zeros(problem.n_rows, np.bool_)
    for first, axis, old, ids, counts in (
        (0, data.user_ids, users, known.user_ids, known.user_counts),
        (n, data.item_ids, items, known.item_ids, known.item_counts),
    ):
        learned = np.flatnonzero(counts)
        rows = first + axis.places(ids)[learned]
        points[rows], placed[rows] = old[learned], True
    fresh = np.empty(0, np.int64)
    if encoders is not None:
        fresh = np.flatnonzero(encoders.placed & ~placed)
        points[fresh], placed[fresh] = normalise(encoders.encoded(fresh)), True
    liked = data.to_csr().astype(np.float32)
    _to_means(points[:n], placed[:n], liked, points[n:], placed[n:], on_sphere)
    _to_means(points[n:], placed[n:], liked.T.tocsr(), points[:n], placed[:n], on_sphere)
    if encoders is not None:
        points[:] = encoders.deltas(points)
        points[fresh] = 0.0
        state.rows[problem.n_rows :, 0] = encoders.vectors
    return state


def _to_means(
    points: Float32, placed: Bool, likes: Any, others: Float32, there: Bool, on_sphere: bool
) -> None:
    """Set each point not yet placed to the mean of the placed `others` it likes, if any."""
    new = np.flatnonzero(~placed)
    known = likes[new] * there.astype(np.float32)[None, :]
    count = np.asarray(known.sum(axis=1)).ravel()
    found = count > 0
    mean = (known @ others)[found] / count[found, None]
    points[new[found]] = normalise(mean) if on_sphere else mean
    placed[new[found]] = True
