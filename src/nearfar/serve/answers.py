"""Conversion of requests to list queries, and of results to responses."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite
from typing import Any, Final

import numpy as np

from nearfar.model.asked import Axis
from nearfar.model.cml import CML
from nearfar.runtime import store
from nearfar.runtime.arrays import Float32, Int32
from nearfar.serve import schemas
from nearfar.serve.loaded import Loaded
from nearfar.serve.names import Names
from nearfar.serve.space import Nearest, Wish
from nearfar.serve.titles import Titles
from nearfar.version import VERSION

_INLINE = 1000
"""Up to this number, the ids of filters are looked up at once, without a thread."""
_NONE = np.empty(0, np.int32)
_NONE.flags.writeable = False
_PLACES = 6
_REASONS: Final = (
    "score", "closeness", "content", "own", "prior", "neighbours", "popularity", "n_own",
)  # fmt: skip
"""What an answer has of an `nearfar.model.explanation.Explanation` as it is."""


def takes_long(asked: schemas.Filtered) -> bool:
    """Return whether the query of a request has to be computed, or is long to look up."""
    folds_in = isinstance(asked, schemas.Recommend) and asked.items is not None
    return folds_in or len(asked.allow or ()) + len(asked.deny or ()) > _INLINE


def recommended(loaded: Loaded, asked: schemas.Recommend) -> tuple[Wish, dict[str, int]]:
    """Return the list query of a recommendation request, and the number of unknown ids by filter.

    Raises
    ------
    UnknownIdError
        The user or a liked item is not in the model, or has no training interactions.
    """
    query = loaded.vector(asked.user, asked.items)
    own = _seen(loaded, asked)
    setting = loaded.model.dial(asked.popularity)
    wish = Wish(query, asked.k, own if asked.exclude_seen else _NONE, None, setting, own)
    wish = replace(wish, diversity=asked.diversity)
    return filtered(loaded, wish, asked)


def filtered(loaded: Loaded, wish: Wish, asked: schemas.Filtered) -> tuple[Wish, dict[str, int]]:
    """Return a list query with the filters of a request, and the unknown ids by filter, counted."""
    hidden = wish.hidden
    deny, n_deny = loaded.items.known(asked.deny or ())
    if len(deny):
        hidden = np.union1d(hidden, deny)
    allow, n_allow = loaded.items.known(asked.allow or ())
    among = None if asked.allow is None else np.unique(allow)
    counts = {"allow": n_allow, "deny": n_deny}
    return replace(wish, hidden=hidden, among=among), {n: c for n, c in counts.items() if c}


def similar_items(loaded: Loaded, asked: schemas.SimilarItems) -> tuple[Wish, dict[str, int]]:
    """Return the query for the neighbours of an item, and the number of unknown ids by filter.

    Raises
    ------
    UnknownIdError
        The item is not in the model, or has no training interactions.
    """
    row, vectors = loaded.items.row(asked.item), loaded.model.item_vectors
    setting = loaded.model.dial(asked.popularity)
    wish = similar(vectors, loaded.item_axis, row, asked.k, setting)
    return filtered(loaded, wish, asked)


def _seen(loaded: Loaded, asked: schemas.Somebody) -> Int32:
    if asked.user is not None:
        return loaded.model.interactions.positives(loaded.users.row(asked.user))
    return np.unique(loaded.items.rows(asked.items or []))


def similar(vectors: Float32, axis: Axis, row: int, k: int, popularity: float = 0.0) -> Wish:
    """Return the query for the neighbours of a point of a table, without the point itself.

    Raises
    ------
    UnknownIdError
        It has no training interactions.
    """
    alone = np.array([row], np.int32)
    if (error := axis.untrained(alone)) is not None:
        raise error
    return Wish(vectors[row], k, alone, popularity=popularity)


def results(
    k: int,
    nearest: Nearest,
    names: Names,
    titles: Titles | None = None,
    unknown: dict[str, int] | None = None,
) -> schemas.Results:
    """Return a list with ids and, for items, titles and popularity."""
    rows = nearest.rows.tolist()
    named: list[str | None] = [None] * len(rows)
    counts: list[int | None] = [None] * len(rows)
    if titles is not None:
        named, counts = titles.of(rows), titles.popularity[nearest.rows].tolist()
    entries = zip(names.shown(rows), nearest.scores.tolist(), named, counts, strict=True)
    return schemas.Results(
        k=k,
        results=[
            schemas.Result(rank=rank, id=one, score=score, title=title, popularity=count)
            for rank, (one, score, title, count) in enumerate(entries, start=1)
        ],
        unknown=unknown or {},
    )


def explained(loaded: Loaded, asked: schemas.Explain) -> schemas.Reasons:
    """Return the reasons of an item for a user of the model, or for a new user.

    Raises
    ------
    UnknownIdError
        The user or an item is not in the model, or has no training interactions.
    """
    who = _subject(loaded, asked)
    row = np.array([loaded.items.row(asked.item)], np.int32)
    if (error := loaded.item_axis.untrained(row)) is not None:
        raise error
    item = loaded.items.ids.id(int(row[0]))
    why = loaded.model.explain(item=item, **who, k=asked.k, popularity=asked.popularity)
    rows = loaded.items.ids.rows(why.nearest["item_id"].to_list())
    shares = (
        why.nearest["neighbours"] if "neighbours" in why.nearest.columns else np.zeros(len(rows))
    )
    entries = zip(
        loaded.items.shown(rows.tolist()), loaded.titles.of(rows.tolist()),
        why.nearest["similarity"], shares, strict=True,
    )  # fmt: skip
    known = {name: getattr(why, name) for name in _REASONS}
    return schemas.Reasons(
        id=loaded.items.shown(row.tolist())[0],
        title=loaded.titles.of(row.tolist())[0],
        nearest=[
            schemas.Reason(id=one, title=title, similarity=near, neighbours=share)
            for one, title, near, share in entries
        ],
        **known,
    )


def _subject(loaded: Loaded, asked: schemas.Somebody) -> dict[str, Any]:
    """Return a user of the model, or the items that a new user likes, as `CML.explain` takes them.

    Raises
    ------
    UnknownIdError
        One is not in the model, or has no training interactions.
    """
    if asked.user is not None:
        row = np.array([loaded.users.row(asked.user)], np.int32)
        error = loaded.user_axis.untrained(row)
        found = {"user": loaded.users.ids.id(int(row[0]))}
    else:
        rows = loaded.items.rows(asked.items or [])
        error = loaded.item_axis.untrained(rows)
        found = {"liked": loaded.items.ids.take(rows).to_list()}
    if error is not None:
        raise error
    return found


def points(loaded: Loaded, asked: schemas.VectorQuery) -> schemas.PointList:
    """Return the points of users and items."""
    model = loaded.model
    return schemas.PointList(
        dim=model.options.dim,
        users=model.user_vectors[loaded.users.rows(asked.users)].tolist(),
        items=model.item_vectors[loaded.items.rows(asked.items)].tolist(),
    )


def found(loaded: Loaded, text: str, limit: int) -> schemas.FoundItems:
    """Return the items whose title or id contains a text."""
    rows = loaded.titles.find(text, limit)
    entries = zip(
        loaded.items.shown(rows.tolist()),
        loaded.titles.of(rows.tolist()),
        loaded.titles.popularity[rows].tolist(),
        strict=True,
    )
    return schemas.FoundItems(
        results=[schemas.Found(id=one, title=title, popularity=n) for one, title, n in entries]
    )


def facts(loaded: Loaded) -> schemas.ModelFacts:
    """Return the description of the model."""
    model, data, index = loaded.model, loaded.model.interactions, loaded.item_space.index
    return schemas.ModelFacts(
        version=VERSION,
        format=store.FORMAT,
        loaded_at=loaded.loaded_at.isoformat(timespec="seconds"),
        fingerprint=model.fingerprint,
        n_users=data.n_users,
        n_items=data.n_items,
        n_pairs=data.n_pairs,
        dim=model.options.dim,
        gamma=model.gamma,
        neighbour_weight=model.neighbour_weight,
        dial=_dial(model) if model.gamma > 0.0 else None,
        options=model.options.to_dict(),
        metrics=model.metrics,
        history=_history(loaded),
        index=None if index is None else schemas.IndexFigures(recall=index.recall, k=index.k),
        categories=loaded.titles.category_column,
    )


def _dial(model: CML) -> schemas.DialFacts:
    table = model.calibration
    k, front = None, []
    if table is not None:
        k, wanted = int(table["k"][0]), table[list(schemas.SettingFigures.model_fields)]
        front = [
            schemas.SettingFigures(**row)
            for row in wanted.iter_rows(named=True)
            if all(map(isfinite, row.values()))
        ]
    return schemas.DialFacts(popularity=model.dial(), k=k, front=front)


def _history(loaded: Loaded) -> list[schemas.EpochFigures]:
    history = loaded.model.history
    if "validation_ndcg" not in history.columns:
        return []
    wanted = [name for name in schemas.EpochFigures.model_fields if name in history.columns]
    rows = history[wanted].iter_rows(named=True)
    return [
        schemas.EpochFigures(**{"validation_mmr": None, **row})
        for row in rows
        if row["validation_ndcg"] is not None and isfinite(row["validation_ndcg"])
    ]


def drawn(loaded: Loaded, limit: int) -> schemas.Map:
    """Return the map of the most popular items."""
    titles, projected = loaded.titles, loaded.model.projection
    rows = titles.best_known[:limit]
    x, y = projected.points[rows].T.astype(np.float64).round(_PLACES)
    listed = rows.tolist()
    return schemas.Map(
        method=projected.method,
        n_items=loaded.model.interactions.n_items,
        ids=loaded.items.shown(listed),
        titles=titles.of(listed) if titles.known else None,
        x=x.tolist(),
        y=y.tolist(),
        popularity=titles.popularity[rows].tolist(),
        category=titles.categories(listed) if titles.category_column else None,
    )


def position(loaded: Loaded, asked: schemas.Somebody) -> schemas.Position:
    """Return the position of a user on the map."""
    x, y = loaded.model.projection.place(loaded.vector(asked.user, asked.items))
    return schemas.Position(x=round(float(x), _PLACES), y=round(float(y), _PLACES))
