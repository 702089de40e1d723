"""The options in numbers, once for all engines.

They are compiled into kernels; see `nearfar.runtime.jit`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from nearfar.engine.problem import Problem
from nearfar.method.optimiser import SGD, Adagrad, Adam

SPHERE, BALL, FREE = 0, 1, 2
USE_SGD, USE_ADAGRAD, USE_ADAM = 0, 1, 2


class Spec(NamedTuple):
    """The numbers of the options."""

    geometry: int
    margin: float
    temperature: float
    rank_weight: bool
    n_items: int
    spread_out: float
    decorrelate: float
    decorrelate_squared: bool
    optimiser: int
    learning_rate: float
    beta1: float
    beta2: float
    epsilon: float


def make_spec(problem: Problem) -> Spec:
    """Put the options into numbers."""
    options, optimiser = problem.options, problem.options.optimiser
    kinds: dict[type[Any], int] = {
        SGD: USE_SGD,
        Adagrad: USE_ADAGRAD,
        Adam: USE_ADAM,
    }
    geometries = {"sphere": SPHERE, "ball": BALL, "free": FREE}
    return Spec(
        geometry=geometries[options.geometry],
        margin=float(problem.triplet.margin),
        temperature=float(problem.triplet.known_temperature),
        rank_weight=problem.triplet.rank_weight,
        n_items=problem.n_items,
        spread_out=float(options.spread_out.weight) if options.spread_out else 0.0,
        decorrelate=float(options.decorrelate.weight) if options.decorrelate else 0.0,
        decorrelate_squared=bool(options.decorrelate and options.decorrelate.squared),
        optimiser=kinds[type(optimiser)],
        learning_rate=float(optimiser.learning_rate),
        beta1=float(getattr(optimiser, "beta1", 0.0)),
        beta2=float(getattr(optimiser, "beta2", 0.0)),
        epsilon=float(getattr(optimiser, "epsilon", 0.0)),
    )
