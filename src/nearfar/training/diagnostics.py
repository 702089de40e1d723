"""Diagnostics of training: whether a run goes well, and if not, why.

The validation part shows whether it does: a run has failed if it ranks the validation part no
better than popularity does, or much worse than it did some epochs before. Three metrics show the
cause:

- ``effective``: the effective number of items among which a negative is chosen, or that share the
  gradient;
- ``false_push``: how often the gradient pushes away a held-out item, which the user likes, relative
  to chance;
- ``dimension``: the effective number of directions in which the items lie, 1 / mean (v_j.v_k)^2
  over pairs of items: 1 if all lie on a line, d if they are independent random points.

`warning_before_training` finds what these metrics do not show: with shared negatives and a
temperature far from the recommended value, a run may reach only half of the possible accuracy while
all of these metrics look normal.

In good runs on MovieLens-100K held-out items are pushed away four or five times as often as by
chance, because items that a user likes are near, and the items lie in 10 to 20 of 128 directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from nearfar.data.interactions import Interactions
from nearfar.engine import Engine, Problem, State
from nearfar.method.geometry import normalise
from nearfar.method.loss import Triplet
from nearfar.runtime.counter import Purpose, stream, uniform
from nearfar.runtime.threads import one_blas_thread
from nearfar.training.content_diagnostics import (
    NOTHING,
    ContentSight,
    EncodedPoints,
    look_at_content,
)
from nearfar.training.drawn import Lookup, drawn_pairs, statistics

FALLEN: Final = 0.7
"""A run has failed if its NDCG falls below this share of its best value."""
FALSE: Final = 6.0
"""Negatives are too hard if `false_push` is above this."""
TEMPERATURES: Final = (0.4, 4.0)
"""The suitable temperatures with shared negatives, relative to the recommended value."""
_PAIRS: Final = 512
_ITEMS: Final = 512


@dataclass(frozen=True)
class Sight:
    """The diagnostics of a run after one epoch."""

    effective: float
    """NaN if it is not known; see `nearfar.training.drawn.sampling`."""
    false_push: float
    """NaN without a validation part."""
    dimension: float
    content: ContentSight = NOTHING
    """Those of a hybrid; see `nearfar.training.content_diagnostics`."""

    def to_dict(self) -> dict[str, float]:
        """Return the values that are not NaN, for the history."""
        own = {name: getattr(self, name) for name in ("effective", "false_push", "dimension")}
        known = {name: value for name, value in own.items() if not np.isnan(value)}
        return known | self.content.to_dict()


def look_at(engine: Engine, held_out: Interactions | None, epoch: int) -> Sight:
    """Compute the diagnostics of an engine's run after an epoch; see `look`."""
    problem = engine.problem
    if problem.content is None:
        return look(engine.points, problem, held_out, epoch)
    state = engine.state if len(problem.cached) else None
    return look(EncodedPoints(problem, engine.tables()), problem, held_out, epoch, state)


def look(
    points_of: Lookup | EncodedPoints,
    problem: Problem,
    held_out: Interactions | None,
    epoch: int,
    state: State | None = None,
) -> Sight:
    """Compute the diagnostics after an epoch, from a sample of some hundred pairs and items.

    Parameters
    ----------
    points_of : callable
        Returns the current points of rows; `EncodedPoints` to have the diagnostics of a hybrid too.
    problem : Problem
    held_out : Interactions, optional
        The validation part.
    epoch : int
        The completed epoch; the sample is drawn from the next one.
    state : State, optional
        Of a hybrid with a cache of points, to measure its age.
    """
    first = epoch * problem.steps_per_epoch
    steps = range(first, first + max(1, _PAIRS // problem.options.batch))
    others = () if held_out is None else (held_out,)
    with one_blas_thread():
        drawn = drawn_pairs(points_of, problem, steps, _PAIRS)
        row = statistics(drawn, problem, others)
        dimension = _dimension(points_of, problem, epoch)
        content = NOTHING
        if isinstance(points_of, EncodedPoints):
            content = look_at_content(points_of, problem, drawn, state, epoch)
    chance = float("nan") if held_out is None else _chance(problem.interactions, held_out)
    effective = row["effective_mean"]
    return Sight(
        float("nan") if effective is None else effective,
        row["false_push"] / chance if chance > 0 else float("nan"),
        dimension,
        content,
    )


def _dimension(points_of: Lookup, problem: Problem, epoch: int) -> float:
    """Return 1 / mean s^2 over the pairs of distinct items in a random sample."""
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
    """Return the share of held-out items among the items a user does not have, over pairs."""
    n, hidden = np.diff(train.indptr), np.diff(held_out.indptr)
    others = np.maximum(train.n_items - n, 1)
    return float(np.sum(n * hidden / others) / np.sum(n))


def warning_before_training(problem: Problem) -> str | None:
    """Return a warning if the temperature is far from the recommended value, else None.

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
    usual = Triplet(temperature=None).at(problem.effective_items).known_temperature
    least, most = (share * usual for share in TEMPERATURES)
    if least <= given <= most:
        return None
    effect = (
        "concentrates the gradient on few of the shared negatives"
        if given < least
        else "divides the gradient almost equally between near and far negatives"
    )
    return (
        f"Triplet(temperature={given:g}) {effect}. With {problem.effective_items:,.0f} effective"
        f" items the recommended value is {usual:.2g}; outside {least:.2g} to {most:.2g} half of"
        f" the accuracy may be lost. Use Triplet(temperature=None)."
    )


def remedy(sight: Sight, problem: Problem) -> str:
    """Return a text that names the probable cause of a failed run and what to change.

    Parameters
    ----------
    sight : Sight
        The current diagnostics.
    problem : Problem
    """
    needs, dim = problem.options.sampler.needs, problem.options.dim
    false = (
        f"items that users like are pushed away {sight.false_push:.1f} times as often as by chance"
    )
    if needs.candidates and sight.effective < 0.1 * problem.n_candidates:
        near, other = "similar to the positive item", "TwoStage(vectors='initial')"
        if needs.towards == "user":
            near, other = "near the user", f"a sharpness below {needs.sharpness:g}"
        return (
            f"The second stage chooses among {sight.effective:.0f} of {problem.n_candidates:,}"
            f" candidates, and {false}: it selects items {near}. Use Shared(), or {other}."
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
            f"The items are distributed like random points, in {sight.dimension:.0f} of {dim}"
            f" directions: not much has been learned. Use more epochs or a higher learning rate (it"
            f" is {problem.options.optimiser.learning_rate!r})."
        )
    return (
        f"The points are spread (in {sight.dimension:.0f} of {dim} directions) and the negatives"
        f" are not too hard. Try another learning rate (it is"
        f" {problem.options.optimiser.learning_rate!r})."
    )
