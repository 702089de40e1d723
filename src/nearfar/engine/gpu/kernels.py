# mypy: ignore-errors
"""The parts of a step in Triton: `nearfar.engine.gpu.eager`, a program for each row or pair.

Every sum is taken by one program in a fixed order, so the bits are the same from run to run. The
arguments are records of `nearfar.engine.gpu.records` and `nearfar.engine.gpu.arguments`; a `shape`
is known when the kernel is compiled. Names are those of `eager`.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

jit: Any = triton.jit
constexpr = tl.constexpr


# ---------------------------------------------------------------------------------- gather


@jit
def _drift(t0, t, tables):
    """Return how far a row with last update t0 has moved by step t, float64; `points.drift`."""
    gap, numbers = (t - t0).to(tl.float64), tables.numbers
    plain, adjusted = tables.drift, tables.drift + tables.n_drift
    at0, at = tl.minimum(t0, tables.n_drift - 1), tl.minimum(t, tables.n_drift - 1)
    keep1 = tl.exp2(gap * tl.load(numbers + 2))
    keep2 = tl.exp2(gap * tl.load(numbers + 3))
    weight = tl.load(plain + at0) - keep1 * tl.load(plain + at)
    with_eps = tl.load(adjusted + at0) - keep2 * tl.load(adjusted + at)
    rate, eps = tl.load(numbers), tl.load(numbers + 1)
    still = (t0 == 0) | (t0 == t)
    return tl.where(still, 0.0, rate * weight), tl.where(still, eps, eps * with_eps / weight)


@jit
def _replay(x, m, v, t0, t, numbers):
    """Move a row from step t0 to t, a step at a time, clipped to the ball; `points.replay`."""
    rate, epsilon = tl.load(numbers), tl.load(numbers + 1)
    beta1, beta2 = tl.load(numbers + 6), tl.load(numbers + 7)
    log1, log2 = tl.load(numbers + 4), tl.load(numbers + 5)
    s, keep1, keep2 = t0, beta1 * 0 + 1.0, beta2 * 0 + 1.0
    root = tl.sqrt(v)
    while (s < t) & (keep1 > 1e-12):
        s += 1
        keep1 *= beta1
        keep2 *= beta2
        now = s.to(tl.float64)
        unbiased = tl.sqrt(1.0 - tl.exp2(now * log2))
        pace = (rate * unbiased / (1.0 - tl.exp2(now * log1)) * keep1).to(tl.float32)
        eps = (epsilon * unbiased).to(tl.float32)
        x = clipped(x - pace * m / (tl.sqrt(keep2).to(tl.float32) * root + eps))
    return x


@jit
def clipped(x):
    """Shorten a row to length 1 if it is longer."""
    squares = tl.sum(x * x)
    return tl.where(squares > 1.0, x / tl.sqrt(squares), x)


@jit
def gather(listed, step, tables, out, shape: constexpr):
    """Make a point of a row, as it is after the steps done."""
    e = tl.program_id(0)
    row = tl.load(listed + e)
    k = tl.arange(0, shape.block)
    here = (k < shape.dim) & (row >= 0)
    place = tables.rows + row * (shape.slots * shape.dim) + k
    x = tl.load(place, mask=here, other=0.0)
    if shape.drifts:
        m = tl.load(place + shape.dim, mask=here, other=0.0)
        v = tl.load(place + 2 * shape.dim, mask=here, other=0.0)
        t, t0 = tl.load(step), tl.load(tables.last + row, mask=row >= 0, other=0)
        moved64, eps64 = _drift(t0, t, tables)
        moved, eps = moved64.to(tl.float32), eps64.to(tl.float32)
        y = tl.where(moved != 0.0, x - moved * m / (tl.sqrt(v) + eps), x)
        if shape.ball:  # a constant: it must not be mixed with what is only known later
            if (tl.sum(y * y) > 1.0) & (moved != 0.0):
                y = _replay(x, m, v, t0, t, tables.numbers)
        x = y
    squares = tl.sum(x * x)
    if shape.unit:
        size = tl.where(squares > 0.0, tl.sqrt(squares), 1.0)
        x = x / size
        tl.store(out.length + e, size)
        tl.store(out.offset + e, 0.0)
    else:
        tl.store(out.length + e, 1.0)
        tl.store(out.offset + e, tl.where(row >= 0, 0.5 * (squares - 1.0), 0.0))
    tl.store(out.point + e * shape.dim + k, x, mask=k < shape.dim)


# --------------------------------------------------------------------------------- compare


@jit
def _contrast(s, n, near, found, terms, shape: constexpr):
    """Return a pair's shares, their sum, its loss, and whether it is violated; `eager.contrast`."""
    margin, temperature = terms.margin, terms.temperature
    inside = margin - 2.0 * (near - s)
    impostors = tl.sum((inside > 0.0).to(tl.int64))
    weight = (near * 0.0).to(tl.float64) + 1.0
    if shape.rank:
        rank = terms.n_items * impostors // tl.maximum(found, 1)
        weight = tl.log((rank + 1).to(tl.float64))
    factor = (2.0 * weight).to(tl.float32)
    best = tl.max(s)
    if shape.soft:
        zero = near - 0.5 * margin
        top = tl.maximum(best, zero)
        part = tl.exp((s - top) * (2.0 / temperature))
        whole = tl.sum(part) + tl.exp(2.0 * (zero - top) / temperature)
        share = part * (factor / whole)
        coefficient = tl.sum(share)
        loss = 2.0 * (top - zero) + temperature * tl.log(whole)
    else:
        nan = tl.sum((s != s).to(tl.int32)) > 0  # a maximum passes over it
        most = margin - 2.0 * (near - tl.where(nan, float("nan"), best))
        loss = tl.where(most <= 0.0, 0.0, most)
        coefficient = tl.where(loss != 0.0, factor, 0.0)
        nearest = tl.min(tl.where(s == best, n, 2147483647))
        share = tl.where(n == nearest, coefficient, 0.0)
    return share, coefficient, weight * loss.to(tl.float64), impostors > 0


@jit
def compare(entries, points, flow, log, terms, shape: constexpr):
    """Compare a pair with the negatives of its own."""
    g, point, offset, weight = tl.program_id(0), points.point, points.offset, flow.weight
    N: constexpr = shape.n
    CHUNK: constexpr = shape.chunk
    DIM: constexpr = shape.dim
    k, n = tl.arange(0, shape.block), tl.arange(0, shape.wide)
    inside, first = k < DIM, g * (N + 2)
    u = tl.load(point + first * DIM + k, mask=inside, other=0.0)
    j = tl.load(point + (first + 1) * DIM + k, mask=inside, other=0.0)
    off_u = tl.load(offset + first)
    near = tl.sum(u * j) - off_u - tl.load(offset + first + 1)
    own = first + 2 + n
    there = tl.load(entries + own, mask=n < N, other=-1) >= 0
    off = tl.load(offset + own, mask=n < N, other=0.0)
    if shape.wide <= CHUNK:
        tile = tl.load(point + own[:, None] * DIM + k[None, :],
                       mask=(n < N)[:, None] & inside[None, :], other=0.0)  # fmt: skip
        s = tl.sum(tile * u[None, :], 1)
    else:  # by way of `weight`: the products of one piece after the other
        for begin in range(0, N, CHUNK):
            c = begin + tl.arange(0, CHUNK)
            tile = tl.load(point + (first + 2 + c)[:, None] * DIM + k[None, :],
                           mask=(c < N)[:, None] & inside[None, :], other=0.0)  # fmt: skip
            tl.store(weight + first + 2 + c, tl.sum(tile * u[None, :], 1), mask=c < N)
        tl.debug_barrier()
        s = tl.load(weight + own, mask=n < N, other=0.0)
        tl.debug_barrier()
    s = tl.where(there, s - off_u - off, float("-inf"))
    share, coefficient, term, is_violated = _contrast(
        s, n, near, tl.sum(there.to(tl.int64)), terms, shape
    )
    tl.store(weight + own, share, mask=n < N)
    tl.store(weight + first, 1.0)
    tl.store(weight + first + 1, -coefficient)
    tl.store(log.loss + g, term)
    tl.store(log.violated + g, is_violated)
    pull = -coefficient * j
    if shape.wide <= CHUNK:
        pull += tl.sum(tile * share[:, None], 0)
    else:
        tl.debug_barrier()
        for begin in range(0, N, CHUNK):
            c = begin + tl.arange(0, CHUNK)
            part = tl.load(weight + first + 2 + c, mask=c < N, other=0.0)
            tile = tl.load(point + (first + 2 + c)[:, None] * DIM + k[None, :],
                           mask=(c < N)[:, None] & inside[None, :], other=0.0)  # fmt: skip
            pull += tl.sum(tile * part[:, None], 0)
    tl.store(flow.side + g * DIM + k, pull, mask=inside)
    tl.store(flow.side + (terms.batch + g) * DIM + k, u, mask=inside)
    if shape.spread:
        count, total, squares = off_u * 0.0, off_u * 0.0, off_u * 0.0
        for begin in range(0, N, CHUNK):
            c = begin + tl.arange(0, CHUNK)
            here = tl.load(entries + first + 2 + c, mask=c < N, other=-1) >= 0
            tile = tl.load(point + (first + 2 + c)[:, None] * DIM + k[None, :],
                           mask=here[:, None] & inside[None, :], other=0.0)  # fmt: skip
            z = tl.sum(tile * j[None, :], 1)
            tl.store(flow.slope + g * N + c, z, mask=c < N)
            count += tl.sum(here.to(tl.float32))
            total += tl.sum(z)
            squares += tl.sum(z * z)
        tl.store(flow.moments + 3 * g, count.to(tl.float64))
        tl.store(flow.moments + 3 * g + 1, total.to(tl.float64))
        tl.store(flow.moments + 3 * g + 2, squares.to(tl.float64))


@jit
def weigh(mine, points, flow, log, terms, shape: constexpr):
    """Compare a pair with the negatives that all share, given their products."""
    g, point, offset, weight = tl.program_id(0), points.point, points.offset, flow.weight
    N: constexpr = shape.n
    DIM: constexpr = shape.dim
    k, n = tl.arange(0, shape.block), tl.arange(0, shape.wide)
    inside, first = k < DIM, 2 * g
    place = flow.products + g.to(tl.int64) * N + n
    s = tl.load(place, mask=n < N, other=0.0)
    is_mine = tl.load(mine + g.to(tl.int64) * N + n, mask=n < N, other=1) != 0
    off = tl.load(offset + 2 * terms.batch + n, mask=n < N, other=0.0)
    u = tl.load(point + first * DIM + k, mask=inside, other=0.0)
    j = tl.load(point + (first + 1) * DIM + k, mask=inside, other=0.0)
    off_u = tl.load(offset + first)
    near = tl.sum(u * j) - off_u - tl.load(offset + first + 1)
    s = tl.where(is_mine, float("-inf"), s - off_u - off)
    found = tl.sum((is_mine == 0).to(tl.int64))
    share, coefficient, term, is_violated = _contrast(s, n, near, found, terms, shape)
    tl.debug_barrier()  # several threads may hold the same product
    tl.store(place, share, mask=n < N)
    tl.store(weight + first, 1.0)
    tl.store(weight + first + 1, -coefficient)
    tl.store(log.loss + g, term)
    tl.store(log.violated + g, is_violated)
    tl.store(flow.side + g * DIM + k, -coefficient * j, mask=inside)
    tl.store(flow.side + (terms.batch + g) * DIM + k, u, mask=inside)


# ------------------------------------------------------------------------------ spread-out


@jit
def spread_slopes(flow, spread_out, BATCH: constexpr, DIM: constexpr, BLOCK: constexpr):
    """Eq. 3 over the whole batch: its loss, and dL/ds = totals[0] + totals[1] s; one program."""
    moments, totals = flow.moments, flow.totals
    count = tl.zeros((BLOCK,), tl.float64)
    first = tl.zeros((BLOCK,), tl.float64)
    second = tl.zeros((BLOCK,), tl.float64)
    for begin in range(0, BATCH, BLOCK):
        g = begin + tl.arange(0, BLOCK)
        count += tl.load(moments + 3 * g, mask=g < BATCH, other=0.0)
        first += tl.load(moments + 3 * g + 1, mask=g < BATCH, other=0.0)
        second += tl.load(moments + 3 * g + 2, mask=g < BATCH, other=0.0)
    some = tl.sum(count)
    n = tl.maximum(some, 1.0)
    mean, excess = tl.sum(first) / n, tl.sum(second) / n - 1.0 / DIM
    tl.store(totals, spread_out * 2.0 * mean / n)
    tl.store(totals + 1, tl.where(excess > 0.0, spread_out * 2.0 / n, 0.0))
    loss = spread_out * (mean * mean + tl.maximum(excess, 0.0))
    tl.store(totals + 2, tl.where(some > 0.0, loss, 0.0))


@jit
def spread(entries, points, flow, batch, shape: constexpr):
    """Turn a pair's products into slopes, and sum what flows into its positive."""
    g, point, slope, side = tl.program_id(0), points.point, flow.slope, flow.side
    N: constexpr = shape.n
    CHUNK: constexpr = shape.chunk
    DIM: constexpr = shape.dim
    BLOCK: constexpr = shape.block
    k = tl.arange(0, BLOCK)
    inside, first = k < DIM, g * (N + 2)
    level, tilt = tl.load(flow.totals), tl.load(flow.totals + 1)
    into = tl.zeros((BLOCK,), tl.float32)
    for begin in range(0, N, CHUNK):
        c = begin + tl.arange(0, CHUNK)
        there = tl.load(entries + first + 2 + c, mask=c < N, other=-1) >= 0
        s = tl.load(slope + g * N + c, mask=c < N, other=0.0)
        steep = tl.where(there, (level + tilt * s).to(tl.float32), 0.0)
        tl.debug_barrier()  # several threads may hold the same product
        tl.store(slope + g * N + c, steep, mask=c < N)
        tile = tl.load(point + (first + 2 + c)[:, None] * DIM + k[None, :],
                       mask=there[:, None] & inside[None, :], other=0.0)  # fmt: skip
        into += tl.sum(tile * steep[:, None], 0)
    j = tl.load(point + (first + 1) * DIM + k, mask=inside, other=0.0)
    tl.store(side + (2 * batch + g) * DIM + k, into, mask=inside)
    tl.store(side + (3 * batch + g) * DIM + k, j, mask=inside)
