"""What the sampler draws: how hard, how false and how varied the negatives of a model are.

`sampling` takes the vectors as they are and draws the negatives of some steps with the very kernels
of the engine, so that it shows what a step of the training would have met.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from nearfar.data.interactions import Interactions
from nearfar.engine import Problem
from nearfar.engine.cpu.buffers import PAIRS_A_BLOCK, make_draws, make_plans
from nearfar.engine.cpu.choose import choose_negatives, hash_candidates
from nearfar.engine.cpu.plan import N_PAIRS, Draws, Plan, Positives, plan_step, table_size
from nearfar.engine.problem import initial_points
from nearfar.errors import DataError
from nearfar.method.geometry import normalise, released_overflow_gap, score
from nearfar.method.loss import Triplet
from nearfar.method.options import Options
from nearfar.method.sampling import AliasTable, Popularity, Shared, TwoStage
from nearfar.runtime.arrays import Float32, Float64, Int, Int32, Int64, Integers, Real
from nearfar.runtime.checks import check_count
from nearfar.runtime.counter import Purpose, stream
from nearfar.runtime.jit import kernel

Lookup = Callable[[Int64], Float32]


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
    """Draw the negatives of some steps, by the engine's own sampler, and look at them.

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
    """Draw the negatives of some steps of a run; see `sampling`, whose row it gives.

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
    options, n_users, n_items = problem.options, problem.n_users, problem.n_items
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
    is_shared = isinstance(options.sampler, Shared)
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
    """What the engine would draw with the points as they are, step by step."""

    def __init__(self, points_of: Lookup, problem: Problem) -> None:
        self.problem, self.draws = problem, make_draws(problem)
        data, options, n = problem.interactions, problem.options, problem.n_candidates
        self.positives = Positives(data.indptr, data.items, problem.positive_users)
        room = make_plans(1, problem)
        self.plan = Plan(*(array[0] for array in room))
        self.places, self.following = np.empty(table_size(n), np.int64), np.empty(n, np.int32)
        self.scratch = np.empty((3, n), np.float32)
        self.vectors_of = points_of
        if isinstance(options.sampler, TwoStage) and options.sampler.vectors == "initial":
            initial = initial_points(problem.seed, problem.n_rows, options.dim)
            self.vectors_of = initial.__getitem__

    def draw(self, step: int, most_pairs: int | None) -> tuple[Int64, Float64]:
        """Give (user, item, negatives) rows, -1 for an empty place, and effective numbers."""
        problem, plan = self.problem, self.plan
        _plan(
            step, self.positives, problem.proposal, problem.support, self.draws, plan,
            self.places, self.following,
        )  # fmt: skip
        entries = plan.entries[: plan.size[N_PAIRS]][:most_pairs]
        if isinstance(problem.options.sampler, Shared):
            return self._shared(entries), np.empty(0)
        if problem.n_candidates:
            effective = self._second_stage(step, entries)
        else:
            effective = _effective_first(problem, entries[:, 0])
        items = entries[:, 1:]
        items = np.where(items >= 0, items - problem.n_users, -1)
        return np.column_stack([entries[:, 0], items]), effective

    def _shared(self, entries: Int64) -> Int64:
        """Give (user, item, shared negatives) rows, -1 for one that the user has."""
        user, items = entries[:, 0], self.plan.candidates.astype(np.int64)
        grid = np.broadcast_to(user[:, None], (len(user), len(items)))
        wide = np.broadcast_to(items, grid.shape)
        known = self.problem.interactions.contains(grid.ravel(), wide.ravel()).reshape(grid.shape)
        positive = entries[:, 1] - self.problem.n_users
        return np.column_stack([user, positive, np.where(known, -1, wide)])

    def _second_stage(self, step: int, entries: Int64) -> Float64:
        problem, n_candidates = self.problem, self.problem.n_candidates
        sampler, dim = problem.options.sampler, problem.options.dim
        assert isinstance(sampler, TwoStage)
        gap = released_overflow_gap(dim) if sampler.released_weight else -1.0
        key = stream(problem.seed, Purpose.CHOICE, step)
        candidates = self._unit(self.plan.candidates[:n_candidates])
        effective = []
        for first in range(0, len(entries), PAIRS_A_BLOCK):
            positive = entries[first : first + PAIRS_A_BLOCK, 1] - problem.n_users
            products = np.ascontiguousarray(self._unit(positive) @ candidates.T, np.float32)
            s = products.copy()
            _choose(
                s, first, dim, gap, key, self.positives, self.plan, self.places,
                self.following, self.scratch,
            )  # fmt: skip
            allowed = s >= -1.5  # what is excluded has been marked with -2
            effective.append(self._effective(sampler.weight(products, dim, allowed)))
        return np.concatenate(effective)

    def _unit(self, items: Integers) -> Float32:
        """Give the vectors of items that stage 2 looks at, at length 1."""
        rows = self.problem.n_users + items.astype(np.int64)
        return normalise(np.asarray(self.vectors_of(rows), np.float32))

    def _effective(self, weight: npt.NDArray[Any]) -> Float64:
        """1 / sum Pr^2 of each row, where an item that is several candidates counts once."""
        candidates = self.plan.candidates
        order = np.argsort(candidates, kind="stable")
        begin = np.flatnonzero(np.diff(candidates[order], prepend=-1))
        return _effective_number(np.add.reduceat(weight[:, order], begin, axis=1))


def _effective_number(weight: npt.NDArray[Any]) -> Float64:
    total, squares = weight.sum(axis=1), (weight * weight).sum(axis=1)
    return np.where(total > 0, total * total / np.where(total > 0, squares, 1.0), np.nan)


def _effective_first(problem: Problem, users: Int64) -> Float64:
    """1 / sum Pr^2 of a draw by eq. 4 for each of the users, whose own items are left out."""
    data, weight = problem.interactions, problem.proposal.weight
    sampler = problem.options.sampler
    if isinstance(sampler, Popularity) and sampler.distinct:
        return np.full(len(users), np.nan)
    some, place = np.unique(users, return_inverse=True)
    own = [weight[data.positives(int(user))] for user in some]
    left = weight.sum() - np.array([w.sum() for w in own])
    squares = (weight**2).sum() - np.array([(w**2).sum() for w in own])
    any_left = left > 1e-9 * weight.sum()  # the rest is rounding: the user has all of them
    effective = np.where(any_left, left**2 / np.where(any_left, squares, 1.0), np.nan)
    return effective[place]


@kernel
def _plan(
    step: Int,
    positives: Positives,
    table: AliasTable,
    support: Int32,
    draws: Draws,
    plan: Plan,
    places: Int64,
    following: Int32,
) -> None:
    """Plan a step, and find the candidates, if there are any, by their item."""
    plan_step(step, positives, table, support, draws, plan)
    hash_candidates(plan.candidates, plan.candidates.shape[0], places, following)


@kernel
def _choose(
    s: Float32,
    first: Int,
    dim: Int,
    overflow_gap: Real,
    key: np.uint64,
    positives: Positives,
    plan: Plan,
    places: Int64,
    following: Int32,
    scratch: Float32,
) -> Int:
    """Choose the negatives of the pairs from `first` on; marks excluded candidates in `s`."""
    return choose_negatives(
        s, first, s.shape[0], s.shape[1], dim, overflow_gap, key, positives, plan.candidates,
        plan.entries, places, following, scratch,
    )  # fmt: skip
