"""The arithmetic of a step, on rows that a plan names: gather, contrast, update.

``current`` holds the up-to-date stored rows of the step, one for each unique row; a point is
``inverse * current`` and the score of two points is

    inverse_a inverse_b (current_a . current_b) - offset_a - offset_b

with offset = (|x|^2 - 1) / 2 off the sphere and 0 on it (`nearfar.method.geometry`).

The kernels take ranges of rows or pairs, not single ones, and are compiled into their caller.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nearfar.engine.cpu.decay import Decay, drift, power, step_size
from nearfar.engine.cpu.plan import N_PAIRS, N_SHARED, Plan
from nearfar.engine.cpu.prefetch import prefetch, prefetch_row
from nearfar.engine.cpu.soft import count_inside, harden, soften, total_of
from nearfar.engine.spec import BALL, SPHERE, USE_ADAGRAD, USE_ADAM, Spec
from nearfar.runtime.arrays import Bool, Float32, Float64, Int, Int64, Real
from nearfar.runtime.jit import inlined, inner, kernel, reduction

_AHEAD = 8
"""How many rows ahead of its use a row is asked for."""


class Room(NamedTuple):
    """Room for the numbers of one step: U = batch * W unique rows at most."""

    current: Float32
    """(U, d) stored rows, up to date."""
    inverse: Float32
    """(U,) 1 / length on the sphere, else 1."""
    offset: Float32
    """(U,) see the module docstring."""
    coefficient: Float32
    """(batch,) the sum of the pair's `share`: 0 where nothing flows."""
    share: Float32
    """(batch, N) derivative of the loss by D^2(u_i, v_j) - D^2(u_i, v_k), times 2."""
    violated: Bool
    """(batch,) whether a negative lies inside the margin."""
    loss: Float64
    """(batch,) the pair's share of the triplet loss."""
    products: Float32
    """(batch, N) v_j.v_k for the spread-out term, 0 for an empty place."""
    moments: Float64
    """(batch, 3) sums over the pair's negatives of 1, s and s^2."""
    extra: Float32
    """(U, d) gradient of the covariance loss, if there is one."""
    totals: Float64
    """(4,) spread-out slope of the mean, slope of s, their loss; the covariance loss."""


@reduction
def dot(x: Float32, a: Int, y: Float32, b: Int) -> Real:
    """Inner product of row a of `x` and row b of `y`, in float32."""
    total = np.float32(0.0)
    for k in range(x.shape[1]):
        total += x[a, k] * y[b, k]
    return total


@inlined
def gather(
    listed: Int64,
    begin: Int,
    end: Int,
    rows: Float32,
    last: Int64,
    t: Int,
    spec: Spec,
    decay: Decay,
    current: Float32,
    inverse: Float32,
    offset: Float32,
) -> None:
    """Put the rows listed[begin:end], as they are after t steps, into places begin..end-1.

    `rows` stays as it is.
    """
    dim, one, final = rows.shape[2], np.float32(1.0), listed.shape[0] - 1
    for at in range(begin, end):
        row = listed[at]
        prefetch(last, listed[min(at + 2 * _AHEAD, final)])
        prefetch_row(rows, listed[min(at + _AHEAD, final)])
        moved64, eps64 = drift(spec, decay, last[row], t)
        moved, eps = np.float32(moved64), np.float32(eps64)
        if moved != 0.0:
            for k in range(dim):
                step = moved * rows[row, 1, k] / (np.sqrt(rows[row, 2, k]) + eps)
                current[at, k] = rows[row, 0, k] - step
        else:
            for k in range(dim):
                current[at, k] = rows[row, 0, k]
        squares = dot(current, at, current, at)
        if spec.geometry == SPHERE:
            inverse[at] = one / np.sqrt(squares) if squares > 0.0 else one
            offset[at] = np.float32(0.0)
            continue
        if spec.geometry == BALL and squares > one and moved != 0.0:
            squares = replay(at, row, rows, last[row], t, spec, current)
        inverse[at] = one
        offset[at] = np.float32(0.5) * (squares - one)


@kernel
def to_unit(
    begin: Int, end: Int, geometry: Int, points: Float32, inverse: Float32, offset: Float32
) -> None:
    """Bring gathered rows begin..end-1 to length 1, in any geometry."""
    one = np.float32(1.0)
    for at in range(begin, end):
        scale = np.float32(inverse[at])
        if geometry != SPHERE:
            squares = np.float32(2.0) * offset[at] + one
            scale = np.float32(one / np.sqrt(squares)) if squares > 0.0 else one
        for k in range(points.shape[1]):
            points[at, k] *= scale


@inner
def replay(at: Int, row: Int, rows: Float32, t0: Int, t: Int, spec: Spec, current: Float32) -> Real:
    """Move `row` from step t0 to t one step at a time, clipped to the ball after each.

    Needed only where the straight way of `drift` would end outside: a way that ends inside never
    left the ball, which is convex. Gives the squared length.
    """
    dim = rows.shape[2]
    for k in range(dim):
        current[at, k] = rows[row, 0, k]
    squares, step = np.float32(0.0), t0
    keep1, keep2 = 1.0, 1.0
    while step < t and keep1 > 1e-12:
        step += 1
        keep1 *= spec.beta1
        keep2 *= spec.beta2
        rate, eps64 = step_size(spec, step)
        rate1, root2 = np.float32(rate * keep1), np.float32(np.sqrt(keep2))
        eps = np.float32(eps64)
        for k in range(dim):
            way = rate1 * rows[row, 1, k] / (root2 * np.sqrt(rows[row, 2, k]) + eps)
            current[at, k] -= way
        squares = clip(current, at)
    return squares


@inner
def clip(x: Float32, at: Int) -> Real:
    """Shorten row `at` of `x` to length 1 if it is longer; gives its squared length then."""
    one, squares = np.float32(1.0), dot(x, at, x, at)
    if squares <= one:
        return squares
    scale = one / np.sqrt(squares)
    for k in range(x.shape[1]):
        x[at, k] *= scale
    return one


@inlined
def measure(g: Int, plan: Plan, room: Room) -> tuple[Real, Int]:
    """Put the scores of pair g's negatives into `share`; gives score_ij and how many there are."""
    cur, inv, off = room.current, room.inverse, room.offset
    u, j, found = plan.slots[g, 0], plan.slots[g, 1], 0
    near = inv[u] * inv[j] * dot(cur, u, cur, j) - off[u] - off[j]
    for k in range(plan.slots.shape[1] - 2):
        n = plan.slots[g, 2 + k]
        if n < 0:
            room.share[g, k] = np.float32(-np.inf)
            continue
        found += 1
        room.share[g, k] = inv[u] * inv[n] * dot(cur, u, cur, n) - off[u] - off[n]
    return near, found


@inlined
def contrast(begin: Int, end: Int, plan: Plan, spec: Spec, room: Room, power: Float32) -> None:
    """Compare pairs begin..end-1 with their negatives: eq. 1. `power` is room for N numbers."""
    n_negatives = plan.slots.shape[1] - 2
    if spec.temperature > 0.0:  # a loop of its own: a call in it would slow the other down
        contrast_softly(begin, end, plan, spec, room, power)
        return
    for g in range(begin, end):
        near, found = measure(g, plan, room)
        weigh(g, n_negatives, found, near, spec, room, room.share, g)


@inner
def contrast_softly(
    begin: Int, end: Int, plan: Plan, spec: Spec, room: Room, power: Float32
) -> None:
    """`contrast` with a temperature."""
    n_negatives = plan.slots.shape[1] - 2
    for g in range(begin, end):
        near, found = measure(g, plan, room)
        weigh_softly(g, n_negatives, found, near, spec, room, room.share, g, power)


@inlined
def weigh(
    g: Int, n: Int, found: Int, near: Real, spec: Spec, room: Room, s: Float32, r: Int
) -> None:
    """Write the loss of pair g and its derivatives, from row r of `s`; see `soft`.

    `found` of the n places are negatives.
    """
    weight = pair_weight(g, n, found, near, spec, room, s, r)
    loss = np.float64(harden(s, r, n, near, spec.margin, 2.0 * weight))
    room.coefficient[g] = np.float32(2.0 * weight if loss != 0.0 else 0.0)
    room.loss[g] = weight * loss


@inlined
def weigh_softly(
    g: Int,
    n: Int,
    found: Int,
    near: Real,
    spec: Spec,
    room: Room,
    s: Float32,
    r: Int,
    power: Float32,
) -> None:
    """`weigh` with a temperature. `power` is room for n numbers."""
    weight = pair_weight(g, n, found, near, spec, room, s, r)
    loss = soften(s, r, n, near, spec.margin, spec.temperature, 2.0 * weight, power)
    room.coefficient[g] = total_of(s, r, n)
    room.loss[g] = weight * loss


@inlined
def pair_weight(
    g: Int, n: Int, found: Int, near: Real, spec: Spec, room: Room, s: Float32, r: Int
) -> Real:
    """Give w_ij, and note whether a negative lies inside the margin."""
    impostors = count_inside(s, r, n, near, spec.margin)
    room.violated[g] = impostors > 0
    if not spec.rank_weight:
        return 1.0
    return np.log(np.float64(spec.n_items * impostors // max(found, 1)) + 1.0)


@inner
def spread(begin: Int, end: Int, plan: Plan, room: Room) -> None:
    """Products v_j.v_k of pairs begin..end-1, and each pair's part of their moments: eq. 3."""
    for g in range(begin, end):
        j = plan.slots[g, 1]
        count, first, second = 0.0, 0.0, 0.0
        for k in range(plan.slots.shape[1] - 2):
            n = plan.slots[g, 2 + k]
            s = np.float32(0.0)
            if n >= 0:
                s = room.inverse[j] * room.inverse[n] * dot(room.current, j, room.current, n)
                count += 1.0
                first += s
                second += np.float64(s) * np.float64(s)
            room.products[g, k] = s
        room.moments[g, 0] = count
        room.moments[g, 1] = first
        room.moments[g, 2] = second


@inner
def spread_slopes(plan: Plan, spec: Spec, dim: Int, room: Room) -> None:
    """Eq. 3 over the whole batch: its loss, and dL/ds = totals[0] + totals[1] * s."""
    count, first, second = 0.0, 0.0, 0.0
    for g in range(plan.size[N_PAIRS]):
        count += room.moments[g, 0]
        first += room.moments[g, 1]
        second += room.moments[g, 2]
    room.totals[0] = room.totals[1] = room.totals[2] = 0.0
    if count > 0.0:
        mean, excess = first / count, second / count - 1.0 / dim
        room.totals[0] = spec.spread_out * 2.0 * mean / count
        if excess > 0.0:
            room.totals[1] = spec.spread_out * 2.0 / count
        room.totals[2] = spec.spread_out * (mean * mean + max(excess, 0.0))


@inner
def decorrelate(n: Int, spec: Spec, room: Room) -> None:
    """`nearfar.method.loss.Decorrelate.term` over the n unique points of the step."""
    dim = room.current.shape[1]
    centred = np.empty((n, dim), np.float32)
    for k in range(dim):
        mean = 0.0
        for u in range(n):
            centred[u, k] = room.inverse[u] * room.current[u, k]
            mean += centred[u, k]
        mean /= n
        for u in range(n):
            centred[u, k] -= np.float32(mean)
    slope = np.dot(centred.T, centred)
    whole, diagonal = 0.0, 0.0
    for a in range(dim):
        for b in range(dim):
            slope[a, b] /= np.float32(n)
            whole += np.float64(slope[a, b]) ** 2
        diagonal += np.float64(slope[a, a]) ** 2
    frobenius = np.sqrt(whole)
    scale = 2.0 if spec.decorrelate_squared else 1.0 / max(frobenius, 1e-30)
    for a in range(dim):
        on_diagonal = np.float64(slope[a, a])
        for b in range(dim):
            slope[a, b] *= np.float32(scale)
        slope[a, a] -= np.float32(2.0 * on_diagonal)
    weight = spec.decorrelate / n
    room.totals[3] = weight * ((whole if spec.decorrelate_squared else frobenius) - diagonal)
    gradient, factor = np.dot(centred, slope), np.float32(2.0 * weight / n)
    for u in range(n):
        for k in range(dim):
            room.extra[u, k] = gradient[u, k] * factor


@inlined
def clear(total: Float32, at: Int) -> None:
    """Put zeros into row `at` of `total`."""
    for k in range(total.shape[1]):
        total[at, k] = np.float32(0.0)


@inlined
def add(total: Float32, at: Int, f: Real, current: Float32, a: Int) -> None:
    """Add ``f * current[a]`` to row `at` of `total`."""
    f32 = np.float32(f)
    for k in range(total.shape[1]):
        total[at, k] += f32 * current[a, k]


@inlined
def add_difference(
    total: Float32, at: Int, f: Real, a: Int, h: Real, b: Int, current: Float32
) -> None:
    """Add ``f * current[a] - h * current[b]`` to row `at` of `total`."""
    f32, h32 = np.float32(f), np.float32(h)
    for k in range(total.shape[1]):
        total[at, k] += f32 * current[a, k] - h32 * current[b, k]


@inlined
def set_difference(
    total: Float32, at: Int, f: Real, a: Int, h: Real, b: Int, current: Float32
) -> None:
    """Put ``f * current[a] - h * current[b]`` into row `at` of `total`."""
    f32, h32 = np.float32(f), np.float32(h)
    for k in range(total.shape[1]):
        total[at, k] = f32 * current[a, k] - h32 * current[b, k]


@inlined
def pull(total: Float32, at: Int, g: Int, plan: Plan, room: Room, anew: bool) -> None:
    """Add dL/du of pair g, the sum of share_k (v_k - v_j), to row `at` of `total`.

    If `anew`, what stands there is replaced.
    """
    inv, j = room.inverse, plan.slots[g, 1]
    rest = np.float32(room.coefficient[g])  # taken off with the first negative, in one pass
    for k in range(room.share.shape[1]):
        c, n = room.share[g, k], plan.slots[g, 2 + k]
        if c == 0.0:
            continue
        if anew and rest != 0.0:
            set_difference(total, at, c * inv[n], n, rest * inv[j], j, room.current)
        else:
            add_difference(total, at, c * inv[n], n, rest * inv[j], j, room.current)
        rest = np.float32(0.0)


@inlined
def collect_own(begin: Int, end: Int, plan: Plan, room: Room, total: Float32, moved: Int64) -> Int:
    """Find the gradients of the rows that only one of the pairs begin..end-1 reads.

    The gradient of point ``moved[r]`` goes into row r of `total`; gives the number of them.
    """
    count, n_shared, cur, inv = 0, plan.size[N_SHARED], room.current, room.inverse
    for g in range(begin, end):
        c = room.coefficient[g]
        if c == 0.0:
            continue
        i, j = plan.slots[g, 0], plan.slots[g, 1]
        for w in range(plan.slots.shape[1]):
            u = plan.slots[g, w]
            f = c if w < 2 else room.share[g, w - 2]
            if u < n_shared or f == 0.0:
                continue
            if w == 0:
                pull(total, count, g, plan, room, True)
            elif w == 1:  # dL/dv_j = c (v_j - u)
                set_difference(total, count, f * inv[j], j, f * inv[i], i, cur)
            else:  # dL/dv_k = share_k (u - v_k)
                set_difference(total, count, f * inv[i], i, f * inv[u], u, cur)
            moved[count] = u
            count += 1
    return count


@inlined
def collect(
    begin: Int, end: Int, plan: Plan, spec: Spec, room: Room, total: Float32, moved: Int64
) -> Int:
    """Sum the gradients of points begin..end-1, entry by entry in their order.

    The gradient of point ``moved[r]`` goes into row r of `total`; gives the number of them. A point
    into which nothing flows is left out.
    """
    cur, inv, count = room.current, room.inverse, 0
    for u in range(begin, end):
        clear(total, count)
        flows = spec.decorrelate > 0.0
        for e in range(plan.start[u], plan.start[u + 1]):
            g, w = np.int64(plan.pair[e]), np.int64(plan.place[e])
            i, j = plan.slots[g, 0], plan.slots[g, 1]
            c = room.coefficient[g] if w < 2 else room.share[g, w - 2]
            if c != 0.0:
                flows = True
                if w == 0:
                    pull(total, count, g, plan, room, False)
                elif w == 1:
                    add_difference(total, count, c * inv[j], j, c * inv[i], i, cur)
                else:
                    add_difference(total, count, c * inv[i], i, c * inv[u], u, cur)
            if spec.spread_out > 0.0 and w > 0:
                flows = True
                first = 2 if w == 1 else w  # v_j receives from every v_k, v_k from v_j
                for k in range(first, plan.slots.shape[1] if w == 1 else w + 1):
                    other = plan.slots[g, k] if w == 1 else j
                    if other >= 0:
                        slope = room.totals[0] + room.totals[1] * room.products[g, k - 2]
                        add(total, count, slope * inv[other], cur, other)
        if spec.decorrelate > 0.0:
            add(total, count, 1.0, room.extra, u)
        moved[count] = u
        count += flows
    return count


@inlined
def update(
    count: Int,
    moved: Int64,
    listed: Int64,
    rows: Float32,
    last: Int64,
    t: Int,
    spec: Spec,
    decay: Decay,
    pace: tuple[Real, Real],
    room: Room,
    total: Float32,
) -> None:
    """Apply the gradients that are in `total` to the rows listed[moved[:count]], as step t + 1.

    `pace` is what `step_size` gives for that step (two powers, too dear for every call).
    The gradient goes through the normalisation x / |x| first: (g - (g.x) x / |x|^2) / |x|.
    """
    dim, rate, eps = rows.shape[2], np.float32(pace[0]), np.float32(pace[1])
    new1, new2 = np.float32(1.0 - spec.beta1), np.float32(1.0 - spec.beta2)
    cur = room.current
    for r in range(count):
        u = moved[r]
        row = listed[u]
        inverse, radial = np.float32(1.0), np.float32(0.0)
        if spec.geometry == SPHERE:
            inverse = np.float32(room.inverse[u])
            radial = dot(total, r, cur, u) * inverse * inverse
        if spec.optimiser == USE_ADAM:
            gap = t - last[row] + 1
            keep1 = np.float32(power(decay.beta1, gap))
            keep2 = np.float32(power(decay.beta2, gap))
            for k in range(dim):
                slope = (total[r, k] - radial * cur[u, k]) * inverse
                m = keep1 * rows[row, 1, k] + new1 * slope
                v = keep2 * rows[row, 2, k] + new2 * slope * slope
                rows[row, 1, k] = m
                rows[row, 2, k] = v
                rows[row, 0, k] = cur[u, k] - rate * m / (np.sqrt(v) + eps)
        elif spec.optimiser == USE_ADAGRAD:
            for k in range(dim):
                slope = (total[r, k] - radial * cur[u, k]) * inverse
                a = rows[row, 1, k] + slope * slope
                rows[row, 1, k] = a
                rows[row, 0, k] = cur[u, k] - rate * slope / (np.sqrt(a) + eps)
        else:
            for k in range(dim):
                slope = (total[r, k] - radial * cur[u, k]) * inverse
                rows[row, 0, k] = cur[u, k] - rate * slope
        last[row] = t + 1
        if spec.geometry == BALL:
            clip(rows[:, 0], row)


@inner
def settle(
    begin: Int,
    end: Int,
    first: Int,
    rows: Float32,
    last: Int64,
    t: Int,
    decay: Decay,
    current: Float32,
) -> None:
    """Store current[begin:end], gathered for t steps done, from row `first` on; decay moments."""
    for at in range(begin, end):
        row = first + at
        if 0 < last[row] < t:
            gap = t - last[row]
            keep1 = np.float32(power(decay.beta1, gap))
            keep2 = np.float32(power(decay.beta2, gap))
            for k in range(rows.shape[2]):
                rows[row, 0, k] = current[at, k]
                rows[row, 1, k] *= keep1
                rows[row, 2, k] *= keep2
            last[row] = t
