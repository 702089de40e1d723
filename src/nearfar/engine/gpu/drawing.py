# mypy: ignore-errors
"""The draws of a step in Triton: the same as `nearfar.engine.gpu.device_plan` and `eager.choose`.

The words are `nearfar.runtime.counter`'s; Triton has uint64, so they read as they do there.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from nearfar.engine.spec import NOT_HALF
from nearfar.method.geometry import GAP_FLOOR
from nearfar.runtime.counter import ATTEMPT, GOLDEN, MULTIPLY_1, MULTIPLY_2, ROUNDS, UNIT

jit: Any = triton.jit
constexpr = tl.constexpr
_GOLDEN, _ATTEMPT = constexpr(int(GOLDEN)), constexpr(int(ATTEMPT))
_MULTIPLY_1, _MULTIPLY_2 = constexpr(int(MULTIPLY_1)), constexpr(int(MULTIPLY_2))
_UNIT, _ROUNDS, _FLOOR = constexpr(UNIT), constexpr(ROUNDS), constexpr(GAP_FLOOR)
_NOT_HALF = constexpr(NOT_HALF)


@jit
def _mix(z):
    z = (z ^ (z >> 30)) * tl.full((), _MULTIPLY_1, tl.uint64)
    z = (z ^ (z >> 27)) * tl.full((), _MULTIPLY_2, tl.uint64)
    return z ^ (z >> 31)


@jit
def _stream(base, step):
    """`nearfar.runtime.counter.stream_at`; `base` is a uint64 as an int64."""
    return _mix(tl.cast(base, tl.uint64) + tl.full((), _GOLDEN, tl.uint64) + step.to(tl.uint64))


@jit
def _bits(key, position, attempt):
    z = _mix(key + tl.full((), _GOLDEN, tl.uint64) * (position.to(tl.uint64) + 1))
    return _mix(z + tl.full((), _ATTEMPT, tl.uint64) * (attempt.to(tl.uint64) + 1))


@jit
def _uniform(key, position, attempt):
    return (_bits(key, position, attempt) >> 11).to(tl.float64) * _UNIT


@jit
def _drawn(key, position, attempt, proposal, UNIFORM: constexpr):
    """Draw an item, int64; `nearfar.method.proposal.draw_at`."""
    x = _uniform(key, position, attempt) * tl.cast(proposal.n_items, tl.float64)
    column = x.to(tl.int64)
    if UNIFORM:
        return column
    kept = x - column.to(tl.float64) < tl.load(proposal.keep + column)
    return tl.where(kept, column, tl.load(proposal.other + column).to(tl.int64))


@jit
def _has(known, user, item, here, STEPS: constexpr):
    """Return whether users have items, where `here`; `nearfar.engine.gpu.device_plan.has`."""
    at = tl.load(known.indptr + user, mask=here, other=0)
    n = tl.load(known.indptr + user + 1, mask=here, other=0) - at
    some = here & (n > 0)
    for _ in range(STEPS):
        half = n // 2
        below = tl.load(known.items + at + half, mask=some, other=0).to(tl.int64) <= item
        at += tl.where(below, half, 0)
        n = tl.maximum(n - half, 1)
    return some & (tl.load(known.items + at, mask=some, other=0).to(tl.int64) == item)


@jit
def draw_pairs(step, entries, pairs, epoch, W: constexpr, BLOCK: constexpr):
    """Take a step's slice of the epoch's permutation; see `device_plan.draw_pairs`."""
    p = tl.program_id(0).to(tl.int64)
    g = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    batch, n_pairs, t = epoch.batch, pairs.n_pairs, tl.load(step + 2 * p)
    index = (t % epoch.n_steps) * batch + g
    there = (g < batch) & (index < n_pairs) & (p < epoch.n_planned)
    key = _stream(epoch.base, t // epoch.n_steps)
    of_low, of_high = tl.cast(epoch.low_mask, tl.uint64), tl.cast(epoch.high_mask, tl.uint64)
    shift = tl.cast(epoch.low, tl.uint64)
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
    user = tl.load(pairs.users + pair, mask=there, other=0).to(tl.int64)
    item = tl.load(pairs.items + pair, mask=there, other=0).to(tl.int64)
    place = entries + (p * batch + g) * W
    tl.store(place, tl.where(there, user, -1), mask=g < batch)
    tl.store(place + 1, tl.where(there, item + pairs.n_users, -1), mask=g < batch)


@jit
def draw_items(step, out, proposal, stream, UNIFORM: constexpr, BLOCK: constexpr):
    """Draw the items of positions 0 ... n - 1 of a step's stream."""
    p = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    key = _stream(stream.base, tl.load(step + 2 * p))
    item = _drawn(key, i, tl.zeros((BLOCK,), tl.int64), proposal, UNIFORM)
    tl.store(out + p * stream.n + i, item, mask=i < stream.n)


@jit
def draw_negatives(drawn, known, proposal, rule, shape: constexpr):
    """Draw the negatives of some pairs until none of them is the user's."""
    N: constexpr = shape.n
    WIDE: constexpr = shape.wide
    PAIRS: constexpr = shape.pairs
    batch = rule.batch
    p = tl.program_id(0).to(tl.int64)
    g = tl.program_id(1) * PAIRS + tl.arange(0, PAIRS)
    k = tl.arange(0, WIDE)
    key = _stream(rule.base, tl.load(drawn.step + 2 * p))
    pair = drawn.entries + (p * batch + g) * (N + 2)
    user = tl.load(pair, mask=g < batch, other=-1)
    here = (user >= 0)[:, None] & (k < N)[None, :]
    user = tl.broadcast_to(user[:, None], (PAIRS, WIDE))
    place = g[:, None] * N + k[None, :]
    attempt = tl.zeros((PAIRS, WIDE), tl.int64)
    if shape.given:
        item = tl.load(drawn.first + p * batch * N + place, mask=here, other=0)
    else:
        item = _drawn(key, place, attempt, proposal, shape.uniform)
    wrong = _has(known, user, item, here, shape.steps)
    tries = 0
    while (tl.sum(wrong.to(tl.int32)) > 0) & (tries < rule.redraws):
        tries += 1
        attempt += 1
        again = _drawn(key, place, attempt, proposal, shape.uniform)
        item = tl.where(wrong, again, item)
        wrong = _has(known, user, item, wrong, shape.steps)
    found = tl.where(here & (wrong == 0), item + rule.n_users, -1)
    tl.store(pair[:, None] + 2 + k[None, :], found, mask=(g < batch)[:, None] & (k < N)[None, :])
    tl.store(drawn.missed + p * batch + g, tl.sum(wrong.to(tl.int64), 1), mask=g < batch)


@jit
def find_mine(entries, candidates, known, batch, shape: constexpr):
    """Mark the candidates that a pair's user has, all if there is no pair.

    Each of the user's items is looked for among the candidates, which are `ordered` (S, N), and
    stood at `place` before; `mine` (S, B, N) is all False so far.
    """
    N: constexpr = shape.n
    BLOCK: constexpr = shape.block
    ordered, place = candidates.ordered, candidates.place
    p, g = tl.program_id(0).to(tl.int64), tl.program_id(1)
    user = tl.load(entries + (p * batch + g) * shape.width)
    to, of = candidates.mine + (p * batch + g) * N, p * N
    k = tl.arange(0, BLOCK)
    if user < 0:
        for begin in range(0, N, BLOCK):
            tl.store(to + begin + k, 1, mask=begin + k < N)
        return
    begin, end = tl.load(known.indptr + user), tl.load(known.indptr + user + 1)
    while begin < end:
        item = tl.load(known.items + begin + k, mask=begin + k < end, other=-1).to(tl.int64)
        at, left = tl.zeros((BLOCK,), tl.int32), tl.zeros((BLOCK,), tl.int32) + N
        for _ in range(shape.steps):  # to the first that is not smaller
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
def _raised(ratio, exponent, HALF_STEPS: constexpr):
    """Return ratio^exponent, float32, as `nearfar.engine.cpu.choose.weigh`."""
    weight, power = tl.zeros_like(ratio) + 1.0, ratio
    if HALF_STEPS == _NOT_HALF:
        weight = tl.exp2(exponent * tl.log2(ratio))
    elif HALF_STEPS < 0:
        weight = 1.0 / tl.sqrt(ratio)
    else:
        if HALF_STEPS % 2 == 1:
            weight = tl.sqrt(ratio)
        for bit in tl.static_range(15):
            if (HALF_STEPS // 2 >> bit) % 2 == 1:
                weight = weight * power
            power = power * power
    return weight


@jit
def choose(choosing, rule, shape: constexpr):
    """Draw a pair's negatives among the candidates; `nearfar.engine.gpu.eager.choose`."""
    N: constexpr = shape.n
    C: constexpr = shape.candidates
    AT_ONCE: constexpr = shape.at_once
    g = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, shape.wide)
    s = tl.load(choosing.products + g * C + c, mask=c < C, other=-2.0)
    is_mine = tl.load(choosing.mine + g * C + c, mask=c < C, other=1) != 0
    ahead = tl.where(s > 0.0, s, 0.0)
    gap = tl.maximum((1.0 - ahead) * (1.0 + ahead), _FLOOR)
    possible = is_mine == 0
    if shape.cut:
        possible = possible & ((s < 0.0) == 0)
    top = tl.min(tl.where(possible, gap, 1.0))
    ratio = tl.where(possible, top / gap, 1.0)
    weight = tl.where(possible, _raised(ratio, rule.power, shape.half_steps), 0.0)
    if shape.released:
        squares = tl.minimum(s.to(tl.float64) * s.to(tl.float64), 1.0)
        over = tl.sum(((1.0 - squares + 1e-8 < rule.overflow_gap) & (c < C)).to(tl.int32)) > 0
        weight = tl.where(over, (is_mine == 0).to(tl.float32), weight)
    cumulative = tl.cumsum(weight.to(tl.float64), 0)
    whole = tl.max(cumulative)
    last = tl.sum((cumulative < whole).to(tl.int32))
    user = tl.load(choosing.entries + g * (N + 2))
    key = _stream(rule.base, tl.load(choosing.step))
    there = (user >= 0) & (whole > 0.0)
    for begin in tl.static_range(0, N, AT_ONCE):
        k = begin + tl.arange(0, AT_ONCE)
        target = _uniform(key, g * N + k, tl.zeros((AT_ONCE,), tl.int64)) * whole
        below = cumulative[None, :] <= target[:, None]
        at = tl.minimum(tl.sum(below.to(tl.int32), 1), last)
        item = tl.load(choosing.candidates + at, mask=there & (k < N), other=-1)
        found = tl.where(there, item + rule.n_users, -1)
        tl.store(choosing.entries + g * (N + 2) + 2 + k, found, mask=k < N)
    empty = tl.where((user >= 0) & (whole <= 0.0), N, 0)
    tl.store(choosing.missed + g, empty.to(tl.int64))
