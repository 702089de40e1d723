"""The arithmetic of a step whose pairs share their negatives: matrix products over all of them.

With U the points of a block of pairs' users, V those of the C shared negatives and S the shares of
the loss (`nearfar.engine.cpu.soft`), the block needs U V', S V and S' U. The blocks are the same
for any number of threads, and what they add up to is added in their order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nearfar.engine.cpu import compute
from nearfar.engine.cpu.choose import exclude_positives
from nearfar.engine.cpu.compute import Room, dot
from nearfar.engine.cpu.plan import Plan, Positives
from nearfar.engine.spec import Spec
from nearfar.runtime.arrays import Float32, Int, Int32, Int64
from nearfar.runtime.jit import inner


class Wide(NamedTuple):
    """Room for a step of shared negatives."""

    points: Float32
    """(U, d) the points of the step's rows."""
    users: Float32
    """(batch, d) those of the pairs' users."""
    pulls: Float32
    """(batch, d) dL/du of each pair."""
    towards: Float32
    """(blocks, C, d) of each block the sum of share_k u, for each shared negative."""
    flows: Float32
    """(blocks, C) and the sum of share_k."""
    places: Int64
    following: Int32
    """The map from an item to its place among the shared negatives."""


@inner
def lay_out(begin: Int, end: Int, room: Room, wide: Wide) -> None:
    """Make points of the gathered rows begin..end-1."""
    for at in range(begin, end):
        for k in range(wide.points.shape[1]):
            wide.points[at, k] = room.inverse[at] * room.current[at, k]


@inner
def contrast(
    block: Int,
    begin: Int,
    end: Int,
    n: Int,
    positives: Positives,
    plan: Plan,
    spec: Spec,
    room: Room,
    wide: Wide,
    products: Float32,
    power: Float32,
) -> None:
    """Compare pairs begin..end-1 with the n shared negatives that are none of their positives."""
    size, off = end - begin, room.offset
    s, users, shared = products[:size], wide.users[begin:end], wide.points[:n]
    for g in range(begin, end):
        for k in range(users.shape[1]):
            wide.users[g, k] = wide.points[plan.slots[g, 0], k]
    np.dot(users, shared.T, s)
    for r in range(size):
        g = begin + r
        u, j = plan.slots[g, 0], plan.slots[g, 1]
        near = dot(wide.points, u, wide.points, j) - off[u] - off[j]
        for c in range(n):
            s[r, c] -= off[u] + off[c]
        excluded = exclude_positives(
            s, r, plan.entries[g, 0], positives, wide.places, wide.following, np.float32(-np.inf)
        )
        if spec.temperature > 0.0:
            compute.weigh_softly(g, n, n - excluded, near, spec, room, s, r, power)
        else:
            compute.weigh(g, n, n - excluded, near, spec, room, s, r)
    np.dot(s, shared, wide.pulls[begin:end])
    np.dot(s.T, users, wide.towards[block])
    for c in range(n):
        wide.flows[block, c] = np.float32(0.0)
    for r in range(size):
        g = begin + r
        j, whole = plan.slots[g, 1], room.coefficient[g]
        for k in range(users.shape[1]):
            wide.pulls[g, k] -= whole * wide.points[j, k]
        for c in range(n):
            wide.flows[block, c] += s[r, c]


@inner
def collect(
    begin: Int,
    end: Int,
    n: Int,
    n_blocks: Int,
    plan: Plan,
    spec: Spec,
    room: Room,
    wide: Wide,
    total: Float32,
    moved: Int64,
) -> Int:
    """Sum the gradients of points begin..end-1; see `compute.collect`."""
    count = 0
    for u in range(begin, end):
        compute.clear(total, count)
        flows = spec.decorrelate > 0.0
        if u < n:  # dL/dv_k = sum of share_k (u - v_k)
            whole = np.float32(0.0)
            for block in range(n_blocks):
                whole += wide.flows[block, u]
                compute.add(total, count, 1.0, wide.towards[block], u)
            compute.add(total, count, -whole, wide.points, u)
            flows |= whole != 0.0
        for e in range(plan.start[u], plan.start[u + 1]):
            g, c = np.int64(plan.pair[e]), room.coefficient[plan.pair[e]]
            if c == 0.0:
                continue
            flows = True
            if plan.place[e] == 0:
                compute.add(total, count, 1.0, wide.pulls, g)
            else:  # dL/dv_j = c (v_j - u)
                compute.add_difference(total, count, c, u, c, plan.slots[g, 0], wide.points)
        if spec.decorrelate > 0.0:
            compute.add(total, count, 1.0, room.extra, u)
        moved[count] = u
        count += flows
    return count
