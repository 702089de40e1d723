# mypy: ignore-errors
"""The parts of a step in Triton that move rows, and the products and the order they need.

See `nearfar.engine.gpu.kernels`.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from nearfar.engine.gpu.kernels import clipped

jit: Any = triton.jit
constexpr = tl.constexpr


@jit
def _flowing(at, mine, now, flow, shape: constexpr, CHUNK: constexpr):
    """Sum what flows into row `mine` over its entries at `at` and after, CHUNK at most.

    Returns the sum, what comes of the row's own point, and how many entries there were.
    """
    W: constexpr = shape.width
    DIM: constexpr = shape.dim
    batch, side = now.batch, flow.side
    k, i = tl.arange(0, shape.block), at + tl.arange(0, CHUNK)
    inside, paired = k < DIM, batch * W
    same = tl.load(now.row + i, mask=i < now.n_entries, other=-1) == mine
    place = tl.load(now.entry + i, mask=same, other=0)
    g, w, of_pair = place // W, place % W, place < paired
    source = tl.where(of_pair, tl.where(w == 0, g, batch + g), place - paired + 2 * batch)
    f = tl.load(flow.weight + place, mask=same, other=0.0)
    tile = tl.load(side + source[:, None] * DIM + k[None, :],
                   mask=same[:, None] & inside[None, :], other=0.0)  # fmt: skip
    total, own = tl.sum(tile * f[:, None], 0), 0.0
    if not shape.sphere:  # there it would point along the row, and the sphere takes that out
        of_all = tl.load(flow.share + (place - paired), mask=same & (place >= paired), other=0.0)
        own = tl.sum(tl.where(of_pair, tl.where(w > 0, -f, 0.0), -of_all))
    if shape.spread:
        z = tl.load(flow.slope + g * (W - 2) + w - 2, mask=same & (w >= 2), other=0.0)
        z = tl.where(same & (w == 1), 1.0, z)
        source = tl.where(w == 1, 2 * batch + g, 3 * batch + g)
        tile = tl.load(side + source[:, None] * DIM + k[None, :],
                       mask=(same & (w > 0))[:, None] & inside[None, :], other=0.0)  # fmt: skip
        total += tl.sum(tile * z[:, None], 0)
    return total, own, tl.sum(same.to(tl.int32))


@jit
def update(now, points, flow, tables, shape: constexpr):
    """Sum what flows into a row over its entries, and move it; the first entry's program does.

    All that the row is asked for at once, long before it is needed.
    """
    e = tl.program_id(0)
    DIM: constexpr = shape.dim
    mine, first = tl.load(now.row + e).to(tl.int64), tl.load(now.entry + e)
    before = tl.load(now.row + e - 1, mask=e > 0, other=-1)
    if (mine < 0) | (mine == before):
        return
    k = tl.arange(0, shape.block)
    inside, to = k < DIM, tables.rows + mine * (shape.slots * DIM) + k
    x = tl.load(points.point + first * DIM + k, mask=inside, other=0.0)
    size, t, t0 = tl.load(points.length + first), tl.load(now.step), tl.load(tables.last + mine)
    rate, eps = tl.load(now.pace), tl.load(now.pace + 1)
    if shape.slots > 1:
        m = tl.load(to + DIM, mask=inside, other=0.0)
    if shape.slots > 2:
        v = tl.load(to + 2 * DIM, mask=inside, other=0.0)
    if shape.adam:
        gap = (t + 1 - t0).to(tl.float64)
        keep1 = tl.exp2(gap * tl.load(tables.numbers + 4)).to(tl.float32)
        keep2 = tl.exp2(gap * tl.load(tables.numbers + 5)).to(tl.float32)
        new1 = (1.0 - tl.load(tables.numbers + 6)).to(tl.float32)
        new2 = (1.0 - tl.load(tables.numbers + 7)).to(tl.float32)
    total, own, n = _flowing(e, mine, now, flow, shape, shape.few)
    at, more = e + shape.few, n == shape.few
    while more:
        again, of_own, n = _flowing(at, mine, now, flow, shape, shape.many)
        total += again
        own += of_own
        at += shape.many
        more = n == shape.many
    if not shape.sphere:
        total += own * x
    if shape.extra:
        total += tl.load(flow.extra + e * DIM + k, mask=inside, other=0.0)
    if tl.sum((total != 0.0).to(tl.int32)) == 0:
        return
    if shape.sphere:
        total = (total - tl.sum(total * x) * x) / size
        x = x * size
    tl.debug_barrier()  # several threads may have read what one of them writes now
    if shape.adam:
        m = keep1 * m + new1 * total
        v = keep2 * v + new2 * total * total
        tl.store(to + DIM, m, mask=inside)
        tl.store(to + 2 * DIM, v, mask=inside)
        x = x - rate * m / (tl.sqrt(v) + eps)
    elif shape.adagrad:
        m = m + total * total
        tl.store(to + DIM, m, mask=inside)
        x = x - rate * total / (tl.sqrt(m) + eps)
    else:
        x = x - rate * total
    if shape.ball:
        x = clipped(x)
    tl.store(to, x, mask=inside)
    tl.store(tables.last + mine, t + 1)


# -------------------------------------------------------------------------------- products


@jit
def multiply(a, b, out, rows, columns, shape: constexpr):
    """Put the product of two matrices, or add it, into a tile of `out`."""
    HIGH: constexpr = shape.high
    WIDE: constexpr = shape.wide
    DEEP: constexpr = shape.deep
    INNER: constexpr = shape.inner
    i = tl.program_id(0) * HIGH + tl.arange(0, HIGH)
    j = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    total = tl.zeros((HIGH, WIDE), tl.float32)
    for begin in range(0, INNER, DEEP):
        k = begin + tl.arange(0, DEEP)
        x = tl.load(a.first + i[:, None] * a.row + k[None, :] * a.column,
                    mask=(i < rows)[:, None] & (k < INNER)[None, :], other=0.0)  # fmt: skip
        y = tl.load(b.first + k[:, None] * b.row + j[None, :] * b.column,
                    mask=(k < INNER)[:, None] & (j < columns)[None, :], other=0.0)  # fmt: skip
        total = tl.dot(x, y, total, input_precision=shape.precision)
    place = out.first + i[:, None] * out.row + j[None, :] * out.column
    inside = (i < rows)[:, None] & (j < columns)[None, :]
    if shape.add:
        total += tl.load(place, mask=inside, other=0.0)
    tl.store(place, total, mask=inside)


# ----------------------------------------------------------------------------------- order


@jit
def order_rows(listed, row, entry, N: constexpr, HIGH: constexpr, WIDE: constexpr):
    """Sort some entries by row, equal rows by place: count those that come before each.

    Every pair of entries is compared, so it is for some thousands.
    """
    e = tl.program_id(0) * HIGH + tl.arange(0, HIGH)
    mine = tl.load(listed + e, mask=e < N, other=-1).to(tl.int32)
    rank = tl.zeros((HIGH,), tl.int32)
    for begin in range(0, N, WIDE):
        i = begin + tl.arange(0, WIDE)
        other = tl.load(listed + i, mask=i < N, other=2147483647).to(tl.int32)
        before = (other[None, :] < mine[:, None]) | (
            (other[None, :] == mine[:, None]) & (i[None, :] < e[:, None])
        )
        rank += tl.sum(before.to(tl.int32), 1)
    tl.store(row + rank, mine, mask=e < N)
    tl.store(entry + rank, e, mask=e < N)
