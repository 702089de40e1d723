"""Random numbers as a function, not a state.

Every random decision in nearfar is a hash of *what* is decided: (seed, purpose, step) name a
stream, (position, attempt) a number in it. There is no generator to pass around, so a run draws
the same numbers whatever the number of threads, the engine, or the point at which it was resumed.

The hash is the finaliser of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014; the constants are
Stafford's "Mix13"), applied once for each coordinate. It is 64-bit integer arithmetic modulo 2^64
and nothing else, so numba, numpy and torch agree on every bit.

Functions ending in ``_at`` are scalar kernels; the others take and give numpy arrays.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nearfar.runtime.arrays import Float64, Int, Int64, Real, UInt64
from nearfar.runtime.jit import kernel

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio: consecutive counters become far apart."""
MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
MULTIPLY_2 = np.uint64(0x94D049BB133111EB)
ATTEMPT = np.uint64(0xD1342543DE82EF95)
UNIT = 2.0**-53
ROUNDS = 8


class Purpose(IntEnum):
    """What a random number is for. Two purposes never share a stream."""

    ORDER = 1
    """The order in which an epoch visits the interactions."""
    NEGATIVE = 2
    """The negatives of a pair."""
    CANDIDATE = 3
    """Stage 1 of 2-stage sampling: the candidates of a batch."""
    CHOICE = 4
    """Stage 2 of 2-stage sampling: a pair's negatives among the candidates."""
    INITIAL = 5
    """The tables before the first step."""
    SPLIT = 6
    """Cutting interactions into training, validation and test parts."""
    RANDOM_SCORE = 7
    """The random recommender."""
    BOOTSTRAP = 8
    """Resampling users for a confidence interval."""
    WATCH = 9
    """Items that the watch on training looks at."""


def _mix(z: Any) -> Any:
    """Mix uint64: a number inside kernels, an array outside."""
    z = (z ^ (z >> np.uint64(30))) * MULTIPLY_1
    z = (z ^ (z >> np.uint64(27))) * MULTIPLY_2
    return z ^ (z >> np.uint64(31))


_mix_at = kernel(_mix)


def stream(seed: int, purpose: Purpose, step: int = 0) -> np.uint64:
    """Name the stream of `purpose` at `step`.

    Parameters
    ----------
    seed : int
        Any integer; taken modulo 2^64.
    purpose : Purpose
        What the numbers are for.
    step : int
        The training step, epoch or other coarse counter.

    Returns
    -------
    uint64
        The key to pass to `bits`, `uniform` and the kernels.
    """
    key = np.zeros(1, np.uint64)
    for part in (seed, int(purpose), step):
        key = _mix(key + GOLDEN + np.uint64(part % 2**64))
    return np.uint64(key[0])


class Source(NamedTuple):
    """All streams of a seed at a step."""

    seed: int
    step: int

    def stream(self, purpose: Purpose) -> np.uint64:
        """Name the stream of `purpose`; see `stream`."""
        return stream(self.seed, purpose, self.step)


@kernel
def stream_at(base: np.uint64, step: Int) -> Any:
    """`stream` inside kernels: the stream at `step`, given ``stream_base(seed, purpose)``."""
    return _mix_at(base + GOLDEN + np.uint64(step))


def stream_base(seed: int, purpose: Purpose) -> np.uint64:
    """Hash everything of `stream` but the step; ``stream_at(base, step)`` completes it."""
    key = np.zeros(1, np.uint64)
    for part in (seed, int(purpose)):
        key = _mix(key + GOLDEN + np.uint64(part % 2**64))
    return np.uint64(key[0])


@kernel
def bits_at(key: np.uint64, position: Int, attempt: Int) -> Any:
    """64 random bits for (position, attempt) of the stream `key`."""
    z = _mix_at(key + GOLDEN * (np.uint64(position) + np.uint64(1)))
    return _mix_at(z + ATTEMPT * (np.uint64(attempt) + np.uint64(1)))


@kernel
def uniform_at(key: np.uint64, position: Int, attempt: Int) -> Real:
    """Give a float64 in [0, 1), a multiple of 2^-53."""
    return np.float64(bits_at(key, position, attempt) >> np.uint64(11)) * UNIT


def bits(key: np.uint64, position: npt.ArrayLike, attempt: npt.ArrayLike = 0) -> UInt64:
    """Draw 64 random bits for each (position, attempt) of the stream `key`.

    Parameters
    ----------
    key : uint64
        From `stream`.
    position, attempt : array_like of non-negative int
        Broadcast against each other.

    Returns
    -------
    uint64 array
    """
    at = np.atleast_1d(np.asarray(position)).astype(np.uint64)
    tried = np.atleast_1d(np.asarray(attempt)).astype(np.uint64)
    z = _mix(key + GOLDEN * (at + np.uint64(1)))
    drawn: UInt64 = _mix(z + ATTEMPT * (tried + np.uint64(1)))
    return drawn


def uniform(key: np.uint64, position: npt.ArrayLike, attempt: npt.ArrayLike = 0) -> Float64:
    """Draw a float64 in [0, 1) for each (position, attempt); the top 53 of its bits."""
    return (bits(key, position, attempt) >> np.uint64(11)).astype(np.float64) * UNIT


@kernel
def normal_at(key: np.uint64, position: Int) -> Real:
    """Give a standard Gaussian for `position`, by Box and Muller's transform."""
    radius = np.sqrt(-2.0 * np.log1p(-uniform_at(key, position, 0)))
    return radius * np.cos(2.0 * np.pi * uniform_at(key, position, 1))


@kernel
def _normal(key: np.uint64, position: Int64, out: Float64) -> None:
    for i in range(position.shape[0]):
        out[i] = normal_at(key, position[i])


def normal(key: np.uint64, position: npt.ArrayLike) -> Float64:
    """Draw a standard Gaussian for each position, float64."""
    at = np.atleast_1d(np.asarray(position, np.int64))
    out = np.empty(len(at))
    _normal(key, at, out)
    return out


@kernel
def _halves(n: Int) -> tuple[Any, Any, Any]:
    """Split the b-bit numbers, 2^(b-1) < n <= 2^b: bits of the low half, masks of both halves."""
    b = 1
    while (1 << b) < n:
        b += 1
    low = np.uint64((b + 1) // 2)
    low_mask = (np.uint64(1) << low) - np.uint64(1)
    return low, low_mask, (np.uint64(1) << np.uint64(b // 2)) - np.uint64(1)


@kernel
def permuted_at(key: np.uint64, index: Int, n: Int) -> Int:
    """Where position `index` of 0..n-1 goes under the random permutation named by `key`.

    A Feistel network permutes the b-bit numbers, 2^(b-1) < n <= 2^b; results outside 0..n-1 are
    sent through it again until one falls inside (fewer than two rounds on average), which keeps it
    a bijection. So an epoch's order needs no array and no state (Black & Rogaway, CT-RSA 2002).
    """
    low, low_mask, high_mask = _halves(n)
    x = np.uint64(index)
    while True:
        left, right = x >> low, x & low_mask
        for r in range(ROUNDS):
            if r % 2 == 0:
                left ^= bits_at(key, right, r) & high_mask
            else:
                right ^= bits_at(key, left, r) & low_mask
        x = (left << low) | right
        if x < np.uint64(n):
            return np.int64(x)


@kernel
def _feistel_round(
    key: np.uint64, r: Int, of: UInt64, into: UInt64, mask: np.uint64, size: Int
) -> None:
    for i in range(size):
        into[i] ^= bits_at(key, of[i], r) & mask


@kernel
def permuted(key: np.uint64, begin: Int, n: Int, out: Int64) -> None:
    """`permuted_at` of the len(out) places from `begin` on.

    One round at a time over all of them, so that it vectorises; then another pass over those that
    fell outside 0..n-1, until none does.
    """
    low, low_mask, high_mask = _halves(n)
    size = out.shape[0]
    left, right = np.empty(size, np.uint64), np.empty(size, np.uint64)
    place = np.arange(size)
    for i in range(size):
        out[i] = begin + i
    while size > 0:
        for i in range(size):
            x = np.uint64(out[place[i]])
            left[i], right[i] = x >> low, x & low_mask
        for r in range(0, ROUNDS, 2):
            _feistel_round(key, r, right, left, high_mask, size)
            _feistel_round(key, r + 1, left, right, low_mask, size)
        outside = 0
        for i in range(size):
            at = place[i]
            out[at] = np.int64((left[i] << low) | right[i])
            place[outside] = at
            outside += out[at] >= n
        size = outside


def permutation(key: np.uint64, n: int) -> Int64:
    """Give the whole permutation of 0..n-1 that `permuted_at` computes entry by entry."""
    out = np.empty(n, np.int64)
    permuted(key, 0, n, out)
    return out
