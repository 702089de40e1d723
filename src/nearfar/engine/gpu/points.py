"""Rows of the tables as they are now, in plain torch: brought up to date, and made points of.

The laws are those of `nearfar.engine.cpu.compute` and `nearfar.engine.spec`; on a GPU
`nearfar.engine.gpu.kernels.gather` takes the place of `gather`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.engine.gpu.device_spec import BETA_1, BETA_2, RHO_1, RHO_2
from nearfar.engine.gpu.records import BatchPoints, Tables
from nearfar.engine.spec import Spec


def gather(
    listed: Tensor, step: Tensor, tables: Tables, rules: Spec, unit: bool, out: BatchPoints
) -> None:
    """Put the points of rows `listed` (E,), as they are after `step` steps, into `out`.

    With `unit` they get length 1 in any geometry. Rows of -1 are empty places.
    """
    here, row = listed >= 0, listed.clamp(min=0)
    x = current(row, step[0], tables, rules)
    x = torch.where(here[:, None], x, 0.0)
    squares = (x * x).sum(1)
    out.length.fill_(1.0)
    out.offset.zero_()
    if rules.sphere or unit:
        out.length[:] = torch.where(squares > 0, squares.sqrt(), 1.0)
    else:
        out.offset[:] = torch.where(here, 0.5 * (squares - 1.0), 0.0)
    out.point[:] = x / out.length[:, None]


def current(row: Tensor, t: Tensor, tables: Tables, rules: Spec) -> Tensor:
    """Return stored rows as they are after t steps; `tables` stay as they are."""
    x = tables.rows[row, 0]
    if not rules.drifts:
        return x
    t0, m, v = tables.last[row], tables.rows[row, 1], tables.rows[row, 2]
    moved, eps = (z.to(torch.float32)[:, None] for z in drift(t0, t, tables, rules))
    y = torch.where(moved != 0, x - moved * m / (v.sqrt() + eps), x)
    if rules.ball:
        out = torch.nonzero(((y * y).sum(1) > 1) & (moved[:, 0] != 0)).flatten()
        if len(out):
            y[out] = replay(x[out], m[out], v[out], t0[out], t, rules)
    return y


def settle(part: slice, t: Tensor, tables: Tables, rules: Spec) -> None:
    """Bring the rows of a slice up to date for t steps done, in place."""
    rows, last = tables.rows[part], tables.last[part]
    index = torch.arange(part.start, part.start + len(last), device=last.device)
    behind = (last > 0) & (last < t)
    gap = (t - last).to(torch.float64)
    x = current(index, t, tables, rules)
    rows[:, 0] = torch.where(behind[:, None], x, rows[:, 0])
    for slot, which in ((1, BETA_1), (2, BETA_2)):
        keep = torch.where(behind, torch.exp2(gap * tables.numbers[which]), 1.0)
        rows[:, slot] *= keep.to(torch.float32)[:, None]
    last[:] = torch.where(behind, t, last)


def unit(x: Tensor) -> Tensor:
    """Divide each row by its length; a row of zeros stays as it is."""
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / torch.where(length > 0, length, 1.0)


def drift(t0: Tensor, t: Tensor, tables: Tables, rules: Spec) -> tuple[Tensor, Tensor]:
    """Return how far rows with last update t0 have moved by step t; `nearfar.engine.spec.drift`."""
    end, gap = tables.n_drift - 1, (t - t0).to(torch.float64)
    at0, at = t0.clamp(max=end), t.clamp(max=end)
    weight = tables.drift[0, at0] - torch.exp2(gap * tables.numbers[RHO_1]) * tables.drift[0, at]
    with_eps = tables.drift[1, at0] - torch.exp2(gap * tables.numbers[RHO_2]) * tables.drift[1, at]
    still = (t0 == 0) | (t0 == t)
    moved = torch.where(still, 0.0, rules.learning_rate * weight)
    return moved, torch.where(still, rules.epsilon, rules.epsilon * with_eps / weight)


def replay(x: Tensor, m: Tensor, v: Tensor, t0: Tensor, t: Tensor, rules: Spec) -> Tensor:
    """Move rows from step t0 to t a step at a time; `nearfar.engine.cpu.compute.replay`."""
    x, s, keep1, keep2 = x.clone(), t0.to(torch.float64), 1.0, 1.0
    root = v.sqrt()
    while keep1 > 1e-12:
        s, keep1, keep2 = s + 1, keep1 * rules.beta1, keep2 * rules.beta2
        moving = s <= t
        if not bool(moving.any()):
            break
        unbiased = torch.sqrt(1.0 - rules.beta2**s)
        rate = rules.learning_rate * unbiased / (1.0 - rules.beta1**s) * keep1
        eps = (rules.epsilon * unbiased).to(torch.float32)[:, None]
        way = rate.to(torch.float32)[:, None] * m / (float(keep2**0.5) * root + eps)
        x = torch.where(moving[:, None], clipped(x - way), x)
    return x


def clipped(x: Tensor) -> Tensor:
    """Shorten rows to length 1 if they are longer."""
    squares = (x * x).sum(-1, keepdim=True)
    return torch.where(squares > 1, x / squares.sqrt(), x)
