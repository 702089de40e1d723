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
def _flowing(
    at, mine, row, entry, weight, side, share, slope, n_entries, batch,
    W: constexpr, DIM: constexpr, BLOCK: constexpr, CHUNK: constexpr,
    SPHERE: constexpr, SPREAD: constexpr,
):  # fmt: skip
    """Sum what flows into row `mine` over its entries at `at` and after, CHUNK at most.

    Gives the sum, what comes of the row's own point, and how many entries there were.
    """
    k, i = tl.arange(0, BLOCK), at + tl.arange(0, CHUNK)
    inside, paired = k < DIM, batch * W
    same = tl.load(row + i, mask=i < n_entries, other=-1) == mine
    place = tl.load(entry + i, mask=same, other=0)
    g, w, of_pair = place // W, place % W, place < paired
    source = tl.where(of_pair, tl.where(w == 0, g, batch + g), place - paired + 2 * batch)
    f = tl.load(weight + place, mask=same, other=0.0)
    tile = tl.load(side + source[:, None] * DIM + k[None, :],
                   mask=same[:, None] & inside[None, :], other=0.0)  # fmt: skip
    total, own = tl.sum(tile * f[:, None], 0), 0.0
    if not SPHERE:  # there it would point along the row, and the sphere takes that out
        of_all = tl.load(share + (place - paired), mask=same & (place >= paired), other=0.0)
        own = tl.sum(tl.where(of_pair, tl.where(w > 0, -f, 0.0), -of_all))
    if SPREAD:
        z = tl.load(slope + g * (W - 2) + w - 2, mask=same & (w >= 2), other=0.0)
        z = tl.where(same & (w == 1), 1.0, z)
        source = tl.where(w == 1, 2 * batch + g, 3 * batch + g)
        tile = tl.load(side + source[:, None] * DIM + k[None, :],
                       mask=(same & (w > 0))[:, None] & inside[None, :], other=0.0)  # fmt: skip
        total += tl.sum(tile * z[:, None], 0)
    return total, own, tl.sum(same.to(tl.int32))


@jit
def update(
    row, entry, step, pace, point, length, weight, side, share, slope, extra, rows, last, numbers,
    n_entries, batch,
    W: constexpr, DIM: constexpr, BLOCK: constexpr, FEW: constexpr, MANY: constexpr,
    SLOTS: constexpr, SPHERE: constexpr, BALL: constexpr, ADAM: constexpr, ADAGRAD: constexpr,
    SPREAD: constexpr, EXTRA: constexpr,
):  # fmt: skip
    """Sum what flows into a row over its entries, and move it; the first entry's program does.

    All that the row is asked for at once, long before it is needed.
    """
    e = tl.program_id(0)
    mine, first = tl.load(row + e).to(tl.int64), tl.load(entry + e)
    before = tl.load(row + e - 1, mask=e > 0, other=-1)
    if (mine < 0) | (mine == before):
        return
    k = tl.arange(0, BLOCK)
    inside, to = k < DIM, rows + mine * (SLOTS * DIM) + k
    x = tl.load(point + first * DIM + k, mask=inside, other=0.0)
    size, t, t0 = tl.load(length + first), tl.load(step), tl.load(last + mine)
    rate, eps = tl.load(pace), tl.load(pace + 1)
    if SLOTS > 1:
        m = tl.load(to + DIM, mask=inside, other=0.0)
    if SLOTS > 2:
        v = tl.load(to + 2 * DIM, mask=inside, other=0.0)
    if ADAM:
        gap = (t + 1 - t0).to(tl.float64)
        keep1 = tl.exp2(gap * tl.load(numbers + 4)).to(tl.float32)
        keep2 = tl.exp2(gap * tl.load(numbers + 5)).to(tl.float32)
        new1 = (1.0 - tl.load(numbers + 6)).to(tl.float32)
        new2 = (1.0 - tl.load(numbers + 7)).to(tl.float32)
    total, own, n = _flowing(e, mine, row, entry, weight, side, share, slope, n_entries, batch,
                             W, DIM, BLOCK, FEW, SPHERE, SPREAD)  # fmt: skip
    at, more = e + FEW, n == FEW
    while more:
        again, of_own, n = _flowing(at, mine, row, entry, weight, side, share, slope, n_entries,
                                    batch, W, DIM, BLOCK, MANY, SPHERE, SPREAD)  # fmt: skip
        total += again
        own += of_own
        at += MANY
        more = n == MANY
    if not SPHERE:
        total += own * x
    if EXTRA:
        total += tl.load(extra + e * DIM + k, mask=inside, other=0.0)
    if tl.sum((total != 0.0).to(tl.int32)) == 0:
        return
    if SPHERE:
        total = (total - tl.sum(total * x) * x) / size
        x = x * size
    tl.debug_barrier()  # several threads may have read what one of them writes now
    if ADAM:
        m = keep1 * m + new1 * total
        v = keep2 * v + new2 * total * total
        tl.store(to + DIM, m, mask=inside)
        tl.store(to + 2 * DIM, v, mask=inside)
        x = x - rate * m / (tl.sqrt(v) + eps)
    elif ADAGRAD:
        m = m + total * total
        tl.store(to + DIM, m, mask=inside)
        x = x - rate * total / (tl.sqrt(m) + eps)
    else:
        x = x - rate * total
    if BALL:
        x = clipped(x)
    tl.store(to, x, mask=inside)
    tl.store(last + mine, t + 1)


# -------------------------------------------------------------------------------- products


@jit
def multiply(
    a, b, out, rows, columns, a_row, a_column, b_row, b_column, out_row,
    INNER: constexpr, HIGH: constexpr, WIDE: constexpr, DEEP: constexpr, ADD: constexpr,
    PRECISION: constexpr,
):  # fmt: skip
    """Put the product of two matrices, or add it, into a tile of `out`."""
    i = tl.program_id(0) * HIGH + tl.arange(0, HIGH)
    j = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    total = tl.zeros((HIGH, WIDE), tl.float32)
    for begin in range(0, INNER, DEEP):
        k = begin + tl.arange(0, DEEP)
        x = tl.load(a + i[:, None] * a_row + k[None, :] * a_column,
                    mask=(i < rows)[:, None] & (k < INNER)[None, :], other=0.0)  # fmt: skip
        y = tl.load(b + k[:, None] * b_row + j[None, :] * b_column,
                    mask=(k < INNER)[:, None] & (j < columns)[None, :], other=0.0)  # fmt: skip
        total = tl.dot(x, y, total, input_precision=PRECISION)
    place = out + i[:, None] * out_row + j[None, :]
    inside = (i < rows)[:, None] & (j < columns)[None, :]
    if ADD:
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
