"""Conversion of requests to list queries, and of results to responses."""

from __future__ import annotations

import numpy as np

from nearfar.runtime import store
from nearfar.runtime.arrays import Float32, Int32
from nearfar.serve import schemas
from nearfar.serve.loaded import Loaded
from nearfar.serve.names import Names
from nearfar.serve.space import Nearest, Wish
from nearfar.version import VERSION

_NONE = np.empty(0, np.int32)
_NONE.flags.writeable = False
_PLACES = 6


def recommended(loaded: Loaded, asked: schemas.Recommend) -> Wish:
    """Return the list query of a recommendation request.

    Raises
    ------
    UnknownIdError
        An id is not in the model.
    """
    query = loaded.vector(asked.user, asked.items)
    hidden = _seen(loaded, asked) if asked.exclude_seen else _NONE
    if asked.deny:
        hidden = np.union1d(hidden, loaded.items.rows(asked.deny))
    among = None if asked.allow is None else np.unique(loaded.items.rows(asked.allow))
    return Wish(query, asked.k, hidden, among)


def _seen(loaded: Loaded, asked: schemas.Somebody) -> Int32:
    if asked.user is not None:
        return loaded.model.interactions.positives(loaded.users.row(asked.user))
    return np.unique(loaded.items.rows(asked.items or []))


def similar(vectors: Float32, row: int, k: int) -> Wish:
    """Return the query for the neighbours of a point of a table, without the point itself."""
    return Wish(vectors[row], k, np.array([row], np.int32))


def results(
    k: int, nearest: Nearest, names: Names, titles: list[str | None] | None = None
) -> schemas.Results:
    """Return a list with ids and titles."""
    ids = names.shown(nearest.rows.tolist())
    named = titles or [None] * len(ids)
    entries = zip(ids, nearest.scores.tolist(), named, strict=True)
    return schemas.Results(
        k=k,
        results=[
            schemas.Result(rank=rank, id=one, score=score, title=title)
            for rank, (one, score, title) in enumerate(entries, start=1)
        ],
    )


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
        options=model.options.to_dict(),
        metrics=model.metrics,
        history=_history(loaded),
        index=None if index is None else schemas.IndexFigures(recall=index.recall, k=index.k),
        categories=loaded.titles.category_column,
    )


def _history(loaded: Loaded) -> list[schemas.EpochFigures]:
    history = loaded.model.history
    if "validation_ndcg" not in history.columns:
        return []
    validated = history.filter(history["validation_ndcg"].is_finite())
    wanted = [name for name in schemas.EpochFigures.model_fields if name in history.columns]
    rows = validated.select(wanted).iter_rows(named=True)
    return [schemas.EpochFigures(**{"validation_mmr": None, **row}) for row in rows]


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
