"""Items whose points a torch module makes of their content, within the steps of a torch device.

A step gathers rows as always; then `encode` replaces the deltas of its items with content by
z = g(x) + m delta (`nearfar.method.hybrid`), and `update` takes the gradients of z to delta and,
through the module, to its weights. Each distinct item of a step is encoded once, or, in chunks,
once without a graph and once more with one.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nearfar.engine.content import has_content, keeps_id
from nearfar.engine.gpu import eager, points
from nearfar.engine.gpu.records import BatchPoints, Flow, StepNow, Tables
from nearfar.engine.item_module import (
    check_finite,
    encode_all,
    forward,
    load_rows,
    tensors_of,
)
from nearfar.engine.problem import Problem, State
from nearfar.engine.spec import DrawSpec, Spec
from nearfar.method.geometry import normalise
from nearfar.runtime.arrays import Float32, Int32, Int64
from nearfar.runtime.counter import Purpose, stream


class ModuleRows:
    """The rows with content of a step, and the module that encodes them.

    Parameters
    ----------
    problem : Problem
        With a `Problem.module`.
    start : State
        Its cache is copied, if there is one.
    tables, rules, draws, device
        Those of the engine.
    """

    def __init__(
        self,
        problem: Problem,
        start: State,
        tables: Tables,
        rules: Spec,
        draws: DrawSpec,
        device: torch.device,
    ) -> None:
        if problem.module is None or problem.content is None:
            raise ValueError("the problem has no module")
        self.problem, self.module, self.content = problem, problem.module, problem.content
        self.tables, self.rules, self.draws, self.device = tables, rules, draws, device
        self.has = torch.from_numpy(has_content(self.content)).to(device)
        self.net = self.module.loaded(tables.rows[problem.n_rows :, 0], device)
        self.cache: Tensor | None = None
        self.cached_at: Int64 | None = None
        """`State.cached_at`."""
        if start.cache is not None and start.cached_at is not None:
            self.cache = torch.from_numpy(start.cache.copy()).to(device)
            self.cached_at = start.cached_at.copy()
        elif len(problem.cached):
            rows = np.array(problem.cached)
            self.cache = torch.from_numpy(self.points(rows, start.step)).to(device)
            self.cached_at = np.full(len(rows), start.step, np.int64)
        self.n_encoded, self.n_refreshed = 0, 0
        """Contents that the steps, and the cache, have had encoded."""
        self._graph: Tensor | None = None

    # -------------------------------------------------------------------------------- a step

    def encode(self, now: StepNow, gathered: BatchPoints) -> None:
        """Replace the points of entries with content by those of z, and their lengths."""
        filled = now.row >= 0
        entry = now.entry[filled].long()
        rows, which = torch.unique_consecutive(now.row[filled].long(), return_inverse=True)
        of_content = self.has[rows]
        if (fresh := self.module.encoder.fresh) is not None:
            asked = torch.zeros_like(of_content)
            asked[which[self._is_fresh(entry, fresh, int(now.step[0]))]] = True
            self._from_cache(rows, of_content & ~asked, which, entry, gathered)
            of_content &= asked
        self._rows = rows[of_content]
        entry = entry[of_content[which]]
        which = (torch.cumsum(of_content, 0) - 1)[which][of_content[which]]
        listed, step = self._rows.cpu().numpy(), int(now.step[0])
        kept = keeps_id(self.content, self.problem.seed, step, listed)
        self._kept = torch.from_numpy(kept).to(self.device)
        delta = gathered.point[entry] * gathered.length[entry][:, None]
        self._own = torch.empty((len(listed), self.rules.dim), device=self.device)
        self._own[which] = delta  # the entries of a row have the same delta
        z = self._encoded(listed, step)[which] + self._kept[which, None] * delta
        length = torch.linalg.vector_norm(z, dim=1)
        length = torch.where(length > 0, length, 1.0)
        gathered.point[entry], gathered.length[entry] = z / length[:, None], length

    def update(self, now: StepNow, gathered: BatchPoints, flow: Flow) -> None:
        """Move each row of the step, and the weights of the module."""
        rules, tables = self.rules, self.tables
        total, start = eager.gradients(now, gathered, rules, self.draws, flow)
        at, e = now.row[start].long(), now.entry[start].long()
        slope, x = eager.through_normalisation(total, gathered, e, rules)
        content = torch.isin(at, self._rows)
        moves = (total != 0).any(1) & ~self.has[at]
        eager.move(at[moves], x[moves], slope[moves], now, rules, tables)
        kept, own = self._kept, self._own
        pulled = slope[content] + float(self.content.decay[1]) * own
        eager.move(self._rows[kept], own[kept], pulled[kept], now, rules, tables)
        self._learn(slope[content], now)

    def _is_fresh(self, entry: Tensor, fresh: int, step: int) -> Tensor:
        """Return which entries are of pairs, or of the shared negatives that have their turn."""
        own, n = self.draws.batch * self.draws.width, self.draws.candidates
        turn = (entry - own - step * fresh) % n
        return (entry < own) | (turn < fresh)

    def _from_cache(
        self, rows: Tensor, stale: Tensor, which: Tensor, entry: Tensor, gathered: BatchPoints
    ) -> None:
        """Put the cached points of `stale` rows into their entries."""
        if self.cache is None:
            raise ValueError("there is no cache")
        some = stale[which]
        gathered.point[entry[some]] = self.cache[rows[which[some]] - self.problem.cached.start]
        gathered.length[entry[some]] = 1.0

    def _encoded(self, listed: Int64, step: int) -> Tensor:
        """Return g(x) of the distinct rows of a step; keep the graph if they are one chunk."""
        self.n_encoded += len(listed)
        self.net.train()
        parts = self._parts(listed)
        if len(parts) == 1:
            self._graph = self._forward(listed, step, 0)
            return self._graph.detach()
        with torch.no_grad():
            found = [self._forward(listed[part], step, part.start) for part in parts]
        return torch.cat([self._own[:0], *found])

    def _parts(self, listed: Int64) -> list[slice]:
        """Cut rows into chunks; none if there are no rows."""
        size = self.module.encoder.chunk or max(1, len(listed))
        return [slice(first, first + size) for first in range(0, len(listed), size)]

    def _learn(self, slopes: Tensor, now: StepNow) -> None:
        """Move the weights by the gradients of g of the rows of the step."""
        self.net.zero_grad(set_to_none=True)
        listed, step = self._rows.cpu().numpy(), int(now.step[0])
        for part in self._parts(listed):
            graph = self._graph
            _backward(
                self._forward(listed[part], step, part.start) if graph is None else graph,
                slopes[part],
            )
        self._graph = None
        n, rows = self.problem.n_rows, self.tables.rows
        pace = now.pace.clone()
        pace[0] *= self.module.encoder.learning_rate / self.rules.learning_rate
        at = torch.arange(n, len(rows), device=self.device)
        eager.move(at, rows[n:, 0], self._gradient(), now._replace(pace=pace), self.rules,
                   self.tables)  # fmt: skip
        load_rows(list(self.net.parameters()), rows[n:, 0])
        rows[n:, 0] = self.module.as_rows(
            tensors_of(self.net), self.device
        )  # buffers may have changed too

    def _gradient(self) -> Tensor:
        """Return the gradient by the weights, with their decay, as rows (F, d)."""
        decay = self.module.encoder.decay
        return self.module.as_rows(
            [
                torch.zeros_like(one) if one.grad is None else one.grad + decay * one.detach()
                for one in self.net.parameters()
            ],
            self.device,
        )

    def _forward(self, listed: Int64, step: int, first: int) -> Tensor:
        """Return g(x) of rows with content; what it draws depends on the step and the place."""
        module, rows = self.module, self._places(listed)
        seed = int(stream(self.problem.seed, Purpose.MODULE, step) >> np.uint64(1)) ^ first
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            found = forward(self.net, module.contents, rows, module.encoder, module.dim)
        check_finite(found, module.contents, rows, module.encoder)
        return found

    def _places(self, listed: Int64) -> Int32:
        """Return the rows of the contents of joint rows."""
        return self.module.places[listed - self.problem.n_users]

    # ---------------------------------------------------------------- the second stage's cache

    def refresh(self, step: int) -> None:
        """Encode the next slice of the cache; see `nearfar.engine.Problem.refreshed`."""
        rows = np.array(self.problem.refreshed(step), np.int64)
        if self.cache is None or self.cached_at is None or not len(rows):
            return
        first = self.problem.cached.start
        found = torch.from_numpy(self.points(rows, step)).to(self.device)
        part = slice(rows[0] - first, rows[-1] + 1 - first)
        self.cache[part], self.cached_at[part] = found, step
        self.n_refreshed += int(has_content(self.content)[rows].sum())

    def look_up(self, looked: Tensor, units: Tensor) -> None:
        """Replace unit vectors of rows `looked` by the cached points, where there is content."""
        if self.cache is None:
            return
        some = self.has[looked.clamp(min=0)] & (looked >= 0)
        units[some] = self.cache[looked[some] - self.problem.cached.start]

    # --------------------------------------------------------------------- the whole model

    def vectors(self, rows: Tensor, step: int) -> Tensor:
        """Return the vectors of `nearfar.engine.Engine.tables` of rows, after `step` steps."""
        t = torch.tensor(step, device=self.device)
        x = points.current(rows, t, self.tables, self.rules)
        plain = rows < self.problem.n_rows
        plain[plain.clone()] = ~self.has[rows[plain]]
        return torch.where(plain[:, None], points.unit(x), x)

    def points(self, rows: Int64, step: int, mean: Tensor | None = None) -> Float32:
        """Return the points of joint rows after `step` steps, (n, d), by the mean if there is one.

        As in evaluation: m is 1, and the module draws nothing.
        """
        there, n = torch.from_numpy(rows).to(self.device), self.problem.n_rows
        own = self.vectors(there, step) if mean is None else mean[there]
        found: Float32 = own.cpu().numpy().copy()
        some, module = has_content(self.content)[rows], self.module
        net = self.net if mean is None else module.loaded(mean[n:], self.device)
        places = self._places(rows[some])
        found[some] += encode_all(net, module.contents, places, module.encoder, module.dim)
        return normalise(found)


def _backward(points: Tensor, slopes: Tensor) -> None:
    """Add the gradients of a module's weights; a module without trainable weights has none."""
    if points.requires_grad:
        points.backward(slopes)  # type: ignore[no-untyped-call]
