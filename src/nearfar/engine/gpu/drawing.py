# mypy: ignore-errors
"""The draws of a step in Triton: `nearfar.engine.gpu.device_plan` and `eager.choose` once more.

The words are `nearfar.runtime.counter`'s; Triton has uint64, so they read as they do there.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from nearfar.method.geometry import GAP_FLOOR
from nearfar.runtime.counter import ATTEMPT, GOLDEN, MULTIPLY_1, MULTIPLY_2, ROUNDS, UNIT

jit: Any = triton.jit
constexpr = tl.constexpr
_GOLDEN, _ATTEMPT = constexpr(int(GOLDEN)), constexpr(int(ATTEMPT))
_MULTIPLY_1, _MULTIPLY_2 = constexpr(int(MULTIPLY_1)), constexpr(int(MULTIPLY_2))
_UNIT, _ROUNDS, _FLOOR = constexpr(UNIT), constexpr(ROUNDS), constexpr(GAP_FLOOR)


@jit
def _mix(z):
    z = (z ^ (z >> 30)) * tl.full((), _MULTIPLY_1, tl.uint64)
    z = (z ^ (z >> 27)) * tl.full((), _MULTIPLY_2, tl.uint64)
    return z ^ (z >> 31)


@jit
def _stream(base, step):
    """`nearfar.runtime.counter.stream_at`; `base` is a uint64 as an int64."""
    return _mix(base.to(tl.uint64) + tl.full((), _GOLDEN, tl.uint64) + step.to(tl.uint64))


@jit
def _bits(key, position, attempt):
    z = _mix(key + tl.full((), _GOLDEN, tl.uint64) * (position.to(tl.uint64) + 1))
    return _mix(z + tl.full((), _ATTEMPT, tl.uint64) * (attempt.to(tl.uint64) + 1))


@jit
def _uniform(key, position, attempt):
    return (_bits(key, position, attempt) >> 11).to(tl.float64) * _UNIT


@jit
def _drawn(key, position, attempt, keep, other, n_items, UNIFORM: constexpr):
    """Draw an item, int64; `nearfar.method.sampling.draw_at`."""
    x = _uniform(key, position, attempt) * n_items.to(tl.float64)
    column = x.to(tl.int64)
    if UNIFORM:
        return column
    kept = x - column.to(tl.float64) < tl.load(keep + column)
    return tl.where(kept, column, tl.load(other + column).to(tl.int64))


@jit
def _has(indptr, items, user, item, here, STEPS: constexpr):
    """Whether users have items, where `here`; `nearfar.engine.gpu.device_plan.has`."""
    at = tl.load(indptr + user, mask=here, other=0)
    n = tl.load(indptr + user + 1, mask=here, other=0) - at
    some = here & (n > 0)
    for _ in range(STEPS):
        half = n // 2
        below = tl.load(items + at + half, mask=some, other=0).to(tl.int64) <= item
        at += tl.where(below, half, 0)
        n = tl.maximum(n - half, 1)
    return some & (tl.load(items + at, mask=some, other=0).to(tl.int64) == item)


@jit
def draw_pairs(
    step, entries, users, items, base, n_pairs, steps_per_epoch, count, n_users, batch,
    low, low_mask, high_mask, W: constexpr, BLOCK: constexpr,
):  # fmt: skip
    """Take a step's slice of the epoch's permutation; see `device_plan.draw_pairs`."""
    p = tl.program_id(0).to(tl.int64)
    g = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    t = tl.load(step + 2 * p)
    index = (t % steps_per_epoch) * batch + g
    there = (g < batch) & (index < n_pairs) & (p < count)
    key = _stream(base + 0 * p, t // steps_per_epoch)
    of_low, of_high = (low_mask + 0 * p).to(tl.uint64), (high_mask + 0 * p).to(tl.uint64)
    shift = (low + 0 * p).to(tl.uint64)
    x = tl.where(there, index, 0).to(tl.uint64)
    outside = there
    while tl.sum(outside.to(tl.int32)) > 0:
        left, right = x >> shift, x & of_low
        for r in tl.static_range(0, _ROUNDS, 2):
            left = left ^ (_bits(key, right, tl.full((), r, tl.int64)) & of_high)
            right = right ^ (_bits(key, left, tl.full((), r + 1, tl.int64)) & of_low)
        x = tl.where(outside, (left << shift) | right, x)
        outside = there & (x.to(tl.int64) >= n_pairs)
    pair = x.to(tl.int64)
    user = tl.load(users + pair, mask=there, other=0).to(tl.int64)
    item = tl.load(items + pair, mask=there, other=0).to(tl.int64)
    place = entries + (p * batch + g) * W
    tl.store(place, tl.where(there, user, -1), mask=g < batch)
    tl.store(place + 1, tl.where(there, item + n_users, -1), mask=g < batch)


@jit
def draw_items(
    step, out, keep, other, base, n_items, n, UNIFORM: constexpr, BLOCK: constexpr
):  # fmt: skip
    """Draw the items of positions 0 ... n - 1 of a step's stream."""
    p = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    key = _stream(base + 0 * p, tl.load(step + 2 * p))
    zero = tl.zeros((BLOCK,), tl.int64)
    item = _drawn(key, i, zero, keep, other, n_items + 0 * p, UNIFORM)
    tl.store(out + p * n + i, item, mask=i < n)


@jit
def draw_negatives(
    step, entries, first, missed, indptr, items, keep, other, base, n_items, n_users, redraws,
    batch, N: constexpr, WIDE: constexpr, PAIRS: constexpr, STEPS: constexpr,
    UNIFORM: constexpr, GIVEN: constexpr,
):  # fmt: skip
    """Draw the negatives of some pairs until none of them is the user's."""
    p = tl.program_id(0).to(tl.int64)
    g = tl.program_id(1) * PAIRS + tl.arange(0, PAIRS)
    k = tl.arange(0, WIDE)
    key = _stream(base + 0 * p, tl.load(step + 2 * p))
    pair = entries + (p * batch + g) * (N + 2)
    user = tl.load(pair, mask=g < batch, other=-1)
    here = (user >= 0)[:, None] & (k < N)[None, :]
    user = tl.broadcast_to(user[:, None], (PAIRS, WIDE))
    place = g[:, None] * N + k[None, :]
    attempt = tl.zeros((PAIRS, WIDE), tl.int64)
    if GIVEN:
        item = tl.load(first + p * batch * N + place, mask=here, other=0)
    else:
        item = _drawn(key, place, attempt, keep, other, n_items + 0 * p, UNIFORM)
    wrong = _has(indptr, items, user, item, here, STEPS)
    tries = 0
    while (tl.sum(wrong.to(tl.int32)) > 0) & (tries < redraws):
        tries += 1
        attempt += 1
        again = _drawn(key, place, attempt, keep, other, n_items + 0 * p, UNIFORM)
        item = tl.where(wrong, again, item)
        wrong = _has(indptr, items, user, item, wrong, STEPS)
    found = tl.where(here & (wrong == 0), item + n_users, -1)
    tl.store(pair[:, None] + 2 + k[None, :], found, mask=(g < batch)[:, None] & (k < N)[None, :])
    tl.store(missed + p * batch + g, tl.sum(wrong.to(tl.int64), 1), mask=g < batch)


@jit
def find_mine(
    entries, ordered, place, mine, indptr, items, batch,
    N: constexpr, W: constexpr, BLOCK: constexpr, STEPS: constexpr,
):  # fmt: skip
    """Mark the candidates that a pair's user has, all if there is no pair.

    Each of the user's items is looked for among the candidates, which are `ordered` (S, N), and
    stood at `place` before; `mine` (S, B, N) is all False so far.
    """
    p, g = tl.program_id(0).to(tl.int64), tl.program_id(1)
    user = tl.load(entries + (p * batch + g) * W)
    to, of = mine + (p * batch + g) * N, p * N
    k = tl.arange(0, BLOCK)
    if user < 0:
        for begin in range(0, N, BLOCK):
            tl.store(to + begin + k, 1, mask=begin + k < N)
        return
    begin, end = tl.load(indptr + user), tl.load(indptr + user + 1)
    while begin < end:
        item = tl.load(items + begin + k, mask=begin + k < end, other=-1).to(tl.int64)
        at, left = tl.zeros((BLOCK,), tl.int32), tl.zeros((BLOCK,), tl.int32) + N
        for _ in range(STEPS):  # to the first that is not smaller
            half = (left + 1) // 2
            below = tl.load(ordered + of + at + half - 1, mask=left > 0, other=0) < item
            at += tl.where(below & (left > 0), half, 0)
            left = tl.where(below, left - half, half - 1)
            left = tl.maximum(left, 0)
        found = (item >= 0) & (at < N)
        found = found & (tl.load(ordered + of + at, mask=found, other=-1) == item)
        while tl.sum(found.to(tl.int32)) > 0:  # a candidate may have been drawn several times
            tl.store(to + tl.load(place + of + at, mask=found, other=0), 1, mask=found)
            at += 1
            found = found & (at < N)
            found = found & (tl.load(ordered + of + at, mask=found, other=-1) == item)
        begin += BLOCK


@jit
def _power(ratio, DIM: constexpr):
    """Give ratio^((d - 3) / 2), float32, as `nearfar.engine.cpu.choose.weigh` does: by squaring."""
    weight, power = tl.zeros_like(ratio) + 1.0, ratio
    if DIM < 3:
        weight = 1.0 / tl.sqrt(ratio)
    else:
        if (DIM - 3) % 2 == 1:
            weight = tl.sqrt(ratio)
        for bit in tl.static_range(12):
            if ((DIM - 3) // 2 >> bit) % 2 == 1:
                weight = weight * power
            power = power * power
    return weight


@jit
def choose(
    products, mine, candidates, step, entries, missed, base, n_users, overflow_gap,
    N: constexpr, C: constexpr, WIDE: constexpr, AT_ONCE: constexpr, DIM: constexpr,
    RELEASED: constexpr,
):  # fmt: skip
    """Draw a pair's negatives among the candidates; `nearfar.engine.gpu.eager.choose`."""
    g = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, WIDE)
    s = tl.load(products + g * C + c, mask=c < C, other=-2.0)
    is_mine = tl.load(mine + g * C + c, mask=c < C, other=1) != 0
    gap = tl.maximum((1.0 - s) * (1.0 + s), _FLOOR)
    possible = (s >= 0.0) & (is_mine == 0)
    top = tl.min(tl.where(possible, gap, 1.0))
    weight = tl.where(possible, _power(tl.where(possible, top / gap, 1.0), DIM), 0.0)
    if RELEASED:
        squares = tl.minimum(s.to(tl.float64) * s.to(tl.float64), 1.0)
        over = tl.sum(((1.0 - squares + 1e-8 < overflow_gap) & (c < C)).to(tl.int32)) > 0
        weight = tl.where(over, (is_mine == 0).to(tl.float32), weight)
    cumulative = tl.cumsum(weight.to(tl.float64), 0)
    whole = tl.max(cumulative)
    last = tl.sum((cumulative < whole).to(tl.int32))
    user = tl.load(entries + g * (N + 2))
    key = _stream(base + 0 * user, tl.load(step))
    there = (user >= 0) & (whole > 0.0)
    for begin in tl.static_range(0, N, AT_ONCE):
        k = begin + tl.arange(0, AT_ONCE)
        target = _uniform(key, g * N + k, tl.zeros((AT_ONCE,), tl.int64)) * whole
        below = cumulative[None, :] <= target[:, None]
        at = tl.minimum(tl.sum(below.to(tl.int32), 1), last)
        item = tl.load(candidates + at, mask=there & (k < N), other=-1)
        found = tl.where(there, item + n_users, -1)
        tl.store(entries + g * (N + 2) + 2 + k, found, mask=k < N)
    empty = tl.where((user >= 0) & (whole <= 0.0), N, 0)
    tl.store(missed + g, empty.to(tl.int64))
