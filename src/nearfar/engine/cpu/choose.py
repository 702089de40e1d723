"""The second stage of 2-stage sampling: each pair's negatives among the batch's candidates."""

from __future__ import annotations

from types import NoneType
from typing import NamedTuple

import numpy as np

from nearfar.engine.cpu.hashing import empty, find, find_or_add, table_size
from nearfar.engine.cpu.plan_records import Plan, Positives
from nearfar.engine.cpu.rows import Gathered
from nearfar.engine.cpu.soft import exp_row
from nearfar.engine.spec import NOT_HALF, Spec
from nearfar.method.geometry import GAP_FLOOR
from nearfar.runtime.arrays import Float32, Int, Int32, Int64, Real
from nearfar.runtime.counter import uniform_at
from nearfar.runtime.jit import by_record, kernel, reduction

PIECE = 128
"""Weights are summed in pieces of this many, and a draw looks for its piece first."""
EXCLUDED = np.float32(-2.0)
"""Stands in for the product with a candidate that is a positive of the user."""
ALL_OTHERS = -1.5
"""A bound between that and the products of unit vectors."""
_LN2_HIGH, _LN2_LOW, _ROOT_HALF = 0.693359375, -2.12194440e-4, 0.70710678


class Where(NamedTuple):
    """A map from an item to its places among the C candidates or shared negatives of a step."""

    table: Int64
    """(table_size(C),) from an item to one of its places."""
    following: Int32
    """(C,) from a place to the next one of the same item, -1 after the last."""


class Home(NamedTuple):
    """Where joint rows lie in the table of a part, and its copies of other rows."""

    table: Int64
    """A hash table (`nearfar.engine.cpu.hashing`) from a joint row to a place."""
    row: Int64
    """From a place to the row of the learner."""


class Rule(NamedTuple):
    """How the second stage weighs candidates."""

    anchor: int
    """The entry of a pair with which candidates are compared: 0, its user, or 1, its positive."""
    least: float
    """Candidates of smaller products have weight 0: 0 for the cut of eq. 5, or `ALL_OTHERS`."""
    power: float
    """The exponent, `Spec.choice_power`."""
    half_steps: int
    """See `Spec`."""
    overflow_gap: float
    """Negative except for the released script's weight."""


def make_weight_rule(spec: Spec) -> Rule:
    """Return how candidates are weighed, as numbers."""
    return Rule(
        anchor=0 if spec.towards_user else 1,
        least=ALL_OTHERS if spec.towards_user else 0.0,
        power=spec.choice_power,
        half_steps=spec.half_steps,
        overflow_gap=spec.overflow_gap,
    )


class Second(NamedTuple):
    """Room for the second stage of 2-stage sampling."""

    rule: Rule
    frozen: Float32
    """`Problem.frozen`, where stage 2 looks at initial points, otherwise without rows."""
    units: Gathered
    """(batch + C) unit vectors: of the pairs' users or positives, then of the candidates."""
    wanted: Int64
    """(batch + C,) their rows."""
    joint: Int64
    """(batch + C,) their rows in the joint table."""
    cache: Float32
    """`State.cache`, (n, d): the points of rows with content; without rows if there is none."""
    cached_at: Int64
    """`State.cached_at`, (n,)."""
    first_cached: int
    """The joint row of its first point."""
    n_slices: int
    """In as many steps the whole cache is encoded anew."""
    n_rows: int
    """N + M."""
    home: Home | None
    """Where the rows lie in the learner's table; None if it is the whole table."""
    where: Where
    missed: Int64
    """(blocks,) places that stayed empty."""
    products: Float32
    """(PAIRS_A_BLOCK, C), a thread's own."""
    scratch: Float32
    """(3, C), a thread's own."""


def make_where(n: int) -> Where:
    """Make room for a map of n places."""
    return Where(np.empty(table_size(n), np.int64), np.empty(n, np.int32))


@kernel
def _copied(home: Home, row: Int) -> Int:
    return home.row[home.table[find(home.table, row)] & 0xFFFFFFFF]


@kernel
def _itself(home: None, row: Int) -> Int:
    return row


place_of = by_record({Home: _copied, NoneType: _itself})
"""`place_of(home, row)`: where a joint row lies in the learner's table."""


@kernel
def map_places(items: Int32, where: Where) -> None:
    """Find the places of each item.

    An item has several only where candidates are drawn with replacement.
    """
    table, following = where.table, where.following
    empty(table)
    for c in range(items.shape[0]):
        following[c] = -1
        head = find_or_add(table, items[c], c)
        if head != c:
            following[c] = following[head]
            following[head] = c


@kernel
def exclude_positives(
    s: Float32, r: Int, user: Int, positives: Positives, where: Where, mark: Real
) -> Int:
    """Put `mark` for the candidates in row r of `s` that the user has; returns their number."""
    count, items, table, following = 0, positives.items, where.table, where.following
    for at in range(positives.indptr[user], positives.indptr[user + 1]):
        found = table[find(table, items[at])]
        c = found & 0xFFFFFFFF if found >= 0 else np.int64(-1)
        while c >= 0:
            s[r, c] = mark
            count += 1
            c = np.int64(following[c])
    return count


@kernel
def largest(s: Float32, r: Int, n: Int) -> Real:
    """Largest of the first n products of row r, or 0 if all are negative.

    As numbers that are not negative compare as their bits do, and a maximum of integers vectorises.
    """
    bits, most = s.view(np.int32), np.int32(0)
    for c in range(n):
        most = max(most, bits[r, c])
    return np.int32(most).view(np.float32)


@kernel
def gap_of(s: Real) -> Real:
    """1 - s^2, but at least GAP_FLOOR; GAP_FLOOR for a NaN."""
    one = np.float32(1.0)
    return max(np.float32(GAP_FLOOR), (one - s) * (one + s))


@kernel
def weigh(s: Float32, r: Int, n: Int, rule: Rule, scratch: Float32) -> None:
    """`nearfar.method.geometry.stage_two_weight` of row r: scratch[0] for its n candidates.

    A power that is a multiple of 1/2, as that of eq. 5, by repeated squaring and one square root,
    without a logarithm and an exponential. A NaN counts as 0: it may be drawn and reach the loss.
    """
    ratio, zero, least = scratch[1], np.float32(0.0), np.float32(rule.least)
    top = gap_of(largest(s, r, n))
    for c in range(n):
        ratio[c] = zero if s[r, c] < least else top / gap_of(max(zero, s[r, c]))
    if rule.half_steps == NOT_HALF:
        raise_to(rule.power, n, scratch)
    else:
        raise_by_squaring(rule.half_steps, n, scratch[0], ratio)


@kernel
def raise_to(exponent: Real, n: Int, scratch: Float32) -> None:
    """Raise the n numbers scratch[1], from 2^-22 to 1, to any power, scratch[0]; 0 stays 0."""
    weight, ratio, zero = scratch[0], scratch[1], np.float32(0.0)
    log_row(ratio, n, weight)
    exp_row(scratch, 0, n, exponent, 0.0, scratch[2])
    for c in range(n):
        weight[c] = weight[c] if ratio[c] > zero else zero


@kernel
def log_row(x: Float32, n: Int, out: Float32) -> None:
    """Put the natural logarithms of n positive, normal numbers into `out`.

    The exponent and a polynomial of the mantissa, as in the Cephes library: no branch, so it
    vectorises, and the error is below 2e-7 of 1 or of the logarithm, whichever is larger.
    """
    bits, one, half = x.view(np.int32), np.float32(1.0), np.float32(0.5)
    root, high, low = np.float32(_ROOT_HALF), np.float32(_LN2_HIGH), np.float32(_LN2_LOW)
    c0, c1 = np.float32(7.0376836292e-2), np.float32(1.1514610310e-1)
    c2, c3 = np.float32(1.1676998740e-1), np.float32(1.2420140846e-1)
    c4, c5 = np.float32(1.4249322787e-1), np.float32(1.6668057665e-1)
    c6, c7 = np.float32(2.0000714765e-1), np.float32(2.4999993993e-1)
    c8, mantissa = np.float32(3.3333331174e-1), out.view(np.int32)
    for c in range(n):
        mantissa[c] = (bits[c] & np.int32(0x007FFFFF)) | np.int32(0x3F000000)  # 1/2 to 1
    for c in range(n):
        small, whole = out[c] < root, np.float32((bits[c] >> np.int32(23)) - np.int32(126))
        f = (out[c] + out[c] if small else out[c]) - one
        whole = whole - one if small else whole
        p = (((c0 * f - c1) * f + c2) * f - c3) * f + c4
        p = ((((p * f - c5) * f + c6) * f - c7) * f + c8) * f * f * f
        out[c] = whole * high + (f + (p + whole * low - half * f * f))


@kernel
def raise_by_squaring(half_steps: Int, n: Int, weight: Float32, power: Float32) -> None:
    """Raise n numbers to half_steps / 2, `weight`; they are in `power`, which is used up."""
    one, zero = np.float32(1.0), np.float32(0.0)
    if half_steps < 0:
        for c in range(n):
            weight[c] = one / np.sqrt(power[c]) if power[c] > zero else zero
    elif half_steps % 2 == 1:
        for c in range(n):
            weight[c] = np.sqrt(power[c])
    else:
        for c in range(n):
            weight[c] = one if power[c] > zero else zero
    exponent = max(half_steps, 0) // 2
    while exponent > 0:
        multiply(weight, power, n, exponent % 2 == 1, exponent // 2 % 2 == 1)
        exponent //= 4


@kernel
def multiply(weight: Float32, power: Float32, n: Int, once: bool, twice: bool) -> None:
    """Multiply the weights by their power, its square, or both; then raise it to the fourth."""
    for c in range(n):
        square, factor = power[c] * power[c], weight[c]
        factor = factor * power[c] if once else factor
        weight[c] = factor * square if twice else factor
        power[c] = square * square


@kernel
def weigh_uniformly(s: Float32, r: Int, n: Int, weight: Float32) -> None:
    """Weight 1 for every candidate of row r that is not excluded."""
    for c in range(n):
        weight[c] = np.float32(1.0) if s[r, c] > EXCLUDED else np.float32(0.0)


@kernel
def overflows(s: Float32, r: Int, n: Int, threshold: Real) -> bool:
    """Whether the released script's weight of any candidate of row r would be infinite."""
    for c in range(n):
        x = np.float64(s[r, c])
        if 1.0 - min(x * x, 1.0) + 1e-8 < threshold:
            return True
    return False


@kernel
def sum_pieces(weight: Float32, n: Int, pieces: Float32) -> None:
    """Sum `weight` in pieces of PIECE."""
    for p in range((n + PIECE - 1) // PIECE):
        pieces[p] = total_of(weight, p * PIECE, min(n, (p + 1) * PIECE))


@reduction
def total_of(weight: Float32, begin: Int, end: Int) -> Real:
    """Sum weight[begin:end], in float32."""
    total = np.float32(0.0)
    for c in range(begin, end):
        total += weight[c]
    return total


@kernel
def draw_weighted(weight: Float32, n: Int, pieces: Float32, u: Real) -> Int:
    """Draw a place with probability proportional to its weight; -1 if all weights are 0."""
    n_pieces = (n + PIECE - 1) // PIECE
    total = 0.0
    for p in range(n_pieces):
        total += pieces[p]
    target = u * total
    piece, found = -1, -1
    for p in range(n_pieces):
        if pieces[p] > 0.0:
            piece = p
            if target < pieces[p]:
                break
            target -= pieces[p]
    if piece < 0:
        return -1
    for c in range(piece * PIECE, min(n, (piece + 1) * PIECE)):
        if weight[c] > 0.0:
            found = c
            target -= weight[c]
            if target < 0.0:
                break
    return found


@kernel
def choose_negatives(
    s: Float32, first: Int, key: np.uint64, positives: Positives, plan: Plan, second: Second
) -> Int:
    """Fill the negatives of pairs first..first+len(s)-1, given their products `s` (size, C).

    Returns the number of places that stayed empty.
    """
    n_users, n = positives.indptr.shape[0] - 1, s.shape[1]
    n_negatives = plan.entries.shape[1] - 2
    rule, weight, pieces, missed = second.rule, second.scratch[0], second.scratch[2], 0
    for r in range(s.shape[0]):
        g = first + r
        uniform = rule.overflow_gap >= 0.0 and overflows(s, r, n, rule.overflow_gap)
        exclude_positives(s, r, plan.entries[g, 0], positives, second.where, EXCLUDED)
        if uniform:
            weigh_uniformly(s, r, n, weight)
        else:
            weigh(s, r, n, rule, second.scratch)
        sum_pieces(weight, n, pieces)
        for k in range(n_negatives):
            u = uniform_at(key, plan.position[g] * n_negatives + k, 0)
            c = draw_weighted(weight, n, pieces, u)
            plan.entries[g, 2 + k] = n_users + plan.candidates[c] if c >= 0 else -1
            missed += c < 0
    return missed
