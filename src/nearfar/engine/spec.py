"""The options as numbers, defined once for all engines: what a step computes and what it draws.

The constants are compiled into kernels; see `nearfar.runtime.jit`.
"""

from __future__ import annotations

from typing import NamedTuple

from nearfar.engine.problem import Problem
from nearfar.errors import OptionError
from nearfar.method.geometry import released_overflow_gap, stage_two_power
from nearfar.runtime.arrays import Int
from nearfar.runtime.counter import Purpose, stream_base

SPHERE, BALL, FREE = 0, 1, 2
USE_SGD, USE_ADAGRAD, USE_ADAM = 0, 1, 2
INDEPENDENT, DISTINCT, TWO_STAGE, SHARED = 0, 1, 2, 3
NOT_HALF = -2
"""Stands for an exponent that is not a multiple of 1/2, see `Spec.half_steps`."""

_GEOMETRIES = {"sphere": SPHERE, "ball": BALL, "free": FREE}
_OPTIMISERS = {"sgd": USE_SGD, "adagrad": USE_ADAGRAD, "adam": USE_ADAM}
_KINDS = {
    "independent": INDEPENDENT,
    "distinct": DISTINCT,
    "two-stage": TWO_STAGE,
    "shared": SHARED,
}


class Spec(NamedTuple):
    """The computation of a step, as numbers."""

    geometry: int
    """SPHERE, BALL or FREE."""
    dim: int
    margin: float
    temperature: float
    rank_weight: bool
    n_items: int
    spread_out: float
    """The weight of the term; 0 without it."""
    decorrelate: float
    """The weight of the term; 0 without it."""
    decorrelate_squared: bool
    overflow_gap: float
    """`released_overflow_gap` with the released script's weight, otherwise negative."""
    towards_user: bool
    """Whether the second stage compares candidates with users, and does not cut at 0."""
    choice_power: float
    """The exponent of the second stage's weight, `stage_two_power`."""
    optimiser: int
    """USE_SGD, USE_ADAGRAD or USE_ADAM."""
    slots: int
    """Vectors in a row: the parameter and the optimiser's moments."""
    learning_rate: float
    beta1: float
    beta2: float
    epsilon: float

    @property
    def half_steps(self) -> int:
        """Twice `choice_power` if that is a whole number >= -1, otherwise `NOT_HALF`."""
        twice = 2.0 * self.choice_power
        return int(twice) if twice.is_integer() and twice >= -1.0 else NOT_HALF

    @property
    def sphere(self) -> bool:
        """Whether points have length 1."""
        return self.geometry == SPHERE

    @property
    def ball(self) -> bool:
        """Whether rows are clipped to length 1."""
        return self.geometry == BALL

    @property
    def adam(self) -> bool:
        """Whether rows have two moments."""
        return self.optimiser == USE_ADAM

    @property
    def adagrad(self) -> bool:
        """Whether rows have a sum of squares."""
        return self.optimiser == USE_ADAGRAD

    @property
    def drifts(self) -> bool:
        """Whether the parameters of rows that a step does not touch still move."""
        return self.adam and self.beta1 > 0.0


class DrawSpec(NamedTuple):
    """The draws of a step, as numbers, and the bases of its streams."""

    kind: int
    """INDEPENDENT, DISTINCT, TWO_STAGE or SHARED."""
    batch: int
    negatives: int
    """Number of each pair's own negatives; 0 with SHARED."""
    candidates: int
    """Number of items that all pairs of a step share; 0 if there are none."""
    redraws: int
    distinct: bool
    """Whether the candidates, or the first attempts at the negatives of a batch, are distinct."""
    order: Int
    negative: Int
    candidate: Int
    choice: Int

    @property
    def two_stage(self) -> bool:
        """Whether pairs choose among candidates."""
        return self.kind == TWO_STAGE

    @property
    def shared(self) -> bool:
        """Whether the candidates are the negatives of all pairs."""
        return self.kind == SHARED

    @property
    def width(self) -> int:
        """W = 2 + N, the number of entries of a pair."""
        return 2 + self.negatives

    @property
    def places(self) -> int:
        """Entries of a step that do not depend on its vectors: B W, plus C if C are shared."""
        return self.batch * self.width + (self.candidates if self.shared else 0)


def make_spec(problem: Problem) -> Spec:
    """Return the loss, the geometry and the optimiser as numbers."""
    options, optimiser, triplet = problem.options, problem.options.optimiser, problem.triplet
    spread_out, decorrelate = options.spread_out, options.decorrelate
    needs = options.sampler.needs
    return Spec(
        geometry=_GEOMETRIES[options.geometry],
        dim=options.dim,
        margin=float(triplet.margin),
        temperature=float(triplet.known_temperature),
        rank_weight=triplet.rank_weight,
        n_items=problem.n_items,
        spread_out=float(spread_out.weight) if spread_out else 0.0,
        decorrelate=float(decorrelate.weight) if decorrelate else 0.0,
        decorrelate_squared=bool(decorrelate and decorrelate.squared),
        overflow_gap=released_overflow_gap(options.dim) if needs.released_weight else -1.0,
        towards_user=needs.towards == "user",
        choice_power=stage_two_power(options.dim, needs.sharpness),
        optimiser=_OPTIMISERS[optimiser.kernel],
        slots=optimiser.n_slots,
        learning_rate=float(optimiser.learning_rate),
        beta1=float(optimiser.beta1),
        beta2=float(optimiser.beta2),
        epsilon=float(optimiser.epsilon),
    )


def make_draw_spec(problem: Problem) -> DrawSpec:
    """Return the sampler and the streams of the seed as numbers.

    Raises
    ------
    OptionError
        There are no kernels for the sampler.
    """
    sampler, seed = problem.options.sampler, problem.seed
    needs = sampler.needs
    if needs.kernel is None:
        raise OptionError(
            f"sampler={sampler!r} has no kernels, so only the reference engine can train with it:"
            f' use device="reference".'
        )
    return DrawSpec(
        kind=_KINDS[needs.kernel],
        batch=problem.options.batch,
        negatives=problem.n_own,
        candidates=problem.n_candidates,
        redraws=needs.redraws,
        distinct=needs.distinct,
        order=stream_base(seed, Purpose.ORDER),
        negative=stream_base(seed, Purpose.NEGATIVE),
        candidate=stream_base(seed, Purpose.CANDIDATE),
        choice=stream_base(seed, Purpose.CHOICE),
    )
