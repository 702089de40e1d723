"""What every engine takes, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from nearfar.errors import EmptyDataError, OptionError
from nearfar.method.geometry import normalise
from nearfar.method.loss import Triplet
from nearfar.method.options import Options
from nearfar.method.proposal import AliasTable, alias_table
from nearfar.runtime.arrays import Float32, Float64, Floats, Int32, Int64
from nearfar.runtime.counter import Purpose, normal_at, stream
from nearfar.runtime.jit import kernel

if TYPE_CHECKING:
    from nearfar.data.interactions import Interactions

StepLog = dict[str, Float64]
"""One number a step: ``triplet``, ``spread_out``, ``decorrelate`` (losses; the triplet loss is the
sum over the batch), ``pairs``, ``violated`` (pairs with a negative inside the margin), ``missed``
(places for a negative that stayed empty)."""

_ROWS_AT_ONCE = 4096

LOG_FIELDS = ("triplet", "spread_out", "decorrelate", "pairs", "violated", "missed")


@dataclass
class State:
    """The tables of a run, as they are between two steps: all that has to be kept to go on.

    Users and items share one table: rows 0..N-1 are users, rows N..N+M-1 items.
    """

    rows: Floats
    """(N + M, slots, d): the parameter and the optimiser's moments, side by side."""
    last: Int64
    """(N + M,) the step a row was last brought up to date for; 0 if no step has touched it."""
    step: int = 0
    """Steps done."""
    mean: Float32 | None = None
    """(N + M, d) the mean of the points over epochs, not normalised, if there is one."""

    def copy(self) -> State:
        """Make a copy that shares nothing."""
        mean = None if self.mean is None else self.mean.copy()
        return State(self.rows.copy(), self.last.copy(), self.step, mean)

    def average(self, weight: float, now: Callable[[Int64], Floats]) -> None:
        """Take the points of now into the mean: mean + weight (x - mean).

        `now` returns the points of rows as the steps have left them.
        """
        n, _, dim = self.rows.shape
        if self.mean is None:
            self.mean = np.zeros((n, dim), np.float32)
        for first in range(0, n, _ROWS_AT_ONCE):
            part = np.arange(first, min(first + _ROWS_AT_ONCE, n))
            mean = self.mean[first : first + len(part)]
            mean += np.float32(weight) * (now(part) - mean)

    def mean_points(self, rows: Int64 | None, out: Floats | None, on_sphere: bool) -> Floats:
        """Return the mean's points of `rows`, or all; `out` may be the mean itself."""
        if self.mean is None:
            raise ValueError("there is no mean")
        n = len(self.mean) if rows is None else len(rows)
        found = np.empty((n, self.mean.shape[1]), np.float32) if out is None else out
        for first in range(0, n, _ROWS_AT_ONCE):
            part = slice(first, first + _ROWS_AT_ONCE)
            some = self.mean[part] if rows is None else self.mean[rows[part]]
            found[part] = normalise(some) if on_sphere else some
        return found


@dataclass(frozen=True)
class Problem:
    """Data, options and seed of a run, and what follows from them."""

    interactions: Interactions
    options: Options
    seed: int = 0
    horizon: int = 1_000_000
    """The last step that may be taken; only sizes a table."""
    positive_users: Int32 = field(init=False, repr=False, compare=False)
    """(n_pairs,) the user of each pair."""

    def __post_init__(self) -> None:
        if self.interactions.n_pairs == 0:
            raise EmptyDataError("there are no interactions to train on.")
        object.__setattr__(self, "positive_users", self.interactions.pair_users())
        sampler = self.options.sampler
        if sampler.needs.distinct_places:
            needed = self.options.batch * self.options.n_negatives
            if needed > self.support.shape[0]:
                raise OptionError(
                    f"{type(sampler).__name__}(distinct=True) needs batch x negatives ="
                    f" {needed:,} different items a step, but only {len(self.support):,} can be"
                    f" drawn; use a smaller `batch`, fewer `negatives`, or distinct=False."
                )

    @cached_property
    def triplet(self) -> Triplet:
        """The loss, with the temperature that the data ask for if the options leave it to them."""
        return self.options.triplet.at(self.n_trained_items)

    @cached_property
    def n_trained_items(self) -> int:
        """Items with training interactions."""
        return int(np.count_nonzero(self.interactions.item_counts))

    @property
    def n_users(self) -> int:
        """N."""
        return self.interactions.n_users

    @property
    def n_items(self) -> int:
        """M."""
        return self.interactions.n_items

    @property
    def n_rows(self) -> int:
        """N + M."""
        return self.n_users + self.n_items

    @property
    def steps_per_epoch(self) -> int:
        """Batches that visit every pair once; the last one may be smaller."""
        return -(-self.interactions.n_pairs // self.options.batch)

    @cached_property
    def proposal(self) -> AliasTable:
        """Draws items by the sampler's weight, eq. 4 or another."""
        return alias_table(self.options.sampler.proposal(self.interactions.item_counts))

    @cached_property
    def support(self) -> Int32:
        """The items that the proposal can give, ascending."""
        return np.flatnonzero(self.proposal.weight > 0).astype(np.int32)

    @property
    def n_candidates(self) -> int:
        """Items that all pairs of a step share, of stage 1 or as negatives; 0 if there are none."""
        return self.options.sampler.needs.n_candidates(self.options.n_negatives, len(self.support))

    @property
    def n_own(self) -> int:
        """Negatives that a pair has for itself: |N_ij|, or none if all pairs share theirs."""
        return 0 if self.options.sampler.needs.shared else self.options.n_negatives

    def frozen_items(self) -> Float32 | None:
        """Return the initial points of the items, (M, d), if the second stage looks at those."""
        if self.options.sampler.needs.vectors != "initial":
            return None
        return initial_points(self.seed, self.n_rows, self.options.dim)[self.n_users :].copy()

    def useful_threads(self, threads: int) -> int:
        """Count the threads, at most `threads`, that a step has enough work for.

        Phases of less than some 20 microseconds are over before another thread has noticed.
        """
        options = self.options
        rows = options.batch * (2 + self.n_own) + self.n_candidates
        if options.sampler.needs.shared:  # the products take most of the time
            rows += options.batch * self.n_candidates // 16
        return max(1, min(threads, rows * options.dim // 16_384))

    def initial_state(self) -> State:
        """Gaussian rows of length 1 (float32), moments as the optimiser wants them."""
        optimiser, dim = self.options.optimiser, self.options.dim
        rows = np.zeros((self.n_rows, optimiser.n_slots, dim), np.float32)
        _gaussian_directions(stream(self.seed, Purpose.INITIAL), rows)
        optimiser.start(rows)
        return State(rows, np.zeros(self.n_rows, np.int64))


def initial_points(seed: int, n_rows: int, dim: int) -> Float32:
    """Directions drawn uniformly from the sphere: normalised Gaussian rows, (n_rows, dim)."""
    out = np.empty((n_rows, 1, dim), np.float32)
    _gaussian_directions(stream(seed, Purpose.INITIAL), out)
    return out[:, 0]


@kernel
def _gaussian_directions(key: np.uint64, out: Float32) -> None:
    """Fill slot 0 of `out` (n_rows, slots, d)."""
    n_rows, _, dim = out.shape
    row = np.empty(dim)
    for r in range(n_rows):
        length = 0.0
        for k in range(dim):
            row[k] = normal_at(key, r * dim + k)
            length += row[k] * row[k]
        length = np.sqrt(length)
        for k in range(dim):
            out[r, 0, k] = row[k] / length


class Engine(Protocol):
    """A way to compute training steps."""

    problem: Problem

    @property
    def step(self) -> int:
        """Steps done."""
        ...

    @property
    def state(self) -> State:
        """The tables as they are now: the engine's own, or a copy."""
        ...

    def run(self, count: int) -> StepLog:
        """Do the next `count` steps; one entry a step in each array of the log."""
        ...

    def settle(self) -> None:
        """Bring every row up to date, as dense Adam would have it after ``state.step`` steps."""
        ...

    def average(self, weight: float) -> None:
        """Take the points of the tables into the mean: mean + weight (x - mean), from 0."""
        ...

    def points(
        self,
        rows: Int64 | None = None,
        out: Float32 | None = None,
    ) -> Float32:
        """Return the model's points of `rows`, or all (N + M, d), as of now; changes nothing.

        They are those of the mean, if there is one, else of the tables, and have length 1 on the
        sphere. `out` is filled and returned, if there is one.
        """
        ...

    def finish(self) -> Float32:
        """Return all points and release tables and threads; the engine is of no use then."""
        ...

    def close(self) -> None:
        """Release the threads."""
        ...


@runtime_checkable
class OnDevice(Protocol):
    """An engine that keeps its points on a torch device."""

    device: Any
    """The torch device."""

    def points_on_device(self) -> Any:
        """Return the model's points (N + M, d), float32, on the device: a copy."""
        ...
