"""Plans of many steps at once: pairs, negatives or candidates, and which entries touch which row.

This is `nearfar.engine.cpu.plan` on a torch device. None of it depends on the vectors, except the
choice of the second stage, so S steps are planned together, which is enough work for a GPU. An
entry is a place in a step that reads a row: place g W + w is the w-th entry of pair g (its user,
its positive and its N negatives; W = 2 + N), and place B W + c is the c-th candidate that all pairs
share.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nearfar.engine.gpu import words
from nearfar.engine.problem import Problem
from nearfar.engine.spec import DrawSpec, make_draw_spec
from nearfar.method.proposal import SPARE
from nearfar.runtime.arrays import Float64


class Data(NamedTuple):
    """The data from which steps are drawn, on the device."""

    indptr: Tensor
    """(N + 1,) int64; the positives of user u are ``items[indptr[u]:indptr[u + 1]]``."""
    items: Tensor
    """(n_pairs,) int32, ascending within a user."""
    users: Tensor
    """(n_pairs,) int32."""
    keep: Tensor
    """(M,) float64 and (M,) int32, the alias table; empty for the uniform distribution."""
    other: Tensor
    weight: Tensor
    """(M,) float64, proportional to the proposal."""
    support: Tensor
    """(n,) int64, the items that the proposal can draw."""
    n_users: int
    n_items: int
    most: int
    """The largest number of positives of a user."""
    likeliest: Float64
    """(n,) on the host: the probability of the most likely item, of the two most likely, ..."""


class StepPlans(NamedTuple):
    """Buffers for the integers of S steps."""

    step: Tensor
    """(S, 2) int64: the number of the step, from 0; the second column is padding for alignment."""
    entries: Tensor
    """(S, B, W) int64 rows of the joint table, -1 for an empty place."""
    listed: Tensor
    """(S, E) int64, the rows of all entries: those of the pairs, then of shared candidates."""
    row: Tensor
    """(S, E) int32, the same rows in ascending order in each step."""
    entry: Tensor
    """(S, E) int32, the places of the sorted rows; equal rows are in the order of their places."""
    candidates: Tensor
    """(S, C) int64 items."""
    mine: Tensor
    """(S, B, C) bool: the pair's user has the candidate, or there is no pair."""
    looked: Tensor
    """(S, B + C) int64, rows that stage 2 compares: users or positives, then candidates."""
    missed: Tensor
    """(S, B) int64, number of places of the pair that stayed empty."""


def make_data(problem: Problem, device: torch.device) -> Data:
    """Copy the data from which steps are drawn to the device."""
    data, table = problem.interactions, problem.proposal
    lengths = data.indptr[1:] - data.indptr[:-1]

    def put(array: object, dtype: torch.dtype) -> Tensor:
        return torch.tensor(array, dtype=dtype).to(device)

    return Data(
        put(data.indptr, torch.int64),
        put(data.items, torch.int32),
        put(problem.positive_users, torch.int32),
        put(table.keep, torch.float64),
        put(table.other, torch.int32),
        put(table.weight, torch.float64),
        put(problem.support, torch.int64),
        problem.n_users,
        problem.n_items,
        int(lengths.max()),
        np.cumsum(np.sort(table.weight)[::-1]) / table.weight.sum(),
    )


def make_draws(problem: Problem) -> DrawSpec:
    """Return the sampler as numbers, with the bases of the streams as signed integers."""
    draws = make_draw_spec(problem)
    return draws._replace(
        order=words.signed(int(draws.order)),
        negative=words.signed(int(draws.negative)),
        candidate=words.signed(int(draws.candidate)),
        choice=words.signed(int(draws.choice)),
    )


def make_plan(n_steps: int, draws: DrawSpec, device: torch.device) -> StepPlans:
    """Allocate the plans of `n_steps` steps."""
    s, b, w, c, e = n_steps, draws.batch, draws.width, draws.candidates, draws.places
    whole = torch.int64
    return StepPlans(
        torch.zeros((s, 2), dtype=whole, device=device),
        torch.empty((s, b, w), dtype=whole, device=device),
        torch.empty((s, e), dtype=whole, device=device),
        torch.empty((s, e), dtype=torch.int32, device=device),
        torch.empty((s, e), dtype=torch.int32, device=device),
        torch.empty((s, c), dtype=whole, device=device),
        torch.empty((s, b, c), dtype=torch.bool, device=device),
        torch.empty((s, (b + c) * draws.two_stage), dtype=whole, device=device),
        torch.zeros((s, b), dtype=whole, device=device),
    )


def bytes_a_step(draws: DrawSpec) -> int:
    """Return the memory for a step of a plan in bytes, including temporary tensors."""
    sampled = SPARE * max(draws.candidates, draws.distinct * draws.batch * draws.negatives)
    return 48 * draws.places + draws.batch * (draws.candidates + 64) + 64 * sampled


# ------------------------------------------------------------------------------ one attempt


def drawn(data: Data, key: Tensor, position: Tensor, attempt: int = 0) -> Tensor:
    """Draw items (int64) for positions at an attempt; `nearfar.method.proposal.draw_at`."""
    x = words.uniform(key, position, attempt) * data.n_items
    column = x.to(torch.int64)
    if len(data.keep) == 0:
        return column
    kept = x - column < data.keep[column]
    return torch.where(kept, column, data.other[column].to(torch.int64))


def has(data: Data, user: Tensor, item: Tensor) -> Tensor:
    """Return whether users have items, by binary search among the user's sorted items."""
    at, n = data.indptr[user], data.indptr[user + 1] - data.indptr[user]
    none = n == 0
    at = torch.where(none, 0, at)
    for _ in range(data.most.bit_length()):
        half = n // 2
        at = at + torch.where(data.items[at + half] <= item, half, 0)
        n = torch.clamp(n - half, min=1)
    return (data.items[at] == item) & ~none


# --------------------------------------------------------------------------- parts of a plan


def draw_pairs(plan: StepPlans, count: int, data: Data, draws: DrawSpec) -> None:
    """Fill in users and positives of the first `count` steps of the plan; leave others empty."""
    batch, n_pairs = draws.batch, len(data.users)
    steps_per_epoch = -(-n_pairs // batch)
    step = plan.step[:, :1]
    place = (step % steps_per_epoch) * batch + torch.arange(batch, device=step.device)
    filled = place < n_pairs
    filled[count:] = False
    key = words.stream(draws.order, step // steps_per_epoch)
    pair = words.permuted(key, torch.where(filled, place, 0), n_pairs)
    plan.entries[..., 0] = torch.where(filled, data.users[pair], -1)
    plan.entries[..., 1] = torch.where(filled, data.items[pair] + data.n_users, -1)


def draw_items(step: Tensor, base: int, data: Data, out: Tensor) -> None:
    """Fill `out` (S, T) with the items of positions 0..T-1 of the streams at `step` (S, 2)."""
    key = words.stream(base, step[:, :1])
    out[:] = drawn(data, key, torch.arange(out.shape[1], device=out.device))


def draw_negatives(plan: StepPlans, first: Tensor | None, data: Data, draws: DrawSpec) -> None:
    """Draw each negative from the proposal until the pair's user does not have it.

    `first` (S, B N) holds the first attempts, if they are not independent draws.
    """
    n_steps, batch, _ = plan.entries.shape
    key = words.stream(draws.negative, plan.step[:, :1])
    place = torch.arange(batch * draws.negatives, device=key.device).expand(n_steps, -1)
    user = plan.entries[..., :1].expand(-1, -1, draws.negatives).reshape(n_steps, -1)
    paired, user = user >= 0, user.clamp(min=0)
    item = drawn(data, key, place) if first is None else first
    wrong = has(data, user, item) & paired
    for attempt in range(1, draws.redraws + 1):
        if not bool(wrong.any()):
            break
        item = torch.where(wrong, drawn(data, key, place, attempt), item)
        wrong = has(data, user, item) & paired
    found = torch.where(paired & ~wrong, item + data.n_users, -1)
    plan.entries[..., 2:] = found.view(n_steps, batch, -1)
    plan.missed[:] = wrong.view(n_steps, batch, -1).sum(-1)


def find_mine(plan: StepPlans, data: Data) -> None:
    """Mark the candidates that each pair's user has; all of them if there is no pair."""
    user = plan.entries[..., :1]
    plan.mine[:] = has(data, user.clamp(min=0), plan.candidates[:, None, :]) | (user < 0)


# ---------------------------------------------------------------------- distinct items, order


class Different(NamedTuple):
    """A draw of distinct items for each row, possibly incomplete."""

    key: Tensor
    """(S,) the streams."""
    counts: Tensor
    """(S,) the number of items wanted."""
    out: Tensor
    """(S, n) int64, the items."""
    found: Tensor
    """(S,) the number of distinct items among SPARE times as many draws."""


def distinct(tried: Tensor, key: Tensor, counts: Tensor, out: Tensor) -> Different:
    """Fill `out` (S, n) with the first distinct items of `tried` (S, SPARE n), in order.

    For row s only the first counts[s] items are wanted. There may be fewer, see `complete`.
    """
    n = out.shape[1]
    in_turn = torch.arange(tried.shape[1], device=tried.device)
    by_item, turn = torch.sort(tried.to(torch.int32), dim=1, stable=True)
    new = torch.ones_like(by_item, dtype=torch.bool)
    new[:, 1:] = by_item[:, 1:] != by_item[:, :-1]
    first = torch.zeros_like(new).scatter_(1, turn, new)
    first &= in_turn < SPARE * counts[:, None]
    place = torch.where(first, torch.cumsum(first, 1) - 1, n).clamp(max=n)
    room = torch.full((len(out), n + 1), -1, dtype=out.dtype, device=out.device)
    out[:] = room.scatter_(1, place, tried)[:, :n]
    return Different(key, counts, out, first.sum(1))


def complete(drawn: Different, data: Data) -> bool:
    """Draw missing items by their exponential clocks; return whether any were missing.

    See `nearfar.method.proposal.different`. The host must know which rows are short, so it waits
    for the device, unless `never_short` excludes that there are any.
    """
    if never_short(drawn.out.shape[1], data):
        return False
    short = torch.nonzero(drawn.found < drawn.counts).flatten().tolist()
    for s in short:
        begin, count = int(drawn.found[s]), int(drawn.counts[s])
        taken = drawn.out[s, :begin]
        drawn.out[s, begin:count] = _by_clocks(drawn.key[s], taken, count, data)
    return bool(short)


def never_short(count: int, data: Data) -> bool:
    """Return whether SPARE `count` draws almost surely contain `count` distinct items.

    Otherwise all draws would lie in a set of count - 1 of the n items that can be drawn, whose
    total probability is at most that of the `count` most likely items, q. There are fewer than
    (e n / count)^count such sets, so the probability of this is below (e n q^SPARE / count)^count.
    It must be below 1e-30.
    """
    n, q = len(data.support), data.likeliest[min(count, data.n_items) - 1]
    each = np.log(np.e * n / count) + SPARE * np.log(q)
    return bool(count * each < np.log(1e-30))


def _by_clocks(key: Tensor, taken: Tensor, count: int, data: Data) -> Tensor:
    """Draw the items missing from `count`, by their exponential clocks."""
    u = words.uniform(key, data.support + SPARE * count)
    clock = -torch.log1p(-u) / data.weight[data.support]
    clock[torch.isin(data.support, taken)] = torch.inf
    return data.support[torch.sort(clock, stable=True).indices[: count - len(taken)]]


def order_rows(listed: Tensor, row: Tensor, entry: Tensor) -> None:
    """Sort the rows of the entries (..., E); equal rows stay in the order of their entries."""
    found, places = torch.sort(listed.to(torch.int32), dim=-1, stable=True)
    row[:] = found
    entry[:] = places
