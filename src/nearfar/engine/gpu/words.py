"""`nearfar.runtime.counter` in torch: the same 64-bit words, so engines draw the same numbers.

torch has no arithmetic for uint64; int64 has the same bits, for products and sums wrap around at
2^64 either way. Only shifting right differs: the sign that comes in has to be cleared.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.runtime.counter import ATTEMPT, GOLDEN, MULTIPLY_1, MULTIPLY_2, ROUNDS, UNIT


def signed(word: int) -> int:
    """Return the int64 with the bits of a uint64."""
    word = int(word) % 2**64
    return word - 2**64 if word >= 2**63 else word


_GOLDEN = signed(int(GOLDEN))
_MULTIPLY_1, _MULTIPLY_2 = signed(int(MULTIPLY_1)), signed(int(MULTIPLY_2))


def shifted(z: Tensor, by: int) -> Tensor:
    """Shift the bits of z right by `by` > 0, zeros coming in."""
    return (z >> by) & ((1 << (64 - by)) - 1)


def mix(z: Tensor) -> Tensor:
    """Mix int64 words; `nearfar.runtime.counter._mix`."""
    z = (z ^ shifted(z, 30)) * _MULTIPLY_1
    z = (z ^ shifted(z, 27)) * _MULTIPLY_2
    return z ^ shifted(z, 31)


def stream(base: int, step: Tensor) -> Tensor:
    """Name the streams at steps; `nearfar.runtime.counter.stream_at`."""
    return mix(step + signed(base + int(GOLDEN)))


def bits(key: Tensor, position: Tensor, attempt: int = 0) -> Tensor:
    """Return 64 random bits for each key and position, which are broadcast, at an attempt."""
    z = mix(key + (position + 1) * _GOLDEN)
    return mix(z + signed((attempt + 1) * int(ATTEMPT)))


def uniform(key: Tensor, position: Tensor, attempt: int = 0) -> Tensor:
    """Return float64 numbers in [0, 1), multiples of 2^-53."""
    return shifted(bits(key, position, attempt), 11).to(torch.float64) * UNIT


def halves(n: int) -> tuple[int, int, int]:
    """Split the b-bit numbers, 2^(b-1) < n <= 2^b: bits of the low half, masks of both halves."""
    b = max(1, (n - 1).bit_length())
    low = (b + 1) // 2
    return low, (1 << low) - 1, (1 << b // 2) - 1


def permuted(key: Tensor, index: Tensor, n: int) -> Tensor:
    """Return where each index of 0..n-1 goes under the permutation of its key; `permuted_at`."""
    low, low_mask, high_mask = halves(n)
    x, outside = index, torch.ones_like(index, dtype=torch.bool)
    while bool(outside.any()):
        left, right = shifted(x, low), x & low_mask
        for r in range(0, ROUNDS, 2):
            left = left ^ (bits(key, right, r) & high_mask)
            right = right ^ (bits(key, left, r + 1) & low_mask)
        x = torch.where(outside, (left << low) | right, x)
        outside = x >= n
    return x
