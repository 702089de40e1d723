"""Launches of the Triton kernels: the signatures of `eager` and `plan`, and the shape of the work.

A program has as many warps as its rows keep busy, sixteen numbers a thread: with one warp a sum
needs no barrier.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nearfar.engine.gpu import device_plan, drawing, kernels, moving, words
from nearfar.engine.gpu.device_plan import Data, DeviceDraws, StepPlans
from nearfar.engine.gpu.device_spec import DeviceDecay, StepRules
from nearfar.engine.gpu.eager import Flow, Log
from nearfar.engine.gpu.points import BatchPoints, Tables

_NUMBERS_A_TILE = 2048
_DRAWS_A_PROGRAM = 128
_MOST_COMPARED = 8192
"""Entries of a step that are ordered by comparing all of them with all."""


def power_of_two(n: int) -> int:
    """Give the smallest power of two that is at least n and 2."""
    return max(2, 1 << (n - 1).bit_length())


def warps(numbers: int) -> int:
    """Warps of a program that holds so many numbers."""
    return max(1, min(8, numbers // 512))


def _searches(data: Data) -> int:
    return data.most.bit_length()


# ----------------------------------------------------------------------------------- plans


def draw_pairs(plan: StepPlans, count: int, data: Data, draws: DeviceDraws) -> None:
    """See `nearfar.engine.gpu.device_plan.draw_pairs`."""
    n_steps, batch, width = plan.entries.shape
    n_pairs = len(data.users)
    block = min(_DRAWS_A_PROGRAM, power_of_two(batch))
    drawing.draw_pairs[n_steps, -(-batch // block)](
        plan.step, plan.entries, data.users, data.items, draws.order, n_pairs,
        -(-n_pairs // batch), count, data.n_users, batch, *words.halves(n_pairs),
        W=width, BLOCK=block, num_warps=4,
    )  # fmt: skip


def draw_items(step: Tensor, base: int, data: Data, out: Tensor) -> None:
    """See `nearfar.engine.gpu.device_plan.draw_items`."""
    n_steps, n = out.shape
    block = min(_DRAWS_A_PROGRAM, power_of_two(n))
    drawing.draw_items[n_steps, -(-n // block)](
        step, out, data.keep, data.other, base, data.n_items, n,
        UNIFORM=len(data.keep) == 0, BLOCK=block, num_warps=4,
    )  # fmt: skip


def draw_negatives(plan: StepPlans, first: Tensor | None, data: Data, draws: DeviceDraws) -> None:
    """See `nearfar.engine.gpu.device_plan.draw_negatives`."""
    n_steps, batch, _ = plan.entries.shape
    wide = power_of_two(draws.negatives)
    pairs = max(1, _DRAWS_A_PROGRAM // wide)
    drawing.draw_negatives[n_steps, -(-batch // pairs)](
        plan.step, plan.entries, plan.missed if first is None else first, plan.missed, data.indptr,
        data.items, data.keep, data.other, draws.negative, data.n_items, data.n_users,
        draws.redraws, batch, N=draws.negatives, WIDE=wide, PAIRS=pairs, STEPS=_searches(data),
        UNIFORM=len(data.keep) == 0, GIVEN=first is not None, num_warps=4,
    )  # fmt: skip


def find_mine(plan: StepPlans, data: Data) -> None:
    """See `nearfar.engine.gpu.device_plan.find_mine`."""
    n_steps, batch, width = plan.entries.shape
    n = plan.candidates.shape[1]
    ordered, place = torch.sort(plan.candidates, dim=1)
    plan.mine.zero_()
    drawing.find_mine[n_steps, batch](
        plan.entries, ordered, place, plan.mine.view(torch.uint8), data.indptr, data.items, batch,
        N=n, W=width, BLOCK=64, STEPS=n.bit_length(), num_warps=2,
    )  # fmt: skip


def order_rows(listed: Tensor, row: Tensor, entry: Tensor) -> None:
    """See `nearfar.engine.gpu.device_plan.order_rows`."""
    if listed.ndim > 1 or len(listed) > _MOST_COMPARED:
        device_plan.order_rows(listed, row, entry)
        return
    moving.order_rows[(-(-len(listed) // 16),)](
        listed, row, entry, N=len(listed), HIGH=16, WIDE=1024, num_warps=8
    )


# ----------------------------------------------------------------------------------- steps


def _tile(rules: StepRules, most: int) -> tuple[int, int]:
    """Numbers of a row, and the rows that are held at once."""
    block = power_of_two(rules.dim)
    return block, max(2, min(power_of_two(most), _NUMBERS_A_TILE // block))


def _contrast(rules: StepRules) -> dict[str, Any]:
    return {"RANK": rules.rank_weight, "SOFT": rules.temperature > 0}


def gather(
    listed: Tensor,
    step: Tensor,
    tables: Tables,
    rules: StepRules,
    decay: DeviceDecay,
    unit: bool,
    out: BatchPoints,
) -> None:
    """See `nearfar.engine.gpu.points.gather`."""
    block = power_of_two(rules.dim)
    kernels.gather[(len(listed),)](
        listed, step, tables.rows, tables.last, decay.drift, decay.drift.shape[1], decay.numbers,
        *out, DIM=rules.dim, BLOCK=block, SLOTS=rules.slots, DRIFTS=rules.drifts, BALL=rules.ball,
        UNIT=rules.sphere or unit, num_warps=warps(block),
    )  # fmt: skip


def compare(
    entries: Tensor, points: BatchPoints, rules: StepRules, draws: DeviceDraws, flow: Flow, log: Log
) -> None:
    """See `nearfar.engine.gpu.eager.compare`."""
    n = draws.negatives
    block, chunk = _tile(rules, n)
    kernels.compare[(draws.batch,)](
        entries, points.point, points.offset, flow.weight, flow.side, flow.slope, flow.moments,
        log.loss, log.violated, rules.margin, rules.temperature, rules.n_items, draws.batch,
        N=n, WIDE=power_of_two(n), CHUNK=chunk, DIM=rules.dim, BLOCK=block,
        SPREAD=rules.spread_out > 0, **_contrast(rules), num_warps=warps(block * chunk),
    )  # fmt: skip


def weigh(
    s: Tensor,
    mine: Tensor,
    points: BatchPoints,
    rules: StepRules,
    draws: DeviceDraws,
    flow: Flow,
    log: Log,
) -> None:
    """See `nearfar.engine.gpu.eager.weigh`."""
    block, wide = power_of_two(rules.dim), power_of_two(draws.candidates)
    kernels.weigh[(draws.batch,)](
        s, mine.view(torch.uint8), points.point, points.offset, flow.weight, flow.side, log.loss,
        log.violated,
        rules.margin, rules.temperature, rules.n_items, draws.batch,
        C=draws.candidates, WIDE=wide, DIM=rules.dim, BLOCK=block, **_contrast(rules),
        num_warps=warps(2 * max(block, wide)),
    )  # fmt: skip


def spread_slopes(rules: StepRules, flow: Flow) -> None:
    """See `nearfar.engine.gpu.eager.spread_slopes`."""
    kernels.spread_slopes[(1,)](
        flow.moments, flow.totals, rules.spread_out,
        BATCH=len(flow.moments), DIM=rules.dim, BLOCK=1024, num_warps=8,
    )  # fmt: skip


def spread(entries: Tensor, points: BatchPoints, flow: Flow) -> None:
    """See `nearfar.engine.gpu.eager.spread`."""
    batch, width = entries.shape
    dim = points.point.shape[1]
    block = power_of_two(dim)
    chunk = max(2, min(power_of_two(width - 2), _NUMBERS_A_TILE // block))
    kernels.spread[(batch,)](
        entries, points.point, flow.slope, flow.totals, flow.side, batch,
        N=width - 2, CHUNK=chunk, DIM=dim, BLOCK=block, num_warps=warps(block * chunk),
    )  # fmt: skip


def choose(
    s: Tensor,
    mine: Tensor,
    candidates: Tensor,
    step: Tensor,
    n_users: int,
    rules: StepRules,
    draws: DeviceDraws,
    entries: Tensor,
    missed: Tensor,
) -> None:
    """See `nearfar.engine.gpu.eager.choose`."""
    wide = power_of_two(draws.candidates)
    drawing.choose[(draws.batch,)](
        s, mine.view(torch.uint8), candidates, step, entries, missed, draws.choice, n_users,
        rules.overflow_gap, N=draws.negatives, C=draws.candidates, WIDE=wide,
        AT_ONCE=min(8, power_of_two(draws.negatives)), DIM=rules.dim,
        RELEASED=rules.overflow_gap >= 0, num_warps=warps(2 * wide),
    )  # fmt: skip


def multiply(a: Tensor, b: Tensor, out: Tensor, add: bool, fast: bool) -> None:
    """See `nearfar.engine.gpu.eager.multiply`.

    In three products of TF32 that together are as good as float32, or in one if `fast`.
    """
    (rows, inner), columns = a.shape, b.shape[1]
    high, wide, deep = (64, 64, 32) if rows * columns > 64 * 64 * 128 else (16, 32, 64)
    moving.multiply[-(-rows // high), -(-columns // wide)](
        a, b, out, rows, columns, *a.stride(), *b.stride(), out.stride(0),
        INNER=inner, HIGH=high, WIDE=wide, DEEP=deep, ADD=add,
        PRECISION="tf32" if fast else "tf32x3",
        num_warps=4 if high == 64 else 2, num_stages=3,
    )  # fmt: skip


def update(
    row: Tensor,
    entry: Tensor,
    step: Tensor,
    pace: Tensor,
    points: BatchPoints,
    rules: StepRules,
    draws: DeviceDraws,
    decay: DeviceDecay,
    flow: Flow,
    tables: Tables,
) -> None:
    """See `nearfar.engine.gpu.eager.update`."""
    block, many = _tile(rules, 16)
    few = min(4, many)
    moving.update[(len(row),)](
        row, entry, step, pace, points.point, points.length, flow.weight, flow.side, flow.share,
        flow.slope, flow.extra, tables.rows, tables.last, decay.numbers, len(row), draws.batch,
        W=draws.width, DIM=rules.dim, BLOCK=block, FEW=few, MANY=many,
        SLOTS=rules.slots, SPHERE=rules.sphere, BALL=rules.ball, ADAM=rules.adam,
        ADAGRAD=rules.adagrad,
        SPREAD=rules.spread_out > 0, EXTRA=rules.decorrelate > 0, num_warps=warps(block * few),
    )  # fmt: skip
