"""Statistics of the negatives that a sampler draws: how hard, false and varied they are.

`sampling` keeps the vectors fixed and draws the negatives of some steps with the sampler's own
`draw`, so it shows the negatives that training would use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from nearfar.data.interactions import Interactions
from nearfar.engine import Problem
from nearfar.engine.negatives import TrainingUsers, candidates_of, draw, pairs_of
from nearfar.errors import DataError
from nearfar.method.geometry import normalise, score
from nearfar.method.loss import Triplet
from nearfar.method.options import Options
from nearfar.runtime.arrays import Float32, Float64, Floats, Int64
from nearfar.runtime.checks import an_array, whole
from nearfar.runtime.counter import Source

Lookup = Callable[[Int64], Float32]

_PAIRS_AT_ONCE = 128
"""Pairs whose products with all candidates are in memory together."""


def check_points(points: Float32, train: Interactions, options: Options) -> None:
    """Raise `DataError` unless the points have one row for each user and item."""
    wanted = (train.n_users + train.n_items, options.dim)
    shape = an_array("points", points, 2).shape
    if shape != wanted:
        raise DataError(
            f"`points` must have a row for each user and item and {options.dim} columns, shape "
            f"{wanted}; got {shape}. Pass the interactions that the model was trained on."
        )


def sampling(
    points: Float32,
    train: Interactions,
    held_out: Sequence[Interactions],
    options: Options,
    *,
    seed: int = 0,
    n_steps: int = 32,
) -> pl.DataFrame:
    """Draw the negatives of some steps as training does, and return statistics of them.

    Parameters
    ----------
    points : float32 array of shape (N + M, d)
        The current vectors: users, then items.
    train : Interactions
        The training interactions from which the pairs of the steps are taken.
    held_out : sequence of Interactions
        On the same axes: further items that users like, unknown to the sampler. Pairs that are also
        in `train` have no effect, because they are never drawn.
    options : Options
        Its sampler, number of negatives, batch, triplet loss and geometry are used.
    seed, n_steps : int
        Steps 0 ... n_steps - 1 of a training run with this seed.

    Returns
    -------
    DataFrame
        A single row.

        ``steps``, ``pairs``, ``draws``: their numbers; empty places are not counted as draws.
        ``missed``: share of the places for a negative that stayed empty; 0 if they are shared.
        ``violated``: share of the pairs with a negative inside the margin (eq. 1).
        ``held_out``: share of the draws that are held-out items of the pair's user: false
        negatives.
        ``false_push``: the share of false negatives in the gradient of the triplet loss, that is,
        of the gradient that pushes items away.
        ``effective_mean``, ``effective_p10``, ``effective_p50``, ``effective_p90``: mean and
        percentiles over the pairs of the effective number of items from which a negative is chosen,
        1 / sum Pr^2: n if n items are equally likely, 1 if it is always the same item. With
        `TwoStage` it refers to the second stage, given the candidates, and pairs without any
        possible candidate are left out. With `Shared` it refers to the shares of the negatives in
        the gradient. Null with ``Popularity(distinct=True)``, whose draws depend on each other.

    Raises
    ------
    OptionError
        `n_steps` is not a whole number of at least 1.
    DataError
        The points do not fit the interactions.
    """
    n_steps = whole("n_steps", n_steps)
    check_points(points, train, options)
    problem = Problem(train, options, seed)
    row = sampled(points.__getitem__, problem, held_out, range(n_steps))
    return pl.DataFrame([row], schema=_SAMPLING)


def sampled(
    points_of: Lookup,
    problem: Problem,
    held_out: Sequence[Interactions],
    steps: range,
    most_pairs: int | None = None,
) -> dict[str, Any]:
    """Draw the negatives of some steps of a run; return the row of `sampling`.

    Parameters
    ----------
    points_of : callable
        Returns the current points of rows (users, then items); it is called only with the rows of
        the pairs and of the items drawn for them.
    problem : Problem
    held_out : sequence of Interactions
    steps : range
        The numbers of the steps.
    most_pairs : int, optional
        Use at most this many pairs of each step; all if None.
    """
    drawn = drawn_pairs(points_of, problem, steps, most_pairs)
    return {"steps": len(steps)} | statistics(drawn, problem, held_out)


class DrawnPairs(NamedTuple):
    """The pairs of some steps with the negatives that were drawn for them."""

    user: Int64
    """(L,)."""
    positive: Int64
    """(L,) items."""
    negatives: Int64
    """(L, C) items; -1 for an empty place."""
    inside: Float64
    """(L, C) how far a negative is inside the margin; -inf for an empty place."""
    share: Float64
    """(L, C) the derivative of the pair's loss for each negative."""
    effective: Float64
    """(L,) the effective number of items from which a negative is chosen; NaN if not defined."""


def drawn_pairs(
    points_of: Lookup, problem: Problem, steps: range, most_pairs: int | None = None
) -> DrawnPairs:
    """Draw the negatives of some steps of a run; see `sampled`."""
    drawing = _Steps(points_of, problem)
    parts = [drawing.draw(t, most_pairs) for t in steps]
    user, positive = (np.concatenate([entries[:, w] for entries, _ in parts]) for w in (0, 1))
    negatives = np.concatenate([entries[:, 2:] for entries, _ in parts])
    inside = _inside(points_of, problem.n_users, user, positive, negatives, problem.triplet)
    share = np.array([_shares(problem.triplet, x, problem.n_items) for x in inside])
    if problem.options.sampler.needs.shared:
        effective = _effective_number(share)
    else:
        effective = np.concatenate([numbers for _, numbers in parts])
    return DrawnPairs(user, positive, negatives, inside, share, effective)


def statistics(
    drawn: DrawnPairs, problem: Problem, held_out: Sequence[Interactions]
) -> dict[str, Any]:
    """Return the row of `sampling`, without the number of steps."""
    filled = drawn.negatives >= 0
    rows, places = np.nonzero(filled)
    false = np.zeros(len(rows), np.bool_)
    for other in held_out:
        false |= other.contains(drawn.user[rows], drawn.negatives[rows, places])
    share, effective = drawn.share, drawn.effective
    row = {
        "pairs": len(drawn.user),
        "draws": len(rows),
        "missed": 0.0 if problem.options.sampler.needs.shared else 1.0 - float(filled.mean()),
        "violated": float(np.mean(drawn.inside.max(axis=1) > 0)),
        "held_out": float(false.mean()) if len(false) else float("nan"),
        "false_push": _ratio(share[rows, places][false].sum(), share.sum()),
    }
    return row | _spread(effective[np.isfinite(effective)])


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")


_SPREAD: Final = ("effective_mean", "effective_p10", "effective_p50", "effective_p90")
_SAMPLING: Final = dict.fromkeys(("steps", "pairs", "draws"), pl.Int64()) | dict.fromkeys(
    ("missed", "violated", "held_out", "false_push", *_SPREAD), pl.Float64()
)


def _spread(numbers: Float64) -> dict[str, float | None]:
    if len(numbers) == 0:
        return dict.fromkeys(_SPREAD)
    values = [numbers.mean(), *np.percentile(numbers, (10, 50, 90))]
    return {name: float(value) for name, value in zip(_SPREAD, values, strict=True)}


def _inside(
    points_of: Lookup,
    n_users: int,
    user: Int64,
    positive: Int64,
    negatives: Int64,
    triplet: Triplet,
) -> Float64:
    """Return how far each negative is inside the margin; minus infinity for an empty place."""
    anchor = points_of(user)
    own = score(anchor, points_of(n_users + positive))
    inside = np.full(negatives.shape, -np.inf)
    for k, column in enumerate(negatives.T):
        found = score(anchor, points_of(n_users + np.maximum(column, 0)))
        inside[:, k] = np.where(column >= 0, triplet.margin - 2.0 * (own - found), -np.inf)
    return inside


def _shares(triplet: Triplet, inside: Float64, n_items: int) -> Float64:
    """Return the derivative of a pair's loss for each negative; 0 for an empty place."""
    share, there = np.zeros(inside.shape), inside > -np.inf
    if there.any():
        x = inside[there]
        share[there] = triplet.pair_weight(x, n_items) * triplet.soft_maximum(x)[1]
    return share


class _Steps:
    """Draws the negatives of training steps with the current points."""

    def __init__(self, points_of: Lookup, problem: Problem) -> None:
        self.points_of, self.problem = points_of, problem
        self.known, self.frozen = TrainingUsers(problem.interactions), problem.frozen()

    def draw(self, step: int, most_pairs: int | None) -> tuple[Int64, Float64]:
        """Return (user, item, negatives) rows, -1 for an empty place, and effective numbers."""
        problem, source = self.problem, Source(self.problem.seed, step)
        users, items = pairs_of(problem, step)
        candidates = candidates_of(problem, source)
        at_once = len(users)
        if len(candidates):  # given these, pairs draw independently
            users, items, at_once = users[:most_pairs], items[:most_pairs], _PAIRS_AT_ONCE
        rows, effective = [], []
        for first in range(0, len(users), at_once):
            part = slice(first, first + at_once)
            drawn = draw(
                problem, source, users[part], self.known, candidates,
                partial(self._compare, problem.anchors(users[part], items[part])), first,
            )  # fmt: skip
            found = np.where(drawn.allowed, drawn.items, -1)
            rows.append(np.column_stack([users[part], items[part], found]))
            effective.append(self._effective(users[part], candidates, drawn.weight))
        return np.concatenate(rows)[:most_pairs], np.concatenate(effective)[:most_pairs]

    def _compare(self, anchors: Int64, items: Int64) -> Float32:
        """Return the products (L, C) of the rows `anchors` with items, all at length 1."""
        products: Float32 = self._unit(anchors) @ self._unit(self.problem.n_users + items).T
        return products

    def _unit(self, rows: Int64) -> Float32:
        """Return the vectors of rows that the second stage compares, at length 1."""
        if self.frozen is not None:
            return self.frozen[rows - self.problem.n_rows]  # from the end, see `Problem.frozen`
        return normalise(np.asarray(self.points_of(rows), np.float32))

    def _effective(self, users: Int64, candidates: Int64, weight: Floats | None) -> Float64:
        """Return 1 / sum Pr^2 for each pair; NaN if it is unknown or not defined per pair."""
        if weight is not None:  # an item that is several candidates counts once
            order = np.argsort(candidates, kind="stable")
            begin = np.flatnonzero(np.diff(candidates[order], prepend=-1))
            return _effective_number(np.add.reduceat(weight[:, order], begin, axis=1))
        if self.problem.options.sampler.needs.kernel == "independent":
            return _effective_first(self.problem, users)
        return np.full(len(users), np.nan)


def _effective_number(weight: npt.NDArray[Any]) -> Float64:
    total, squares = weight.sum(axis=1), (weight * weight).sum(axis=1)
    return np.where(total > 0, total * total / np.where(total > 0, squares, 1.0), np.nan)


def _effective_first(problem: Problem, users: Int64) -> Float64:
    """Return 1 / sum Pr^2 of a draw by eq. 4 for each user, without the user's own items."""
    data, weight = problem.interactions, problem.proposal.weight
    some, place = np.unique(users, return_inverse=True)
    own = [weight[data.positives(int(user))] for user in some]
    left = weight.sum() - np.array([w.sum() for w in own])
    squares = (weight**2).sum() - np.array([(w**2).sum() for w in own])
    any_left = left > 1e-9 * weight.sum()  # less is rounding error: the user has all items
    effective = np.where(any_left, left**2 / np.where(any_left, squares, 1.0), np.nan)
    return effective[place]
