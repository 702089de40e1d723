"""The interface of engines: their input, their state and their output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from nearfar.engine.content import Content, encode, has_content, is_plain, rows_of
from nearfar.errors import DataError, EmptyDataError, OptionError
from nearfar.method.geometry import normalise
from nearfar.method.loss import Triplet
from nearfar.method.options import Options
from nearfar.method.prior import log_popularity
from nearfar.method.proposal import AliasTable, alias_table
from nearfar.runtime.arrays import Float32, Float64, Floats, Int32, Int64
from nearfar.runtime.counter import Purpose, normal_at, stream
from nearfar.runtime.jit import kernel
from nearfar.search.shard_search import Ranks

if TYPE_CHECKING:
    from nearfar.data.interactions import Interactions
    from nearfar.engine.item_module import ItemModule

StepLog = dict[str, Float64]
"""One value for each step of ``triplet``, ``spread_out``, ``decorrelate`` (losses; the triplet loss
is the sum over the batch), ``pairs``, ``violated`` (pairs with a negative inside the margin) and
``missed`` (places for a negative that stayed empty)."""

_ROWS_AT_ONCE = 4096

LOG_FIELDS = ("triplet", "spread_out", "decorrelate", "pairs", "violated", "missed")


@dataclass
class State:
    """The tables of a run between two steps: everything needed to continue it.

    Users and items share one table: rows 0..N-1 are users, rows N..N+M-1 are items.
    """

    rows: Floats
    """(N + M, slots, d): the parameter and the optimiser's moments. With content there are rows
    N + M.. for the vectors of its columns, or the weights of a module
    (`nearfar.engine.item_module`), and rows with content hold their delta."""
    last: Int64
    """(N + M,) the step to which a row was last brought up to date; 0 if no step has touched it."""
    step: int = 0
    """Number of completed steps."""
    mean: Float32 | None = None
    """(N + M, d) the mean of the points over epochs, not normalised, if there is one."""
    cache: Float32 | None = None
    """The points by which a second stage chooses, where there is content; `Problem.start_cache`."""
    cached_at: Int64 | None = None
    """The number of completed steps when each point of the cache was encoded."""

    def copy(self) -> State:
        """Return a copy that shares no memory."""
        mean, cache = (None if one is None else one.copy() for one in (self.mean, self.cache))
        at = None if self.cached_at is None else self.cached_at.copy()
        return State(self.rows.copy(), self.last.copy(), self.step, mean, cache, at)

    def average(self, weight: float, now: Callable[[Int64], Floats]) -> None:
        """Update the mean with the current points x: mean + weight (x - mean).

        `now` returns the current points of rows.
        """
        n, _, dim = self.rows.shape
        if self.mean is None:
            self.mean = np.zeros((n, dim), np.float32)
        for first in range(0, n, _ROWS_AT_ONCE):
            part = np.arange(first, min(first + _ROWS_AT_ONCE, n))
            mean = self.mean[first : first + len(part)]
            mean += np.float32(weight) * (now(part) - mean)

    def mean_points(self, rows: Int64 | None, out: Floats | None, on_sphere: bool) -> Floats:
        """Return the points of the mean for `rows`, or all; `out` may be the mean itself."""
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
    """Data, options and seed of a run, and the values derived from them."""

    interactions: Interactions
    options: Options
    seed: int = 0
    horizon: int = 1_000_000
    """The last step that may be taken; it only determines the size of a table."""
    content: Content | None = field(default=None, repr=False, compare=False)
    """The features of users and items, if any of them are hybrids."""
    module: ItemModule | None = field(default=None, repr=False, compare=False)
    """The module that encodes items instead of a linear encoder. Then `content` only says which
    items have content, and by which rules their delta is learned."""
    positive_users: Int32 = field(init=False, repr=False, compare=False)
    """(n_pairs,) the user of each pair."""

    def __post_init__(self) -> None:
        if self.interactions.n_pairs == 0:
            raise EmptyDataError("there are no interactions to train on.")
        object.__setattr__(self, "positive_users", self.interactions.pair_users())
        sampler = self.options.sampler
        if sampler.needs.distinct_places:
            needed = self.options.batch * self.n_negatives
            if needed > self.support.shape[0]:
                raise OptionError(
                    f"{type(sampler).__name__}(distinct=True) needs batch x negatives ="
                    f" {needed:,} different items per step, but only {len(self.support):,} can be"
                    f" drawn; use a smaller `batch`, fewer `negatives`, or distinct=False."
                )

    @cached_property
    def triplet(self) -> Triplet:
        """The loss; a temperature of None is replaced by the recommended value for the data."""
        return self.options.triplet.at(self.effective_items)

    @cached_property
    def effective_items(self) -> float:
        """Number of items that the sampler draws from, were they equally likely: 1 / sum q_j^2.

        q_j is the probability of item j among those with training interactions. It is their number
        with a uniform sampler, and smaller the more the draws favour some.
        """
        counts = self.interactions.item_counts
        weight = self.options.sampler.proposal(counts)[counts > 0]
        weight = weight / weight.max() if weight.any() else np.ones_like(weight)
        return float(weight.sum() ** 2 / np.sum(weight**2))

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
    def n_table_rows(self) -> int:
        """N + M + F, with a row for each column of the content, or for d weights of the module."""
        return self.n_rows + (0 if self.content is None else self.content.n_columns)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches that visit every pair once; the last one may be smaller."""
        return -(-self.interactions.n_pairs // self.options.batch)

    @cached_property
    def log_popularity(self) -> Float32:
        """The logarithm of f_j of the prior, (M,)."""
        linear = self.content if self.module is None else None
        content = None if linear is None else rows_of(linear, "items")
        return log_popularity(self.interactions.item_counts, content)

    @cached_property
    def proposal(self) -> AliasTable:
        """The table that draws items by the sampler's weight, eq. 4 or another."""
        counts = self.interactions.item_counts
        weight = self.options.sampler.proposal(counts)
        if self.content is not None:  # nobody could have had them, and content is to place them
            weight = np.where(counts > 0, weight, 0.0)
        return alias_table(weight)

    @cached_property
    def support(self) -> Int32:
        """The items that the proposal can draw, ascending."""
        return np.flatnonzero(self.proposal.weight > 0).astype(np.int32)

    def check_content(self) -> None:
        """Raise unless users or items that are hybrids have features.

        Raises
        ------
        OptionError
            They have none: the options would change nothing; or the contents of some items were
            not given.
        """
        sides = [side for side in ("users", "items") if getattr(self.options, side) is not None]
        if sides and self.content is None:
            raise OptionError(
                f"`{sides[0]}` is Hybrid(...), but there are no features to learn from; only"
                f" CML.fit takes them. Use {sides[0]}=None."
            )
        if self.module is not None and self.content is not None:
            self.module.check_complete(has_content(self.content)[self.n_users :])

    def check_negatives(self) -> None:
        """Raise unless some user lacks an item that can be drawn: there must be a negative.

        Raises
        ------
        DataError
            Every user has every item that the sampler can draw.
        """
        data, n = self.interactions, len(self.support)
        counts = data.user_counts
        if np.any((counts > 0) & (counts < n)):  # the usual case
            return
        drawn = np.zeros(self.n_items, np.bool_)
        drawn[self.support] = True
        has = np.bincount(data.pair_users()[drawn[data.items]], minlength=self.n_users)
        if np.all((counts == 0) | (has == n)):
            raise DataError(
                f"Every user has every one of the {n:,} items that can be drawn as a negative, so"
                " there is nothing to learn. Train on what users like only: keep ratings above a"
                " threshold with `min_value`."
            )

    @cached_property
    def n_negatives(self) -> int:
        """|N_ij|: that of the options, or the sampler's usual number for the data."""
        options = self.options
        return options.sampler.needs.negatives(options.negatives, len(self.support))

    @property
    def n_candidates(self) -> int:
        """Number of items shared by all pairs of a step: candidates of stage 1, or negatives."""
        return self.options.sampler.needs.n_candidates(self.n_negatives, len(self.support))

    @property
    def n_own(self) -> int:
        """Number of each pair's own negatives: |N_ij|, or 0 if all pairs share their negatives."""
        return 0 if self.options.sampler.needs.shared else self.n_negatives

    def anchors(self, users: Int64, items: Int64) -> Int64:
        """Return the rows that the second stage compares with the candidates of pairs, (L,).

        A row is that of the joint table: of the pair's user or of its positive item.
        """
        return users if self.options.sampler.needs.towards == "user" else self.n_users + items

    def frozen(self) -> Float32 | None:
        """Return the initial points that the second stage compares, if it compares those.

        They are the last ones of the joint table: those of the items, (M, d), or of users and
        items, (N + M, d), if it compares users.
        """
        needs = self.options.sampler.needs
        if needs.vectors != "initial":
            return None
        first = 0 if needs.towards == "user" else self.n_users
        return initial_points(self.seed, self.n_rows, self.options.dim)[first:].copy()

    @property
    def cached(self) -> range:
        """The joint rows whose points are read from a cache; empty without content.

        A second stage reads them, and a step with a module that encodes some of its shared
        negatives only. They are those of the items, and those of the users too if users have
        features.
        """
        needs = self.options.sampler.needs
        looks = bool(needs.candidates) and needs.vectors != "initial"
        if self.module is not None and self.module.encoder.fresh is not None:
            looks = True
        if self.content is None or not looks:
            return range(0)
        return range(0 if self.content.n_user_columns else self.n_users, self.n_rows)

    def refreshed(self, step: int) -> range:
        """Return which of the `cached` rows are encoded anew before a step: the next slice.

        Every row is encoded once in as many steps as an epoch has, so the points that a step
        chooses by are half an epoch old on average. m is 1 in all of them.
        """
        rows, steps = self.cached, self.steps_per_epoch
        size = -(-len(rows) // steps)
        first = step % steps * size
        return rows[min(first, len(rows)) : first + size]

    def needs_cache(self, state: State) -> bool:
        """Return whether the second stage reads a cache that the state does not have yet."""
        return len(self.cached) > 0 and (state.cache is None or state.cached_at is None)

    def start_cache(self, state: State, tables: Floats) -> None:
        """Encode all of the `cached` rows by the vectors of all rows, as they are now."""
        rows = np.arange(self.cached.start, self.cached.stop)
        state.cache = self.encoded(tables, rows)
        state.cached_at = np.full(len(rows), state.step, np.int64)

    def useful_threads(self, threads: int) -> int:
        """Return the number of threads, at most `threads`, for which a step has enough work.

        Phases of less than about 20 microseconds end before another thread can start.
        """
        options = self.options
        rows = options.batch * (2 + self.n_own) + self.n_candidates
        if options.sampler.needs.shared:  # the products take most of the time
            rows += options.batch * self.n_candidates // 16
        return max(1, min(threads, rows * options.dim // 16_384))

    def initial_state(self, some: Int64 | None = None) -> State:
        """Return the initial tables: Gaussian rows of length 1 (float32) and initial moments.

        They may be those of `some` rows only, in joint numbers; not with a module.
        """
        optimiser, dim = self.options.optimiser, self.options.dim
        n = self.n_table_rows if some is None else len(some)
        rows = np.zeros((n, optimiser.n_slots, dim), np.float32)
        listed = np.arange(n) if some is None else some
        _gaussian_directions(stream(self.seed, Purpose.INITIAL), listed, rows)
        if self.content is not None:
            rows[~is_plain(self.content, listed) & (listed < self.n_rows)] = 0.0
        if self.module is not None:
            rows[self.n_rows :, 0] = self.module.initial()
        optimiser.start(rows)
        return State(rows, np.zeros(n, np.int64))

    def encoded(self, tables: Floats, rows: Int64 | None = None, *, alone: bool = False) -> Float32:
        """Return points by tables of vectors (N + M + F, d), with content.

        Parameters
        ----------
        tables : array of shape (N + M + F, d)
            As `Engine.tables`.
        rows : int64 array of shape (n,), optional
            The joint rows to encode; all if None.
        alone : bool
            Leave out delta: the points that the content alone has. Those of rows without content
            are 0.
        """
        if self.content is None:
            raise ValueError("there is no content")
        vectors, n = np.asarray(tables, np.float32), self.n_rows
        listed = np.arange(n) if rows is None else rows
        own = vectors[:n] if rows is None else vectors[rows]
        if alone:
            own = np.zeros_like(own)
        if self.module is not None:
            own = own.copy()
            some = has_content(self.content)[listed]
            own[some] += self.module.encode(listed[some] - self.n_users, vectors[n:])
            return normalise(own)
        points = np.empty_like(own)
        encode(self.content, listed, vectors[n:], own, points, True)
        return points


def chosen_rows(points: Float32, rows: Int64 | None, out: Float32 | None) -> Float32:
    """Return all points or those of `rows`, in `out` if it is given."""
    found = points if rows is None else points[rows]
    if out is None:
        return found
    out[:] = found
    return out


def initial_points(seed: int, n_rows: int, dim: int) -> Float32:
    """Return directions uniform on the sphere: normalised Gaussian rows, (n_rows, dim)."""
    out = np.empty((n_rows, 1, dim), np.float32)
    _gaussian_directions(stream(seed, Purpose.INITIAL), np.arange(n_rows), out)
    return out[:, 0]


@kernel
def _gaussian_directions(key: np.uint64, listed: Int64, out: Float32) -> None:
    """Fill slot 0 of `out` (n, slots, d) with the random directions of the rows `listed`."""
    n_rows, _, dim = out.shape
    row = np.empty(dim)
    for r in range(n_rows):
        length = 0.0
        for k in range(dim):
            row[k] = normal_at(key, listed[r] * dim + k)
            length += row[k] * row[k]
        length = np.sqrt(length)
        for k in range(dim):
            out[r, 0, k] = row[k] / length


class Engine(Protocol):
    """An implementation of training steps."""

    problem: Problem

    @property
    def step(self) -> int:
        """Number of completed steps."""
        ...

    @property
    def state(self) -> State:
        """The current tables: the engine's own, or a copy."""
        ...

    def run(self, count: int) -> StepLog:
        """Run the next `count` steps; each array of the log has one entry per step."""
        ...

    def settle(self) -> None:
        """Bring every row up to date, as dense Adam would have it after ``state.step`` steps."""
        ...

    def average(self, weight: float) -> None:
        """Update the mean with the points x of the tables: mean + weight (x - mean), from 0."""
        ...

    def points(
        self,
        rows: Int64 | None = None,
        out: Float32 | None = None,
    ) -> Float32:
        """Return the model's current points of `rows`, or all (N + M, d), without changing state.

        They are those of the mean, if there is one, otherwise of the tables, and have length 1 on
        the sphere. If `out` is given, it is filled and returned.
        """
        ...

    def tables(self, out: Float32 | None = None) -> Float32:
        """Return the vectors of all rows of the tables, (N + M + F, d), with content.

        They are the points of rows without content, the deltas of those with content, and the
        vectors of the columns; of the mean, if there is one. `Problem.encoded` turns them into
        points. If `out` is given, it is filled and returned; if not, the result may lie in the
        memory of the engine, and is what it says only until the next step.
        """
        ...

    def finish(self) -> Float32:
        """Return all points and release tables and threads; the engine cannot be used again."""
        ...

    def close(self) -> None:
        """Release the threads."""
        ...


@runtime_checkable
class Collective(Protocol):
    """An engine of several processes, which make the same calls in the same order."""

    problem: Problem
    group: Ranks
    """The processes."""
    rank: int
    """The number of this process; 0 reports and saves."""
    own: State
    """The state of this process's rows."""
    own_rows: Int64
    """Which users and items they are, as joint rows: a range of users, then items in any order."""
    table_rows: Int64
    """The joint rows of `own`: those, then columns of the content."""

    def own_points(self, out: Float32 | None = None) -> Float32:
        """Return the current points of this process's users and items; see `Engine.points`.

        Collective with content only.
        """
        ...

    def own_tables(self, out: Float32 | None = None) -> Float32:
        """Return the current rows of this process's table; see `Engine.tables`. Not collective.

        Without content they are the points.
        """
        ...

    def own_encoded(self, tables: Float32) -> Float32:
        """Return the points of what `own_tables` has returned; collective with content only."""
        ...

    def whole(self, table: Floats) -> Floats:
        """Return the rows (N + M + F, ...) of all processes, of which `table` has this one's."""
        ...

    def agreed(self, values: Float64) -> Float64:
        """Return the numbers of process 0, on every process."""
        ...

    def summed(self, values: Float64) -> Float64:
        """Return the sums over the processes, on every process."""
        ...


@runtime_checkable
class OnDevice(Protocol):
    """An engine that keeps its points on a torch device."""

    device: Any
    """The torch device."""

    def points_on_device(self) -> Any:
        """Return a copy of the model's points (N + M, d), float32, on the device."""
        ...
