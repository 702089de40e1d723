"""Diagnostics of training: whether it goes well, and if not, why.

The validation part tells whether: training has gone bad if the model ranks it no better than
popularity does, or much worse than it did some epochs before. Three metrics tell why:

- ``effective``: among how many items a negative is chosen, or how many share the gradient;
- ``false_push``: how many times as often as by chance the gradient pushes away an item that was
  held out, one that the user likes;
- ``dimension``: in how many directions the items lie, 1 / mean (v_j.v_k)^2 over pairs of items: 1
  if all lie on a line, d if they lie like independent random points.

`foreseen` finds what can be found before the first step: with shared negatives and a temperature
far from the recommended value, a run may reach half of the accuracy that is possible and still look
well by all of these metrics.

In good runs on MovieLens-100K held-out items are pushed away some four or five times as often as by
chance, because what a user likes is near, and the items lie in 10 to 20 of 128 directions.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

import numpy as np

from nearfar.data.interactions import Interactions
from nearfar.engine import Problem
from nearfar.method.geometry import normalise
from nearfar.method.loss import Triplet
from nearfar.runtime.counter import Purpose, stream, uniform
from nearfar.runtime.threads import one_blas_thread
from nearfar.training.drawn import Lookup, sampled

FALLEN: Final = 0.7
"""A run whose NDCG is below this share of its best has gone bad."""
FALSE: Final = 6.0
"""Negatives that are false so many times as often as by chance are too hard."""
TEMPERATURES: Final = (0.4, 4.0)
"""Those for shared negatives go from here to there, in units of what the items ask for."""
_PAIRS: Final = 512
_ITEMS: Final = 512


@dataclass(frozen=True)
class Sight:
    """The diagnostics at one moment."""

    effective: float
    """NaN where it is not known; see `nearfar.training.drawn.sampling`."""
    false_push: float
    """NaN without a validation part."""
    dimension: float

    def to_dict(self) -> dict[str, float]:
        """Return what is known, for the history."""
        return {name: value for name, value in asdict(self).items() if not np.isnan(value)}


def look(points_of: Lookup, problem: Problem, held_out: Interactions | None, epoch: int) -> Sight:
    """Look at a run after an epoch, at some hundred pairs and items.

    Parameters
    ----------
    points_of : callable
        Gives the points of rows as of now.
    problem : Problem
    held_out : Interactions, optional
        The validation part.
    epoch : int
        Its next one is what is drawn from.
    """
    first = epoch * problem.steps_per_epoch
    steps = range(first, first + max(1, _PAIRS // problem.options.batch))
    others = () if held_out is None else (held_out,)
    with one_blas_thread():
        row = sampled(points_of, problem, others, steps, _PAIRS)
        dimension = _dimension(points_of, problem, epoch)
    chance = float("nan") if held_out is None else _chance(problem.interactions, held_out)
    effective = row["effective_mean"]
    return Sight(
        float("nan") if effective is None else effective,
        row["false_push"] / chance if chance > 0 else float("nan"),
        dimension,
    )


def _dimension(points_of: Lookup, problem: Problem, epoch: int) -> float:
    """1 / mean s^2 over the pairs of different ones among some random items."""
    key = stream(problem.seed, Purpose.DIAGNOSTICS, epoch)
    lots = uniform(key, np.arange(min(_ITEMS, 4 * problem.n_items)))
    items = np.unique((lots * problem.n_items).astype(np.int64))
    if len(items) < 2:
        return float("nan")
    v = normalise(points_of(problem.n_users + items)).astype(np.float64)
    s = v @ v.T
    n = len(items)
    squares = float(np.sum(s * s) - np.sum(np.diag(s) ** 2)) / (n * (n - 1))
    return 1.0 / max(squares, 1e-12)


def _chance(train: Interactions, held_out: Interactions) -> float:
    """Share of held-out items of the user among the items the user does not have, over pairs."""
    n, hidden = np.diff(train.indptr), np.diff(held_out.indptr)
    others = np.maximum(train.n_items - n, 1)
    return float(np.sum(n * hidden / others) / np.sum(n))


def foreseen(problem: Problem) -> str | None:
    """Say why a run will hardly go well, if that can be told from its options and data.

    Parameters
    ----------
    problem : Problem

    Returns
    -------
    str or None
    """
    given = problem.options.triplet.temperature
    if given is None or not problem.options.sampler.needs.shared:
        return None
    usual = Triplet(temperature=None).at(problem.n_trained_items).known_temperature
    least, most = (share * usual for share in TEMPERATURES)
    if least <= given <= most:
        return None
    effect = (
        "leaves the gradient to few of the shared negatives"
        if given < least
        else "shares the gradient among near and far negatives nearly alike"
    )
    return (
        f"Triplet(temperature={given:g}) {effect}. With {problem.n_trained_items:,} items it is"
        f" usually {usual:.2g}, and outside of {least:.2g} to {most:.2g} half of"
        f" the accuracy may be lost. Use Triplet(temperature=None)."
    )


def remedy(sight: Sight, problem: Problem) -> str:
    """Say what is the matter with a run that has gone bad, and what to do.

    Parameters
    ----------
    sight : Sight
        How it is now.
    problem : Problem
    """
    needs, dim = problem.options.sampler.needs, problem.options.dim
    false = (
        f"items that users like are pushed away {sight.false_push:.1f} times as often as by chance"
    )
    if needs.candidates and sight.effective < 0.1 * problem.n_candidates:
        return (
            f"The second stage chooses among {sight.effective:.0f} of {problem.n_candidates:,}"
            f" candidates, and {false}: it finds what is like the positive item. Use Shared(), or"
            f" TwoStage(vectors='initial')."
        )
    temperature = f"Triplet(temperature=...) (it is {problem.triplet.known_temperature:g})"
    if sight.dimension < 2.0:
        return (
            f"The items lie in {sight.dimension:.1f} of {dim} directions. Use a lower"
            f" {temperature}{'' if needs.shared else ', or SpreadOut()'}."
        )
    if sight.false_push > FALSE:
        milder = f"a higher {temperature}" if needs.shared else "Shared()"
        return (
            f"The negatives are too hard: {false}. Use fewer negatives, less popular ones (a"
            f" smaller beta), or {milder}."
        )
    if sight.dimension > dim / 2:
        return (
            f"The items lie like random points, in {sight.dimension:.0f} of {dim} directions: not"
            f" much has been learned. Use more epochs or a higher learning rate (it is"
            f" {problem.options.optimiser.learning_rate!r})."
        )
    return (
        f"The points are spread (in {sight.dimension:.0f} of {dim} directions) and the negatives"
        f" not too hard. Try another learning rate (it is"
        f" {problem.options.optimiser.learning_rate!r})."
    )
