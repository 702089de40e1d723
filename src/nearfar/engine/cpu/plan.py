"""The integers of a step: its pairs, its negatives or candidates, and who touches which row.

A step is *planned* before it is computed. An entry is a row number of the joint table (users
first, then items); pair g of the batch has 2 + N entries: the user, the positive item and N
negatives, -1 where a place stayed empty. Negatives that all pairs share are no entries: N is 0
then, and their rows are the first of the step. None of this depends on the vectors, except the
choice of the second stage (`nearfar.engine.cpu.choose`), so steps are planned ahead, side by side.
"""

from __future__ import annotations

import numpy as np

from nearfar.engine.cpu.hashing import empty, find, find_or_add, table_size
from nearfar.engine.cpu.plan_records import (
    N_MISSED,
    N_PAIRS,
    N_SHARED,
    N_UNIQUE,
    DrawSource,
    Plan,
    Positives,
    Sketch,
)
from nearfar.engine.cpu.prefetch import prefetch
from nearfar.engine.spec import DISTINCT, SHARED, TWO_STAGE
from nearfar.method.proposal import AliasTable, draw_at
from nearfar.runtime.arrays import Float64, Int, Int32
from nearfar.runtime.counter import permuted, stream_at, uniform_at
from nearfar.runtime.jit import kernel

_AHEAD = 16
"""How many pairs ahead of its use memory is asked for."""


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


@kernel
def plan_step(step: Int, source: DrawSource, plan: Plan, sketch: Sketch) -> None:
    """Fill `plan` for the step; with 2-stage sampling all but the negatives."""
    draws, positives = source.draws, source.positives
    size = draw_pairs(step, source, plan, sketch)
    if draws.kind == TWO_STAGE or draws.kind == SHARED:
        key = stream_at(draws.candidate, step)
        if draws.distinct:
            draw_distinct(source.proposal, source.support, key, sketch, plan.candidates)
        else:
            for t in range(draws.candidates):
                plan.candidates[t] = draw_at(source.proposal, key, t, 0)
        if draws.kind == SHARED:
            index_rows(plan, True, draws.candidates, positives.indptr.shape[0] - 1, sketch)
        return
    key = stream_at(draws.negative, step)
    first = sketch.first[: size * draws.negatives]
    if draws.kind == DISTINCT:
        draw_distinct(source.proposal, source.support, key, sketch, first)
    else:
        draw_first(source.proposal, key, sketch.real, first)
    choose_own(plan, draws.negatives, first)
    draw_negatives(source, key, first, plan)
    index_rows(plan, source.all_shared, 0, 0, sketch)


@kernel
def draw_pairs(step: Int, source: DrawSource, plan: Plan, sketch: Sketch) -> Int:
    """Take the step's slice of the epoch's permutation of all pairs, and of it the part's.

    Returns the number of pairs in the slice.
    """
    positives, draws, part, count = source.positives, source.draws, source.part, 0
    n_users, n_pairs = positives.indptr.shape[0] - 1, positives.users.shape[0]
    steps_per_epoch = (n_pairs + draws.batch - 1) // draws.batch
    key = stream_at(draws.order, step // steps_per_epoch)
    begin = (step % steps_per_epoch) * draws.batch
    size = min(draws.batch, n_pairs - begin)
    order = sketch.order[:size]
    permuted(key, begin, n_pairs, order)
    for g in range(size):
        pair = order[g]
        if pair < part.first or pair >= part.last:
            continue
        plan.entries[count, 0] = positives.users[pair]
        plan.entries[count, 1] = n_users + positives.items[pair]
        plan.position[count] = g
        count += 1
    plan.size[N_PAIRS] = count
    plan.size[N_MISSED] = 0
    return size


@kernel
def choose_own(plan: Plan, n: Int, first: Int32) -> None:
    """Move what was drawn for the n places of the part's pairs to the front of `first`."""
    for g in range(plan.size[N_PAIRS]):
        at = plan.position[g]  # never before g
        for k in range(n if at > g else 0):
            first[g * n + k] = first[at * n + k]


@kernel
def draw_negatives(source: DrawSource, key: np.uint64, first: Int32, plan: Plan) -> None:
    """Draw each negative from the proposal until it is not a positive of the pair's user.

    `first` holds what was drawn for attempt 0 of each place.
    """
    positives, draws, table, entries = source.positives, source.draws, source.proposal, plan.entries
    indptr, items = positives.indptr, positives.items
    n_users, n_pairs = indptr.shape[0] - 1, plan.size[N_PAIRS]
    for g in range(n_pairs):
        user = entries[g, 0]
        prefetch(indptr, entries[min(g + 2 * _AHEAD, n_pairs - 1), 0])
        middle = indptr[entries[min(g + _AHEAD, n_pairs - 1), 0]]
        middle += indptr[entries[min(g + _AHEAD, n_pairs - 1), 0] + 1]
        prefetch(items, middle // 2)
        for k in range(draws.negatives):
            place, attempt = plan.position[g] * draws.negatives + k, 0
            item = np.int64(first[g * draws.negatives + k])
            while is_positive(positives, user, item):
                attempt += 1
                if attempt > draws.redraws:
                    break
                item = draw_at(table, key, place, attempt)
            filled = attempt <= draws.redraws
            entries[g, 2 + k] = n_users + item if filled else -1
            plan.size[N_MISSED] += not filled


@kernel
def draw_first(table: AliasTable, key: np.uint64, x: Float64, out: Int32) -> None:
    """Attempt 0 of all places: `draw_at`, hashes first and look-ups after, so neither waits.

    `x` is room for as many numbers as there are places.
    """
    n = np.float64(table.n)
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
def draw_distinct(
    table: AliasTable, support: Int32, key: np.uint64, sketch: Sketch, out: Int32
) -> None:
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
    seen = sketch.items[: table_size(count)]
    empty(seen)
    n, t = 0, 0
    while n < count and t < 4 * count:
        item = draw_at(table, key, t, 0)
        if find_or_add(seen, item, n) == n:
            out[n] = item
            n += 1
        t += 1
    clocks, rest, kept = sketch.real, count - n, 0
    for i in range(support.shape[0] if rest > 0 else 0):
        j = support[i]
        if seen[find(seen, j)] >= 0:
            continue
        clock = -np.log1p(-uniform_at(key, 4 * count + j, 0)) / table.weight[j]
        if kept == rest and not clock < clocks[kept - 1]:
            continue
        at = min(kept, rest - 1)  # the place that is free, or that of the largest
        while at > 0 and clocks[at - 1] > clock:
            clocks[at], out[n + at] = clocks[at - 1], out[n + at - 1]
            at -= 1
        clocks[at], out[n + at] = clock, j
        kept = min(kept + 1, rest)


@kernel
def index_rows(
    plan: Plan, all_shared: bool, n_shared_items: Int, n_users: Int, sketch: Sketch
) -> None:
    """Assign a number to each different row of the step and list its entries, in order.

    Rows of the first `n_shared_items` candidates come first, then those with several entries (all
    of them, if `all_shared`), then the others.
    """
    size, width = plan.size[N_PAIRS], plan.entries.shape[1]
    count, number, following = sketch.counts, sketch.number, sketch.following
    entries, slots, unique, own = plan.entries, plan.slots, plan.unique, plan.own
    start, pair, place = plan.start, plan.pair, plan.place
    n = count_rows(plan, n_shared_items, n_users, sketch)
    start[0], n_shared = 0, 0
    for i in range(n):
        number[i] = -1
        if count[i] > 1 or all_shared or i < n_shared_items:
            number[i], following[n_shared] = n_shared, start[n_shared]
            n_shared += 1
            start[n_shared] = start[n_shared - 1] + count[i]
    n = n_shared
    for g in range(size):
        own[g] = n
        for w in range(width):
            if slots[g, w] < 0:
                continue
            slot = np.int64(number[slots[g, w]])
            if slot < 0:
                slot, e = np.int64(n), np.int64(start[n])
                n += 1
                start[n] = e + 1
            else:
                e = np.int64(following[slot])
                following[slot] += 1
            slots[g, w], unique[slot] = slot, entries[g, w]
            pair[e], place[e] = g, w
    own[size] = n
    plan.size[N_UNIQUE], plan.size[N_SHARED] = n, n_shared


@kernel
def count_rows(plan: Plan, n_shared_items: Int, n_users: Int, sketch: Sketch) -> Int:
    """Count the entries of each different row, and number the rows by their first appearance.

    The numbers go into `plan.slots`, the counts into `sketch.counts`; returns how many there are.
    """
    size, width, n = plan.size[N_PAIRS], plan.entries.shape[1], 0
    seen, count, unique = sketch.rows, sketch.counts, plan.unique
    entries, slots, candidates = plan.entries, plan.slots, plan.candidates
    empty(seen)
    for c in range(n_shared_items):
        unique[c], count[c] = n_users + candidates[c], 0
        find_or_add(seen, unique[c], n)  # the first, should a candidate occur several times
        n += 1
    for g in range(size):
        for w in range(width):
            row, slot = entries[g, w], np.int64(-1)
            if row >= 0:
                slot = find_or_add(seen, row, n)
                if slot == n:
                    count[n] = 0
                    n += 1
                count[slot] += 1
            slots[g, w] = slot
    return n
