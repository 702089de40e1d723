"""Launches of the Triton kernels, with the signatures of `eager` and `device_plan`.

A program has as many warps as its rows keep busy, sixteen numbers a thread: with one warp a sum
needs no barrier. A kernel takes its arrays and numbers in a few records, which Triton specialises
field by field, and what it is compiled for in one record, its shape.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.engine.gpu import arguments, device_plan, drawing, kernels, moving, words
from nearfar.engine.gpu.device_plan import Data, StepPlans
from nearfar.engine.gpu.records import BatchPoints, Flow, Log, StepNow, Tables
from nearfar.engine.spec import DrawSpec, Spec

_NUMBERS_A_TILE = 2048
_DRAWS_A_PROGRAM = 128
_MOST_COMPARED = 8192
"""Entries of a step that are ordered by comparing all of them with all."""


def power_of_two(n: int) -> int:
    """Return the smallest power of two that is at least n and 2."""
    return max(2, 1 << (n - 1).bit_length())


def warps(numbers: int) -> int:
    """Return the warps of a program that holds so many numbers."""
    return max(1, min(8, numbers // 512))


# ----------------------------------------------------------------------------------- plans


def draw_pairs(plan: StepPlans, count: int, data: Data, draws: DrawSpec) -> None:
    """See `nearfar.engine.gpu.device_plan.draw_pairs`."""
    n_steps, batch, width = plan.entries.shape
    n_pairs = len(data.users)
    block = min(_DRAWS_A_PROGRAM, power_of_two(batch))
    epoch = arguments.EpochOrder(
        draws.order, -(-n_pairs // batch), count, batch, *words.halves(n_pairs)
    )
    drawing.draw_pairs[n_steps, -(-batch // block)](
        plan.step, plan.entries,
        arguments.TrainingPairs(data.users, data.items, n_pairs, data.n_users), epoch,
        W=width, BLOCK=block, num_warps=4,
    )  # fmt: skip


def draw_items(step: Tensor, base: int, data: Data, out: Tensor) -> None:
    """See `nearfar.engine.gpu.device_plan.draw_items`."""
    n_steps, n = out.shape
    block = min(_DRAWS_A_PROGRAM, power_of_two(n))
    drawing.draw_items[n_steps, -(-n // block)](
        step, out, _item_draws(data), arguments.DrawStream(base, n),
        UNIFORM=len(data.keep) == 0, BLOCK=block, num_warps=4,
    )  # fmt: skip


def draw_negatives(plan: StepPlans, first: Tensor | None, data: Data, draws: DrawSpec) -> None:
    """See `nearfar.engine.gpu.device_plan.draw_negatives`."""
    n_steps, batch, _ = plan.entries.shape
    wide = power_of_two(draws.negatives)
    pairs = max(1, _DRAWS_A_PROGRAM // wide)
    shape = arguments.NegativeShape(
        draws.negatives, wide, pairs, data.most.bit_length(),
        uniform=len(data.keep) == 0, given=first is not None,
    )  # fmt: skip
    first = plan.missed if first is None else first
    drawing.draw_negatives[n_steps, -(-batch // pairs)](
        arguments.DrawnNegatives(plan.step, plan.entries, first, plan.missed),
        arguments.KnownItems(data.indptr, data.items), _item_draws(data),
        arguments.RedrawRule(draws.negative, draws.redraws, batch, data.n_users), shape,
        num_warps=4,
    )  # fmt: skip


def find_mine(plan: StepPlans, data: Data) -> None:
    """See `nearfar.engine.gpu.device_plan.find_mine`."""
    n_steps, batch, width = plan.entries.shape
    n = plan.candidates.shape[1]
    ordered, place = torch.sort(plan.candidates, dim=1)
    plan.mine.zero_()
    drawing.find_mine[n_steps, batch](
        plan.entries, arguments.OrderedCandidates(ordered, place, plan.mine.view(torch.uint8)),
        arguments.KnownItems(data.indptr, data.items), batch,
        arguments.SearchShape(n, width, 64, n.bit_length()), num_warps=2,
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


def gather(
    listed: Tensor, step: Tensor, tables: Tables, rules: Spec, unit: bool, out: BatchPoints
) -> None:
    """See `nearfar.engine.gpu.points.gather`."""
    block = power_of_two(rules.dim)
    shape = arguments.RowShape(
        rules.dim, block, rules.slots, rules.drifts, rules.ball, rules.sphere or unit
    )
    kernels.gather[(len(listed),)](listed, step, tables, out, shape, num_warps=warps(block))


def compare(
    entries: Tensor, points: BatchPoints, rules: Spec, draws: DrawSpec, flow: Flow, log: Log
) -> None:
    """See `nearfar.engine.gpu.eager.compare`."""
    n = draws.negatives
    block, chunk = _tile(rules.dim, n)
    shape = arguments.PairShape(
        n, power_of_two(n), chunk, rules.dim, block, rules.rank_weight, rules.temperature > 0,
        rules.spread_out > 0,
    )  # fmt: skip
    kernels.compare[(draws.batch,)](
        entries, points, flow, log, _loss_terms(rules, draws), shape, num_warps=warps(block * chunk)
    )


def weigh(
    mine: Tensor, points: BatchPoints, rules: Spec, draws: DrawSpec, flow: Flow, log: Log
) -> None:
    """See `nearfar.engine.gpu.eager.weigh`."""
    n, block, wide = draws.candidates, power_of_two(rules.dim), power_of_two(draws.candidates)
    shape = arguments.PairShape(
        n, wide, wide, rules.dim, block, rules.rank_weight, rules.temperature > 0, False
    )
    kernels.weigh[(draws.batch,)](
        mine.view(torch.uint8), points, flow, log, _loss_terms(rules, draws), shape,
        num_warps=warps(2 * max(block, wide)),
    )  # fmt: skip


def spread_slopes(rules: Spec, flow: Flow) -> None:
    """See `nearfar.engine.gpu.eager.spread_slopes`."""
    kernels.spread_slopes[(1,)](
        flow, rules.spread_out, BATCH=len(flow.moments), DIM=rules.dim, BLOCK=1024, num_warps=8
    )


def spread(entries: Tensor, points: BatchPoints, flow: Flow) -> None:
    """See `nearfar.engine.gpu.eager.spread`."""
    batch, width = entries.shape
    n, dim = width - 2, points.point.shape[1]
    block, chunk = _tile(dim, n)
    shape = arguments.PairShape(n, power_of_two(n), chunk, dim, block, False, False, True)
    kernels.spread[(batch,)](entries, points, flow, batch, shape, num_warps=warps(block * chunk))


def choose(now: StepNow, s: Tensor, data: Data, rules: Spec, draws: DrawSpec) -> None:
    """See `nearfar.engine.gpu.eager.choose`."""
    n, wide = draws.negatives, power_of_two(draws.candidates)
    released = rules.overflow_gap >= 0
    shape = arguments.ChoiceShape(
        n, draws.candidates, wide, min(8, power_of_two(n)), rules.half_steps,
        not rules.towards_user, released,
    )  # fmt: skip
    choosing = arguments.Choosing(
        s, now.mine.view(torch.uint8), now.candidates, now.step, now.entries, now.missed
    )
    drawing.choose[(draws.batch,)](
        choosing,
        arguments.ChoiceRule(draws.choice, data.n_users, rules.overflow_gap, rules.choice_power),
        shape, num_warps=warps(2 * wide),
    )  # fmt: skip


def multiply(a: Tensor, b: Tensor, out: Tensor, add: bool, fast: bool) -> None:
    """See `nearfar.engine.gpu.eager.multiply`.

    In three products of TF32 that together are as good as float32, or in one if `fast`.
    """
    (rows, inner), columns = a.shape, b.shape[1]
    high, wide, deep = (64, 64, 32) if rows * columns > 64 * 64 * 128 else (16, 32, 64)
    shape = arguments.ProductShape(inner, high, wide, deep, add, "tf32" if fast else "tf32x3")
    moving.multiply[-(-rows // high), -(-columns // wide)](
        *(arguments.Matrix(m, *m.stride()) for m in (a, b, out)), rows, columns, shape,
        num_warps=4 if high == 64 else 2, num_stages=3,
    )  # fmt: skip


def update(
    now: StepNow,
    points: BatchPoints,
    rules: Spec,
    draws: DrawSpec,
    flow: Flow,
    tables: Tables,
) -> None:
    """See `nearfar.engine.gpu.eager.update`."""
    block, many = _tile(rules.dim, 16)
    few, n_entries = min(4, many), len(now.row)
    shape = arguments.UpdateShape(
        draws.width, rules.dim, block, few, many, rules.slots, rules.sphere, rules.ball,
        rules.adam, rules.adagrad, rules.spread_out > 0, rules.decorrelate > 0,
    )  # fmt: skip
    moving.update[(n_entries,)](
        arguments.RowsNow(now.row, now.entry, now.step, now.pace, n_entries, draws.batch),
        points, flow, tables, shape, num_warps=warps(block * few),
    )  # fmt: skip


def _tile(dim: int, most: int) -> tuple[int, int]:
    """Return the numbers of a row, and the rows that are held at once."""
    block = power_of_two(dim)
    return block, max(2, min(power_of_two(most), _NUMBERS_A_TILE // block))


def _loss_terms(rules: Spec, draws: DrawSpec) -> arguments.LossTerms:
    return arguments.LossTerms(rules.margin, rules.temperature, rules.n_items, draws.batch)


def _item_draws(data: Data) -> arguments.ItemDraws:
    return arguments.ItemDraws(data.keep, data.other, data.n_items)
