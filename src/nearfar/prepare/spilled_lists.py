"""The pairs of a log as one list a user, in three flat arrays that are worked on where they lie.

A list is sorted by item, then time, then weight, so the result does not depend on the order in
which the pairs arrived, and rows of one pair stand side by side. Nothing here allocates more than
a few numbers a user or an item: at a hundred million pairs a second copy would be the peak.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nearfar.runtime.arrays import Bool, Float64, Int, Int32, Int64, Real
from nearfar.runtime.jit import inlined, kernel
from nearfar.runtime.threads import available_threads, run_blocks

_SHORT: Final = 32
"""Lists up to this length are sorted by insertion."""
_BLOCKS: Final = 64
"""Pieces of about as many pairs each, for the threads."""


class SpilledLists:
    """One list of items a user, with the times and the weights of the pairs where there are such.

    Users and items are numbered densely; `user_rows` and `item_rows` say which of the original rows
    they are.

    Parameters
    ----------
    counts : int64 array, shape (n_users,)
        How many rows of each user there will be.
    n_items : int
    times : dtype, optional
        The type of the times, if the pairs have them.
    weighted : bool
        Whether they have weights (float64).
    """

    def __init__(self, counts: Int64, n_items: int, times: Any = None, *, weighted: bool) -> None:
        self.indptr = np.zeros(counts.size + 1, np.int64)
        np.cumsum(counts, out=self.indptr[1:])
        n = int(self.indptr[-1])
        self.user_rows = np.arange(counts.size)
        self.item_rows = np.arange(n_items)
        self.items = np.empty(n, np.int32)
        # An array without entries says that there is no such column.
        self.times = np.empty(n if times is not None else 0, times or np.int64)
        self.weights = np.empty(n if weighted else 0, np.float64)
        # Where the next pair of a user goes, and where their list ends: side by side, one line.
        self._places = np.stack([self.indptr[:-1], self.indptr[1:]], axis=1)

    @property
    def n_users(self) -> int:
        """Number of lists."""
        return int(self.user_rows.size)

    @property
    def n_items(self) -> int:
        """Number of items; `items` are numbers below it."""
        return int(self.item_rows.size)

    @property
    def timed(self) -> bool:
        """Whether the pairs have times."""
        return bool(self.times.size)

    @property
    def n_pairs(self) -> int:
        """Number of entries of all lists."""
        return int(self.indptr[-1])

    def put(self, users: Int32, items: Int32, times: npt.NDArray[Any], weights: Float64) -> bool:
        """Append each pair to the list of its user; false if a list would become too long."""
        own = (self._places.reshape(-1), self.items, self.times, self.weights)
        return bool(_put(users, items, times, weights, *own))

    def full(self) -> bool:
        """Tell whether every list has got as many pairs as were announced."""
        return bool(np.array_equal(self._places[:, 0], self._places[:, 1]))

    def sort(self) -> None:
        """Bring each list in order: by item, then time, then weight."""
        self._places = np.empty((0, 2), np.int64)
        arrays = (self.indptr, self.items, self.times, self.weights)
        self.by_blocks(lambda begin, end: _sort(*arrays, begin, end))

    def by_blocks(self, work: Callable[[int, int], None]) -> None:
        """Call ``work(begin, end)`` for ranges of users that cover them all, on all threads."""
        shares = np.linspace(0, self.n_pairs, _BLOCKS + 1)
        bounds: list[int] = np.searchsorted(self.indptr, shares).tolist()
        bounds[0], bounds[-1] = 0, self.n_users

        def block(n: int) -> int:
            work(bounds[n], bounds[n + 1])
            return n

        run_blocks(block, range(_BLOCKS), available_threads(), lambda _: None)

    def merge(self, *, add: bool) -> None:
        """Make one entry of the rows of each pair, after `sort`.

        Its weight is their sum (`add`) or their greatest; its time the earliest of all (`add`), or
        of those with the greatest weight.
        """
        self._shorten(_merge(self.indptr, self.items, self.times, self.weights, add))

    def squeeze(
        self, users: Bool | None = None, items: Bool | None = None, least: float = -np.inf
    ) -> None:
        """Keep the pairs of these users and items, and of at least this weight.

        The items are renumbered to those that are kept; the lists of other users become empty.
        """
        users = np.ones(self.n_users, np.bool_) if users is None else users
        items = np.ones(self.n_items, np.bool_) if items is None else items
        rows = np.where(items, np.cumsum(items) - 1, -1).astype(np.int32)
        left = _squeeze(self.indptr, self.items, self.times, self.weights, users, rows, least)
        self.item_rows = self.item_rows[items]
        self._shorten(left)

    def drop_weights(self) -> None:
        """Forget the weights."""
        self.weights = np.empty(0, np.float64)

    def _shorten(self, n: int) -> None:
        for array in (self.items, self.times, self.weights):
            if array.size:
                array.resize(n, refcheck=False)  # gives the memory back, without a copy


class Survivors:
    """Which users and which items are left, and the filters that take them away.

    A filter takes away whole users or whole items, so a pair is left exactly if both of its ends
    are.
    """

    def __init__(self, lists: SpilledLists) -> None:
        self._lists = lists
        self._user_counts = np.diff(lists.indptr)
        self._item_counts = np.zeros(lists.n_items, np.int64)
        _add(lists.indptr, lists.items, np.ones(lists.n_users, np.bool_), 1, self._item_counts)
        self.users, self.items = self._user_counts > 0, self._item_counts > 0

    def filter_users(self, least: int) -> int:
        """Take away users with less than `least` items; give their number."""
        weak = self.users & (self._user_counts < least)
        self.users &= ~weak
        _add(self._lists.indptr, self._lists.items, weak, -1, self._item_counts)
        return int(weak.sum())

    def filter_items(self, least: int) -> int:
        """Take away items with less than `least` users; give their number."""
        weak = self.items & (self._item_counts < least)
        self.items &= ~weak
        if weak.any():
            arrays = (self._lists.indptr, self._lists.items, self.users, self.items)
            self._lists.by_blocks(lambda *range_: _count(*arrays, self._user_counts, *range_))
        return int(weak.sum())

    def left(self) -> tuple[int, int, int]:
        """Count the pairs, and the users and items that have some."""
        of_users = self._user_counts[self.users]
        n_items = int((self.items & (self._item_counts > 0)).sum())
        return int(of_users.sum()), int((of_users > 0).sum()), n_items

    def apply(self) -> None:
        """Drop everything else from the lists, and users and items that have no pair left."""
        lists = self._lists
        lists.squeeze(self.users, self.items & (self._item_counts > 0))
        some = np.diff(lists.indptr) > 0
        lists.indptr = lists.indptr[np.append(True, some)]
        lists.user_rows = lists.user_rows[some]


@kernel
def _put(
    users: Int32, items: Int32, times: Any, weights: Any, places: Int64,
    out_items: Int32, out_times: Any, out_weights: Any,
) -> bool:  # fmt: skip
    for n in range(users.size):
        place = 2 * users[n]
        at = places[place]
        if at >= places[place + 1]:
            return False
        places[place] = at + 1
        out_items[at] = items[n]
        if out_times.size:
            out_times[at] = times[n]
        if out_weights.size:
            out_weights[at] = weights[n]
    return True


@kernel
def _sort(indptr: Int64, items: Int32, times: Any, weights: Any, first: Int, last: Int) -> None:
    """Sort numbers made of an item and its place, then move what belongs to it there."""
    longest = 0
    for user in range(first, last):
        longest = max(longest, indptr[user + 1] - indptr[user])
    keys = np.empty(longest, np.int64)
    old_times = np.empty(min(longest, times.size), times.dtype)
    old_weights = np.empty(min(longest, weights.size), weights.dtype)
    for user in range(first, last):
        begin, n = indptr[user], indptr[user + 1] - indptr[user]
        for k in range(n):
            keys[k] = np.int64(items[begin + k]) << 32 | k
        _sort_keys(keys, n)
        for k in range(n):
            items[begin + k] = keys[k] >> 32
        if times.size:
            _permute(times, keys, old_times, begin, n)
        if weights.size:
            _permute(weights, keys, old_weights, begin, n)
        if times.size or weights.size:
            _sort_repeats(items, times, weights, begin, begin + n)


@inlined
def _sort_keys(keys: Int64, n: Int) -> None:
    if n <= _SHORT:
        for k in range(1, n):
            key, at = keys[k], k
            while at > 0 and keys[at - 1] > key:
                keys[at] = keys[at - 1]
                at -= 1
            keys[at] = key
    else:
        keys[:n].sort()


@inlined
def _permute(column: Any, keys: Int64, old: Any, begin: Int, n: Int) -> None:
    for k in range(n):
        old[k] = column[begin + k]
    for k in range(n):
        column[begin + k] = old[keys[k] & 0xFFFFFFFF]


@inlined
def _sort_repeats(items: Int32, times: Any, weights: Any, begin: Int, end: Int) -> None:
    """Bring rows of one item in order of their times, then weights."""
    first = begin
    for n in range(begin + 1, end + 1):
        if n == end or items[n] != items[first]:
            if n - first > 1:
                _heap_sort(times, weights, first, n)
            first = n


@kernel
def _heap_sort(times: Any, weights: Any, begin: Int, end: Int) -> None:
    n = end - begin
    for root in range(n // 2 - 1, -1, -1):
        _sink(times, weights, begin, root, n)
    for size in range(n - 1, 0, -1):
        _swap(times, weights, begin, begin + size)
        _sink(times, weights, begin, 0, size)


@inlined
def _sink(times: Any, weights: Any, begin: Int, root: Int, size: Int) -> None:
    """Let an entry of a heap sink until no entry below it is greater."""
    while 2 * root + 1 < size:
        child = 2 * root + 1
        if child + 1 < size and _before(times, weights, begin + child, begin + child + 1):
            child += 1
        if not _before(times, weights, begin + root, begin + child):
            return
        _swap(times, weights, begin + root, begin + child)
        root = child


@inlined
def _before(times: Any, weights: Any, a: Int, b: Int) -> Any:
    if times.size and times[a] != times[b]:
        return times[a] < times[b]
    return weights.size > 0 and weights[a] < weights[b]


@inlined
def _swap(times: Any, weights: Any, a: Int, b: Int) -> None:
    if times.size:
        times[a], times[b] = times[b], times[a]
    if weights.size:
        weights[a], weights[b] = weights[b], weights[a]


@inlined
def _bring(times: Any, weights: Any, n: Int, to: Int) -> None:
    if times.size:
        times[to] = times[n]
    if weights.size:
        weights[to] = weights[n]


@kernel
def _merge(indptr: Int64, items: Int32, times: Any, weights: Any, add: bool) -> Int:
    to, begin = 0, indptr[0]
    for user in range(indptr.size - 1):
        end, first = indptr[user + 1], to
        for n in range(begin, end):
            if to > first and items[to - 1] == items[n]:
                if weights.size and add:
                    weights[to - 1] += weights[n]
                elif weights.size and weights[n] > weights[to - 1]:
                    weights[to - 1] = weights[n]
                    if times.size:
                        times[to - 1] = times[n]
                continue
            items[to] = items[n]
            _bring(times, weights, n, to)
            to += 1
        begin = end
        indptr[user + 1] = to
    return to


@kernel
def _squeeze(
    indptr: Int64, items: Int32, times: Any, weights: Any, users: Bool, rows: Int32, least: Real
) -> Int:
    to, begin = 0, indptr[0]
    for user in range(indptr.size - 1):
        end = indptr[user + 1]
        if users[user]:
            for n in range(begin, end):
                row = rows[items[n]]
                if row < 0 or (weights.size and weights[n] < least):
                    continue
                items[to] = row
                _bring(times, weights, n, to)
                to += 1
        begin = end
        indptr[user + 1] = to
    return to


@kernel
def _add(indptr: Int64, items: Int32, users: Bool, n: Int, item_counts: Int64) -> None:
    """Add n to the count of every item, for each of these users who has it."""
    for user in range(users.size):
        if users[user]:
            for at in range(indptr[user], indptr[user + 1]):
                item_counts[items[at]] += n


@kernel
def _count(
    indptr: Int64, items: Int32, users: Bool, kept: Bool, counts: Int64, first: Int, last: Int
) -> None:
    """Count the items of users that are kept; only of users that are left."""
    for user in range(first, last):
        if users[user]:
            n = 0
            for at in range(indptr[user], indptr[user + 1]):
                n += kept[items[at]]
            counts[user] = n
