"""What a thread works with in a run of steps, and what a step is.

A run is a record of its own for each way in which a step is computed: with negatives that each pair
has for itself, or with negatives that all pairs share. The kernel for it is chosen by the record.
"""

from __future__ import annotations

from typing import NamedTuple

from nearfar.engine.cpu.choose import Second, Where
from nearfar.engine.cpu.content_plan import ContentSketch
from nearfar.engine.cpu.contrast import Loss
from nearfar.engine.cpu.descent import Pace
from nearfar.engine.cpu.gradients import PointFlow
from nearfar.engine.cpu.plan_records import N_MISSED, N_PAIRS, DrawSource, Plan, Sketch
from nearfar.engine.cpu.rows import Learner, Moved
from nearfar.runtime.arrays import Float64, Floats, Int, Real
from nearfar.runtime.jit import kernel


class Desk(NamedTuple):
    """What a thread writes on."""

    sketch: Sketch
    columns: ContentSketch | None
    moved: Moved
    power: Floats
    """(max(W, C),)."""


class OwnRun(NamedTuple):
    """Steps in which each pair has negatives of its own."""

    source: DrawSource
    learner: Learner
    loss: Loss
    flow: PointFlow
    desk: Desk
    share: int
    """Pairs that a thread takes at a time."""


class TwoStageRun(NamedTuple):
    """Steps in which each pair chooses its negatives among candidates."""

    source: DrawSource
    learner: Learner
    loss: Loss
    flow: PointFlow
    desk: Desk
    share: int
    second: Second


class Wide(NamedTuple):
    """Room for a step of shared negatives."""

    points: Floats
    """(U, d) the points of the step's rows."""
    users: Floats
    """(batch, d) those of the pairs' users."""
    pulls: Floats
    """(batch, d) dL/du of each pair."""
    towards: Floats
    """(blocks, C, d) of each block the sum of share_k u, for each shared negative."""
    flows: Floats
    """(blocks, C) and the sum of share_k."""
    where: Where
    """From an item to its place among the shared negatives."""
    products: Floats
    """(PAIRS_A_BLOCK, C), a thread's own."""


class SharedRun(NamedTuple):
    """Steps whose pairs share their negatives."""

    source: DrawSource
    learner: Learner
    loss: Loss
    flow: PointFlow
    desk: Desk
    wide: Wide


Run = OwnRun | TwoStageRun | SharedRun


class PlannedStep(NamedTuple):
    """A planned step: t, counted from 0."""

    t: int
    pace: Pace
    plan: Plan
    log: Float64
    """Its entries of LOG_FIELDS."""


@kernel
def pieces_of(n: Int, size: Int) -> Int:
    """Into how many pieces of `size` do n things go; at least one."""
    return max((n + size - 1) // size, 1)


@kernel
def write_log(step: PlannedStep, flow: PointFlow, spread_out: Real, decorrelate: Real) -> None:
    """Write the step's entries of LOG_FIELDS, in their order."""
    plan, pairs, log = step.plan, flow.pairs, step.log
    loss, violated = 0.0, 0
    for g in range(plan.size[N_PAIRS]):
        loss += pairs.loss[g]
        violated += pairs.violated[g]
    log[0] = loss
    log[1] = spread_out
    log[2] = decorrelate
    log[3] = plan.size[N_PAIRS]
    log[4] = violated
    log[5] = plan.size[N_MISSED]
