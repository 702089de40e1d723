"""Training steps on several processes; see `nearfar.engine.cluster`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from nearfar.engine.cluster.comparison import compare, make_comparisons, with_copies
from nearfar.engine.cluster.content_read import make_slices
from nearfar.engine.cluster.owner import Service, make_decay, move, serve
from nearfar.engine.cluster.part_plan import (
    make_part_plans,
    make_part_sketch,
    most_wanted,
    plan_parts,
)
from nearfar.engine.cluster.part_points import PartPoints
from nearfar.engine.cluster.part_steps import PartStep, part_steps
from nearfar.engine.cluster.process_group import Group
from nearfar.engine.cluster.shards import make_shards, rows_of_rank
from nearfar.engine.cluster.whole_table import whole_rows
from nearfar.engine.cpu.buffers import make_learner, steps_ahead
from nearfar.engine.cpu.plan_records import PairRange
from nearfar.engine.cpu.rows import make_gathered
from nearfar.engine.cpu.team import make_team
from nearfar.engine.problem import LOG_FIELDS, Problem, State, StepLog, chosen_rows
from nearfar.errors import OptionError
from nearfar.runtime.arrays import Float32, Float64, Floats, Int64
from nearfar.runtime.threads import interrupt_deferred, one_blas_thread

AHEAD = 16
"""Steps that are planned at a time, by several ranks."""


class ClusterEngine:
    """Training steps on several processes, each with its part of the tables.

    Every rank makes the same calls in the same order: `run`, `points`, `finish` and `state` are
    collective.

    Parameters
    ----------
    problem : Problem
    state : State, optional
        The whole tables to continue from, of which each rank takes its rows; from the start if
        None. In float64 the arithmetic is float64.
    group : Group
    threads : int
        How many threads of each process work on a step.
    """

    def __init__(
        self, problem: Problem, state: State | None = None, *, group: Group, threads: int = 1
    ) -> None:
        check_supported(problem)
        self.problem, self.group, self._threads = problem, group, threads
        self.shards = make_shards(problem, group.size)
        self.table_rows = rows_of_rank(self.shards, group.rank)
        """The joint rows of this rank's table, in its order."""
        n_points = np.count_nonzero(self.table_rows < problem.n_rows)
        self.own_rows = self.table_rows[:n_points]
        """Those of users and items, which come first."""
        self.own = _part_of(problem, state, self.table_rows)
        """The state of this rank's rows."""
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="nearfar")
        self._dtype = self.own.rows.dtype
        n, part = len(self.table_rows), self.shards.pairs[group.rank : group.rank + 2].tolist()
        last = np.zeros(n + most_wanted(problem), np.int64)
        last[:n] = self.own.last
        self.own.last = last[:n]
        self._learner = make_learner(problem, self.own)
        self._points = PartPoints(
            problem, group, self.shards, self.own, self.table_rows, self._learner
        )
        if problem.needs_cache(self.own):
            self._points.start_cache()
        self._decay = make_decay(problem.content, self.table_rows)
        self._slices = make_slices(problem)
        self._runs = make_comparisons(
            problem, self.own, self._learner, last, threads, PairRange(*part)
        )
        # one rank has no collectives to save, so it plans as few as stay in the cache
        self._ahead = AHEAD if group.size > 1 else min(AHEAD, steps_ahead(problem))
        self._planned = make_part_plans(self._ahead, problem, group.size)
        self._sketches = [make_part_sketch(problem) for _ in range(threads)]
        self._now = make_gathered(0, problem.options.dim, self._dtype)
        self._sent = self._copies = self._now.current
        self._steps: dict[int, PartStep] = {}

    @property
    def step(self) -> int:
        """Steps done."""
        return self.own.step

    @property
    def state(self) -> State:
        """The whole tables, on every rank: a copy that is as large as they are."""
        own, n = self.own, self.problem.n_table_rows
        last = self.whole(own.last[:, None])[:, 0]
        rows = self.whole(own.rows.reshape(len(own.rows), -1)).reshape(n, *own.rows.shape[1:])
        mean = None if own.mean is None else self.whole(own.mean)
        return State(rows, last, own.step, mean, own.cache, own.cached_at)

    def run(self, count: int) -> StepLog:
        """Do the next `count` steps; see `Engine.run`."""
        first, log = self.own.step, np.zeros((count, len(LOG_FIELDS)))
        with one_blas_thread(), interrupt_deferred():
            for i in range(count):
                if first + i not in self._steps:
                    self._plan(first + i)
                self._do(first + i, self._steps.pop(first + i), log[i])
                self.own.step = first + i + 1
            if count > 0:
                log = self.group.total(log)
        return {name: log[:, i] for i, name in enumerate(LOG_FIELDS)}

    def _plan(self, first: int) -> None:
        """Plan the next steps, all ranks together."""
        source, threads = self._runs[0].source, self._threads
        ends = [self._ahead * i // threads for i in range(threads + 1)]
        self._together(
            lambda i: plan_parts(
                first, ends[i], ends[i + 1], source, self.shards, self._slices, self._planned,
                self._sketches[i],
            )
        )  # fmt: skip
        planned = part_steps(self.group, self._planned, self._ahead, len(self.table_rows))
        self._steps = {first + p: one for p, one in enumerate(planned)}
        self._make_room(planned)

    def _make_room(self, planned: list[PartStep]) -> None:
        """Make room for what the steps send and get."""
        dim = self.problem.options.dim
        rows = max(len(one.order.listed) for one in planned)
        if rows > len(self._now.current):
            self._now = make_gathered(rows, dim, self._dtype)
        rows = max(len(one.order.slot) for one in planned)
        if rows > len(self._sent):
            self._sent = np.empty((rows, dim), self._dtype)
        rows = max(int(one.expected.sum()) for one in planned)
        if rows > len(self._copies):
            self._copies = np.empty((rows, dim), self._dtype)

    def _do(self, t: int, step: PartStep, log: Float64) -> None:
        """Do a planned step: rows out, slopes back."""
        sent, copies = self._sent[: step.counts.sum()], self._copies[: step.expected.sum()]
        service = Service(t, step.order, self._learner, self._now, sent, self._decay)
        if len(sent) > 0:
            team = make_team()
            self._together(lambda _: serve(team, service))
        self.group.exchange(sent, step.counts, step.expected, copies)
        runs = [with_copies(run, copies, step.home) for run in self._runs]
        again = make_team()
        self._together(lambda i: compare(again, runs[i], t, step.plan, log))
        self.group.exchange(copies, step.expected, step.counts, sent)
        if len(sent) > 0:
            last = make_team()
            self._together(lambda i: move(last, service, runs[i].desk.moved))

    def settle(self) -> None:
        """Bring every row up to date; see `Engine.settle`."""
        if not self.problem.options.optimiser.drifts:
            return
        n = len(self.table_rows)
        bounds = [n * i // self._threads for i in range(self._threads + 1)]
        nowhere = np.empty((0, self.problem.options.dim), self._dtype)
        self._together(lambda i: self._points.bring(np.arange(bounds[i], bounds[i + 1]), nowhere))

    def average(self, weight: float) -> None:
        """Update the mean of the own rows; see `Engine.average`."""
        self.own.average(weight, self._points.now)

    def points(self, rows: Int64 | None = None, out: Float32 | None = None) -> Float32:
        """Return the current points, on every rank; see `Engine.points`.

        All ranks ask for the same rows.
        """
        listed = np.arange(self.problem.n_rows) if rows is None else rows
        if out is None:
            out = np.empty((len(listed), self.problem.options.dim), np.float32)
        self._points.whole(listed, out)
        if self.problem.content is not None:
            out[:] = self._points.encoded(listed, out)
        return out

    def own_points(self, out: Float32 | None = None) -> Float32:
        """Return the points of the rank's users and items; see `Collective.own_points`."""
        if self.problem.content is None:
            return self.own_tables(out)
        vectors = self._points.own(len(self.own_rows), None)
        return chosen_rows(self._points.encoded(self.own_rows, vectors), None, out)

    def own_tables(self, out: Float32 | None = None) -> Float32:
        """Return the model's rows of the rank's table; see `Collective.own_tables`."""
        return self._points.own(len(self.table_rows), out)

    def own_encoded(self, tables: Float32) -> Float32:
        """Return the points of what `own_tables` has returned; see `Collective.own_encoded`."""
        if self.problem.content is None:
            return tables
        n = len(self.own_rows)
        columns = self.whole(tables)[self.problem.n_rows :]
        return self._points.encoded(self.own_rows, tables[:n], columns)

    def points_exactly(self) -> Floats:
        """Return all rows of the model in the type of the arithmetic."""
        shape = self.problem.n_table_rows, self.problem.options.dim
        found: Floats = self._points.whole(None, np.empty(shape, self._dtype))
        return found

    def whole(self, table: Any) -> Any:
        """Return all rows, of which `table` has the rank's; see `Collective.whole`."""
        out = np.empty((self.problem.n_table_rows, *table.shape[1:]), table.dtype)
        return whole_rows(self.group, self.shards, table.__getitem__, None, out)

    def tables(self, out: Float32 | None = None) -> Float32:
        """Return all rows of the model, on every rank; see `Engine.tables`."""
        if out is None:
            shape = self.problem.n_table_rows, self.problem.options.dim
            out = np.empty(shape, np.float32)
        found: Float32 = self._points.whole(None, out)
        return found

    def finish(self) -> Float32:
        """Return all points and release the tables; see `Engine.finish`."""
        found = self.points()
        self.close()
        return found

    def close(self) -> None:
        """Release the threads."""
        self._pool.shutdown()

    @property
    def rank(self) -> int:
        """The number of this process."""
        return self.group.rank

    def agreed(self, values: Float64) -> Float64:
        """Return the numbers of rank 0, on every rank."""
        return self.group.total(values if self.group.rank == 0 else np.zeros_like(values))

    def summed(self, values: Float64) -> Float64:
        """Return the sums over the ranks, on every rank."""
        return self.group.total(values)

    def _together(self, work: Any) -> None:
        """Run ``work(i)`` for each thread i; they wait for each other, so all must start."""
        if self._threads == 1:
            work(0)
            return
        with interrupt_deferred():
            for future in [self._pool.submit(work, i) for i in range(self._threads)]:
                future.result()


def check_supported(problem: Problem) -> None:
    """Raise if the cluster has no steps for the options.

    Raises
    ------
    OptionError
        A module of your own encodes the items, or a loss ties all pairs of a batch together.
    """
    options = problem.options
    if problem.module is not None:
        raise OptionError(
            "a hybrid with a `Module` does not train on a cluster; got device='cluster'. Use"
            " Hybrid(Linear()), or device='cpu' or a GPU."
        )
    for name in ("spread_out", "decorrelate"):
        if getattr(options, name) is not None:
            raise OptionError(
                f"`{name}` ties all pairs of a batch together, which a cluster does not compute;"
                f" got {name}={getattr(options, name)!r} with device='cluster'. Use {name}=None, or"
                f" device='cpu'."
            )


def _part_of(problem: Problem, state: State | None, rows: Int64) -> State:
    """Return the state of some rows."""
    if state is None:
        return problem.initial_state(rows)
    mean = None if state.mean is None else state.mean[rows]
    cache = None if state.cache is None else state.cache.copy()
    at = None if state.cached_at is None else state.cached_at.copy()
    return State(state.rows[rows], state.last[rows], state.step, mean, cache, at)
