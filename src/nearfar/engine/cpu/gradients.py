"""The gradients of a step's points, where each pair has negatives of its own.

With share_k the part of negative k and c their sum over the negatives of a pair,

    dL/du = sum share_k (v_k - v_j),    dL/dv_j = c (v_j - u),    dL/dv_k = share_k (u - v_k).
"""

from __future__ import annotations

from types import NoneType
from typing import NamedTuple

import numpy as np

from nearfar.engine.cpu.contrast import Pairs
from nearfar.engine.cpu.encoding import Reading, is_hybrid
from nearfar.engine.cpu.plan_records import N_SHARED, Plan
from nearfar.engine.cpu.regularise import Covariance, Spread, add_covariance
from nearfar.engine.cpu.rows import Gathered, Moved
from nearfar.runtime.arrays import Floats, Int, Real
from nearfar.runtime.jit import by_record, inlined


class PointFlow(NamedTuple):
    """What flows between the points of a step."""

    pairs: Pairs
    now: Gathered
    spread: Spread | None
    covariance: Covariance | None
    reading: Reading | None


@inlined
def clear(total: Floats, at: Int) -> None:
    """Put zeros into row `at` of `total`."""
    for k in range(total.shape[1]):
        total[at, k] = 0.0


@inlined
def add(total: Floats, at: Int, f: Real, current: Floats, a: Int) -> None:
    """Add ``f * current[a]`` to row `at` of `total`."""
    scale = total.dtype.type(f)
    for k in range(total.shape[1]):
        total[at, k] += scale * current[a, k]


@inlined
def add_difference(
    total: Floats, at: Int, f: Real, a: Int, h: Real, b: Int, current: Floats
) -> None:
    """Add ``f * current[a] - h * current[b]`` to row `at` of `total`."""
    more, less = total.dtype.type(f), total.dtype.type(h)
    for k in range(total.shape[1]):
        total[at, k] += more * current[a, k] - less * current[b, k]


@inlined
def set_difference(
    total: Floats, at: Int, f: Real, a: Int, h: Real, b: Int, current: Floats
) -> None:
    """Put ``f * current[a] - h * current[b]`` into row `at` of `total`."""
    more, less = total.dtype.type(f), total.dtype.type(h)
    for k in range(total.shape[1]):
        total[at, k] = more * current[a, k] - less * current[b, k]


@inlined
def pull(total: Floats, at: Int, g: Int, plan: Plan, flow: PointFlow, anew: bool) -> None:
    """Add dL/du of pair g to row `at` of `total`; if `anew`, it replaces what stands there."""
    now, inv, j, share = flow.now, flow.now.inverse, plan.slots[g, 1], flow.pairs.share
    real = share.dtype.type
    rest = real(flow.pairs.coefficient[g])  # taken off with the first negative, in one pass
    for k in range(share.shape[1]):
        c, n = share[g, k], plan.slots[g, 2 + k]
        if c == 0.0:
            continue
        if anew and rest != 0.0:
            set_difference(total, at, c * inv[n], n, rest * inv[j], j, now.current)
        else:
            add_difference(total, at, c * inv[n], n, rest * inv[j], j, now.current)
        rest = real(0.0)


@inlined
def collect_own(begin: Int, end: Int, plan: Plan, flow: PointFlow, moved: Moved) -> Int:
    """Find the gradients of the rows that only one of the pairs begin..end-1 reads.

    Returns how many there are; their gradients are the first of `moved`.
    """
    count, n_shared, pairs = 0, plan.size[N_SHARED], flow.pairs
    cur, inv, total = flow.now.current, flow.now.inverse, moved.total
    for g in range(begin, end):
        c = pairs.coefficient[g]
        if c == 0.0:
            continue
        i, j = plan.slots[g, 0], plan.slots[g, 1]
        for w in range(plan.slots.shape[1]):
            u = plan.slots[g, w]
            f = c if w < 2 else pairs.share[g, w - 2]
            if u < n_shared or f == 0.0:
                continue
            if w == 0:
                pull(total, count, g, plan, flow, True)
            elif w == 1:
                set_difference(total, count, f * inv[j], j, f * inv[i], i, cur)
            else:
                set_difference(total, count, f * inv[i], i, f * inv[u], u, cur)
            moved.at[count] = u
            count += 1
    return count


@inlined
def collect(begin: Int, end: Int, plan: Plan, flow: PointFlow, moved: Moved) -> Int:
    """Sum the gradients of points begin..end-1, entry by entry in their order.

    Returns how many have one; a point into which nothing flows is left out.
    """
    count, total = 0, moved.total
    for u in range(begin, end):
        clear(total, count)
        flows = False
        for e in range(plan.start[u], plan.start[u + 1]):
            g, w = np.int64(plan.pair[e]), np.int64(plan.place[e])
            flows |= _add_entry(total, count, u, g, w, plan, flow)
            flows |= add_spread(flow.spread, total, count, g, w, plan, flow.now)
        flows |= add_covariance(flow.covariance, total, count, u)
        flows |= is_hybrid(flow.reading)
        moved.at[count] = u
        count += flows
    return count


@inlined
def _add_entry(total: Floats, at: Int, u: Int, g: Int, w: Int, plan: Plan, flow: PointFlow) -> bool:
    """Add what flows into point u from pair g, in which it stands at place w."""
    cur, inv, pairs = flow.now.current, flow.now.inverse, flow.pairs
    i, j = plan.slots[g, 0], plan.slots[g, 1]
    c = pairs.coefficient[g] if w < 2 else pairs.share[g, w - 2]
    if c == 0.0:
        return False
    if w == 0:
        pull(total, at, g, plan, flow, False)
    elif w == 1:
        add_difference(total, at, c * inv[j], j, c * inv[i], i, cur)
    else:
        add_difference(total, at, c * inv[i], i, c * inv[u], u, cur)
    return True


@inlined
def _add_spread(
    spread: Spread, total: Floats, at: Int, g: Int, w: Int, plan: Plan, now: Gathered
) -> bool:
    if w == 0:
        return False
    j, width = plan.slots[g, 1], plan.slots.shape[1]
    first = 2 if w == 1 else w  # v_j receives from every v_k, v_k from v_j
    for k in range(first, width if w == 1 else w + 1):
        other = plan.slots[g, k] if w == 1 else j
        if other >= 0:
            slope = spread.slopes[0] + spread.slopes[1] * spread.products[g, k - 2]
            add(total, at, slope * now.inverse[other], now.current, other)
    return True


@inlined
def _no_spread(
    spread: None, total: Floats, at: Int, g: Int, w: Int, plan: Plan, now: Gathered
) -> bool:
    return False


add_spread = by_record({Spread: _add_spread, NoneType: _no_spread})
"""`add_spread(spread, total, at, g, w, plan, now)`: add the gradient of eq. 3 that pair g has for
the point at its place w; returns whether there is one."""
