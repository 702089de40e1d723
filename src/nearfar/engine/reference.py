"""The specification: what a training step computes, in plain loops and float64.

Slow on purpose. Every row is updated in every step, as the formulas say; nothing is lazy, nothing
is shared. The engines are tested against it: the same integers, and numbers within rounding. (Stage
2 of 2-stage sampling compares a sum of weights with a random number; where float32 and float64
round to different sides, an engine chooses another candidate: benchmarks/rounding.py counts them.)
"""

from __future__ import annotations

import numpy as np

from nearfar.engine.problem import LOG_FIELDS, Problem, State, StepLog, initial_points
from nearfar.method.geometry import normalise
from nearfar.method.loss import through_normalisation
from nearfar.method.sampling import Popularity, Shared, TwoStage, draw_at
from nearfar.runtime.arrays import Float32, Floats, Int64
from nearfar.runtime.counter import Purpose, permutation, stream, uniform


class ReferenceEngine:
    """Training steps in loops, float64; see `Engine`."""

    def __init__(self, problem: Problem, state: State | None = None) -> None:
        self.problem = problem
        self.state = problem.initial_state() if state is None else state
        self.state.rows = self.state.rows.astype(np.float64)
        self._initial_items = initial_points(problem.seed, problem.n_rows, problem.options.dim)[
            problem.n_users :
        ].astype(np.float64)

    def run(self, count: int) -> StepLog:
        """Do the next `count` steps; see `Engine.run`."""
        log = [self._step(self.state.step + i) for i in range(count)]
        self.state.step += count
        return {name: np.array([entry[name] for entry in log]) for name in LOG_FIELDS}

    @property
    def step(self) -> int:
        """Steps done."""
        return self.state.step

    def settle(self) -> None:
        """Nothing to do: every row is always up to date."""

    def average(self, weight: float) -> None:
        """Take the points of now into the mean; see `Engine.average`."""
        points = self._points().astype(np.float32)
        self.state.average(weight, points.__getitem__)

    def points(
        self,
        rows: Int64 | None = None,
        out: Float32 | None = None,
    ) -> Float32:
        """Give points as of now; see `Engine.points`."""
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
        """Give all points; see `Engine.finish`."""
        return self.points()

    def close(self) -> None:
        """Nothing to let go of."""

    def pairs(self, step: int) -> list[tuple[int, int]]:
        """List the batch of a step: (user, item)."""
        problem = self.problem
        epoch, place = divmod(step, problem.steps_per_epoch)
        n_pairs, batch = problem.interactions.n_pairs, problem.options.batch
        order = permutation(stream(problem.seed, Purpose.ORDER, epoch), n_pairs)
        chosen = order[place * batch : (place + 1) * batch]
        items = problem.interactions.items
        return [(int(problem.positive_users[p]), int(items[p])) for p in chosen]

    def negatives(self, step: int, pairs: list[tuple[int, int]]) -> list[list[int]]:
        """List the negatives of each pair; an empty place is -1."""
        sampler = self.problem.options.sampler
        if isinstance(sampler, TwoStage):
            return self._second_stage(step, pairs, sampler)
        if isinstance(sampler, Shared):
            shared = self.candidates(step)
            return [[k for k in shared if k not in self._positives(user)] for user, _ in pairs]
        n, seed = self.problem.options.negatives, self.problem.seed
        key = stream(seed, Purpose.NEGATIVE, step)
        first: list[int] = []
        if isinstance(sampler, Popularity) and sampler.distinct:
            first = self._draw_distinct(key, len(pairs) * n)
        drawn: list[list[int]] = []
        for g, (user, _) in enumerate(pairs):
            drawn.append([])
            for k in range(n):
                place, found = g * n + k, -1
                for attempt in range(sampler.redraws + 1):
                    item = draw_at(self.problem.proposal, key, place, attempt)
                    if first and attempt == 0:
                        item = first[place]
                    if item not in self._positives(user):
                        found = item
                        break
                drawn[g].append(found)
        return drawn

    def _positives(self, user: int) -> set[int]:
        indptr, items = self.problem.interactions.indptr, self.problem.interactions.items
        return set(items[indptr[user] : indptr[user + 1]].tolist())

    def _draw_distinct(self, key: np.uint64, count: int) -> list[int]:
        """Successive draws without replacement: repetitions skipped, then exponential clocks."""
        support, weight = self.problem.support.tolist(), self.problem.proposal.weight
        if count >= len(support):
            return list(support)
        drawn: list[int] = []
        for t in range(4 * count):
            item = draw_at(self.problem.proposal, key, t, 0)
            if item not in drawn and len(drawn) < count:
                drawn.append(item)
        clocks = []
        for item in support:
            if item not in drawn:
                u = float(uniform(key, 4 * count + item)[0])
                clocks.append((-np.log1p(-u) / weight[item], item))
        return drawn + [item for _, item in sorted(clocks)[: count - len(drawn)]]

    def candidates(self, step: int) -> list[int]:
        """Draw the items that all pairs of a step share: of stage 1, or its negatives."""
        sampler, problem = self.problem.options.sampler, self.problem
        key = stream(problem.seed, Purpose.CANDIDATE, step)
        if isinstance(sampler, Shared):
            return self._draw_distinct(key, problem.options.negatives)
        if not isinstance(sampler, TwoStage):
            return []
        if sampler.distinct:
            return self._draw_distinct(key, sampler.candidates)
        return [draw_at(problem.proposal, key, t, 0) for t in range(sampler.candidates)]

    def _second_stage(
        self, step: int, pairs: list[tuple[int, int]], sampler: TwoStage
    ) -> list[list[int]]:
        problem, n = self.problem, self.problem.options.negatives
        key = stream(problem.seed, Purpose.CHOICE, step)
        candidates = self.candidates(step)
        items = normalise(self.state.rows[problem.n_users :, 0])
        if sampler.vectors == "initial":
            items = self._initial_items
        drawn: list[list[int]] = []
        for g, (user, positive) in enumerate(pairs):
            s = np.array([items[positive] @ items[c] for c in candidates])
            allowed = np.array([c not in self._positives(user) for c in candidates])
            cumulative = np.cumsum(sampler.weight(s, problem.options.dim, allowed))
            drawn.append([])
            for k in range(n):
                target = float(uniform(key, g * n + k)[0]) * cumulative[-1]
                c = int(np.searchsorted(cumulative, target, side="right"))
                drawn[g].append(candidates[c] if cumulative[-1] > 0 else -1)
        return drawn

    def _points(self) -> Floats:
        stored: Floats = self.state.rows[:, 0]
        return normalise(stored) if self.problem.options.geometry == "sphere" else stored

    def _step(self, t: int) -> dict[str, float]:
        options, problem = self.problem.options, self.problem
        pairs = self.pairs(t)
        negatives = self.negatives(t, pairs)
        log = dict.fromkeys(LOG_FIELDS, 0.0)
        log["pairs"] = len(pairs)
        log["missed"] = sum(item < 0 for drawn in negatives for item in drawn)
        points = self._points()
        gradient = np.zeros_like(points)
        touched = set[int]()
        if isinstance(options.sampler, Shared):
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
        self._update(gradient, t + 1)
        return log

    def _update(self, gradient: Floats, t: int) -> None:
        """One dense step of the optimiser over every row, then the ball's clipping."""
        options, rows = self.problem.options, self.state.rows
        if options.geometry == "sphere":
            gradient = through_normalisation(gradient, rows[:, 0])
        options.optimiser.step(rows, gradient, t)
        if options.geometry == "ball":
            length = np.linalg.norm(rows[:, 0], axis=1, keepdims=True)
            rows[:, 0] /= np.maximum(length, 1.0)
        self.state.last[:] = t
