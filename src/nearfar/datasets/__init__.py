"""Public data sets by name, downloaded once and kept in the user's cache directory.

No data set is part of nearfar: each is downloaded from its publisher, under the publisher's terms,
which are shown before the download (and by `info`). ``$NEARFAR_CACHE`` sets the cache directory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from nearfar.data.interactions import Interactions
from nearfar.datasets import cache, movielens
from nearfar.datasets.catalogue import CATALOGUE, Dataset, RemoteFile, info
from nearfar.datasets.download import Progress
from nearfar.datasets.recipes import RECIPES
from nearfar.errors import DataError, OptionError, SourceError
from nearfar.readers.columnar import reading
from nearfar.readers.raw import Raw
from nearfar.runtime.checks import a_callable, local_folder, local_path, real, switch
from nearfar.runtime.forks import check_fork

__all__ = [
    "DataError",
    "Dataset",
    "RemoteFile",
    "fetch",
    "info",
    "load",
    "locate",
    "names",
    "opened",
]

_log = logging.getLogger("nearfar")


def names() -> list[str]:
    """Return the names of the data sets.

    Examples
    --------
    >>> "ml-100k" in names()
    True
    """
    return list(CATALOGUE)


def fetch(
    name: str,
    *,
    folder: str | PathLike[str] | None = None,
    force: bool = False,
    progress: Progress | None = None,
    tell: cache.Tell | None = None,
) -> Path:
    """Download the missing files of a data set; an interrupted download is resumed.

    Parameters
    ----------
    name : str
        One of `names`.
    folder : path, optional
        Where to put the files; by default the cache, where `load` finds them.
    force : bool
        Download also the files that exist already.
    progress : callable, optional
        Called during the download with the name of a file, the bytes that have arrived, and the
        size of the file or None.
    tell : callable, optional
        Called with the terms of the data set before the download. By default they are logged as a
        warning.

    Returns
    -------
    Path
        The file with the interactions, for `load`, `opened` or ``nearfar prepare``.

    Raises
    ------
    OptionError
        If there is no data set of this name.
    SourceError
        If the download fails; the message lists the addresses that were tried and the reasons. Or
        if an existing file is damaged and `force` is false.
    """
    place = None if folder is None else local_path(folder, "folder")
    data, force = info(name), switch("force", force)
    _check_callables(progress, tell)
    return cache.fetch(data, place, force=force, progress=progress, tell=tell)


def locate(
    name: str,
    path: str | PathLike[str] | None = None,
    *,
    progress: Progress | None = None,
    tell: cache.Tell | None = None,
) -> tuple[Path, str]:
    """Find the raw file of a data set, and download it if it is missing.

    Parameters
    ----------
    name, path, progress, tell
        As in `opened`.

    Returns
    -------
    Path
        The `path` for `load` or `opened`.
    str
        Where it was found, in words.

    Raises
    ------
    OptionError, SourceError
        As `opened`.
    """
    _check_callables(progress, tell)
    return _located(name, _known(name), path, progress, tell)


@contextmanager
def opened(
    name: str,
    path: str | PathLike[str] | None = None,
    *,
    scratch: str | PathLike[str] | None = None,
    progress: Progress | None = None,
    tell: cache.Tell | None = None,
) -> Iterator[Raw]:
    """Open a data set with all its rows for lazy reading within the context.

    If `path` is given, only this path is used. Otherwise the cache is searched first, then the data
    set is downloaded.

    Parameters
    ----------
    name : str
        One of `names`, or the name of a recipe (`nearfar.datasets.recipes.RECIPES`), which needs a
        `path`.
    path : path, optional
        A local copy: the raw file, or a folder or zip archive that contains it.
    scratch : path, optional
        A folder for temporary files, which can need as much space as the unpacked raw file; by
        default the system's temporary folder.
    progress, tell
        As in `fetch`.

    Yields
    ------
    Raw
        Its rows have the columns user and item (String), value and, if the data set has them, time
        and dropped.

    Raises
    ------
    OptionError
        If there is no such data set or recipe, a recipe has no path, or `scratch` is not a folder.
    SourceError
        If the data set cannot be found, or its contents are not those expected.
    DataError
        If a file is malformed; the message names the file and the line.
    """
    check_fork()
    _check_callables(progress, tell)
    with _found(name, path, scratch, progress, tell) as found:
        yield found.raw


def load(
    name: str,
    path: str | PathLike[str] | None = None,
    *,
    min_value: float | None = None,
    progress: Progress | None = None,
) -> Interactions:
    """Load a data set as interactions: its rows of at least `min_value`.

    If `path` is given, only this path is used. Otherwise the cache is searched first, then the data
    set is downloaded.

    Parameters
    ----------
    name : str
        One of `names`.
    path : path, optional
        A local copy: the raw file, or a folder or zip archive that contains it.
    min_value : float, optional
        The smallest value that counts as an interaction; by default that of the data set, such as 4
        for ml-100k (see `info`).
    progress : callable, optional
        As in `fetch`.

    Returns
    -------
    Interactions
        With string ids, and with times and an `item_table` if the data set has them. Rows that the
        recipe leaves out, such as mismatched songs, are not included.

    Raises
    ------
    OptionError, SourceError, DataError
        As `opened`.
    EmptyDataError
        If no value is at least `min_value`.
    """
    check_fork()
    usual = info(name).min_value
    least = usual if min_value is None else real("min_value", min_value)
    _check_callables(progress)
    with _found(name, path, progress=progress) as found:
        _warn(found)
        # Only the selected rows are held in memory: the largest data set has 48 million rows.
        reached = (pl.col("value") >= least) | pl.col("value").is_null()
        rows = found.collected(found.kept.filter(reached))
        time = "time" if "time" in rows.columns else None
        data = Interactions.from_frame(rows, "user", "item", "value", least, time)
        items = found.raw.items
        return data if items is None else data.with_item_table(items)


@dataclass(frozen=True)
class _Found:
    """An open data set."""

    raw: Raw
    file: Path
    """The path that the recipe reads."""

    @property
    def kept(self) -> pl.LazyFrame:
        """The rows that the recipe does not leave out."""
        rows = self.raw.rows
        if "dropped" not in rows.collect_schema().names():
            return rows
        return rows.filter(pl.col("dropped").is_null()).drop("dropped")

    def collected(self, rows: pl.LazyFrame) -> pl.DataFrame:
        """Read rows into memory."""
        with reading(self.file):
            return rows.collect(engine="streaming")


@contextmanager
def _found(
    name: str,
    path: str | PathLike[str] | None,
    scratch: str | PathLike[str] | None = None,
    progress: Progress | None = None,
    tell: cache.Tell | None = None,
) -> Iterator[_Found]:
    """Find, open and verify a data set."""
    data = _known(name)
    scratch = None if scratch is None else local_folder("scratch", scratch)
    file, _ = _located(name, data, path, progress, tell)
    with TemporaryDirectory(prefix="nearfar-", dir=scratch) as folder:
        recipe = RECIPES[name if data is None else data.recipe]
        found = _Found(recipe.read(file, Path(folder)), file)
        if data is not None and data.ratings_sha256 is not None:
            _verify(data, found)
        yield found


def _known(name: str) -> Dataset | None:
    """Return the data set of a name, or None for that of a recipe; refuse others."""
    known = name if isinstance(name, str) else ""
    if known not in CATALOGUE and known not in RECIPES:
        raise OptionError(
            f"There is no data set or recipe {name!r}; the data sets are "
            f"{', '.join(CATALOGUE)}, the recipes {', '.join(RECIPES)}."
        )
    return CATALOGUE.get(name)


def _check_callables(progress: Progress | None, tell: cache.Tell | None = None) -> None:
    for argument, given in (("progress", progress), ("tell", tell)):
        if given is not None:
            a_callable(argument, given)


def _located(
    name: str,
    data: Dataset | None,
    given: str | PathLike[str] | None,
    progress: Progress | None,
    tell: cache.Tell | None,
) -> tuple[Path, str]:
    """Return the raw file or folder, and its origin in words."""
    path = None if given is None else local_path(given)
    if path is not None:
        if not path.exists():
            raise SourceError(f"There is no file or folder {str(path)!r} to read {name!r} from.")
        return path, str(path)
    if data is None:
        raise OptionError(
            f"{name!r} is a recipe, not a data set, so it needs a `path`; data sets are "
            f"{', '.join(CATALOGUE)}."
        )
    if (kept := cache.find(data)) is not None:
        return kept, f"the cache, {kept.parent}"
    got = cache.fetch(data, progress=progress, tell=tell)
    return got, cache.origin(got)


def _verify(data: Dataset, found: _Found) -> None:
    sha256 = movielens.checksum(found.collected(found.raw.rows))
    if sha256 != data.ratings_sha256:
        raise SourceError(
            f"The ratings in {str(found.file)!r} are not those of {data.title}: their SHA-256 must "
            f"be {data.ratings_sha256}; got {sha256}. Download the file again."
        )


def _warn(found: _Found) -> None:
    rejected = found.raw.rejected
    if not rejected.height:
        return
    line, reason, text = rejected.row(0)
    _log.warning(
        "%d lines of %s could not be read and are left out, the first of them line %d (%s): %.80r",
        rejected.height, found.file, line, reason, text,
    )  # fmt: skip
