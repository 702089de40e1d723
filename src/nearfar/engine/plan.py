"""The integers of a step: its pairs, its negatives or candidates, and who touches which row.

A step is *planned* before it is computed. An entry is a row number of the joint table (users
first, then items); pair g of the batch has 2 + N entries: the user, the positive item and N
negatives, -1 where a place stayed empty. None of this depends on the vectors, except the choice
of the second stage (`nearfar.engine.choose`), so steps are planned ahead, side by side.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nearfar import heap
from nearfar.counter import GOLDEN, permuted_at, stream_at, uniform_at
from nearfar.jit import Int, kernel
from nearfar.sampling import AliasTable, draw_at

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

INDEPENDENT, DISTINCT, TWO_STAGE = 0, 1, 2


class Positives(NamedTuple):
    """The training interactions: CSR by user, and the user of each pair."""

    indptr: Int64
    items: Int32
    users: Int32


class Draws(NamedTuple):
    """What is drawn in a step, and the bases of its streams."""

    kind: int
    """INDEPENDENT, DISTINCT or TWO_STAGE."""
    batch: int
    negatives: int
    redraws: int
    candidates: int
    distinct_candidates: bool
    order: np.uint64
    negative: np.uint64
    candidate: np.uint64
    choice: np.uint64


class Plan(NamedTuple):
    """Room for the integers of one step; W = 2 + N."""

    entries: Int64
    """(batch, W) rows of the joint table, -1 for an empty place."""
    slots: Int32
    """(batch, W) place of each entry's row in `unique`, -1 for an empty place."""
    unique: Int64
    """(batch * W,) the different rows of the step, in order of first appearance."""
    start: Int32
    """(batch * W + 1,) where the entries of each unique row begin in `pair` and `place`."""
    pair: Int32
    place: Int32
    """(batch * W,) g and w of the entries of each unique row, ascending."""
    candidates: Int32
    """(C,) items from stage 1, if there is one."""
    size: Int64
    """(3,) pairs in the step, unique rows, places that stayed empty."""


N_PAIRS, N_UNIQUE, N_MISSED = 0, 1, 2


@kernel
def is_positive(positives: Positives, user: Int, item: Int) -> bool:
    """Whether the user has the item: binary search among the user's sorted items."""
    low, high = positives.indptr[user], positives.indptr[user + 1]
    while low < high:
        middle = (low + high) // 2
        if positives.items[middle] < item:
            low = middle + 1
        else:
            high = middle
    return bool(low < positives.indptr[user + 1] and positives.items[low] == item)


@kernel
def plan_step(
    step: Int, positives: Positives, table: AliasTable, support: Int32, draws: Draws, plan: Plan
) -> None:
    """Fill `plan` for the step; with 2-stage sampling all but the negatives."""
    draw_pairs(step, positives, draws, plan)
    if draws.kind == TWO_STAGE:
        key = stream_at(draws.candidate, step)
        if draws.distinct_candidates:
            draw_distinct(table, support, key, plan.candidates)
        else:
            for t in range(draws.candidates):
                plan.candidates[t] = draw_at(table, key, t, 0)
        return
    key = stream_at(draws.negative, step)
    if draws.kind == DISTINCT:
        first = np.empty(plan.size[N_PAIRS] * draws.negatives, np.int32)
        draw_distinct(table, support, key, first)
    else:
        first = np.empty(0, np.int32)
    draw_negatives(positives, table, key, first, draws, plan)
    index_rows(plan)


@kernel
def draw_pairs(step: Int, positives: Positives, draws: Draws, plan: Plan) -> None:
    """Take the step's slice of the epoch's permutation of all pairs."""
    n_users, n_pairs = positives.indptr.shape[0] - 1, positives.users.shape[0]
    steps_per_epoch = (n_pairs + draws.batch - 1) // draws.batch
    key = stream_at(draws.order, step // steps_per_epoch)
    begin = (step % steps_per_epoch) * draws.batch
    size = min(draws.batch, n_pairs - begin)
    for g in range(size):
        pair = permuted_at(key, begin + g, n_pairs)
        plan.entries[g, 0] = positives.users[pair]
        plan.entries[g, 1] = n_users + positives.items[pair]
    plan.size[N_PAIRS] = size
    plan.size[N_MISSED] = 0


@kernel
def draw_negatives(
    positives: Positives,
    table: AliasTable,
    key: np.uint64,
    first: Int32,
    draws: Draws,
    plan: Plan,
) -> None:
    """Draw each negative from the proposal until it is not a positive of the pair's user.

    `first`, unless it is empty, holds what was drawn for attempt 0 of each place.
    """
    n_users = positives.indptr.shape[0] - 1
    for g in range(plan.size[N_PAIRS]):
        user = plan.entries[g, 0]
        for k in range(draws.negatives):
            place = g * draws.negatives + k
            plan.entries[g, 2 + k] = -1
            for attempt in range(draws.redraws + 1):
                if attempt == 0 and first.shape[0] > 0:
                    item = np.int64(first[place])
                else:
                    item = draw_at(table, key, place, attempt)
                if not is_positive(positives, user, item):
                    plan.entries[g, 2 + k] = n_users + item
                    break
            if plan.entries[g, 2 + k] < 0:
                plan.size[N_MISSED] += 1


@kernel
def table_size(n: Int) -> Int:
    """Give a power of two at which a hash table of n keys is at most half full."""
    size = 16
    while size < 2 * n:
        size *= 2
    return size


@kernel
def find(keys: Int64, key: Int) -> Int:
    """Where `key` stands in an open-addressing hash table, or where it would be put.

    Empty places of `keys` hold -1, and at least one place is empty.
    """
    mask = keys.shape[0] - 1
    at = np.int64((np.uint64(key) * GOLDEN) >> np.uint64(33)) & mask
    while keys[at] != key and keys[at] >= 0:
        at = (at + 1) & mask
    return at


@kernel
def find_or_add(keys: Int64, values: Int32, key: Int, value: Int) -> Int:
    """Give the value that stands at `key`; if there is none, put `value` there."""
    at = find(keys, key)
    if keys[at] < 0:
        keys[at] = key
        values[at] = value
    return np.int64(values[at])


@kernel
def draw_distinct(table: AliasTable, support: Int32, key: np.uint64, out: Int32) -> None:
    """Draw len(out) different items, each next one by the proposal among those not drawn yet.

    Ordinary draws of which repetitions are skipped are exactly that. Should many draws not be
    enough (few items left, or nearly all weight on a few), the rest are the items with the
    smallest exponential clocks -log(1 - U_j) / weight_j, which has the same distribution
    (Efraimidis & Spirakis 2006) and costs a pass over the catalogue.
    """
    count = out.shape[0]
    if count >= support.shape[0]:
        out[: support.shape[0]] = support
        return
    keys = np.full(table_size(count), -1, np.int64)
    values = np.empty(keys.shape[0], np.int32)
    n, t = 0, 0
    while n < count and t < 4 * count:
        item = draw_at(table, key, t, 0)
        if find_or_add(keys, values, item, n) == n:
            out[n] = item
            n += 1
        t += 1
    if n == count:
        return
    drawn = np.zeros(table.n, np.bool_)
    for i in range(n):
        drawn[out[i]] = True
    rest = count - n
    first, items = np.full((1, rest), -np.inf), np.full((1, rest), -1, np.int32)
    for i in range(support.shape[0]):
        j = support[i]
        if not drawn[j]:
            clock = -np.log1p(-uniform_at(key, 4 * count + j, 0)) / table.weight[j]
            if -clock > first[0, 0]:
                heap.sift_down(first, items, 0, rest, -clock, j)
    heap.sort(first, items)
    out[n:] = items[0]


@kernel
def index_rows(plan: Plan) -> None:
    """Give each different row of the step a number and list its entries, in order."""
    size, width = plan.size[N_PAIRS], plan.entries.shape[1]
    keys = np.full(table_size(size * width), -1, np.int64)
    values = np.empty(keys.shape[0], np.int32)
    n = 0
    for g in range(size):
        for w in range(width):
            row = plan.entries[g, w]
            plan.slots[g, w] = -1
            if row >= 0:
                slot = find_or_add(keys, values, row, n)
                if slot == n:
                    plan.unique[n] = row
                    plan.start[n + 1] = 0
                    n += 1
                plan.slots[g, w] = slot
                plan.start[slot + 1] += 1
    plan.start[0] = 0
    for u in range(n):
        plan.start[u + 1] += plan.start[u]
    fill = plan.start[:n].copy()
    for g in range(size):
        for w in range(width):
            slot = plan.slots[g, w]
            if slot >= 0:
                plan.pair[fill[slot]] = g
                plan.place[fill[slot]] = w
                fill[slot] += 1
    plan.size[N_UNIQUE] = n
