"""Films that nobody has rated, and who would like them: the end of the demo.

Three films are taken out of the data with all of their ratings. A hybrid learns from the other
films and from what films are, genres and year. Then `nearfar.CML.add_items` gives the three a point
by genres and year alone. The users whose points are nearest are those who would like a film; the
ratings that were taken out show how many of them do.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from nearfar.data.features import Features
from nearfar.data.interactions import Interactions
from nearfar.method.hybrid import Hybrid
from nearfar.model.cml import CML

FILMS: Final = ("1", "96", "288")
"""Toy Story (1995), Terminator 2 (1991), Scream (1996)."""
N_USERS: Final = 10
"""Users that are shown for each film."""
EPOCHS: Final = 3
DIM: Final = 32


class NewFilm(NamedTuple):
    """A film without ratings, and who would like it."""

    title: str
    genres: str
    users: tuple[str, ...]
    """Ids, the nearest first."""
    scores: tuple[float, ...]
    liked: tuple[bool, ...]
    """Whether each of them rated the film 4 or 5, in the ratings that were taken out."""
    share: float
    """The share of all users who did."""

    def to_dict(self) -> dict[str, Any]:
        """Return the film as JSON values."""
        users = [
            {"user": user, "score": score, "liked": liked}
            for user, score, liked in zip(self.users, self.scores, self.liked, strict=True)
        ]
        return {"title": self.title, "genres": self.genres, "share": self.share, "users": users}


def features_of(films: pl.DataFrame) -> Features:
    """Return genres and year of films; the year is part of the title."""
    described = films.with_columns(
        pl.col("genres").str.split(" | "),
        year=pl.col("title").str.extract(r"\((\d{4})\)$").cast(pl.Float64),
    )
    return Features.from_frame(described, categories="genres", numbers="year")


def without(data: Interactions, films: tuple[str, ...]) -> Interactions:
    """Return the interactions without some items, which are no longer on the axis."""
    others = np.flatnonzero(~np.isin(data.item_ids.values.to_numpy(), films))
    return data.aligned(data.user_ids, data.item_ids.subset(others))


def shown_films(data: Interactions) -> tuple[str, ...]:
    """Return the ids of the films that are taken out: `FILMS`, or in other data the first three."""
    known = tuple(film for film in FILMS if film in data.item_ids)
    return known if len(known) == len(FILMS) else tuple(data.item_ids.to_list()[: len(FILMS)])


def train(
    data: Interactions, *, epochs: int = EPOCHS, seed: int = 0, threads: int | None = None
) -> tuple[CML, tuple[NewFilm, ...]]:
    """Train a hybrid without three films, add them, and find who would like them.

    Parameters
    ----------
    data : Interactions
        With a table of the items that has ``title`` and ``genres``.
    epochs, seed, threads
        As in `nearfar.CML.fit`.

    Returns
    -------
    CML, tuple of NewFilm
        The model, which has the new films too.
    """
    films, table = shown_films(data), data.item_table
    assert table is not None
    features = features_of(table)
    model = CML(dim=DIM, items=Hybrid()).fit(
        without(data, films), item_features=features, epochs=epochs, seed=seed, threads=threads,
        progress=False,
    )  # fmt: skip
    model.add_items(features.of(data.item_ids.take(data.item_ids.rows(films))))
    about = {row["item_id"]: row for row in table.iter_rows(named=True)}
    return model, tuple(_audience(model, data, film, about[film]) for film in films)


def _audience(model: CML, data: Interactions, film: str, about: dict[str, Any]) -> NewFilm:
    """Return the users nearest to a film; all of them are users of `data`, in the same rows."""
    row = data.item_ids.row(film)
    likes = data.contains(np.arange(data.n_users), np.full(data.n_users, row))
    scores = model.user_vectors @ model.item_vectors[model.interactions.item_ids.row(film)]
    scores[~model.placed_users] = -np.inf
    nearest = np.argsort(-scores, kind="stable")[:N_USERS]
    return NewFilm(
        about["title"],
        (about["genres"] or "").replace(" | ", ", "),
        tuple(data.user_ids.take(nearest).to_list()),
        tuple(scores[nearest].tolist()),
        tuple(likes[nearest].tolist()),
        float(likes.mean()),
    )
