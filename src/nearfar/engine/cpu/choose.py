"""The second stage of 2-stage sampling: each pair's negatives among the batch's candidates."""

from __future__ import annotations

import numpy as np

from nearfar.engine.cpu.plan import Positives, find, find_or_add
from nearfar.method.geometry import GAP_FLOOR
from nearfar.runtime.arrays import Float32, Int, Int32, Int64, Real
from nearfar.runtime.counter import uniform_at
from nearfar.runtime.jit import inner, kernel, reduction

PIECE = 128
"""Weights are summed in pieces of this many, and a draw looks for its piece first."""
EXCLUDED = np.float32(-2.0)
"""Stands in for the product with a candidate that is a positive of the user."""


@inner
def hash_candidates(candidates: Int32, n: Int, places: Int64, following: Int32) -> None:
    """Make a map from an item to a place among the candidates, and from there to its other places.

    An item has several places only where candidates are drawn with replacement.
    """
    places[:] = -1
    for c in range(n):
        following[c] = -1
        head = find_or_add(places, candidates[c], c)
        if head != c:
            following[c] = following[head]
            following[head] = c


@inner
def exclude_positives(
    s: Float32,
    r: Int,
    user: Int,
    positives: Positives,
    places: Int64,
    following: Int32,
    mark: Real,
) -> Int:
    """Put `mark` for the candidates in row r of `s` that the user has; gives their number."""
    count = 0
    for at in range(positives.indptr[user], positives.indptr[user + 1]):
        found = places[find(places, positives.items[at])]
        c = found & 0xFFFFFFFF if found >= 0 else np.int64(-1)
        while c >= 0:
            s[r, c] = mark
            count += 1
            c = np.int64(following[c])
    return count


@inner
def largest(s: Float32, r: Int, n: Int) -> Real:
    """Largest of the first n products of row r, or 0 if all are negative.

    As numbers that are not negative compare as their bits do, and a maximum of integers vectorises.
    """
    bits, most = s.view(np.int32), np.int32(0)
    for c in range(n):
        most = max(most, bits[r, c])
    return np.array([most], np.int32).view(np.float32)[0]


@kernel
def gap_of(s: Real) -> Real:
    """1 - s^2, but at least GAP_FLOOR."""
    one = np.float32(1.0)
    return max((one - s) * (one + s), np.float32(GAP_FLOOR))


@kernel
def weigh(s: Float32, r: Int, n: Int, dim: Int, weight: Float32, power: Float32) -> None:
    """`nearfar.method.geometry.stage_two_weight` of row r: `weight` for its n candidates.

    (top / gap)^((d-3)/2) by repeated squaring and one square root: no logarithm, no exponential.
    """
    one, zero = np.float32(1.0), np.float32(0.0)
    top = gap_of(largest(s, r, n))
    for c in range(n):
        power[c] = top / gap_of(s[r, c]) if s[r, c] >= zero else zero
    half_steps = dim - 3
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


@inner
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


@inner
def choose_negatives(
    s: Float32,
    first: Int,
    size: Int,
    n_candidates: Int,
    dim: Int,
    overflow_gap: Real,
    key: np.uint64,
    positives: Positives,
    candidates: Int32,
    entries: Int64,
    places: Int64,
    following: Int32,
    scratch: Float32,
) -> Int:
    """Fill the negatives of pairs first..first+size-1, given their products `s` (size, C).

    `scratch` is (3, C); `overflow_gap` is negative except for the released script's weight.
    Gives the number of places that stayed empty.
    """
    n_users = positives.indptr.shape[0] - 1
    n_negatives = entries.shape[1] - 2
    weight, power, pieces = scratch[0], scratch[1], scratch[2]
    missed = 0
    for r in range(size):
        g = first + r
        uniform = overflow_gap >= 0.0 and overflows(s, r, n_candidates, overflow_gap)
        exclude_positives(s, r, entries[g, 0], positives, places, following, EXCLUDED)
        if uniform:
            weigh_uniformly(s, r, n_candidates, weight)
        else:
            weigh(s, r, n_candidates, dim, weight, power)
        sum_pieces(weight, n_candidates, pieces)
        for k in range(n_negatives):
            u = uniform_at(key, g * n_negatives + k, 0)
            c = draw_weighted(weight, n_candidates, pieces, u)
            entries[g, 2 + k] = n_users + candidates[c] if c >= 0 else -1
            missed += c < 0
    return missed
