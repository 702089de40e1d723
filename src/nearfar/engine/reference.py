"""The specification of a training step, in plain loops and float64.

It is deliberately slow and uses the parts directly: negatives are drawn by the sampler's `draw`,
the loss is `Triplet.term`, and the optimiser's `step` updates every row in every step, as in the
formulas, without lazy updates. The engines are tested against it: they must return the same
integers, and the same numbers within rounding. (Stage 2 of 2-stage sampling compares a sum of
weights with a random number. If float32 and float64 round to different sides of it, an engine
chooses another candidate; benchmarks/rounding.py counts how often.)
"""

from __future__ import annotations

import numpy as np

from nearfar.engine.content import as_matrix, has_content, is_plain, keeps_id
from nearfar.engine.negatives import TrainingUsers, candidates_of, draw, pairs_of
from nearfar.engine.problem import LOG_FIELDS, Problem, State, StepLog, chosen_rows
from nearfar.method.geometry import normalise
from nearfar.method.loss import through_normalisation
from nearfar.runtime.arrays import Bool, Float32, Floats, Int64
from nearfar.runtime.counter import Source


class ReferenceEngine:
    """Training steps in plain loops and float64; see `Engine`."""

    def __init__(self, problem: Problem, state: State | None = None) -> None:
        self.problem = problem
        self.state = problem.initial_state() if state is None else state
        self.state.rows = self.state.rows.astype(np.float64)
        self._known = TrainingUsers(problem.interactions)
        if problem.needs_cache(self.state):
            problem.start_cache(self.state, self._vectors())
        frozen = problem.frozen()
        self._frozen = None if frozen is None else frozen.astype(np.float64)

    def run(self, count: int) -> StepLog:
        """Run the next `count` steps; see `Engine.run`."""
        log = [self._step(self.state.step + i) for i in range(count)]
        self.state.step += count
        return {name: np.array([entry[name] for entry in log]) for name in LOG_FIELDS}

    @property
    def step(self) -> int:
        """Number of completed steps."""
        return self.state.step

    def settle(self) -> None:
        """Do nothing, because every row is always up to date."""

    def average(self, weight: float) -> None:
        """Update the mean with the current points; see `Engine.average`."""
        points = self._vectors().astype(np.float32)
        self.state.average(weight, points.__getitem__)

    def tables(self, out: Float32 | None = None) -> Float32:
        """Return the vectors of all rows of the tables; see `Engine.tables`."""
        found = self._vectors() if self.state.mean is None else self.state.mean
        return chosen_rows(found.astype(np.float32), None, out)

    def points(
        self,
        rows: Int64 | None = None,
        out: Float32 | None = None,
    ) -> Float32:
        """Return the current points; see `Engine.points`."""
        if self.problem.content is not None:
            return chosen_rows(self.problem.encoded(self.tables(), rows), None, out)
        if self.state.mean is not None:
            on_sphere = self.problem.options.geometry == "sphere"
            return self.state.mean_points(rows, out, on_sphere).astype(np.float32)
        now = self._points().astype(np.float32)
        now = now if rows is None else now[rows]
        if out is None:
            return now
        out[:] = now
        return out

    def finish(self) -> Float32:
        """Return all points; see `Engine.finish`."""
        return self.points()

    def close(self) -> None:
        """Do nothing, because there is nothing to release."""

    def pairs(self, step: int) -> list[tuple[int, int]]:
        """Return the pairs (user, item) of a step."""
        users, items = pairs_of(self.problem, step)
        return list(zip(users.tolist(), items.tolist(), strict=True))

    def candidates(self, step: int) -> list[int]:
        """Return the items shared by all pairs of a step: candidates of stage 1, or negatives."""
        found: list[int] = candidates_of(self.problem, Source(self.problem.seed, step)).tolist()
        return found

    def negatives(self, step: int, pairs: list[tuple[int, int]]) -> list[list[int]]:
        """Return the negatives of each pair; -1 for an empty place, unless they are shared."""
        users, positives = np.array(pairs, np.int64).reshape(-1, 2).T
        source = Source(self.problem.seed, step)
        candidates = candidates_of(self.problem, source)

        def compare(items: Int64) -> Floats:
            anchors = self.problem.anchors(users, positives)
            return self._compared(anchors) @ self._compared(self.problem.n_users + items).T

        drawn = draw(self.problem, source, users, self._known, candidates, compare)
        places = np.broadcast_to(drawn.items, drawn.allowed.shape)
        if self.problem.options.sampler.needs.shared:
            return [row[there].tolist() for row, there in zip(places, drawn.allowed, strict=True)]
        listed: list[list[int]] = np.where(drawn.allowed, places, -1).tolist()
        return listed

    def _compared(self, rows: Int64) -> Floats:
        """Return the vectors of rows that the second stage compares, at length 1."""
        if self._frozen is not None:
            return self._frozen[rows - self.problem.n_rows]  # from the end, see `Problem.frozen`
        found = normalise(self.state.rows[rows, 0])
        if self.state.cache is not None and self.problem.content is not None:
            of_content = has_content(self.problem.content)[rows]
            found[of_content] = self.state.cache[rows[of_content] - self.problem.cached.start]
        return found

    def _refresh(self, t: int) -> None:
        """Encode the next slice of the cache; see `Problem.refreshed`."""
        rows = np.array(self.problem.refreshed(t), np.int64)
        cache, cached_at = self.state.cache, self.state.cached_at
        if cache is not None and cached_at is not None and len(rows):
            places = rows - self.problem.cached.start
            cache[places], cached_at[places] = self.problem.encoded(self._vectors(), rows), t

    def _points(self) -> Floats:
        stored: Floats = self.state.rows[: self.problem.n_rows, 0]
        return normalise(stored) if self.problem.options.geometry == "sphere" else stored

    def _vectors(self) -> Floats:
        """Return the vectors of `Engine.tables`, without a mean; without content all points."""
        content, stored = self.problem.content, self.state.rows[:, 0].copy()
        if content is None:
            return self._points()
        plain = is_plain(content, np.arange(len(stored)))
        stored[plain] = normalise(stored[plain])
        return stored

    def _step(self, t: int) -> dict[str, float]:
        options, problem = self.problem.options, self.problem
        self._refresh(t)
        pairs = self.pairs(t)
        negatives = self.negatives(t, pairs)
        log = dict.fromkeys(LOG_FIELDS, 0.0)
        log["pairs"] = len(pairs)
        log["missed"] = sum(item < 0 for drawn in negatives for item in drawn)
        raw, kept = self._raw(t)
        points = normalise(raw) if options.geometry == "sphere" else raw
        gradient = np.zeros_like(points)
        touched = set[int]()
        if options.sampler.needs.shared:
            touched = {problem.n_users + k for k in self.candidates(t)}
        products = []
        for (user, item), drawn in zip(pairs, negatives, strict=True):
            i, j = user, problem.n_users + item
            ks = [problem.n_users + k for k in drawn if k >= 0]
            touched.update([i, j, *ks])
            term = problem.triplet.term(points[i], points[j], points[ks], problem.n_items)
            log["triplet"] += term.loss
            log["violated"] += term.violated
            gradient[i] += term.user
            gradient[j] += term.positive
            for k, slope in zip(ks, term.negatives, strict=True):
                gradient[k] += slope
            products += [(j, k) for k in ks]
        if options.spread_out is not None:
            s = np.array([points[j] @ points[k] for j, k in products])
            log["spread_out"], slopes = options.spread_out.coefficients(s, options.dim)
            for (j, k), slope in zip(products, slopes, strict=True):
                gradient[j] += slope * points[k]
                gradient[k] += slope * points[j]
        if options.decorrelate is not None:
            rows = sorted(touched)
            log["decorrelate"], slopes = options.decorrelate.term(points[rows])
            gradient[rows] += slopes
        if options.geometry == "sphere":
            gradient = through_normalisation(gradient, raw)
        if problem.content is not None:
            gradient = self._through_encoder(gradient, kept, sorted(touched))
        self._update(gradient, t + 1)
        return log

    def _raw(self, t: int) -> tuple[Floats, Bool]:
        """Return z of `nearfar.method.hybrid` before it is normalised, and m, of all joint rows."""
        content, n, stored = self.problem.content, self.problem.n_rows, self.state.rows[:, 0]
        if content is None:
            return stored, np.ones(n, np.bool_)
        kept = keeps_id(content, self.problem.seed, t, np.arange(n))
        return as_matrix(content) @ stored[n:] + kept[:, None] * stored[:n], kept

    def _through_encoder(self, slopes: Floats, kept: Bool, touched: list[int]) -> Floats:
        """Return the gradients of delta and w, given those of z."""
        content, n, stored = self.problem.content, self.problem.n_rows, self.state.rows[:, 0]
        assert content is not None
        matrix, rows = as_matrix(content), np.array(touched)
        own = kept[:, None] * slopes
        some = rows[kept[rows] & has_content(content)[rows]]
        own[some] += content.decay[(some >= content.n_users).astype(int), None] * stored[some]
        vectors = matrix.T @ slopes
        read = np.unique(matrix[rows].indices)
        pull = content.weight_decay[(read >= content.n_user_columns).astype(int), None]
        vectors[read] += pull * stored[n + read]
        return np.concatenate([own, vectors])

    def _update(self, gradient: Floats, t: int) -> None:
        """Apply one dense step of the optimiser to every row, then clip in the ball geometry."""
        options, rows = self.problem.options, self.state.rows
        options.optimiser.step(rows, gradient, t)
        if options.geometry == "ball":
            length = np.linalg.norm(rows[:, 0], axis=1, keepdims=True)
            rows[:, 0] /= np.maximum(length, 1.0)
        self.state.last[:] = t
