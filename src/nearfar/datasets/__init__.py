"""Public data sets by name, fetched once and kept in the user's cache directory.

None of them is part of nearfar: each comes from where its owner publishes it, under its terms,
which the docstring of its module repeats.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import polars as pl

from nearfar.datasets import movielens
from nearfar.datasets.source import Source, Tables, look_up
from nearfar.errors import OptionError
from nearfar.interactions import Interactions

__all__ = ["load", "load_items", "load_table", "look_at", "names"]

_SOURCES: dict[str, Source] = {movielens.ML_100K.name: movielens.ML_100K}


def names() -> list[str]:
    """Give the names that `load` knows.

    Examples
    --------
    >>> names()
    ['ml-100k']
    """
    return sorted(_SOURCES)


def load(
    name: str, path: str | PathLike[str] | None = None, *, min_value: float | None = None
) -> Interactions:
    """Load a data set as interactions: its rows of at least `min_value`.

    Looked for in this order: `path`, and nothing else if it is given; the cache; the official
    address; the package index. ``$NEARFAR_CACHE`` moves the cache.

    Parameters
    ----------
    name : str
        One of `names`.
    path : path, optional
        A local copy, as a folder or an archive; what is accepted is said in the docstring of the
        data set's module, such as `nearfar.datasets.movielens`.
    min_value : float, optional
        The smallest rating that counts as an interaction; by default the data set's own (4 for
        ml-100k).

    Returns
    -------
    Interactions
        With times, and ids that are strings.

    Raises
    ------
    OptionError
        If there is no data set of this name.
    SourceError
        If it cannot be found or is not what it should be; lists what was tried, and why it failed.
    EmptyDataError
        If no rating is that high.
    """
    source = _source(name)
    least = source.min_value if min_value is None else min_value
    return _interactions(_tables(name, path), least)


def load_table(name: str, path: str | PathLike[str] | None = None) -> pl.LazyFrame:
    """Load a data set with all its rows, for `nearfar.prepare`.

    Parameters
    ----------
    name, path
        As in `load`.

    Returns
    -------
    LazyFrame
        The columns user and item (String), value and time (Int64: seconds since 1970).

    Raises
    ------
    OptionError, SourceError
        As `load`.
    """
    return _tables(name, path).ratings.lazy()


def load_items(name: str, path: str | PathLike[str] | None = None) -> pl.DataFrame:
    """Load what a data set says about its items.

    Parameters
    ----------
    name, path
        As in `load`.

    Returns
    -------
    DataFrame
        The columns item_id and title, both String; ``"Toy Story (1995)"``.

    Raises
    ------
    OptionError, SourceError
        As `load`.
    """
    return _tables(name, path).items


def look_at(name: str, path: str | PathLike[str] | None = None) -> tuple[Tables, Interactions]:
    """Load everything at once: the raw tables, which say where they were found, and `load`'s.

    Parameters
    ----------
    name, path
        As in `load`.

    Returns
    -------
    Tables
        ``ratings`` as of `load_table`, ``items`` as of `load_items`, and ``where``.
    Interactions
        As of `load`, with the data set's own threshold.

    Raises
    ------
    OptionError, SourceError
        As `load`.
    """
    found = _tables(name, path)
    return found, _interactions(found, _source(name).min_value)


def _source(name: str) -> Source:
    if name not in _SOURCES:
        raise OptionError(f"There is no data set {name!r}; there are: {', '.join(names())}.")
    return _SOURCES[name]


def _tables(name: str, path: str | PathLike[str] | None) -> Tables:
    return look_up(_source(name), None if path is None else Path(path))


def _interactions(tables: Tables, least: float) -> Interactions:
    return Interactions.from_frame(tables.ratings, "user", "item", "value", least, "time")
