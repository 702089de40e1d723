"""What the sampler draws: how hard, how false and how varied the negatives of a model are.

`sampling` takes the vectors as they are and draws the negatives of some steps by the sampler's own
`draw`, so that it shows what a step of the training would have met.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

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
from nearfar.runtime.checks import check_count
from nearfar.runtime.counter import Source

Lookup = Callable[[Int64], Float32]

_PAIRS_AT_ONCE = 128
"""Pairs whose products with all candidates are in memory together."""


def check_points(points: Float32, train: Interactions, options: Options) -> None:
    """Refuse points that are not a row for each user and item, with `DataError`."""
    wanted = (train.n_users + train.n_items, options.dim)
    if points.shape != wanted:
        raise DataError(
            f"`points` must have a row for each user and item and {options.dim} columns, shape "
            f"{wanted}; got {points.shape}. Give the interactions that the model was trained on."
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
    """Draw the negatives of some steps as training does, and look at them.

    Parameters
    ----------
    points : float32 array of shape (N + M, d)
        Users, then items: the vectors of the moment.
    train : Interactions
        What the steps are taken on.
    held_out : sequence of Interactions
        On the same axes: items that users like too, of which the sampler knows nothing. Pairs that
        are also in `train` do not matter, as they are never drawn.
    options : Options
        Sampler, number of negatives, batch, triplet loss and geometry are taken from it.
    seed, n_steps : int
        Steps 0 ... n_steps - 1 of a training run with this seed.

    Returns
    -------
    DataFrame
        A single row.

        ``steps``, ``pairs``, ``draws``: how many there were; empty places are no draws.
        ``missed``: share of the places for a negative that stayed empty; none if they are shared.
        ``violated``: share of the pairs with a negative inside the margin (eq. 1).
        ``held_out``: share of the draws that are held-out items of the pair's user: false
        negatives.
        ``false_push``: the share that they have in the gradient of the triplet loss: how much of
        what pushes items away pushes the wrong ones.
        ``effective_mean``, ``effective_p10``, ``effective_p50``, ``effective_p90``: mean and
        percentiles over the pairs of the effective number of items a negative is chosen among, 1 /
        sum Pr^2: n if n items are equally likely, 1 if it is always the same. With `TwoStage` it is
        that of the second stage, given the candidates; pairs without any possible candidate have
        none. With `Shared` it is that of their shares in the gradient. Null with
        ``Popularity(distinct=True)``, whose draws depend on each other.

    Raises
    ------
    OptionError
        `n_steps` is not a whole number from 1.
    DataError
        The points do not fit the interactions.
    """
    check_count("n_steps", n_steps)
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
    """Draw the negatives of some steps of a run; see `sampling`, whose row it returns.

    Parameters
    ----------
    points_of : callable
        Gives the points of rows (users, then items) as of now; only those of the pairs and of what
        is drawn for them are asked for.
    problem : Problem
    held_out : sequence of Interactions
    steps : range
        Their numbers.
    most_pairs : int, optional
        Look at so many pairs of each step; at all if None.
    """
    n_users, n_items = problem.n_users, problem.n_items
    drawing = _Steps(points_of, problem)
    parts = [drawing.draw(t, most_pairs) for t in steps]
    user, positive = (np.concatenate([entries[:, w] for entries, _ in parts]) for w in (0, 1))
    negatives = np.concatenate([entries[:, 2:] for entries, _ in parts])
    filled = negatives >= 0
    rows, places = np.nonzero(filled)
    drawn = user[rows], negatives[rows, places]
    false = np.zeros(len(rows), np.bool_)
    for other in held_out:
        false |= other.contains(*drawn)
    inside = _inside(points_of, n_users, user, positive, negatives, problem.triplet)
    share = np.array([_shares(problem.triplet, x, n_items) for x in inside])
    is_shared = problem.options.sampler.needs.shared
    row = {
        "steps": len(steps),
        "pairs": len(user),
        "draws": len(rows),
        "missed": 0.0 if is_shared else 1.0 - float(filled.mean()),
        "violated": float(np.mean(inside.max(axis=1) > 0)),
        "held_out": float(false.mean()) if len(false) else float("nan"),
        "false_push": _ratio(share[rows, places][false].sum(), share.sum()),
    }
    if is_shared:
        effective = _effective_number(share)
    else:
        effective = np.concatenate([numbers for _, numbers in parts])
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
    """How far each negative is inside the margin, minus infinity for an empty place."""
    anchor = points_of(user)
    own = score(anchor, points_of(n_users + positive))
    inside = np.full(negatives.shape, -np.inf)
    for k, column in enumerate(negatives.T):
        found = score(anchor, points_of(n_users + np.maximum(column, 0)))
        inside[:, k] = np.where(column >= 0, triplet.margin - 2.0 * (own - found), -np.inf)
    return inside


def _shares(triplet: Triplet, inside: Float64, n_items: int) -> Float64:
    """How much of a pair's loss flows to each negative, 0 to an empty place."""
    share, there = np.zeros(inside.shape), inside > -np.inf
    if there.any():
        x = inside[there]
        share[there] = triplet.pair_weight(x, n_items) * triplet.soft_maximum(x)[1]
    return share


class _Steps:
    """What training would draw with the points as they are, step by step."""

    def __init__(self, points_of: Lookup, problem: Problem) -> None:
        self.points_of, self.problem = points_of, problem
        self.known, self.frozen = TrainingUsers(problem.interactions), problem.frozen_items()

    def draw(self, step: int, most_pairs: int | None) -> tuple[Int64, Float64]:
        """Return (user, item, negatives) rows, -1 for an empty place, and effective numbers."""
        problem, source = self.problem, Source(self.problem.seed, step)
        users, items = pairs_of(problem, step)
        candidates = candidates_of(problem, source)
        at_once = len(users)
        if len(candidates):  # given these, pairs draw on their own
            users, items, at_once = users[:most_pairs], items[:most_pairs], _PAIRS_AT_ONCE
        rows, effective = [], []
        for first in range(0, len(users), at_once):
            part = slice(first, first + at_once)
            drawn = draw(
                problem, source, users[part], self.known, candidates,
                partial(self._compare, items[part]), first,
            )  # fmt: skip
            found = np.where(drawn.allowed, drawn.items, -1)
            rows.append(np.column_stack([users[part], items[part], found]))
            effective.append(self._effective(users[part], candidates, drawn.weight))
        return np.concatenate(rows)[:most_pairs], np.concatenate(effective)[:most_pairs]

    def _compare(self, positive: Int64, items: Int64) -> Float32:
        """Multiply the vectors of positive items with those of others, at length 1: (L, C)."""
        products: Float32 = self._unit(positive) @ self._unit(items).T
        return products

    def _unit(self, items: Int64) -> Float32:
        """Return the vectors of items that a second stage looks at, at length 1."""
        if self.frozen is not None:
            return self.frozen[items]
        return normalise(np.asarray(self.points_of(self.problem.n_users + items), np.float32))

    def _effective(self, users: Int64, candidates: Int64, weight: Floats | None) -> Float64:
        """1 / sum Pr^2 for each pair; NaN where it is not known, or not for a pair alone."""
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
    """1 / sum Pr^2 of a draw by eq. 4 for each of the users, whose own items are left out."""
    data, weight = problem.interactions, problem.proposal.weight
    some, place = np.unique(users, return_inverse=True)
    own = [weight[data.positives(int(user))] for user in some]
    left = weight.sum() - np.array([w.sum() for w in own])
    squares = (weight**2).sum() - np.array([(w**2).sum() for w in own])
    any_left = left > 1e-9 * weight.sum()  # the rest is rounding: the user has all of them
    effective = np.where(any_left, left**2 / np.where(any_left, squares, 1.0), np.nan)
    return effective[place]
