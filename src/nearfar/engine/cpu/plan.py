"""The integers of a step: its pairs, its negatives or candidates, and who touches which row.

A step is *planned* before it is computed. An entry is a row number of the joint table (users
first, then items); pair g of the batch has 2 + N entries: the user, the positive item and N
negatives, -1 where a place stayed empty. Negatives that all pairs share are no entries: N is 0
then, and their rows are the first of the step. None of this depends on the vectors, except the
choice of the second stage (`nearfar.engine.cpu.choose`), so steps are planned ahead, side by side.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nearfar.engine.cpu.prefetch import prefetch
from nearfar.engine.spec import DISTINCT, SHARED, TWO_STAGE
from nearfar.method.proposal import AliasTable, draw_at
from nearfar.runtime.arrays import Int, Int32, Int64
from nearfar.runtime.counter import GOLDEN, permuted, stream_at, uniform_at
from nearfar.runtime.jit import inner, kernel
from nearfar.search import heap

_AHEAD = 16
"""How many pairs ahead of its use memory is asked for."""


class Positives(NamedTuple):
    """The training interactions: CSR by user, and the user of each pair."""

    indptr: Int64
    items: Int32
    users: Int32


class Draws(NamedTuple):
    """What is drawn in a step, and the bases of its streams."""

    kind: int
    """INDEPENDENT, DISTINCT, TWO_STAGE or SHARED."""
    batch: int
    negatives: int
    """That a pair has for itself: 0 with SHARED."""
    redraws: int
    candidates: int
    distinct_candidates: bool
    all_shared: bool
    """Whether the loss ties all pairs of a batch together, so that no row belongs to one pair."""
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
    """(batch * W + shared,) the different rows of the step: those of the shared negatives, those of
    several entries, in order of first appearance, and then the others, which only one pair reads,
    pair by pair."""
    own: Int32
    """(batch + 1,) where the rows that only pair g reads begin in `unique`."""
    start: Int32
    """(batch * W + shared + 1,) where the entries of each unique row begin in `pair`, `place`."""
    pair: Int32
    place: Int32
    """(batch * W,) g and w of the entries of each unique row, ascending."""
    candidates: Int32
    """(C,) items from stage 1, or the shared negatives."""
    size: Int64
    """(4,) pairs in the step, unique rows, places that stayed empty, rows that are shared."""


N_PAIRS, N_UNIQUE, N_MISSED, N_SHARED = 0, 1, 2, 3


@kernel
def is_positive(positives: Positives, user: Int, item: Int) -> bool:
    """Whether the user has the item: binary search among the user's sorted items, no branches."""
    at, n = positives.indptr[user], positives.indptr[user + 1] - positives.indptr[user]
    if n == 0:
        return False
    while n > 1:
        half = n // 2
        at += half if positives.items[at + half] <= item else 0
        n -= half
    return bool(positives.items[at] == item)


@inner
def plan_step(
    step: Int, positives: Positives, table: AliasTable, support: Int32, draws: Draws, plan: Plan
) -> None:
    """Fill `plan` for the step; with 2-stage sampling all but the negatives."""
    draw_pairs(step, positives, draws, plan)
    if draws.kind == TWO_STAGE or draws.kind == SHARED:
        key = stream_at(draws.candidate, step)
        if draws.distinct_candidates:
            draw_distinct(table, support, key, plan.candidates)
        else:
            for t in range(draws.candidates):
                plan.candidates[t] = draw_at(table, key, t, 0)
        if draws.kind == SHARED:
            index_rows(plan, True, draws.candidates, positives.indptr.shape[0] - 1)
        return
    key = stream_at(draws.negative, step)
    first = np.empty(plan.size[N_PAIRS] * draws.negatives, np.int32)
    if draws.kind == DISTINCT:
        draw_distinct(table, support, key, first)
    else:
        draw_first(table, key, first)
    draw_negatives(positives, table, key, first, draws, plan)
    index_rows(plan, draws.all_shared, 0, 0)


@inner
def draw_pairs(step: Int, positives: Positives, draws: Draws, plan: Plan) -> None:
    """Take the step's slice of the epoch's permutation of all pairs."""
    n_users, n_pairs = positives.indptr.shape[0] - 1, positives.users.shape[0]
    steps_per_epoch = (n_pairs + draws.batch - 1) // draws.batch
    key = stream_at(draws.order, step // steps_per_epoch)
    begin = (step % steps_per_epoch) * draws.batch
    size = min(draws.batch, n_pairs - begin)
    order = np.empty(size, np.int64)
    permuted(key, begin, n_pairs, order)
    for g in range(size):
        pair = order[g]
        plan.entries[g, 0] = positives.users[pair]
        plan.entries[g, 1] = n_users + positives.items[pair]
    plan.size[N_PAIRS] = size
    plan.size[N_MISSED] = 0


@inner
def draw_negatives(
    positives: Positives,
    table: AliasTable,
    key: np.uint64,
    first: Int32,
    draws: Draws,
    plan: Plan,
) -> None:
    """Draw each negative from the proposal until it is not a positive of the pair's user.

    `first` holds what was drawn for attempt 0 of each place.
    """
    n_users, n_pairs = positives.indptr.shape[0] - 1, plan.size[N_PAIRS]
    for g in range(n_pairs):
        user = plan.entries[g, 0]
        prefetch(positives.indptr, plan.entries[min(g + 2 * _AHEAD, n_pairs - 1), 0])
        middle = positives.indptr[plan.entries[min(g + _AHEAD, n_pairs - 1), 0]]
        middle += positives.indptr[plan.entries[min(g + _AHEAD, n_pairs - 1), 0] + 1]
        prefetch(positives.items, middle // 2)
        for k in range(draws.negatives):
            place, attempt = g * draws.negatives + k, 0
            item = np.int64(first[place])
            while is_positive(positives, user, item):
                attempt += 1
                if attempt > draws.redraws:
                    break
                item = draw_at(table, key, place, attempt)
            filled = attempt <= draws.redraws
            plan.entries[g, 2 + k] = n_users + item if filled else -1
            plan.size[N_MISSED] += not filled


@inner
def draw_first(table: AliasTable, key: np.uint64, out: Int32) -> None:
    """Attempt 0 of all places: `draw_at`, hashes first and look-ups after, so neither waits."""
    x, n = np.empty(out.shape[0]), np.float64(table.n)
    for place in range(out.shape[0]):
        x[place] = uniform_at(key, place, 0) * n
    if table.keep.shape[0] == 0:
        for place in range(out.shape[0]):
            out[place] = np.int64(x[place])
        return
    for place in range(out.shape[0]):
        column = np.int64(x[place])
        kept = x[place] - column < table.keep[column]
        out[place] = column if kept else table.other[column]


@kernel
def table_size(n: Int) -> Int:
    """Give a power of two at which a hash table of n keys is at most half full."""
    size = 16
    while size < 2 * n:
        size *= 2
    return size


@kernel
def find(table: Int64, key: Int) -> Int:
    """Where `key` stands in an open-addressing hash table, or where it would be put.

    An entry is ``key << 32 | value``, -1 where nothing stands; at least one is empty.
    """
    mask = table.shape[0] - 1
    at = np.int64((np.uint64(key) * GOLDEN) >> np.uint64(33)) & mask
    while table[at] >> 32 != key and table[at] >= 0:
        at = (at + 1) & mask
    return at


@kernel
def find_or_add(table: Int64, key: Int, value: Int) -> Int:
    """Give the value that stands at `key`; if there is none, put `value` there."""
    at = find(table, key)
    if table[at] < 0:
        table[at] = key << 32 | value
    return table[at] & 0xFFFFFFFF


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
        for i in range(support.shape[0]):
            out[i] = support[i]
        return
    seen = np.full(table_size(count), -1, np.int64)
    n, t = 0, 0
    while n < count and t < 4 * count:
        item = draw_at(table, key, t, 0)
        if find_or_add(seen, item, n) == n:
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
    for i in range(rest):
        out[n + i] = items[0, i]


@kernel
def index_rows(plan: Plan, all_shared: bool, n_shared_items: Int, n_users: Int) -> None:
    """Give each different row of the step a number and list its entries, in order.

    Rows of the first `n_shared_items` candidates come first, then those with several entries (all
    of them, if `all_shared`), then the others.
    """
    size, width = plan.size[N_PAIRS], plan.entries.shape[1]
    seen = np.full(table_size(size * width + n_shared_items), -1, np.int64)
    count = np.empty(size * width + n_shared_items, np.int32)
    n = 0
    for c in range(n_shared_items):
        plan.unique[c] = n_users + plan.candidates[c]
        count[find_or_add(seen, plan.unique[c], n)] = 0
        n += 1
    for g in range(size):
        for w in range(width):
            row, slot = plan.entries[g, w], np.int64(-1)
            if row >= 0:
                slot = find_or_add(seen, row, n)
                if slot == n:
                    count[n] = 0
                    n += 1
                count[slot] += 1
            plan.slots[g, w] = slot
    number, next_entry, n_shared = np.empty(n, np.int32), np.empty(n, np.int32), 0
    plan.start[0] = 0
    for i in range(n):
        number[i] = -1
        if count[i] > 1 or all_shared or i < n_shared_items:
            number[i], next_entry[n_shared] = n_shared, plan.start[n_shared]
            n_shared += 1
            plan.start[n_shared] = plan.start[n_shared - 1] + count[i]
    n = n_shared
    for g in range(size):
        plan.own[g] = n
        for w in range(width):
            if plan.slots[g, w] < 0:
                continue
            slot = np.int64(number[plan.slots[g, w]])
            if slot < 0:
                slot, e = np.int64(n), np.int64(plan.start[n])
                n += 1
                plan.start[n] = e + 1
            else:
                e = np.int64(next_entry[slot])
                next_entry[slot] += 1
            plan.slots[g, w], plan.unique[slot] = slot, plan.entries[g, w]
            plan.pair[e], plan.place[e] = g, w
    plan.own[size] = n
    plan.size[N_UNIQUE], plan.size[N_SHARED] = n, n_shared
