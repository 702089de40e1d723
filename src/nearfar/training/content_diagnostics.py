"""Diagnostics of hybrids: how much content places the points, and what it says of the negatives.

- ``explained_items``, ``explained_users``: the share of a point that content explains, ::

      mean over rows r of max(0, cos(g(x_r), p_r))^2,     from 0 to 1,

  over rows with content and training interactions. A point p has length 1. It is the sum of a part
  in the direction of g and a part at right angles to it, which only delta can give it, and the
  squared lengths of both add up to 1: the measure is the first. 1 means that delta moves no point
  (as with id_dropout = 1), 0 that content places none. |g|^2 / (|g|^2 + |delta|^2) would not do: a
  delta that only makes g longer moves nothing. The point of a new item is g alone, so if little is
  explained, new items lie elsewhere than items like them that have interactions.
- ``similar_push``: how often the gradient pushes away items whose content is like that of the
  user's own, relative to items drawn uniformly; ``similar_drawn`` counts draws instead of the
  gradient. They may be false negatives: items that the user would like. An item is similar to a
  user if its highest cosine with an item of theirs, by the rows of `nearfar.data.feature_space`, is
  among the highest 5 % of items that are drawn uniformly among those with training interactions
  that the user does not have (more than 5 % if several have the same). ``similar_cosine`` is the
  lowest such cosine, the mean over users. No fixed cosine would do: by genres and years of films
  half of all items are above 0.8, by words of articles one in a thousand is above 0.3.
- ``cache_age``, ``cache_oldest``: how long ago the cached points were encoded by which a second
  stage chooses, or with which a module of few fresh negatives compares, on average and at most, in
  epochs, as noted when they were.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import scipy.sparse as sp

from nearfar.engine import Problem, State
from nearfar.engine.content import has_content, rows_of
from nearfar.runtime.arrays import Float32, Float64, Int64
from nearfar.runtime.counter import Purpose, stream, uniform
from nearfar.training.drawn import DrawnPairs

SIMILAR: Final = 0.05
"""The share of items, drawn uniformly, that counts as similar in content."""
_ROWS: Final = 512
"""Rows of each side whose share is measured."""
_PLACES: Final = 1024
"""Negatives that are compared with the user's items, about."""
_CHANCE: Final = 256
"""Items that are drawn uniformly."""
_OWN: Final = 128
"""Items of a user that are compared, at most."""
_USERS_AT_ONCE: Final = 16
_ROUNDING: Final = 1e-6
"""Cosines that differ by less are the same."""

NAN: Final = float("nan")


@dataclass(frozen=True)
class ContentSight:
    """The diagnostics of a hybrid after one epoch; NaN for what it does not have."""

    explained_items: float = NAN
    explained_users: float = NAN
    similar_push: float = NAN
    similar_drawn: float = NAN
    similar_cosine: float = NAN
    cache_age: float = NAN
    cache_oldest: float = NAN

    def to_dict(self) -> dict[str, float]:
        """Return the values that are not NaN, for the history."""
        return {name: value for name, value in asdict(self).items() if not np.isnan(value)}


NOTHING: Final = ContentSight()
"""The diagnostics of a model that is no hybrid."""


class EncodedPoints:
    """The points of a hybrid, of which each row is encoded once, when it is first asked for.

    Parameters
    ----------
    problem : Problem
    tables : float32 array of shape (N + M + F, d)
        As `nearfar.engine.Engine.tables`.
    """

    def __init__(self, problem: Problem, tables: Float32) -> None:
        self.problem, self.tables = problem, tables
        self._points = np.empty((problem.n_rows, tables.shape[1]), np.float32)
        self._known = np.zeros(problem.n_rows, np.bool_)

    def __call__(self, rows: Int64) -> Float32:
        """Return the points of joint rows, (n, d)."""
        new = np.unique(rows[~self._known[rows]])
        if len(new):
            self._points[new] = self.problem.encoded(self.tables, new)
            self._known[new] = True
        return self._points[rows]

    def alone(self, rows: Int64) -> Float32:
        """Return the points that the content of joint rows has without delta, (n, d)."""
        return self.problem.encoded(self.tables, rows, alone=True)


def look_at_content(
    points: EncodedPoints, problem: Problem, drawn: DrawnPairs, state: State | None, epoch: int
) -> ContentSight:
    """Compute the diagnostics of a hybrid after an epoch.

    Parameters
    ----------
    points : EncodedPoints
        The current points.
    problem : Problem
        With content.
    drawn : DrawnPairs
        Pairs of the next steps, with their negatives.
    state : State, optional
        Of the engine, for the age of its cache; needed only if it has one.
    epoch : int
        The completed epoch, for random numbers.
    """
    data, n = problem.interactions, problem.n_users
    key = stream(problem.seed, Purpose.DIAGNOSTICS, epoch)
    push, draws, cosine = _similar(problem, drawn, key)
    age, oldest = (NAN, NAN) if state is None else _ages(problem, state)
    return ContentSight(
        _explained(points, n + np.flatnonzero(data.item_counts), key),
        _explained(points, np.flatnonzero(data.user_counts), key),
        push, draws, cosine, age, oldest,
    )  # fmt: skip


def _explained(points: EncodedPoints, rows: Int64, key: np.uint64) -> float:
    """Return mean max(0, cos(g, p))^2 over a sample of those of `rows` that have content."""
    assert points.problem.content is not None
    rows = rows[has_content(points.problem.content)[rows]]
    if len(rows) > _ROWS:
        rows = np.sort(rows[np.argsort(uniform(key, rows))[:_ROWS]])
    if len(rows) == 0:
        return NAN
    cosines = np.sum(points.alone(rows) * points(rows), axis=1, dtype=np.float64)
    return float(np.mean(np.clip(cosines, 0.0, 1.0) ** 2))


def _similar(problem: Problem, drawn: DrawnPairs, key: np.uint64) -> tuple[float, float, float]:
    """Return `similar_push`, `similar_drawn` and `similar_cosine`."""
    assert problem.content is not None
    items = rows_of(problem.content, "items")
    if items.nnz == 0 or problem.module is not None:  # contents of a module are no columns
        return NAN, NAN, NAN
    width = drawn.negatives.shape[1]
    n = min(len(drawn.user), max(64, _PLACES // width))
    share, some = drawn.share[:n], np.flatnonzero(problem.interactions.item_counts)
    chance = some[(uniform(key, np.arange(_CHANCE)) * len(some)).astype(np.int64)]
    listed = np.hstack([drawn.negatives[:n], np.broadcast_to(chance, (n, _CHANCE))])
    found = _likeness(problem, items, drawn.user[:n], listed)
    least, base = _thresholds(found[:, width:])
    alike = found[:, :width] >= least[:, None]
    draws = np.isfinite(found[:, :width]).sum(axis=1)
    return (
        _ratio(float(share[alike].sum()), float(share.sum(axis=1) @ base)),
        _ratio(float(alike.sum()), float(draws @ base)),
        float(np.mean(least[base > 0])) if base.any() else NAN,
    )


def _thresholds(found: Float64) -> tuple[Float64, Float64]:
    """Return the cosine (n,) that the share `SIMILAR` of a user's columns reach, and how many do.

    More do where many have the same; a user without any column that is like theirs has 0.
    """
    least, base = np.full(len(found), np.inf), np.zeros(len(found))
    for at, row in enumerate(found):
        usual = np.sort(row[np.isfinite(row)])
        if len(usual) and usual[-1] > _ROUNDING:
            place = len(usual) - max(1, round(SIMILAR * len(usual)))
            least[at] = max(usual[place] - _ROUNDING, _ROUNDING)
            base[at] = np.mean(usual >= least[at])
    return least, base


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else NAN


def _likeness(problem: Problem, items: sp.csr_array, users: Int64, listed: Int64) -> Float64:
    """Return the highest cosine of items (n, C) with those that the users (n,) have, (n, C).

    It is -inf for empty places (-1) and the user's own items. `items` are the rows of features.
    """
    data, found = problem.interactions, np.empty(listed.shape)
    for first in range(0, len(users), _USERS_AT_ONCE):
        part = slice(first, first + _USERS_AT_ONCE)
        columns, place = np.unique(np.maximum(listed[part], 0), return_inverse=True)
        own = [data.positives(int(user)) for user in users[part]]
        own = [some[:: -(-len(some) // _OWN)] for some in own]
        starts = np.cumsum([0, *map(len, own[:-1])])
        mine, theirs = _at_length_1(items[np.concatenate(own)]), _at_length_1(items[columns])
        best = np.maximum.reduceat((mine @ theirs.T).toarray(), starts, axis=0)
        found[part] = np.take_along_axis(best, place.reshape(len(own), -1), axis=1)
    has = data.contains(np.repeat(users, listed.shape[1]), np.maximum(listed, 0).ravel())
    found[(listed < 0) | has.reshape(listed.shape)] = -np.inf
    return found


def _at_length_1(rows: sp.csr_array) -> sp.csr_array:
    """Return the rows at length 1, except empty ones."""
    length = np.sqrt(np.asarray((rows * rows).sum(axis=1), np.float64))
    per_value = np.repeat(np.where(length > 0.0, length, 1.0), np.diff(rows.indptr))
    return sp.csr_array((rows.data / per_value, rows.indices, rows.indptr), rows.shape)


def _ages(problem: Problem, state: State) -> tuple[float, float]:
    """Return the mean and the highest age of the cached points of rows with content, in epochs."""
    rows = problem.cached
    if state.cached_at is None or problem.content is None:
        return NAN, NAN
    looked_at = has_content(problem.content)[rows.start : rows.stop]
    if not looked_at.any():
        return NAN, NAN
    ages = (state.step - state.cached_at[looked_at]) / problem.steps_per_epoch
    return float(ages.mean()), float(ages.max())
