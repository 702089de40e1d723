"""Pairs against their negatives, eq. 1: the loss of each pair, and how it is shared among them.

The maximum in eq. 1 is hard or soft; the numbers of either are a record, and `weigh` is the kernel
for it (`nearfar.runtime.jit.by_record`). What both need of a row of scores is in
`nearfar.engine.cpu.soft`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nearfar.engine.cpu.descent import dot
from nearfar.engine.cpu.plan_records import Plan
from nearfar.engine.cpu.rows import Gathered
from nearfar.engine.cpu.soft import count_inside, harden, soften, total_of
from nearfar.engine.spec import Spec
from nearfar.runtime.arrays import Bool, DType, Float64, Floats, Int, Real
from nearfar.runtime.jit import by_record, inlined, kernel


class Hinge(NamedTuple):
    """Eq. 1 with its maximum."""

    margin: float
    rank_weight: bool
    n_items: int


class SoftHinge(NamedTuple):
    """Eq. 1 with a soft maximum."""

    margin: float
    rank_weight: bool
    n_items: int
    temperature: float


Loss = Hinge | SoftHinge


class Pairs(NamedTuple):
    """Room for the numbers of a step's pairs."""

    coefficient: Floats
    """(batch,) the sum of the pair's `share`: 0 where nothing flows."""
    share: Floats
    """(batch, N) derivative of the loss by D^2(u_i, v_j) - D^2(u_i, v_k), times 2."""
    violated: Bool
    """(batch,) whether a negative lies inside the margin."""
    loss: Float64
    """(batch,) the pair's share of the triplet loss."""


class Pair(NamedTuple):
    """A pair whose scores lie in a row: `found` of the `n` places are negatives."""

    g: int
    n: int
    found: int
    near: float
    """score_ij."""


def make_loss(spec: Spec) -> Loss:
    """Return the record of the loss."""
    numbers = spec.margin, spec.rank_weight, spec.n_items
    return SoftHinge(*numbers, spec.temperature) if spec.temperature > 0.0 else Hinge(*numbers)


def make_pairs(batch: int, negatives: int, dtype: DType = np.float32) -> Pairs:
    """Make room for the pairs of a step."""
    return Pairs(
        coefficient=np.empty(batch, dtype),
        share=np.empty((batch, negatives), dtype),
        violated=np.empty(batch, np.bool_),
        loss=np.empty(batch),
    )


@inlined
def pair_weight(loss: Loss, pair: Pair, pairs: Pairs, s: Floats, r: Int) -> Real:
    """Return w_ij, and note whether a negative lies inside the margin."""
    impostors = count_inside(s, r, pair.n, pair.near, loss.margin)
    pairs.violated[pair.g] = impostors > 0
    if not loss.rank_weight:
        return 1.0
    return np.log(np.float64(loss.n_items * impostors // max(pair.found, 1)) + 1.0)


@inlined
def _weigh(loss: Hinge, pair: Pair, pairs: Pairs, s: Floats, r: Int, power: Floats) -> None:
    weight = pair_weight(loss, pair, pairs, s, r)
    found = np.float64(harden(s, r, pair.n, pair.near, loss.margin, 2.0 * weight))
    pairs.coefficient[pair.g] = 2.0 * weight if found != 0.0 else 0.0
    pairs.loss[pair.g] = weight * found


@inlined
def _weigh_softly(
    loss: SoftHinge, pair: Pair, pairs: Pairs, s: Floats, r: Int, power: Floats
) -> None:
    weight = pair_weight(loss, pair, pairs, s, r)
    zero = np.float64(pair.near) - 0.5 * loss.margin  # the score at which x_k = 0
    found = soften(s, r, pair.n, zero, loss.temperature, 2.0 * weight, power)
    pairs.coefficient[pair.g] = total_of(s, r, pair.n)
    pairs.loss[pair.g] = weight * found


weigh = by_record({Hinge: _weigh, SoftHinge: _weigh_softly})
"""`weigh(loss, pair, pairs, s, r, power)`: write the loss of a pair, and put its derivatives in the
place of the scores in row r of `s`. `power` is room for n numbers."""


@inlined
def measure(g: Int, plan: Plan, now: Gathered, share: Floats) -> tuple[Real, Int]:
    """Put the scores of pair g's negatives into `share`; returns score_ij and their number."""
    cur, inv, off = now.current, now.inverse, now.offset
    u, j, found = plan.slots[g, 0], plan.slots[g, 1], 0
    near = inv[u] * inv[j] * dot(cur, u, cur, j) - off[u] - off[j]
    for k in range(plan.slots.shape[1] - 2):
        n = plan.slots[g, 2 + k]
        if n < 0:
            share[g, k] = -np.inf
            continue
        found += 1
        share[g, k] = inv[u] * inv[n] * dot(cur, u, cur, n) - off[u] - off[n]
    return near, found


@kernel
def contrast(
    loss: Loss, begin: Int, end: Int, plan: Plan, now: Gathered, pairs: Pairs, power: Floats
) -> None:
    """Compare pairs begin..end-1 with negatives of their own. `power` is room for N numbers."""
    n = plan.slots.shape[1] - 2
    for g in range(begin, end):
        near, found = measure(g, plan, now, pairs.share)
        weigh(loss, Pair(g, n, found, near), pairs, pairs.share, g, power)
