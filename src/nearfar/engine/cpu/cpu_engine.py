"""Training steps on the processor: compiled kernels, float32, any number of threads.

The result does not depend on the number of threads, bit for bit: every row is gathered, collected
and updated by one thread in a fixed order, every sum over the batch is taken in the order of the
batch, and what a thread claims decides only who computes, never what. (Another processor or
another version of the compiler may round differently.)
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from nearfar.engine.content import is_plain
from nearfar.engine.cpu.buffers import make_learner, make_plans, make_runs, steps_ahead
from nearfar.engine.cpu.rows import ROWS_AT_ONCE, Learner, bring_up_to_date, make_gathered
from nearfar.engine.cpu.steps import run_steps
from nearfar.engine.cpu.team import make_team
from nearfar.engine.problem import LOG_FIELDS, Problem, State, StepLog, chosen_rows
from nearfar.engine.spec import FREE
from nearfar.method.geometry import normalise
from nearfar.runtime.arrays import Float32, Int64
from nearfar.runtime.threads import interrupt_deferred, one_blas_thread

_ROWS_A_PART = 4096


class CPUEngine:
    """Training steps on the processor.

    Parameters
    ----------
    problem : Problem
    state : State, optional
        Where to go on; from the start if None. It is used in place.
    threads : int
        How many threads work on a step.
    """

    def __init__(self, problem: Problem, state: State | None = None, *, threads: int = 1) -> None:
        self.problem = problem
        self.state = problem.initial_state() if state is None else state
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="nearfar")
        self._learner = make_learner(problem, self.state)
        if problem.needs_cache(self.state):
            problem.start_cache(self.state, self._vectors(np.arange(problem.n_table_rows)))
        self._runs = make_runs(problem, self._learner, threads, self.state)
        n_ahead = steps_ahead(problem)
        self._plans = make_plans(-(-n_ahead // threads) * threads, problem)

    @property
    def step(self) -> int:
        """Steps done."""
        return self.state.step

    def run(self, count: int) -> StepLog:
        """Do the next `count` steps; see `Engine.run`."""
        first, team = self.state.step, make_team()
        log = np.zeros((count, len(LOG_FIELDS)))
        with one_blas_thread(), interrupt_deferred():
            self._together(lambda i: run_steps(team, first, count, self._runs[i], self._plans, log))
            self.state.step = first + count
        return {name: log[:, i] for i, name in enumerate(LOG_FIELDS)}

    def settle(self) -> None:
        """Bring every row up to date; see `Engine.settle`."""
        if not self.problem.options.optimiser.drifts:
            return
        bounds = self._shares()
        nowhere = np.empty((0, self.problem.options.dim), np.float32)
        self._together(lambda i: self._bring(np.arange(bounds[i], bounds[i + 1]), nowhere))

    def average(self, weight: float) -> None:
        """Update the mean with the current points; see `Engine.average`."""
        self.state.average(weight, self._now if self.problem.content is None else self._vectors)

    def tables(self, out: Float32 | None = None) -> Float32:
        """Return the vectors of all rows of the tables; see `Engine.tables`."""
        if self.state.mean is None:
            return chosen_rows(self._vectors(np.arange(self.problem.n_table_rows)), None, out)
        return chosen_rows(self.state.mean, None, out)

    def points(
        self,
        rows: Int64 | None = None,
        out: Float32 | None = None,
    ) -> Float32:
        """Return the current points; see `Engine.points`."""
        if self.problem.content is not None:
            return chosen_rows(self.problem.encoded(self.tables(), rows), None, out)
        if self.state.mean is None:
            return self._now(rows, out)
        return self.state.mean_points(rows, out, self.problem.options.geometry == "sphere")

    def _now(
        self,
        rows: Int64 | None = None,
        out: Float32 | None = None,
    ) -> Float32:
        """Return the points of the tables. Without `rows`, all threads work."""
        n = self.problem.n_rows if rows is None else len(rows)
        if out is None:
            out = np.empty((n, self.problem.options.dim), np.float32)
        if rows is not None:
            self._bring(rows, out)
            return out
        listed, bounds = np.arange(n), self._shares()
        parts = [slice(bounds[i], bounds[i + 1]) for i in range(self._threads)]
        self._together(lambda i: self._bring(listed[parts[i]], out[parts[i]]))
        return out

    def _vectors(self, rows: Int64) -> Float32:
        """Return rows of the tables with content: delta and w as they are, others at length 1."""
        out = np.empty((len(rows), self.problem.options.dim), np.float32)
        self._bring(rows, out, self._learner._replace(geometry=FREE))
        assert self.problem.content is not None
        plain = np.flatnonzero(is_plain(self.problem.content, rows))
        out[plain] = normalise(out[plain])
        return out

    def _bring(self, listed: Int64, out: Float32, learner: Learner | None = None) -> None:
        room = make_gathered(ROWS_AT_ONCE, self.problem.options.dim)
        bring_up_to_date(listed, self.state.step, learner or self._learner, room, out)

    def finish(self) -> Float32:
        """Return all points in the memory of the tables, without a copy; see `Engine.finish`."""
        if self.problem.content is not None:
            self.close()
            return self.points()
        if self.state.mean is not None:
            self.close()
            return self.points(out=self.state.mean)
        self.settle()
        rows, n, dim = self.state.rows, self.problem.n_rows, self.problem.options.dim
        flat = rows.reshape(-1)
        for start in range(0, n, _ROWS_A_PART):
            # a row's point comes to lie before the row itself, and before all that follow
            part = self.points(np.arange(start, min(start + _ROWS_A_PART, n)))
            flat[start * dim : start * dim + part.size] = part.reshape(-1)
        del flat
        self.close()
        if not rows.flags.owndata:
            return rows.reshape(-1)[: n * dim].reshape(n, dim).copy()
        rows.resize((n, dim), refcheck=False)
        return rows

    def close(self) -> None:
        """Release the threads."""
        self._pool.shutdown()

    def _shares(self) -> list[int]:
        n = self.problem.n_table_rows
        return [n * i // self._threads for i in range(self._threads + 1)]

    def _together(self, work: Any) -> None:
        """Run ``work(i)`` for each thread i; they wait for each other, so all must start."""
        with interrupt_deferred():
            for future in [self._pool.submit(work, i) for i in range(self._threads)]:
                future.result()
