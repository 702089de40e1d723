"""The validation part ranked by all processes of a cluster, of which none has all points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nearfar.data.interactions import Interactions
from nearfar.engine import Collective, Problem
from nearfar.evaluation.averages import Averages, Joint
from nearfar.evaluation.front import Front
from nearfar.evaluation.joint import JointRanking
from nearfar.runtime.arrays import Float32
from nearfar.search.item_item import NearItems
from nearfar.search.scoring import scorer_of
from nearfar.search.shard_search import ShardSearch
from nearfar.training.schedule import Schedule


@dataclass(frozen=True, eq=False)
class ShardComparisons:
    """Comparisons over shards; see `nearfar.training.calibration.Comparisons`.

    All processes call the same methods in the same order.
    """

    ranking: JointRanking
    search: ShardSearch
    problem: Problem
    schedule: Schedule

    @property
    def pool(self) -> Averages:
        """Each process has users of its own."""
        return Joint(self.search.ranks)

    def near(self, near: NearItems, weight: float) -> ShardComparisons:
        """Add the term of co-occurrence."""
        return replace(self, search=self.search.near(near, weight))

    def metrics(self, weight: Float32 | None) -> dict[str, float]:
        """Return all metrics by name with a weight (M,) on the items, the same everywhere."""
        return self.ranking.metrics(self.search.weighted(weight))

    def metric(self, weight: Float32 | None) -> float:
        """Return the schedule's metric."""
        return self.metrics(weight)[self.schedule.metric]

    def front(self, gammas: Sequence[float]) -> Front:
        """Return the front of several gamma."""
        return self.ranking.front(self.search, gammas, self.problem.log_popularity)


def over_shards(
    engine: Collective,
    own: Float32,
    validation: Interactions,
    schedule: Schedule,
    threads: int,
) -> ShardComparisons:
    """Return comparisons by the points `own` of this process's rows; not collective.

    It copies the points of the process's items, in the order of their numbers.
    """
    problem = engine.problem
    rows, n_users = engine.own_rows, problem.n_users
    n = int(np.count_nonzero(rows < n_users))
    items = rows[n:] - n_users
    order = np.argsort(items)
    points = scorer_of(own[:0], own[n:][order], problem.options.geometry)
    numbers = items[order].astype(np.int32)
    search = ShardSearch(engine.group, numbers, points, problem.n_items, threads)
    first = int(rows[0]) if n else 0
    ranking = JointRanking(search, first, own[:n], problem.interactions, validation, schedule.k)
    return ShardComparisons(ranking, search, problem, schedule)
