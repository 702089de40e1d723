"""Evaluation by several processes, each with some of the items and some of the users.

Every rank has the points of its own users, and ranks all items for those who have test items: by a
search that all ranks make together (`nearfar.search.shard_search`). The lists are those of one
process, and metrics are averaged over all users, so they are those of `nearfar.evaluate` for the
same points, up to the order in which sums are rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nearfar.data.interactions import Interactions
from nearfar.evaluation import metrics
from nearfar.evaluation.averages import Joint
from nearfar.evaluation.front import Front, Tally, front_of
from nearfar.evaluation.ranking import on_average, users_at_once, values_of
from nearfar.runtime.arrays import Float32, Int32, Int64
from nearfar.search.neighbours import Exclusion, TopK
from nearfar.search.shard_search import ShardSearch

Search = Callable[[Float32, Exclusion], list[TopK]]


@dataclass(frozen=True, eq=False)
class JointRanking:
    """Rankings for the users with test items. All ranks call the same methods in the same order."""

    search: ShardSearch
    """Of the items, without weights."""
    first_user: int
    """The first user of this rank."""
    queries: Float32
    """(n, d) the points of this rank's users ``first_user``, ``first_user + 1``, ..."""
    train: Interactions
    """Its pairs are left out of the lists."""
    test: Interactions
    """The relevant items; of users with training interactions."""
    k: int
    """Length of the lists."""

    @cached_property
    def users(self) -> Int64:
        """The users of this rank with test items."""
        here = slice(self.first_user, self.first_user + len(self.queries))
        return self.first_user + np.flatnonzero(self.test.user_counts[here])

    def metrics(self, search: ShardSearch) -> dict[str, float]:
        """Return the metrics of `nearfar.evaluate` by name, the same on every rank."""

        def one(queries: Float32, own: Exclusion) -> list[TopK]:
            return [search.best(queries, own, self.k)]

        (tally,) = self._tallies(1, one)
        exposed = self._pool.added(tally.exposed)
        return on_average(values_of(tally.per_user), exposed, self.train.item_counts, self._pool)

    def front(self, search: ShardSearch, gammas: Sequence[float], log_counts: Float32) -> Front:
        """Return the metrics with the weights gamma log f_j; see `nearfar.evaluation.front`.

        The front's `per_user` is of this rank's users.
        """
        factors = np.array(gammas, np.float32)

        def each(queries: Float32, own: Exclusion) -> list[TopK]:
            return search.best_each(queries, own, self.k, log_counts, factors)

        tallies = self._tallies(len(gammas), each)
        decile = metrics.deciles(self.train.item_counts)
        means = [tally.row(decile) for tally in tallies]
        n_users = int(self._pool.added(np.array([len(self.users)]))[0])
        return front_of(self.k, n_users, gammas, means, tallies)

    @property
    def _pool(self) -> Joint:
        return Joint(self.search.ranks)

    def _tallies(self, n_lists: int, search: Search) -> list[Tally]:
        """Rank for all users, some at a time; add up each of their lists."""
        tallies = [Tally(self.train, self.test, self.k, self._pool) for _ in range(n_lists)]
        at_once = users_at_once(n_lists * min(self.k, self.train.n_items))
        for part in self._pool.parts(len(self.users), at_once):
            users = self.users[part].astype(np.int32)
            lists = search(self.queries[users - self.first_user], own_items(self.train, users))
            for tally, found in zip(tallies, lists, strict=True):
                tally.add(found.items, users)
        return tallies


def own_items(data: Interactions, users: Int32) -> Exclusion:
    """Return the items of some users: int64 (n + 1,) and int32."""
    starts, counts = data.indptr[users], data.user_counts[users]
    indptr = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    at = np.arange(indptr[-1]) + np.repeat(starts - indptr[:-1], counts)
    return indptr, data.items[at]
