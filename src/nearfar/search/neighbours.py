"""Exact search for the best k targets of every row, without storing rows x targets in memory.

A `Scorer` fills one tile of the score matrix at a time (256 users x 2,048 items, 2 MiB, so that it
stays in a core's own cache), and a compiled scan keeps the best k of every row in a heap. Most of
a tile is read only once, 16 scores per comparison with the worst of the k, so the cost is that of
the matrix product. Each thread has one tile, so memory does not grow with the number of items.

**Exactness.** Products of `Points` are rounded, depending on the BLAS and on the other rows of the
batch. So they only select candidates, a few more than k. The candidates are ranked by scores that
are recomputed one by one in float64 (`nearfar.search.exact`). If the bound on the rounding error
does not exclude that an item outside the candidates is as good as the last of the k, more
candidates are kept, and so on. The list is therefore that of the exact scores, on every machine and
regardless of the batch.

**Ties.** The larger score comes first, and ties are broken by the smaller item row. The rule holds
everywhere, including at the cut, and for every number of threads.

**Missing items.** A score of -infinity means that an item is never listed; filters write it. A list
with too few items ends in items -1 with score -infinity.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import cached_property
from queue import SimpleQueue
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from nearfar.errors import DataError
from nearfar.method.prior import ItemWeights
from nearfar.runtime.arrays import Bool, Float32, Float64, Int32, Int64, read_only
from nearfar.runtime.checks import an_array, as_array, said, whole
from nearfar.runtime.threads import checked_threads, run_blocks
from nearfar.search import exact, heap
from nearfar.search.item_item import Terms

Exclusion = tuple[Int64, Int32]

BLOCK_USERS = 256
"""Rows of a tile; also the work that a thread takes at a time, for any number of threads."""
BLOCK_ITEMS = 2048
"""Columns of a tile. Wider tiles exceed the cache; narrower ones slow down the matrix product."""
SPARE = 8
"""Candidates kept in addition to k, for near ties at the cut."""
_CANDIDATES = 2**18
"""Maximum number of candidates in a block, over all rows; a single row may always keep all."""
_TERMS = 2**22
"""Maximum number of terms of a block, over all rows; a single row may always have all."""


class Scorer(Protocol):
    """Scores of users for items, one tile at a time; larger is closer.

    A score must not depend on the other rows and items of the same call, because the ranking uses
    it directly, unless the scorer is `Points`. Several threads call `score_block` concurrently.
    """

    @property
    def n_users(self) -> int:
        """Number of rows."""

    @property
    def n_items(self) -> int:
        """Number of items."""

    def score_block(self, rows: Int32, first_item: int, out: Float32) -> None:
        """Write the score of user ``rows[a]`` and item ``first_item + b`` to ``out[a, b]``.

        Parameters
        ----------
        rows : int32 array of shape (n_rows,)
        first_item : int
        out : float32 array of shape (n_rows, n_columns)
            Every entry must be overwritten.
        """


class Points:
    """The scorer of a metric model: ``queries[a] . targets[b] + offset[b]``.

    On the unit sphere the product alone orders by distance, ``D^2 = 2 - 2 q.t``. Elsewhere
    ``D^2 = |q|^2 - 2 (q.t - |t|^2 / 2)``, so the offset is ``-|t|^2 / 2``. `weighted` adds the
    popularity prior to it, and `near` a co-occurrence term for each query.

    `score_block` returns products as rounded by BLAS; `top_k` ranks by exact scores.

    Parameters
    ----------
    queries : float32 array of shape (n_users, dim)
    targets : float32 array of shape (n_items, dim)
    offset : float32 array of shape (n_items,), optional

    Raises
    ------
    DataError
        The shapes do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> points = Points(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32))
    >>> top_k(points, np.array([0, 1]), k=1).items.tolist()
    [[0], [1]]
    """

    def __init__(self, queries: Float32, targets: Float32, offset: Float32 | None = None) -> None:
        queries, targets = table_of("queries", queries), table_of("targets", targets)
        check_shapes(queries.shape, targets.shape, None if offset is None else np.shape(offset))
        self.queries = np.ascontiguousarray(queries, np.float32)
        self._to = _Targets(
            np.ascontiguousarray(targets, np.float32),
            None if offset is None else np.ascontiguousarray(offset, np.float32),
        )
        self.terms: Terms | None = None

    @property
    def targets(self) -> Float32:
        """float32, (n_items, dim)."""
        return self._to.table

    @property
    def offset(self) -> Float32 | None:
        """float32, (n_items,), or None."""
        return self._to.offset

    @property
    def n_users(self) -> int:
        """Number of query points."""
        return len(self.queries)

    @property
    def n_items(self) -> int:
        """Number of target points."""
        return len(self.targets)

    def with_queries(self, queries: Float32) -> Points:
        """Return points with other queries and the same targets, sharing cached values.

        They have no terms, which belong to the queries.
        """
        queries = table_of("queries", queries)
        check_shapes(queries.shape, self.targets.shape, None)
        other = copy(self)
        other.queries, other.terms = np.ascontiguousarray(queries, np.float32), None
        return other

    def near(self, terms: Terms | None) -> Points:
        """Return points that add the terms of the queries to their scores."""
        other = copy(self)
        other.terms = terms
        return other

    def weighted(self, weight: Float32 | None) -> Points:
        """Return points that add a weight (n_items,) to the score of each target."""
        if weight is None:
            return self
        check_shapes(self.queries.shape, self.targets.shape, weight.shape)
        other = copy(self)
        other._to = self._to.weighted(np.asarray(weight, np.float32))
        return other

    def holding(self, rows: Int32) -> Points:
        """Return the same points with the terms of these rows summed once; see `Terms.holding`."""
        return self if self.terms is None else self.near(self.terms.holding(rows))

    def score_block(self, rows: Int32, first_item: int, out: Float32) -> None:
        """Compute one tile of products; see `Scorer.score_block`."""
        part = slice(first_item, first_item + out.shape[1])
        np.matmul(self.queries[rows], self.targets[part].T, out=out)
        if self.offset is not None:
            out += self.offset[part]
        if self.terms is not None:
            self.terms.add_to(out, rows, first_item)

    def best_of(self, rows: Int32, candidates: Int32, k: int) -> TopK:
        """Return the k best of each row's own candidates, by exact scores.

        Parameters
        ----------
        rows : int32 array of shape (n_rows,)
        candidates : int32 array of shape (n_rows, n)
            Distinct items, in any order; -1 for none.
        k : int
        """
        found = TopK.empty(len(rows), k)
        offset = np.empty(0, np.float32) if self.offset is None else self.offset
        tables = exact.Operands(*map(read_only, (self.queries, self.targets, offset)))
        terms = self.terms_of(rows, candidates)
        exact.keep_best(tables, rows, candidates, terms, found.scores, found.items)
        heap.sort(found.scores, found.items)
        return found

    def terms_of(self, rows: Int32, candidates: Int32) -> Float64:
        """Return the terms of each row's own candidates; (0, 0) if there are none."""
        return np.empty((0, 0)) if self.terms is None else self.terms.of(rows, candidates)

    def rounding(self, rows: Int32) -> Float64:
        """Return a bound on the difference between products and exact scores, (n_rows,).

        A float32 sum of d products, in any order, is within d u |q||t| of the exact sum,
        u = 2^-24. Adding the offset rounds once more, and so does rounding the exact score. A term
        is rounded once and added once, and makes the sums larger that are rounded.
        """
        queries = self.queries[rows].astype(np.float64)
        length = np.sqrt(np.sum(queries * queries, axis=1))
        reach = length * self._to.longest + self._to.largest_offset
        bound: Float64 = 2.0**-24 * (self.queries.shape[1] + 4) * reach
        return bound if self.terms is None else bound + 2.0**-22 * self.terms.bound(rows)


class _Targets:
    """The targets and values derived from them, which are computed on first use."""

    def __init__(self, table: Float32, offset: Float32 | None) -> None:
        self.table, self.offset = table, offset

    def weighted(self, weight: Float32) -> _Targets:
        """Add a weight to the offsets; the length of the longest target is shared."""
        made = _Targets(self.table, weight if self.offset is None else self.offset + weight)
        vars(made)["longest"] = self.longest
        return made

    @cached_property
    def longest(self) -> float:
        """The length of the longest target."""
        parts = (self.table[at : at + 4096] for at in range(0, len(self.table), 4096))
        squares = (np.einsum("ij,ij->i", part, part).max() for part in parts)
        return float(np.sqrt(max(squares, default=0.0)))

    @cached_property
    def largest_offset(self) -> float:
        """The largest absolute value of the finite offsets."""
        finite = np.empty(0) if self.offset is None else self.offset[np.isfinite(self.offset)]
        return float(np.max(np.abs(finite), initial=0.0))


def table_of(name: str, value: Any) -> npt.NDArray[Any]:
    """Return a table of numbers as an array.

    Raises
    ------
    DataError
        It is something else.
    """
    found = as_array(value)
    if found.dtype.kind not in "iuf" or not found.ndim:
        raise DataError(f"`{name}` must be a table of points; got {said(value)}.")
    return found


def check_shapes(
    queries: tuple[int, ...], targets: tuple[int, ...], offset: tuple[int, ...] | None
) -> None:
    """Raise `DataError` if the shapes of tables of points do not fit together."""
    if len(queries) != 2 or len(targets) != 2 or queries[1] != targets[1]:
        message = "`queries` and `targets` must be tables of the same width; got shapes {} and {}."
        raise DataError(message.format(queries, targets))
    if offset is not None and offset != targets[:1]:
        message = "`offset` must have one entry for each of the {} targets; got shape {}."
        raise DataError(message.format(targets[0], offset))


class TopK(NamedTuple):
    """The best items of each row, best first; short lists are padded with -1 and -infinity."""

    items: Int32
    """int32, (n_rows, k)."""
    scores: Float32
    """float32, (n_rows, k)."""

    @classmethod
    def empty(cls, n_rows: int, k: int) -> TopK:
        """Return empty lists, which are also valid heaps."""
        return cls(np.full((n_rows, k), -1, np.int32), np.full((n_rows, k), -np.inf, np.float32))


@runtime_checkable
class Finder(Protocol):
    """A scorer that finds the best items itself, so its scores can stay where they are computed."""

    def best(
        self,
        rows: Int32,
        k: int,
        *,
        exclude: Exclusion | None,
        allow: Bool | None,
        progress: Callable[[int], None],
    ) -> TopK:
        """Return the same as `top_k`, which has already checked these arguments."""
        ...


class Index(Protocol):
    """The items of one model, arranged so that a search compares only some of them."""

    def check(self, item_vectors: Float32, weights: ItemWeights) -> None:
        """Raise `OptionError` if the index was made from other item vectors or weights."""

    def scorer(
        self,
        queries: Float32,
        *,
        popularity: float | None = None,
        threads: int | None = None,
    ) -> Scorer:
        """Return a scorer, which is also a `Finder`, of queries of shape (n_users, dim)."""
        ...


def top_k(
    scorer: Scorer,
    rows: npt.ArrayLike,
    k: int,
    *,
    exclude: Exclusion | None = None,
    allow: Bool | None = None,
    threads: int | None = 1,
    progress: Callable[[int], None] | None = None,
) -> TopK:
    """Return the k best items of each row, exactly.

    Filters are applied before the cut, so a list is short only if fewer than k items are left. Ties
    are broken by the smaller item row.

    Parameters
    ----------
    scorer : Scorer
        If it is also a `Finder`, its own search is used.
    rows : int array of shape (n_rows,)
        The users, in any order; a user may occur twice.
    k : int
        Length of the lists. Above the number of items it is cut to that number.
    exclude : (indptr, items), optional
        Items left out per user, in the form of `Interactions`: int64 (n_users + 1,) and int32, the
        items of user u at ``indptr[u]:indptr[u + 1]``, ascending.
    allow : bool array of shape (n_items,), optional
        Only these items may be listed.
    threads : int or None
        Python threads, each with its own tile and a BLAS of one thread; None for every core that
        this process may use. The result does not depend on it. A `Finder` ignores it.
    progress : callable, optional
        Called in this thread with the number of rows just finished.

    Returns
    -------
    TopK
        Of shapes (n_rows, min(k, n_items)).

    Raises
    ------
    OptionError
        `k` or `threads` is not a whole number of at least 1.
    DataError
        A row does not exist, a filter has the wrong shape, or a score is NaN.
    """
    k, n_threads = max(1, min(whole("k", k), scorer.n_items)), checked_threads(threads)
    users = _checked_rows(rows, scorer.n_users)
    hidden, allowed = _checked_exclusion(exclude, scorer), _mask(allow, scorer)
    if not isinstance(scorer, Points) and isinstance(scorer, Finder):
        return scorer.best(
            users,
            k,
            exclude=None if exclude is None else hidden,
            allow=None if allow is None else allowed,
            progress=progress or _ignore,
        )
    search = _ExactSearch(scorer, users, k, hidden, allowed)
    search.run(n_threads, progress or _ignore)
    return search.found


def _ignore(_: int) -> None:
    """Ignore the progress."""


def _checked_rows(rows: npt.ArrayLike, n_users: int) -> Int32:
    given = np.atleast_1d(as_array(rows))
    if given.size == 0:
        return np.empty(0, np.int32)
    if given.ndim != 1 or given.dtype.kind not in "iu":
        message = "`rows` must be a list of row numbers; got {} of shape {}."
        raise DataError(message.format(given.dtype, given.shape))
    if given.min() < 0 or given.max() >= n_users:
        outside = given[(given < 0) | (given >= n_users)][0]
        raise DataError(f"`rows` must lie in 0 ... {n_users - 1}; got {outside}.")
    return given.astype(np.int32)


def _checked_exclusion(exclude: Exclusion | None, scorer: Scorer) -> Exclusion:
    if exclude is None:
        return np.empty(0, np.int64), np.empty(0, np.int32)
    if not isinstance(exclude, tuple | list) or len(exclude) != 2:
        raise DataError(f"`exclude` must be (indptr, items); got {said(exclude)}.")
    parts = [an_array("exclude", part, 1, "iu") for part in exclude]
    indptr = read_only(np.ascontiguousarray(parts[0], np.int64))
    items = read_only(np.ascontiguousarray(parts[1], np.int32))
    ends = (len(indptr), *indptr[:1], *indptr[-1:])
    if ends != (scorer.n_users + 1, 0, len(items)) or np.any(indptr[1:] < indptr[:-1]):
        message = "`exclude` must be (indptr, items) of {} users; got {} pointers, {} items."
        raise DataError(message.format(scorer.n_users, len(indptr), len(items)))
    return indptr, items


def _mask(allow: Bool | None, scorer: Scorer) -> Bool:
    if allow is None:
        return read_only(np.empty(0, np.bool_))
    given = as_array(allow)
    if given.dtype != np.bool_ or given.shape != (scorer.n_items,):
        message = "`allow` must be a bool for each of the {} items; got {} of shape {}."
        raise DataError(message.format(scorer.n_items, given.dtype, given.shape))
    return read_only(np.ascontiguousarray(given))


class _ExactSearch:
    """The state of one call of `top_k`: its arguments, its result, and the tiles."""

    def __init__(
        self, scorer: Scorer, users: Int32, k: int, exclude: Exclusion, allowed: Bool
    ) -> None:
        self.scorer, self.users, self.exclude, self.allowed = scorer, users, exclude, allowed
        self.k, self.found = k, TopK.empty(len(users), k)
        self.tiles: SimpleQueue[Float32] = SimpleQueue()

    def run(self, threads: int, progress: Callable[[int], None]) -> None:
        """Search for all rows, block by block."""
        size = min(BLOCK_USERS * BLOCK_ITEMS, len(self.users) * self.scorer.n_items)
        starts = range(0, len(self.users), BLOCK_USERS)
        for _ in range(min(threads, len(starts))):
            self.tiles.put(np.empty(size, np.float32))
        run_blocks(self.block, starts, threads, progress)

    def block(self, start: int) -> int:
        """Search for the block of users at `start`; return their number."""
        places = np.arange(start, min(start + BLOCK_USERS, len(self.users)))
        if isinstance(self.scorer, Points):
            self._settle(self.scorer, places, self.k + SPARE)
        else:
            found = self._candidates(self.scorer, self.users[places], self.k, BLOCK_ITEMS)
            heap.sort(found.scores, found.items)
            self._keep(places, found)
        return len(places)

    def _settle(self, points: Points, places: Int64, n: int) -> None:
        """Rank the rows at `places` by exact scores of n candidates, or more if necessary."""
        n = min(n, points.n_items)
        at_once = max(1, _CANDIDATES // max(n, 1))
        if points.terms is not None and len(places):
            most = int(points.terms.sizes(self.users[places]).max(initial=1))
            at_once = max(1, min(at_once, _TERMS // max(most, 1)))
        for begin in range(0, len(places), at_once):
            some = places[begin : begin + at_once]
            users = self.users[some]
            # few queries get wide tiles: each target is read only once anyway
            widest = max(BLOCK_ITEMS, BLOCK_USERS * BLOCK_ITEMS // len(users))
            held = points.holding(users)
            candidates = self._candidates(held, users, n, widest)
            found = held.best_of(users, candidates.items, self.k)
            self._keep(some, found)
            if n < points.n_items:
                left = candidates.scores[:, 0] + points.rounding(users)  # the root is the worst
                full = candidates.items[:, 0] >= 0
                doubtful = full & (found.scores[:, -1] <= left.astype(np.float32))
                self._settle(points, some[doubtful], 8 * n)

    def _keep(self, places: Int64, found: TopK) -> None:
        self.found.items[places], self.found.scores[places] = found

    def _candidates(self, scorer: Scorer, users: Int32, n: int, widest: int) -> TopK:
        """Return the n best by the scorer's scores, as heaps, using tiles of `widest` items."""
        found, buffer = TopK.empty(len(users), n), self.tiles.get()
        try:
            for first in range(0, scorer.n_items, widest):
                width = min(widest, scorer.n_items - first)
                tile = buffer[: len(users) * width].reshape(len(users), width)
                scorer.score_block(users, first, tile)
                if len(self.exclude[1]):
                    heap.hide(tile, first, users, *self.exclude)
                bad = heap.scan(tile, first, self.allowed, found.scores, found.items)
                if bad >= 0:
                    raise not_a_number(int(users[bad // width]), first + bad % width)
        finally:
            self.tiles.put(buffer)
        return found


def not_a_number(user: int, item: int) -> DataError:
    """Return the error for a score that is NaN."""
    return DataError(
        f"The score of user row {user} for item row {item} is NaN; every score must be a number. "
        "A model whose tables hold NaN has diverged: train it again with a lower learning rate."
    )
