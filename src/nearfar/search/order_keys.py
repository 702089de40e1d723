"""The order of a list as integers, on a PyTorch device, so that ties have a defined order.

The larger score comes first, and ties are broken by the smaller item row; but the order in which
`torch.topk` returns equal scores is undefined. So each entry has a *key* of 64 bits. Its high half
is the score as an integer of the same order (the bits of positive floats are ordered like the
floats; -0.0 and 0.0 are both 0; a NaN is above all numbers). Its low half is the item, counted from
the last. No two keys are equal, and the largest comes first.

Computing keys for a whole tile costs several times as much as its scores. So `QUICK` takes the best
k + 1 by score. Only if the last two of these are equal, or one is NaN, may it have missed one of
the best k; such rows are repeated with `EXACT`, which computes all keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

NOTHING = -0x7F800000 << 32
"""The key of a score of -infinity."""


class Way(NamedTuple):
    """A way to choose the best entries of a tile."""

    choose: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]
    """Takes the scores (n_rows, n_columns), the items counted from the last (n_columns,), and k.
    Returns keys that include the best k of each row, and whether a row may be wrong (n_rows,)."""
    bytes_each: int
    """Memory needed for each entry of the tile."""


def _by_score(scores: Tensor, from_last: Tensor, k: int) -> tuple[Tensor, Tensor]:
    top, columns = scores.topk(min(k + 1, scores.shape[1]))
    doubtful = top[:, 0].isnan()  # NaN counts as the largest
    if top.shape[1] > k:
        doubtful |= (top[:, k - 1] == top[:, k]) & (top[:, k] > -torch.inf)
    return keys_of(top, from_last[columns]), doubtful


def _by_key(scores: Tensor, from_last: Tensor, k: int) -> tuple[Tensor, Tensor]:
    keys = keys_of(scores, from_last).topk(min(k, scores.shape[1])).values
    return keys, torch.zeros(len(scores), dtype=torch.bool, device=scores.device)


QUICK, EXACT = Way(_by_score, 4), Way(_by_key, 32)


def keys_of(scores: Tensor, from_last: Tensor) -> Tensor:
    """Return the int64 keys of float32 scores and of items counted from the last."""
    size = scores.abs().view(torch.int32)
    keys = torch.where(scores < 0, -size, size).to(torch.int64)
    keys <<= 32
    keys |= from_last
    return keys


def read(keys: Tensor, n_items: int) -> tuple[Tensor, Tensor]:
    """Return the int32 items and float32 scores of keys; entries that are not listed are -1."""
    order = (keys >> 32).to(torch.int32)
    size = order.abs().view(torch.float32)
    scores = torch.where(order < 0, -size, size)
    items = n_items - 1 - (keys & 0xFFFFFFFF)
    return torch.where(scores == -torch.inf, -1, items).to(torch.int32), scores
