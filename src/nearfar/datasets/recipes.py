"""Recipes by name: how the raw files of public data sets are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nearfar.datasets import amazon, book_crossing, echonest, lastfm, movielens
from nearfar.prepare.rules import Paper
from nearfar.readers.raw import Raw


@dataclass(frozen=True)
class Recipe:
    """How the raw files of a data set are read, in all forms in which it is published."""

    name: str
    """The name of the recipe."""
    read: Callable[[Path, Path], Raw]
    """Reads a file, a folder or an archive; the second path is a folder for unpacked and parsed
    files, which must exist as long as the result is in use."""
    paper: Paper | None
    """The preparation in the paper; None if the paper does not use the data set."""
    about: str
    """The files, in one line."""


RECIPES: Final[dict[str, Recipe]] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "amazon", amazon.read, amazon.PAPER,
            "Amazon reviews of 2014: reviews_*_5.json (with meta_*.json) or ratings_*.csv",
        ),
        Recipe(
            "book-crossing", book_crossing.read, book_crossing.PAPER,
            "Book-Crossing: BX-Book-Ratings.csv (with BX-Books.csv)",
        ),
        Recipe(
            "echonest", echonest.read, echonest.PAPER,
            "Echo Nest Taste Profile: train_triplets.txt (with unique_tracks.txt, "
            "sid_mismatches.txt)",
        ),
        Recipe(
            "lastfm", lastfm.read, None,
            "Last.fm of HetRec 2011: user_artists.dat (with artists.dat)",
        ),
        Recipe(
            "movielens", movielens.read, None,
            "MovieLens: u.data, ratings.dat, ratings.csv or RecBole's *.inter (with the films)",
        ),
    )
}  # fmt: skip
"""The recipes by their names."""
