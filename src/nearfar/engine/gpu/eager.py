"""The arithmetic of a step in plain torch, on any device: what `kernels` does in Triton.

`gather` (in `points`) makes points of rows, `compare` or `weigh` works out who is pushed how hard,
and `update` moves each row once. In between, a gradient is a sum over entries: entry e adds

    weight_e * side[source(e)] + own_e * point[e]

to its row, where the sides are dL/du of each pair, then the points of the users, and, with shared
negatives, for each of them the sum of share u.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.engine.gpu import words
from nearfar.engine.gpu.device_plan import Data
from nearfar.engine.gpu.device_spec import BETA_1, BETA_2
from nearfar.engine.gpu.points import clipped
from nearfar.engine.gpu.records import BatchPoints, Flow, Log, StepNow, Tables
from nearfar.engine.spec import DrawSpec, Spec
from nearfar.method.geometry import GAP_FLOOR

# --------------------------------------------------------------------------------- compare


def compare(
    entries: Tensor, points: BatchPoints, rules: Spec, draws: DrawSpec, flow: Flow, log: Log
) -> None:
    """Compare each pair with negatives of its own: eq. 1. `entries` is (B, W)."""
    batch, width = entries.shape
    point = points.point.view(batch, width, -1)
    offset = points.offset.view(batch, width)
    u, j, k = point[:, 0], point[:, 1], point[:, 2:]
    near = (u * j).sum(1) - offset[:, 0] - offset[:, 1]
    s = torch.einsum("bd,bnd->bn", u, k) - offset[:, :1] - offset[:, 2:]
    there = entries[:, 2:] >= 0
    s = torch.where(there, s, -torch.inf)
    share, coefficient = contrast(s, near, there.sum(1), rules, log)
    weight = flow.weight[: batch * width].view(batch, width)
    weight[:, 0], weight[:, 1], weight[:, 2:] = 1.0, -coefficient, share
    pull = torch.einsum("bn,bnd->bd", share, k) - coefficient[:, None] * j
    flow.side[:batch], flow.side[batch : 2 * batch] = pull, u
    if rules.spread_out > 0:
        s = torch.where(there, torch.einsum("bd,bnd->bn", j, k), 0.0)
        flow.slope[:] = s
        wide = s.to(torch.float64)
        flow.moments[:] = torch.stack([there.sum(1), wide.sum(1), (wide * wide).sum(1)], 1)


def weigh(
    mine: Tensor, points: BatchPoints, rules: Spec, draws: DrawSpec, flow: Flow, log: Log
) -> None:
    """Compare each pair with the negatives that all share, given their products in `flow`.

    The shares of the loss come in their place. `mine` (B, C) are those that the user has.
    """
    s, batch = flow.products, draws.batch
    point = points.point[: 2 * batch].view(batch, 2, -1)
    offset = points.offset[: 2 * batch].view(batch, 2)
    u, j = point[:, 0], point[:, 1]
    near = (u * j).sum(1) - offset[:, 0] - offset[:, 1]
    s -= offset[:, :1] + points.offset[2 * batch :]
    s[mine] = -torch.inf
    share, coefficient = contrast(s, near, (~mine).sum(1), rules, log)
    s[:] = share
    weight = flow.weight[: 2 * batch].view(batch, 2)
    weight[:, 0], weight[:, 1] = 1.0, -coefficient
    flow.side[:batch], flow.side[batch : 2 * batch] = -coefficient[:, None] * j, u


def multiply(a: Tensor, b: Tensor, out: Tensor, add: bool, fast: bool) -> None:
    """Put the product of two matrices into `out`, or add it."""
    if add:
        out.addmm_(a, b)
    else:
        torch.mm(a, b, out=out)


def contrast(
    s: Tensor, near: Tensor, found: Tensor, rules: Spec, log: Log
) -> tuple[Tensor, Tensor]:
    """Return each pair's shares of the loss (B, N) and their sum (B,).

    See `nearfar.method.loss.Triplet`, whose soft maximum this is.
    `s` holds the scores, minus infinity for what is no negative; `found` counts the others.
    """
    inside = rules.margin - 2.0 * (near[:, None] - s)
    impostors = (inside > 0).sum(1)
    log.violated[:] = impostors > 0
    weight = torch.ones(len(s), dtype=torch.float64, device=s.device)
    if rules.rank_weight:
        rank = rules.n_items * impostors // found.clamp(min=1)
        weight = torch.log(rank.to(torch.float64) + 1.0)
    factor = (2.0 * weight).to(torch.float32)
    best, nearest = s.max(1)
    if rules.temperature == 0:
        most = rules.margin - 2.0 * (near - best)
        loss = torch.where(most <= 0, 0.0, most)
        log.loss[:] = weight * loss
        coefficient = torch.where(loss != 0, factor, 0.0)
        return torch.zeros_like(s).scatter_(1, nearest[:, None], coefficient[:, None]), coefficient
    zero = near - 0.5 * rules.margin
    top = torch.maximum(best, zero)
    part = torch.exp((s - top[:, None]) * (2.0 / rules.temperature))
    whole = part.sum(1) + torch.exp(2.0 * (zero - top) / rules.temperature)
    share = part * (factor / whole)[:, None]
    log.loss[:] = weight * (2.0 * (top - zero) + rules.temperature * torch.log(whole))
    return share, share.sum(1)


# ------------------------------------------------------------------------ the regularisers


def spread_slopes(rules: Spec, flow: Flow) -> None:
    """Eq. 3 over the whole batch: its loss, and dL/ds = totals[0] + totals[1] s."""
    count, first, second = flow.moments.sum(0)
    some = count.clamp(min=1.0)
    mean, excess = first / some, second / some - 1.0 / rules.dim
    flow.totals[0] = rules.spread_out * 2.0 * mean / some
    flow.totals[1] = torch.where(excess > 0, rules.spread_out * 2.0 / some, 0.0)
    loss = rules.spread_out * (mean * mean + excess.clamp(min=0.0))
    flow.totals[2] = torch.where(count > 0, loss, 0.0)


def spread(entries: Tensor, points: BatchPoints, flow: Flow) -> None:
    """Turn the products into slopes, and sum what flows into each positive from its negatives."""
    batch, width = entries.shape
    point = points.point.view(batch, width, -1)
    slope = (flow.totals[0] + flow.totals[1] * flow.slope).to(torch.float32)
    flow.slope[:] = torch.where(entries[:, 2:] >= 0, slope, 0.0)
    flow.side[2 * batch : 3 * batch] = torch.einsum("bn,bnd->bd", flow.slope, point[:, 2:])
    flow.side[3 * batch : 4 * batch] = point[:, 1]


def decorrelate(now: StepNow, points: BatchPoints, rules: Spec, extra: Tensor) -> Tensor:
    """`nearfar.method.loss.Decorrelate.term` over the different points of a step; returns the loss.

    The gradient goes to the first entry of each row, in the order of `StepNow.row`.
    """
    row = now.row
    first = (row >= 0)[:, None]
    first[1:] &= (row[1:] != row[:-1])[:, None]
    n = first.sum().clamp(min=1).to(torch.float32)
    x = torch.where(first, points.point[now.entry.long()], 0.0)
    centred = torch.where(first, x - x.sum(0) / n, 0.0)
    covariance = centred.T @ centred / n
    diagonal = torch.diagonal(covariance)
    squares = (covariance.to(torch.float64) ** 2).sum()
    frobenius = squares.sqrt()
    scale = 2.0 if rules.decorrelate_squared else 1.0 / frobenius.clamp(min=1e-30)
    slope = (covariance * scale).to(torch.float32) - 2.0 * torch.diag(diagonal)
    weight = rules.decorrelate / n
    torch.mul(centred @ slope, 2.0 * weight / n, out=extra)
    whole = squares if rules.decorrelate_squared else frobenius
    return weight * (whole - (diagonal.to(torch.float64) ** 2).sum())


# ---------------------------------------------------------------------------------- update


def gradients(
    now: StepNow, points: BatchPoints, rules: Spec, draws: DrawSpec, flow: Flow
) -> tuple[Tensor, Tensor]:
    """Sum what flows into each row over its entries, in their order.

    Returns a sum for each row that is not empty, and the place of its first entry in `row`.
    """
    batch, width, row, e = draws.batch, draws.width, now.row, now.entry.long()
    g, w, paired = e // width, e % width, e < batch * width
    source = torch.where(paired, torch.where(w == 0, g, batch + g), e - batch * width + 2 * batch)
    weight = flow.weight[e]
    own = torch.where(paired & (w > 0), -weight, 0.0)
    if draws.candidates and draws.shared and not rules.sphere:
        own = torch.where(paired, own, -flow.share[(e - batch * width).clamp(min=0)])
    total = weight[:, None] * flow.side[source] + own[:, None] * points.point[e]
    if rules.spread_out > 0:
        pushed = torch.where(w >= 2, flow.slope[g, (w - 2).clamp(min=0)], (w == 1).float())
        total += pushed[:, None] * flow.side[torch.where(w == 1, 2 * batch + g, 3 * batch + g)]
    first = torch.ones_like(row, dtype=torch.bool)
    first[1:] = row[1:] != row[:-1]
    start = torch.nonzero(first).flatten()
    lengths = torch.diff(start, append=start.new_tensor([len(row)]))
    summed = torch.segment_reduce(total, "sum", lengths=lengths, axis=0)
    if rules.decorrelate > 0:
        summed += flow.extra[start]
    keep = row[start] >= 0
    return summed[keep], start[keep]


def update(
    now: StepNow,
    points: BatchPoints,
    rules: Spec,
    draws: DrawSpec,
    flow: Flow,
    tables: Tables,
) -> None:
    """Move each row into which something flows; see `nearfar.engine.cpu.compute.update`."""
    total, start = gradients(now, points, rules, draws, flow)
    moving = (total != 0).any(1)
    total, start = total[moving], start[moving]
    at, e = now.row[start], now.entry[start].long()
    total, x = through_normalisation(total, points, e, rules)
    move(at, x, total, now, rules, tables)


def through_normalisation(
    total: Tensor, points: BatchPoints, e: Tensor, rules: Spec
) -> tuple[Tensor, Tensor]:
    """Return gradients by the rows of entries `e`, given those by their points; and the rows.

    See `nearfar.method.loss.through_normalisation`.
    """
    point, length = points.point[e], points.length[e][:, None]
    if rules.sphere:
        total = (total - (total * point).sum(1, keepdim=True) * point) / length
    return total, point * length


def move(at: Tensor, x: Tensor, total: Tensor, now: StepNow, rules: Spec, tables: Tables) -> None:
    """Take a step of the optimiser with rows `at`, which are now `x`, by their gradients."""
    rate, eps = now.pace[0], now.pace[1]
    old = tables.rows[at]
    if rules.adam:
        gap = (now.step[0] + 1 - tables.last[at]).to(torch.float64)
        keep1, keep2 = (
            torch.exp2(gap * tables.numbers[which]).to(torch.float32)[:, None]
            for which in (BETA_1, BETA_2)
        )
        old[:, 1] = keep1 * old[:, 1] + (1.0 - rules.beta1) * total
        old[:, 2] = keep2 * old[:, 2] + (1.0 - rules.beta2) * total * total
        old[:, 0] = x - rate * old[:, 1] / (old[:, 2].sqrt() + eps)
    elif rules.adagrad:
        old[:, 1] += total * total
        old[:, 0] = x - rate * total / (old[:, 1].sqrt() + eps)
    else:
        old[:, 0] = x - rate * total
    if rules.ball:
        old[:, 0] = clipped(old[:, 0])
    tables.rows[at] = old
    tables.last[at] = now.step[0] + 1


# --------------------------------------------------------------------------- second stage


def choose(now: StepNow, s: Tensor, data: Data, rules: Spec, draws: DrawSpec) -> None:
    """Draw each pair's negatives among the candidates, given their products `s` (B, C).

    The weights are `nearfar.method.geometry.stage_two_weight`, summed in float64.
    """
    ahead = torch.where(s > 0, s, 0.0)
    gap = ((1.0 - ahead) * (1.0 + ahead)).clamp(min=GAP_FLOOR)
    possible = ~now.mine if rules.towards_user else ~(now.mine | (s < 0))
    top = torch.where(possible, gap, 1.0).min(1, keepdim=True).values
    power = (top / gap).to(torch.float64) ** rules.choice_power
    weight = torch.where(possible, power, 0.0)
    if rules.overflow_gap >= 0:
        squares = (s.to(torch.float64) ** 2).clamp(max=1.0)
        over = (1.0 - squares + 1e-8 < rules.overflow_gap).any(1, keepdim=True)
        weight = torch.where(over, (~now.mine).to(torch.float64), weight)
    cumulative = weight.cumsum(1)
    whole, batch, n = cumulative[:, -1:], len(s), draws.negatives
    place = torch.arange(batch * n, device=s.device).view(batch, n)
    target = words.uniform(words.stream(draws.choice, now.step[:1]), place) * whole
    at = (cumulative[:, None] <= target[..., None]).sum(2)
    at = torch.minimum(at, (cumulative < whole).sum(1, keepdim=True))
    paired = now.entries[:, :1] >= 0
    found = paired & (whole > 0)
    now.entries[:, 2:] = torch.where(found, now.candidates[at] + data.n_users, -1)
    now.missed[:] = torch.where(found, 0, n * paired)[:, 0]
