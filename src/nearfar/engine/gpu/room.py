"""Room for the numbers of a step, allocated once, and for what the steps of a plan write down."""

from __future__ import annotations

import torch
from torch import Tensor

from nearfar.engine.gpu.device_plan import StepPlans
from nearfar.engine.gpu.records import BatchPoints, Flow, Log, StepNow
from nearfar.engine.spec import DrawSpec, Spec


class DeviceRoom:
    """Room for the numbers of a step, and for what S steps write down."""

    def __init__(self, n_steps: int, draws: DrawSpec, rules: Spec, device: torch.device) -> None:
        def room(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        b, n, c, d, e = draws.batch, draws.negatives, draws.candidates, rules.dim, draws.places
        spreads, wide = rules.spread_out > 0, torch.float64
        self.pace = room(n_steps, 4)
        self.points = BatchPoints(room(e, d), room(e), room(e))
        self.units = BatchPoints(*(room(*(b + c, d)[:k]) for k in (2, 1, 1)))
        self.first = room(n_steps, b * n if draws.distinct else 0, dtype=torch.int64)
        self.flow = Flow(
            weight=torch.ones(e, device=device),
            side=room(4 * b if spreads else 2 * b + c * draws.shared, d),
            products=room(b, c),
            share=room(c),
            slope=room(b * spreads, n),
            moments=room(b, 3, dtype=wide),
            totals=room(3, dtype=wide),
            extra=room(e * (rules.decorrelate > 0), d),
        )
        self.loss = room(n_steps, b, dtype=wide)
        self.violated = room(n_steps, b, dtype=torch.bool)
        self.spread_loss = room(n_steps, dtype=wide)
        self.covariance_loss = room(n_steps, dtype=wide)

    def now(self, made: StepPlans, p: int) -> StepNow:
        """Return step p of a plan."""
        return StepNow(
            made.step[p], self.pace[p], made.entries[p], made.row[p], made.entry[p],
            made.candidates[p], made.mine[p], made.missed[p],
        )  # fmt: skip

    def log(self, p: int) -> Log:
        """Return where step p writes down its pairs."""
        return Log(self.loss[p], self.violated[p])

    def write_log(self, made: StepPlans, n: int, out: Tensor) -> None:
        """Write the entries of LOG_FIELDS of the first n steps, in their order, to `out`."""
        out[:, 0] = self.loss[:n].sum(1)
        out[:, 1] = self.spread_loss[:n]
        out[:, 2] = self.covariance_loss[:n]
        out[:, 3] = (made.entries[:n, :, 0] >= 0).sum(1)
        out[:, 4] = self.violated[:n].sum(1)
        out[:, 5] = made.missed[:n].sum(1)
