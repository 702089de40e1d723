"""Random numbers as a function, not a state.

Every random number in nearfar is a hash of what it is used for: (seed, purpose, step) identify a
stream, and (position, attempt) a number in that stream. No generator is passed around, so a run
draws the same numbers regardless of the number of threads, the engine, and the step at which it
was resumed.

The hash is the finaliser of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014; the constants are
Stafford's "Mix13"), applied once for each coordinate. It uses only 64-bit integer arithmetic modulo
2^64, so numba, numpy and torch agree on every bit.

Functions whose names end in ``_at`` are scalar kernels; the others take and return numpy arrays.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nearfar.runtime.arrays import Float64, Int, Int64, Real, UInt64
from nearfar.runtime.jit import kernel

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio: it spreads consecutive counters far apart."""
MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
MULTIPLY_2 = np.uint64(0x94D049BB133111EB)
ATTEMPT = np.uint64(0xD1342543DE82EF95)
UNIT = 2.0**-53
ROUNDS = 8


class Purpose(IntEnum):
    """The purpose of a random number. Two purposes never share a stream."""

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
    """The split of interactions into training, validation and test parts."""
    RANDOM_SCORE = 7
    """The random recommender."""
    BOOTSTRAP = 8
    """The resampling of users for a confidence interval."""
    DIAGNOSTICS = 9
    """The sample of items on which training diagnostics are computed."""
    ID_DROPOUT = 10
    """Which rows of a step leave out what their content does not say."""
    MODULE = 11
    """What a torch module draws in a step, such as its dropout."""
    SHARD = 12
    """Which process of a cluster owns an item."""


def _mix(z: Any) -> Any:
    """Mix the bits of a uint64 number (inside kernels) or array (in numpy)."""
    z = (z ^ (z >> np.uint64(30))) * MULTIPLY_1
    z = (z ^ (z >> np.uint64(27))) * MULTIPLY_2
    return z ^ (z >> np.uint64(31))


_mix_at = kernel(_mix)


def stream(seed: int, purpose: Purpose, step: int = 0) -> np.uint64:
    """Return the key of the stream of `purpose` at `step`.

    Parameters
    ----------
    seed : int
        Any integer; taken modulo 2^64.
    purpose : Purpose
        What the numbers are used for.
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
    """The streams of all purposes for one seed and one step."""

    seed: int
    step: int

    def stream(self, purpose: Purpose) -> np.uint64:
        """Return the key of the stream of `purpose`; see the function `stream`."""
        return stream(self.seed, purpose, self.step)


@kernel
def stream_at(base: np.uint64, step: Int) -> Any:
    """Compute `stream` inside kernels, at `step`, given ``stream_base(seed, purpose)``."""
    return _mix_at(base + GOLDEN + np.uint64(step))


def stream_base(seed: int, purpose: Purpose) -> np.uint64:
    """Hash the arguments of `stream` except the step; ``stream_at(base, step)`` completes it."""
    key = np.zeros(1, np.uint64)
    for part in (seed, int(purpose)):
        key = _mix(key + GOLDEN + np.uint64(part % 2**64))
    return np.uint64(key[0])


@kernel
def bits_at(key: np.uint64, position: Int, attempt: Int) -> Any:
    """Return 64 random bits for (position, attempt) of the stream `key`."""
    z = _mix_at(key + GOLDEN * (np.uint64(position) + np.uint64(1)))
    return _mix_at(z + ATTEMPT * (np.uint64(attempt) + np.uint64(1)))


@kernel
def uniform_at(key: np.uint64, position: Int, attempt: Int) -> Real:
    """Return a float64 in [0, 1), a multiple of 2^-53."""
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
    """Draw a float64 in [0, 1) for each (position, attempt), from the top 53 of its bits."""
    return (bits(key, position, attempt) >> np.uint64(11)).astype(np.float64) * UNIT


@kernel
def normal_at(key: np.uint64, position: Int) -> Real:
    """Return a standard Gaussian for `position`, by Box and Muller's transform."""
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
    """Return the size of the low half of b-bit numbers, 2^(b-1) < n <= 2^b, and both masks."""
    b = 1
    while (1 << b) < n:
        b += 1
    low = np.uint64((b + 1) // 2)
    low_mask = (np.uint64(1) << low) - np.uint64(1)
    return low, low_mask, (np.uint64(1) << np.uint64(b // 2)) - np.uint64(1)


@kernel
def permuted_at(key: np.uint64, index: Int, n: Int) -> Int:
    """Return the image of `index` in 0..n-1 under the random permutation identified by `key`.

    A Feistel network permutes the b-bit numbers, 2^(b-1) < n <= 2^b. It is applied repeatedly until
    the result lies in 0..n-1 (fewer than two rounds on average), which keeps the map a bijection.
    The order of an epoch therefore needs no array and no state (Black & Rogaway, CT-RSA 2002).
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
    """Compute `permuted_at` for the len(out) indices from `begin` on.

    Each round is applied to all of them before the next, so that the loop vectorises. Then another
    pass is made over the results outside 0..n-1, until there are none.
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
    """Return the whole permutation of 0..n-1 that `permuted_at` computes entry by entry."""
    out = np.empty(n, np.int64)
    permuted(key, 0, n, out)
    return out
