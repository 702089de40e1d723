"""`GPUEngine`: runs of steps on a torch device, without a round trip to the host.

S steps are planned at a time, with all their integers in parallel; then their arithmetic runs step
by step. On a GPU the latter is a CUDA graph of S steps that is captured once and replayed. A plan
for fewer steps leaves the others empty: a step without pairs changes nothing.

The same seed gives the same bits: the gradient of a row is summed in the order of the batch by one
program, and so is every entry of a matrix product. With `fast` the factors of products are rounded
to TF32, ten bits of mantissa instead of 23. This is the only difference, and it affects only
`Shared`, `TwoStage` and `Decorrelate`, which use products.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nearfar.engine.gpu import device_plan, device_spec, eager, points, words
from nearfar.engine.gpu.memory import check_room, steps_at_once
from nearfar.engine.gpu.module_rows import ModuleRows
from nearfar.engine.gpu.parts import EAGER, Parts, parts_for
from nearfar.engine.gpu.records import StepNow, Tables
from nearfar.engine.gpu.room import DeviceRoom
from nearfar.engine.problem import LOG_FIELDS, Problem, State, StepLog
from nearfar.engine.spec import make_spec
from nearfar.method.proposal import SPARE
from nearfar.runtime.arrays import Float32, Int64

_ROWS_AT_ONCE = 65_536
_SHORTER = 8
"""The second captured graph has this many times fewer steps."""


class GPUEngine:
    """Training steps on a torch device.

    Parameters
    ----------
    problem : Problem
    state : State, optional
        The state to continue from; the initial state if None. It is copied to the device.
    device : torch.device or str
        Any torch device with float64: "cuda", "cuda:1", "cpu".
    fast : bool
        Round the factors of matrix products to TF32 (only on a GPU).
    parts : Parts, optional
        The implementations that steps use; the fastest on the device if None. With a module
        (`Problem.module`) they are those in plain PyTorch.
    threads : int, optional
        Threads of PyTorch on the processor; its own number if None.

    Raises
    ------
    OptionError
        The tables do not fit into the device's memory.
    """

    def __init__(
        self,
        problem: Problem,
        state: State | None = None,
        *,
        device: torch.device | str = "cuda",
        fast: bool = False,
        parts: Parts | None = None,
        threads: int | None = None,
    ) -> None:
        self.problem, self.fast, self.threads = problem, fast, threads
        self.device = torch.device(device)
        self._rules, self._draws = make_spec(problem), device_plan.make_draws(problem)
        check_room(problem, self._draws, self.device)
        start = problem.initial_state() if state is None else state
        self.step = start.step
        rows, last = self._put(start.rows, torch.float32), self._put(start.last, torch.int64)
        decay = device_spec.make_decay(problem, self.device)
        self._tables = Tables(rows, last, *decay, decay.drift.shape[1])
        self._mean = None if start.mean is None else self._put(start.mean, torch.float32)
        self._data = device_plan.make_data(problem, self.device)
        self._parts = parts_for(self.device, self._draws) if parts is None else parts
        self.modules = self._module_rows(start)
        self._frozen = self._frozen_rows()
        self._n_steps = 1  # a module's step is long, and runs are cut between them
        if problem.module is None:
            self._n_steps = steps_at_once(self._draws, self.device)
        self._plan = device_plan.make_plan(self._n_steps, self._draws, self.device)
        self._room = DeviceRoom(self._n_steps, self._draws, self._rules, self.device)
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._branched = False
        if self._parts.captured:
            self._side = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    # ---------------------------------------------------------------------------- contract

    @property
    def state(self) -> State:
        """A copy of the tables on the host; see `Engine.state`."""
        rows, last = (table.to("cpu", copy=True).numpy() for table in self._tables[:2])
        mean = None if self._mean is None else self._mean.to("cpu", copy=True).numpy()
        state = State(rows, last, self.step, mean)
        modules = self.modules
        if modules is not None and modules.cache is not None and modules.cached_at is not None:
            state.cache = modules.cache.to("cpu", copy=True).numpy()
            state.cached_at = modules.cached_at.copy()
        return state

    def run(self, count: int) -> StepLog:
        """Run the next `count` steps; see `Engine.run`."""
        log = torch.zeros((count, len(LOG_FIELDS)), dtype=torch.float64, device=self.device)
        on_gpu = self.device.type == "cuda"  # kernels are launched on the current GPU
        with torch.cuda.device(self.device) if on_gpu else self._on_threads():
            for begin in range(0, count, self._n_steps):
                n = min(self._n_steps, count - begin)
                self._draw(self.step + begin, n)
                self._compute(n)
                self._room.write_log(self._plan, n, log[begin : begin + n])
        self.step += count
        values = log.cpu().numpy()
        return {name: values[:, i] for i, name in enumerate(LOG_FIELDS)}

    def settle(self) -> None:
        """Bring every row up to date; see `Engine.settle`."""
        if not self._rules.drifts:
            return
        t = torch.tensor(self.step, device=self.device)
        for first in range(0, self.problem.n_rows, _ROWS_AT_ONCE):
            part = slice(first, first + _ROWS_AT_ONCE)
            points.settle(part, t, self._tables, self._rules)

    def average(self, weight: float) -> None:
        """Update the mean with the current points; see `Engine.average`."""
        shape = (self.problem.n_table_rows, self._rules.dim)
        if self._mean is None:
            self._mean = torch.zeros(shape, dtype=torch.float32, device=self.device)
        for first in range(0, len(self._mean), _ROWS_AT_ONCE):
            mean = self._mean[first : first + _ROWS_AT_ONCE]
            rows = torch.arange(first, first + len(mean), device=self.device)
            mean += float(np.float32(weight)) * (self._now(rows) - mean)

    def points(
        self,
        rows: Int64 | None = None,
        out: Float32 | None = None,
    ) -> Float32:
        """Return points on the host; see `Engine.points`."""
        n = self.problem.n_rows if rows is None else len(rows)
        found = np.empty((n, self._rules.dim), np.float32) if out is None else out
        with self._on_threads():
            for first in range(0, n, _ROWS_AT_ONCE):
                last = min(first + _ROWS_AT_ONCE, n)
                some = np.arange(first, last) if rows is None else rows[first:last]
                there = self._model(torch.tensor(some, device=self.device))
                torch.from_numpy(found[first:last]).copy_(there)
        return found

    def tables(self, out: Float32 | None = None) -> Float32:
        """Return the vectors of all rows of the tables on the host; see `Engine.tables`."""
        n = self.problem.n_table_rows
        found = np.empty((n, self._rules.dim), np.float32) if out is None else out
        there = torch.arange(n, device=self.device)
        now = self._now(there) if self._mean is None else self._mean
        torch.from_numpy(found).copy_(now)
        return found

    def points_on_device(self) -> Tensor:
        """Return a copy of all points (N + M, d), float32, on the device."""
        out = torch.empty((self.problem.n_rows, self._rules.dim), device=self.device)
        for first in range(0, len(out), _ROWS_AT_ONCE):
            part = out[first : first + _ROWS_AT_ONCE]
            part.copy_(self._model(torch.arange(first, first + len(part), device=self.device)))
        return out

    def finish(self) -> Float32:
        """Return all points and release the captured graphs."""
        found = self.points()
        self.close()
        return found

    def close(self) -> None:
        """Release the captured graphs, which hold memory of the device."""
        self._graphs.clear()

    # ------------------------------------------------------------------------------ parts

    def _put(self, array: npt.NDArray[Any], dtype: torch.dtype) -> Tensor:
        """Copy an array to the device, without an intermediate copy."""
        writable = np.require(array, requirements=("C", "W"))  # PyTorch warns about others
        return torch.from_numpy(writable).to(self.device, dtype, copy=True)

    def _frozen_rows(self) -> Tensor | None:
        frozen = self.problem.frozen()
        return None if frozen is None else self._put(frozen, torch.float32)

    def _module_rows(self, start: State) -> ModuleRows | None:
        if self.problem.module is None:
            return None
        self._parts = EAGER
        return ModuleRows(self.problem, start, self._tables, self._rules, self._draws, self.device)

    @contextmanager
    def _on_threads(self) -> Iterator[None]:
        """Compute on the engine's own number of threads, if it has one."""
        before = torch.get_num_threads()
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _now(self, rows: Tensor) -> Tensor:
        """Return the current points of rows in the tables, or what a module's rows hold instead."""
        if self.modules is not None:
            return self.modules.vectors(rows, self.step)
        t = torch.tensor(self.step, device=self.device)
        x = points.current(rows, t, self._tables, self._rules)
        return points.unit(x) if self._rules.sphere else x

    def _model(self, rows: Tensor) -> Tensor:
        """Return the points of the model: those of the mean, if there is one."""
        if self.modules is not None:
            found = self.modules.points(rows.cpu().numpy(), self.step, self._mean)
            return torch.from_numpy(found).to(self.device)
        if self._mean is None:
            return self._now(rows)
        return points.unit(self._mean[rows]) if self._rules.sphere else self._mean[rows]

    def _draw(self, first: int, n: int) -> None:
        """Plan steps first ... first + n - 1; the rest of the plan is empty."""
        made = self._plan
        made.step[:, 0] = torch.arange(first, first + self._n_steps, device=self.device)
        self._room.pace[:] = device_spec.pace(made.step[:, 0], self._rules)
        self._parts.draw_pairs(made, n, self._data, self._draws)
        different = self._draw_different(n)
        self._arrange(n)
        if different is not None and device_plan.complete(different, self._data):
            self._arrange(n)

    def _draw_different(self, n: int) -> device_plan.Different | None:
        """Draw the distinct items of a step: candidates, or first attempts at negatives."""
        made, draws, support = self._plan, self._draws, self._data.support
        if not draws.distinct:
            return None
        if draws.candidates:
            out, base = made.candidates, draws.candidate
            if draws.candidates == len(support):
                out[:] = support
                return None
            counts = torch.full((len(out),), draws.candidates, device=self.device)
            counts[n:] = 0
        else:
            out, base = self._room.first, draws.negative
            counts = (made.entries[:, :, 0] >= 0).sum(1) * draws.negatives
            counts[counts == len(support)] = 0  # all items are used instead, see `_arrange`
        shape = (len(out), SPARE * out.shape[1])
        tried = torch.empty(shape, dtype=torch.int64, device=self.device)
        self._parts.draw_items(made.step, base, self._data, tried)
        key = words.stream(base, made.step[:, 0])
        return device_plan.distinct(tried, key, counts, out)

    def _arrange(self, n: int) -> None:
        """Complete the plan from its pairs and distinct items."""
        made, data, draws, parts = self._plan, self._data, self._draws, self._parts
        batch, own, support = draws.batch, draws.batch * draws.width, data.support
        if draws.candidates:
            if not draws.distinct:
                parts.draw_items(made.step, draws.candidate, data, made.candidates)
            if draws.shared:
                made.candidates[n:] = -1
            parts.find_mine(made, data)
        if draws.two_stage:
            made.looked[:, :batch] = made.entries[:, :, 0 if self._rules.towards_user else 1]
            made.looked[:, batch:] = made.candidates + data.n_users
            return
        if not draws.shared:
            first = self._room.first if draws.distinct else None
            if first is not None and first.shape[1] == len(support):
                full = (made.entries[:, :, 0] >= 0).all(1, keepdim=True)
                first[:] = torch.where(full, support, first)
            parts.draw_negatives(made, first, data, draws)
        made.listed[:, :own] = made.entries.view(self._n_steps, -1)
        if draws.shared:
            shared = torch.where(made.candidates >= 0, made.candidates + data.n_users, -1)
            made.listed[:, own:] = shared
        parts.order_rows(made.listed, made.row, made.entry)

    # -------------------------------------------------------------------------- arithmetic

    def _compute(self, n: int) -> None:
        """Run the n planned steps, with a captured graph of at least as many, or one by one."""
        shorter = max(1, self._n_steps // _SHORTER)
        if not self._parts.captured:
            with self._precision():
                for p in range(n):
                    self._step(p)
            return
        length = shorter if n <= shorter else self._n_steps
        if length not in self._graphs:
            self._capture(length, n)
        self._graphs[length].replay()

    def _capture(self, length: int, n: int) -> None:
        """Capture steps 0 ... length - 1 of the plan, after empty steps that compile kernels."""
        first = int(self._plan.step[0, 0])
        self._draw(first, 0)
        with self._precision():
            stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(stream):
                for p in range(min(2, length)):  # two steps, for both alignments of addresses
                    self._step(p)
            torch.cuda.current_stream(self.device).wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                for p in range(length):
                    self._step(p)
        self._graphs[length] = graph
        self._draw(first, n)

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Run kernels launched here in parallel with later ones until `_join`: a graph branch."""
        if not self._parts.captured:
            yield
            return
        self._branched = True
        self._side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._side):
            yield

    def _join(self) -> None:
        if self._branched:
            self._branched = False
            torch.cuda.current_stream(self.device).wait_stream(self._side)

    @contextmanager
    def _precision(self) -> Iterator[None]:
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = self.fast
        try:
            yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before

    def _step(self, p: int) -> None:
        """Compute step p of the plan: gather points, compare, update."""
        room, rules, draws, parts = self._room, self._rules, self._draws, self._parts
        gathered, flow, now = room.points, room.flow, room.now(self._plan, p)
        listed, modules = self._plan.listed[p], self.modules
        if modules is not None:
            modules.refresh(int(now.step[0]))
        if draws.two_stage:
            self._second_stage(now, self._plan.looked[p])
            listed = now.entries.view(-1)
            with self._aside():
                parts.order_rows(listed, now.row, now.entry)
        parts.gather(listed, now.step, self._tables, rules, False, gathered)
        if modules is not None:
            modules.encode(now, gathered)
        if draws.shared:
            self._contrast_shared(p)
        else:
            parts.compare(now.entries, gathered, rules, draws, flow, room.log(p))
        if rules.spread_out > 0:
            parts.spread_slopes(rules, flow)
            parts.spread(now.entries, gathered, flow)
            room.spread_loss[p] = flow.totals[2]
        self._join()
        if rules.decorrelate > 0:
            room.covariance_loss[p] = eager.decorrelate(now, gathered, rules, flow.extra)
        if modules is None:
            parts.update(now, gathered, rules, draws, flow, self._tables)
        else:
            modules.update(now, gathered, flow)

    def _contrast_shared(self, p: int) -> None:
        """Compare all pairs with their shared negatives, by three matrix products."""
        made, room, rules, draws = self._plan, self._room, self._rules, self._draws
        batch, flow, s = draws.batch, room.flow, room.flow.products
        pairs = room.points.point[: 2 * batch].view(batch, 2, -1)
        users, shared = pairs[:, 0], room.points.point[2 * batch :]
        multiply = self._parts.multiply
        multiply(users, shared.T, s, False, self.fast)
        self._parts.weigh(made.mine[p], room.points, rules, draws, flow, room.log(p))
        with self._aside():
            multiply(s.T, users, flow.side[2 * batch :], False, self.fast)
        multiply(s, shared, flow.side[:batch], True, self.fast)
        if not rules.sphere:
            torch.sum(s, 0, out=flow.share)

    def _second_stage(self, now: StepNow, looked: Tensor) -> None:
        """Choose the negatives of a step in stage 2, by the current or the initial vectors."""
        room, rules, draws = self._room, self._rules, self._draws
        unit, products, batch = room.units.point, room.flow.products, draws.batch
        if self._frozen is not None:
            left_out = self.problem.n_rows - len(self._frozen)
            torch.index_select(self._frozen, 0, (looked - left_out).clamp(min=0), out=unit)
        else:
            self._parts.gather(looked, now.step, self._tables, rules, True, room.units)
            if self.modules is not None:
                self.modules.look_up(looked, unit)
        self._parts.multiply(unit[:batch], unit[batch:].T, products, False, self.fast)
        self._parts.choose(now, products, self._data, rules, draws)
