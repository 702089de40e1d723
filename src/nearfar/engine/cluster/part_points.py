"""The points of a rank's rows, and those of all ranks' rows.

With content a row of the tables is a delta or the vector of a column. The rank encodes its points
out of its deltas and all vectors, which are put together for that: F d numbers, on every rank.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nearfar.engine.cluster.process_group import Group
from nearfar.engine.cluster.shards import Shards
from nearfar.engine.cluster.whole_table import whole_rows
from nearfar.engine.content import encode, is_plain
from nearfar.engine.cpu.rows import ROWS_AT_ONCE, Learner, bring_up_to_date, make_gathered
from nearfar.engine.problem import Problem, State
from nearfar.engine.spec import FREE
from nearfar.method.geometry import normalise
from nearfar.runtime.arrays import Float32, Floats, Int64


class PartPoints:
    """Reads the points of a rank's table.

    Parameters
    ----------
    problem, group, shards
    own : State
        The rank's rows.
    table_rows : int64 array of shape (n,)
        Their joint numbers.
    learner : Learner
        Of these rows.
    """

    def __init__(
        self,
        problem: Problem,
        group: Group,
        shards: Shards,
        own: State,
        table_rows: Int64,
        learner: Learner,
    ) -> None:
        self._problem, self._group, self._shards, self._own = problem, group, shards, own
        self._table_rows = table_rows
        self._dim, self._dtype = problem.options.dim, own.rows.dtype
        vectors = problem.content is not None
        self._learner = learner._replace(geometry=FREE) if vectors else learner

    def now(self, rows: Int64) -> Floats:
        """Return rows of the rank's table as they are now, as `Engine.tables` has them."""
        out = np.empty((len(rows), self._dim), self._dtype)
        self.bring(rows, out)
        if self._problem.content is not None:
            plain = np.flatnonzero(is_plain(self._problem.content, self._table_rows[rows]))
            out[plain] = normalise(out[plain])
        return out

    def bring(self, rows: Int64, out: Floats) -> None:
        """Bring rows up to date: in `out`, or in place if it has no rows."""
        room = make_gathered(ROWS_AT_ONCE, self._dim, self._dtype)
        bring_up_to_date(rows, self._own.step, self._learner, room, out)

    def model(self, rows: Int64) -> Floats:
        """Return the model's rows, `Engine.tables`: of the mean, if there is one."""
        if self._own.mean is None:
            return self.now(rows)
        on_sphere = self._problem.options.geometry == "sphere" and self._problem.content is None
        return self._own.mean_points(rows, None, on_sphere)

    def own(self, n: int, out: Float32 | None) -> Float32:
        """Return the first n rows of the model that are the rank's."""
        out = self._room(n) if out is None else out
        for first in range(0, n, ROWS_AT_ONCE):
            rows = np.arange(first, min(first + ROWS_AT_ONCE, n))
            out[rows[0] : rows[-1] + 1] = self.model(rows)
        return out

    def whole(self, rows: Int64 | None, out: Any) -> Any:
        """Put rows of the model into `out`, on every rank; all if `rows` is None."""
        return whole_rows(self._group, self._shards, self.model, rows, out)

    def encoded(self, listed: Int64, vectors: Floats, columns: Float32 | None = None) -> Float32:
        """Return the points of joint rows by their `vectors`, (n, d). Collective.

        `columns` are the vectors of the columns; those of now, or of the mean, if None.
        """
        content, problem = self._problem.content, self._problem
        assert content is not None
        if columns is None:
            some = np.arange(problem.n_rows, problem.n_table_rows)
            columns = self.whole(some, self._room(len(some)))
        points = np.empty((len(listed), self._dim), np.float32)
        encode(content, listed, columns, np.ascontiguousarray(vectors, np.float32), points, True)
        return points

    def start_cache(self) -> None:
        """Encode what a second stage reads, on every rank; see `Problem.start_cache`."""
        rows, own = np.array(self._problem.cached, np.int64), self._own
        n = self._problem.n_rows
        columns = np.arange(n, self._problem.n_table_rows)
        vectors = whole_rows(self._group, self._shards, self.now, rows, self._room(len(rows)))
        weights = whole_rows(self._group, self._shards, self.now, columns, self._room(len(columns)))
        own.cache = self.encoded(rows, vectors, weights)
        own.cached_at = np.full(len(rows), own.step, np.int64)

    def _room(self, n: int) -> Float32:
        return np.empty((n, self._dim), np.float32)
