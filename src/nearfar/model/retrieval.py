"""Retrieval: the nearest items or users of a fitted model, as tables with ids.

`nearfar.CML` checks and documents the questions. Here ids become rows (`nearfar.model.asked`), an
exact search or an index finds the nearest rows, and these become a table.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from nearfar.data.ids import Ids
from nearfar.errors import OptionError
from nearfar.method.options import Options
from nearfar.method.prior import ItemWeights, log_popularity
from nearfar.model.asked import (
    Asked,
    Axis,
    checked_index,
    distinct_rows,
    filter_rows,
    known_rows,
    warn_of_skipped,
)
from nearfar.model.fitted import Fitted
from nearfar.model.joint_index import JointIndex
from nearfar.runtime.arrays import Bool, Float32, Int32
from nearfar.runtime.caller import warn
from nearfar.runtime.devices import resolve_ranking
from nearfar.search.diversity import diverse_top_k
from nearfar.search.item_item import Terms
from nearfar.search.neighbours import Exclusion, Index, Points, Scorer, TopK, top_k
from nearfar.search.scoring import closeness, scorer_of
from nearfar.training.fold_in import Folding

if TYPE_CHECKING:
    from nearfar.search.device_search import DevicePoints

Named = tuple[str, Ids]
"""The name of a column, and the ids of its rows."""


class Retrieval:
    """Searches in the points of a fitted model; what it needs is computed on first use."""

    def __init__(self, fitted: Fitted, options: Options) -> None:
        self.users, self.items, self.interactions = fitted.users, fitted.items, fitted.interactions
        self.options, self.gamma = options, fitted.gamma
        self.near, self.near_weight = fitted.neighbours, fitted.neighbour_weight
        self.encoders = fitted.encoders
        self.placed_users, self.placed_items = fitted.placed_users, fitted.placed_items
        self._scorers: list[tuple[Float32, Points]] = []

    def is_of(self, fitted: Fitted) -> bool:
        """Return whether these are the points of a fitted state."""
        return self.users is fitted.users and self.items is fitted.items

    @cached_property
    def folding(self) -> Folding:
        """What folds new users and items in."""
        return Folding(self.users, self.items, self.interactions, self.options)

    @cached_property
    def weights(self) -> ItemWeights:
        """The weights of the items."""
        encoders = self.encoders
        content = None if encoders is None else encoders.item_rows
        return ItemWeights(self.gamma, log_popularity(self.interactions.item_counts, content))

    # ------------------------------------------------------------------------ scorers

    def points(
        self, queries: Float32, targets: Float32, device: str, weight: Float32 | None = None
    ) -> Points | DevicePoints:
        """Return a scorer of all points of a table of the model, with the weight of each."""
        name = resolve_ranking(device)
        points = self._scorer_of(targets).with_queries(queries).weighted(weight)
        if name == "cpu":
            return points
        from nearfar.search.device_search import DevicePoints

        return DevicePoints(points.queries, points.targets, points.offset, device=name)

    def for_users(
        self, queries: Float32, own: Exclusion, device: str, popularity: float
    ) -> Points | DevicePoints:
        """Return a scorer of all items for users, whose own items are `own`.

        Raises
        ------
        OptionError
            The model has neighbours and the device is not the CPU.
        """
        name, weight = resolve_ranking(device), self.weights.at(popularity)
        if self.near is None:
            return self.points(queries, self.items, name, weight)
        if name != "cpu":
            raise OptionError(
                f"`device` is {device!r}, but the co-occurrence term of this model"
                f" ({self.options.neighbours}) is computed on the CPU; rank with device='cpu'."
            )
        points = self._scorer_of(self.items).with_queries(queries).weighted(weight)
        return points.near(Terms(self.near, self.near_weight, own))

    def _scorer_of(self, targets: Float32) -> Points:
        """Return the scorer of a table of the model; it is created once."""
        for table, points in self._scorers:
            if table is targets:  # `points.targets` is not, if the table is mapped from a file
                return points
        made = scorer_of(targets, targets, self.options.geometry)
        self._scorers.append((targets, made))
        return made

    def items_near(
        self,
        queries: Float32,
        device: str,
        index: Index | None,
        threads: int | None,
        popularity: float,
    ) -> Scorer:
        """Return a scorer of all items for queries, or of those that an index finds, by points."""
        if index is None:
            return self.points(queries, self.items, device, self.weights.at(popularity))
        index = checked_index(index)
        if resolve_ranking(device) != "cpu":
            raise OptionError(f"`index` searches on the CPU; got device={device!r}.")
        index.check(self.items, self.weights)
        return index.scorer(queries, popularity=popularity, threads=threads)

    def items_for(
        self,
        asked: Asked,
        device: str,
        index: Index | JointIndex | None,
        threads: int | None,
        popularity: float,
    ) -> Scorer:
        """Return a scorer of all items for users, with their neighbours if the model has any."""
        if isinstance(index, JointIndex):
            return index.for_users(asked.queries, asked.hidden)
        if index is None:
            return self.for_users(asked.queries, asked.hidden, device, popularity)
        if self.near is not None:
            raise OptionError(
                f"`index` cannot be used: the score of this model has a co-occurrence term"
                f" ({self.options.neighbours}), and an index compares points alone. Recommend"
                " without an index; `similar_items` can use it."
            )
        return self.items_near(asked.queries, device, index, threads, popularity)

    # ---------------------------------------------------------------------- questions

    def user_axis(self, where: str) -> Axis:
        """Return the users, with the remedy for one without training interactions."""
        data = self.interactions
        remedy = (
            "Pass the items that the user likes as `liked`, or train with their interactions"
            " (`partial_fit`); unknown='skip' leaves such users out."
            if where == "recommend"
            else f"Leave them out of {where}, or train with their interactions (`partial_fit`)."
        )
        return Axis(data.user_ids, self.placed_users, remedy)

    def item_axis(self, where: str) -> Axis:
        """Return the items, with the remedy for one without training interactions."""
        data = self.interactions
        remedy = f"Leave them out of {where}, or train with their interactions (`partial_fit`)."
        return Axis(data.item_ids, self.placed_items, remedy)

    def known_users(self, users: Any, unknown: str) -> Asked:
        """Return users of the model; warn of those that are skipped."""
        one, rows, skipped = known_rows(self.user_axis("recommend"), users, unknown)
        warn_of_skipped("users", skipped, len(rows) + len(skipped))
        return self._of_users(one, rows)

    def all_users(self) -> Asked:
        """Return all users with training interactions; warn of the others."""
        data = self.interactions
        rows = np.flatnonzero(self.placed_users).astype(np.int32)
        if len(rows) < data.n_users:
            warn(
                f"{data.n_users - len(rows):,} of the {data.n_users:,} users have no training"
                " interactions and are left out; `recommend(liked=...)` recommends to new users."
            )
        return self._of_users(False, rows)

    def _of_users(self, one: bool, rows: Int32) -> Asked:
        data = self.interactions
        return Asked(one, rows, self.users, (data.indptr, data.items))

    def new_user(self, liked: Iterable[Any], unknown: str) -> Asked:
        """Return a new user, by fold-in."""
        own = distinct_rows(self.item_axis("`liked`"), liked, "liked", unknown)
        point = self.folding.user(own, seed=0)[None]
        return Asked(True, np.zeros(1, np.int32), point, (np.array([0, len(own)], np.int64), own))

    def mask(
        self,
        allow: Iterable[Any] | None,
        deny: Iterable[Any] | None,
        among: Iterable[Any] | None = None,
    ) -> Bool | None:
        """Return the items that may be listed; None if all may."""
        ids, trained = self.interactions.item_ids, self.placed_items
        if among is not None:
            chosen = np.zeros(len(ids), np.bool_)
            chosen[distinct_rows(self.item_axis("`among`"), among, "among")] = True
            trained = trained & chosen
        if allow is None and deny is None:
            return None if trained.all() else trained
        mask = np.full(len(ids), allow is None)
        if allow is not None:
            mask[filter_rows(ids, allow, "allow")] = True
        if deny is not None:
            mask[filter_rows(ids, deny, "deny")] = False
        return mask & trained

    # -------------------------------------------------------------------------- lists

    def recommended(
        self,
        asked: Asked,
        scorer: Scorer,
        k: int,
        *,
        exclude_seen: bool,
        mask: Bool | None,
        threads: int | None,
        diversity: float = 0.0,
    ) -> pl.DataFrame:
        """Return the items nearest to users, or some of these that differ."""
        exclude, data = asked.hidden if exclude_seen else None, self.interactions
        found = diverse_top_k(
            scorer, self.items, asked.rows, k, diversity,
            on_sphere=self.options.geometry == "sphere", exclude=exclude, allow=mask,
            threads=threads,
        )  # fmt: skip
        return self._frame(found, asked, ("user_id", data.user_ids), ("item_id", data.item_ids))

    def similar(
        self,
        asked: Any,
        k: int,
        points: Float32,
        axis: Axis,
        threads: int | None,
        scorer: Scorer,
        mask: Bool | None = None,
    ) -> pl.DataFrame:
        """Return the users nearest to users, or the items nearest to items, without themselves.

        `mask` are those that may be listed; None for all that have a point.
        """
        one, rows, _ = known_rows(axis, asked, "error")
        n, ids, trained = len(points), axis.ids, axis.placed
        itself = (np.arange(n + 1, dtype=np.int64), np.arange(n, dtype=np.int32))
        if mask is None and not trained.all():
            mask = trained
        found = top_k(scorer, rows, k, exclude=itself, allow=mask, threads=threads)
        name = "user_id" if ids is self.interactions.user_ids else "item_id"
        return self._frame(found, Asked(one, rows, points, itself), ("query_id", ids), (name, ids))

    def similar_to(
        self,
        ids: Ids,
        queries: Float32,
        missing: Bool,
        k: int,
        threads: int | None,
        scorer: Scorer,
        mask: Bool | None,
    ) -> pl.DataFrame:
        """Return the items nearest to queries of their own; those that are missing have no list."""
        if missing.any():
            warn(
                f"{np.count_nonzero(missing):,} of the {len(ids):,} items of `features` have no"
                " feature that the model knows, and get no list."
            )
        rows = np.flatnonzero(~missing).astype(np.int32)
        found = top_k(scorer, rows, k, allow=mask, threads=threads)
        nothing = (np.zeros(len(ids) + 1, np.int64), np.empty(0, np.int32))
        target = ("item_id", self.interactions.item_ids)
        return self._frame(found, Asked(False, rows, queries, nothing), ("query_id", ids), target)

    def _frame(self, found: TopK, asked: Asked, query: Named, target: Named) -> pl.DataFrame:
        """Return lists as a table, with ids, and with 1 - D^2 / 2 as the score."""
        filled = found.items >= 0
        row, rank = np.nonzero(filled)
        points = asked.queries[asked.rows]
        scores = closeness(found.scores, points, self.options.geometry)
        columns = {
            "rank": pl.Series((rank + 1).astype(np.int32)),
            target[0]: target[1].take(found.items[filled]),
            "score": pl.Series(scores[filled].astype(np.float32)),
        }
        if not asked.one:
            columns = {query[0]: query[1].take(asked.rows[row]), **columns}
        return pl.DataFrame(columns)
