"""The reasons of a recommendation: which own items are near it, and what its score is the sum of.

    score_ij = closeness + prior + neighbours
    closeness = 1 - D^2(u_i, v_j) / 2, on the sphere u_i.v_j
    prior = x gamma log f_j                          (`nearfar.method.prior`)
    neighbours = lambda / sqrt|S_i| sum over k in S_i of g_kj   (`nearfar.method.co_occurrence`)

The point of an item with content is v_j = z_j / |z_j|, z_j = g(x_j) + delta_j
(`nearfar.method.hybrid`), so its closeness is the sum of two parts ::

    content = u_i.g(x_j) / |z_j|,     own = u_i.delta_j / |z_j|

The parts are float64. On the sphere the score is their sum, rounded once to float32: the same bits
as in the lists of `nearfar.CML.recommend`. Off the sphere a list adds -|v_j|^2 / 2 and 1 - |u_i|^2
/ 2 in float32, so the sum differs from the score by its rounding, 2^-22 of the squared lengths.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import polars as pl

from nearfar.errors import DataError, OptionError
from nearfar.method.geometry import score as closeness_of
from nearfar.model.asked import Asked, Axis, known_rows
from nearfar.model.retrieval import Retrieval
from nearfar.runtime.arrays import Float32, Float64, Int32, read_only
from nearfar.runtime.checks import said
from nearfar.search.exact import Operands, products
from nearfar.search.item_item import NearItems
from nearfar.search.neighbours import Points
from nearfar.search.scoring import closeness


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why a user gets an item: the parts of the score, and the user's items that are nearest."""

    user: Any
    """The id of the user; None for a new one."""
    item: Any
    """The id of the item."""
    score: float
    """The score that `nearfar.CML.recommend` shows, a float32 number."""
    closeness: float
    """1 - D^2 / 2 between the user and the item, on the sphere their cosine."""
    content: float | None
    """The part of `closeness` that is due to the content of the item; None if the item has none, or
    the model does not learn from it."""
    own: float | None
    """The rest of `closeness`, which the content does not say; None like `content`."""
    prior: float
    """The weight of the item at the setting of the dial; 0 without a prior."""
    neighbours: float
    """The co-occurrence term; 0 without one."""
    popularity: float
    """The setting of the popularity dial."""
    n_own: int
    """Number of items that the user has, without the item itself."""
    nearest: pl.DataFrame
    """Those of them that are nearest to the item: ``item_id``, ``title`` if the items have titles,
    and ``similarity``, as by `nearfar.CML.similar_items`; if the model has neighbours also
    ``neighbours``, the part of the term that is due to this item."""
    title: str | None = None
    """The title of the item, if it has one."""

    @property
    def parts(self) -> dict[str, float]:
        """The numbers that add up to the score, by name; `closeness` is divided if it can be."""
        near = {"closeness": self.closeness}
        if self.content is not None and self.own is not None:
            near = {"content": self.content, "own": self.own}
        return {**near, "prior": self.prior, "neighbours": self.neighbours}

    def __str__(self) -> str:
        """Return the reasons as a few lines of text."""
        who = "a new user" if self.user is None else f"user {self.user}"
        what = f"item {self.item}" + (f" ({self.title})" if self.title else "")
        lines = [f"{who}, {what}: score {self.score:.4f}"]
        notes = {"prior": f"  at popularity {self.popularity:g}"} if self.prior else {}
        lines += [f"  {name:<12}{v:>10.4f}{notes.get(name, '')}" for name, v in self.parts.items()]
        told = f"nearest of the {self.n_own:,} other items that the user has:"
        lines.append(told if self.n_own else "the user has no other item")
        for row in self.nearest.iter_rows(named=True):
            title = f"  {row['title']}" if row.get("title") else ""
            lines.append(f"  {row['similarity']:.4f}  {row['item_id']}{title}")
        return "\n".join(lines)


def explain(
    search: Retrieval, user: Any, item: Any, liked: Iterable[Any] | None, k: int, popularity: float
) -> Explanation:
    """Return the reasons of one item for one user, or for a new one; see `nearfar.CML.explain`."""
    if (user is None) == (liked is None):
        both = "both" if user is not None else "neither"
        raise OptionError(f"`explain` needs either `user` or `liked`; got {both}.")
    if liked is None:
        name = search.interactions.user_ids.id(_one(search.user_axis("explain"), user, "user"))
        asked = search.known_users(name, "error")
    else:
        asked, name = search.new_user(liked, "error"), None
    at = _one(search.item_axis("explain"), item, "item")
    return _explained(search, asked, name, at, k, popularity)


def _one(axis: Axis, given: Any, name: str) -> int:
    """Return the row of a single id that has a point."""
    several = isinstance(given, Iterable) and not isinstance(given, str | bytes)
    if given is None or (several and np.ndim(given) != 0) or isinstance(given, dict | pl.DataFrame):
        raise DataError(f"`{name}` must be a single id; got {said(given)}.")
    _, rows, _ = known_rows(axis, given, "error")
    return int(rows[0])


def _explained(
    search: Retrieval, asked: Asked, user: Any, item: int, k: int, popularity: float
) -> Explanation:
    """Return the reasons for the first row that is asked about."""
    data, row = search.interactions, asked.rows[:1]
    points = cast(Points, search.for_users(asked.queries, asked.hidden, "cpu", popularity))
    point, candidate = asked.queries[row], np.full((1, 1), item, np.int32)
    found = points.best_of(row, candidate, 1)
    total = closeness(found.scores, point, search.options.geometry)
    near, terms = _closeness(search, points, row, candidate), points.terms_of(row, candidate)
    content, weight = _content(search, point[0], item), search.weights.at(popularity)
    own = asked.hidden[1][asked.hidden[0][row[0]] : asked.hidden[0][row[0] + 1]]
    own = own[own != item]
    return Explanation(
        user=user,
        item=data.item_ids.id(item),
        score=float(total[0, 0]),
        closeness=near,
        content=content,
        own=None if content is None else near - content,
        prior=0.0 if weight is None else float(weight[item]),
        neighbours=float(terms.sum()),
        popularity=popularity,
        n_own=len(own),
        nearest=_nearest(search, own, item, k, asked),
        title=data.titles([data.item_ids.id(item)])[0],
    )


def _closeness(search: Retrieval, points: Points, row: Int32, candidate: Int32) -> float:
    """Return 1 - D^2 / 2 of a user and an item; the product of a list, on the sphere."""
    user, item = points.queries[row[0]], points.targets[candidate[0, 0]]
    if search.options.geometry != "sphere":
        return float(closeness_of(user.astype(np.float64), item.astype(np.float64)))
    out = np.zeros((1, 1))
    no_offset = np.empty(0, np.float32)
    tables = Operands(*map(read_only, (points.queries, points.targets, no_offset)))
    products(tables, row, candidate, out)
    return float(out[0, 0])


def _content(search: Retrieval, user: Float32, item: int) -> float | None:
    """Return the part of the closeness that the content of the item says; None if it has none."""
    encoders = search.encoders
    if encoders is None:
        return None
    part = encoders.content_part(len(search.users) + item)
    return None if part is None else float(np.sum(user.astype(np.float64) * part))


def _nearest(search: Retrieval, own: Int32, item: int, k: int, asked: Asked) -> pl.DataFrame:
    """Return the own items that are nearest to an item."""
    k = max(1, min(k, len(own)))
    points = cast(Points, search.points(search.items, search.items, "cpu"))
    found = points.best_of(np.array([item], np.int32), own[None], k)
    rows = found.items[0][found.items[0] >= 0]
    scores = found.scores[:1, : len(rows)]
    near = closeness(scores, search.items[item][None], search.options.geometry)[0]
    ids = search.interactions.item_ids.take(rows)
    titles = search.interactions.titles(ids)
    columns: dict[str, Any] = {"item_id": ids}
    if any(title is not None for title in titles):
        columns["title"] = pl.Series(titles, dtype=pl.String)
    columns["similarity"] = pl.Series(near.astype(np.float32))
    if search.near is not None:
        size = np.sqrt(max(np.diff(asked.hidden[0])[asked.rows[0]], 1))
        columns["neighbours"] = _found_with(search.near, rows, item) * search.near_weight / size
    return pl.DataFrame(columns)


def _found_with(near: NearItems, rows: Int32, item: int) -> Float64:
    """Return g_kj of items k and an item j, 0 where j is no neighbour of k."""
    found = np.zeros(len(rows))
    for at, k in enumerate(rows):
        part = slice(near.indptr[k], near.indptr[k + 1])
        found[at] = near.values[part][near.items[part] == item].sum()
    return found
