"""Where a data set is looked for: a path, the cache, and then each of its fetchers in turn."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import polars as pl

from nearfar import store
from nearfar.errors import DataError, SourceError, StoreError

KIND: Final = "dataset"
"""What the manifest of a cached data set calls it."""
CONNECT_SECONDS: Final = 10
"""How long to wait for an answer, so that a machine without a network moves on quickly."""
TOTAL_SECONDS: Final = 120
"""How long one download may take."""

_log = logging.getLogger("nearfar")


@dataclass(frozen=True)
class Tables:
    """A data set as it came, in one form whatever the source."""

    ratings: pl.DataFrame
    """Columns user and item (String), value and time (Int64)."""
    items: pl.DataFrame
    """Columns item_id and title (String)."""
    where: str = ""
    """Where it was found, in words."""


@dataclass(frozen=True)
class Fetcher:
    """One place to get the raw files from."""

    where: str
    """What to call it in a message."""
    fetch: Callable[[Path], Path]
    """Puts the raw files under the folder it is given, and says where."""


@dataclass(frozen=True)
class Source:
    """A public data set: its name, how its raw files are read, and where they come from."""

    name: str
    """The name for `nearfar.datasets.load`."""
    min_value: float
    """The smallest rating that counts as an interaction unless the caller says otherwise."""
    read: Callable[[Path], Tables]
    """Reads and verifies a local copy; raises `SourceError` or `DataError`."""
    fetchers: tuple[Fetcher, ...]
    """Tried in this order."""


def cache_folder() -> Path:
    """Say where data sets are kept: ``$NEARFAR_CACHE``, else the platform's cache directory."""
    if chosen := os.environ.get("NEARFAR_CACHE"):
        return Path(chosen)
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "nearfar"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "nearfar"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "nearfar" / "Cache"
    return Path.home() / ".cache" / "nearfar"


def look_up(source: Source, path: Path | None = None) -> Tables:
    """Find a data set and keep it in the cache.

    Parameters
    ----------
    source : Source
        What to look for.
    path : Path, optional
        A local copy. If given, it is the only place that is looked at.

    Raises
    ------
    SourceError
        If it is nowhere; lists every place that was tried, and why it failed.
    """
    kept = cache_folder() / source.name
    if path is not None:
        tables = _read(source, path)
        _keep(kept, tables)
        return replace(tables, where=str(path))
    tried: list[str] = []
    try:
        return replace(_cached(kept), where=f"the cache, {kept}")
    except StoreError as error:
        tried.append(f"the cache: {error}")
    for fetcher in source.fetchers:
        try:
            with tempfile.TemporaryDirectory(prefix="nearfar-") as folder:
                tables = _read(source, fetcher.fetch(Path(folder)))
        except (SourceError, OSError) as error:
            tried.append(f"{fetcher.where}: {error}")
        else:
            _keep(kept, tables)
            return replace(tables, where=fetcher.where)
    lines = "\n".join(f"  - {line}" for line in tried)
    raise SourceError(
        f"The data set {source.name!r} could not be found. Tried:\n{lines}\n"
        "Give a local copy with `path=`."
    )


def _read(source: Source, path: Path) -> Tables:
    if not path.exists():
        raise SourceError(f"There is no {str(path)!r} to read {source.name!r} from.")
    try:
        return source.read(path)
    except DataError as error:
        raise SourceError(f"{str(path)!r} is no good copy of {source.name!r}: {error}") from error


def _cached(folder: Path) -> Tables:
    frames = store.load_folder(folder, kind=KIND).frames
    if not {"ratings", "items"} <= set(frames):
        raise StoreError(f"{str(folder)!r} has no ratings and items; remove it.")
    return Tables(frames["ratings"], frames["items"])


def _keep(folder: Path, tables: Tables) -> None:
    try:
        store.save_folder(
            folder, kind=KIND, meta={}, frames={"ratings": tables.ratings, "items": tables.items}
        )
    except StoreError as error:  # the data are there all the same
        _log.warning("The data set is not kept for the next time: %s", error)


def download(url: str, target: Path) -> Path:
    """Fetch one file over HTTP.

    Raises
    ------
    SourceError
        If nobody answers in `CONNECT_SECONDS`, or it takes longer than `TOTAL_SECONDS`.
    """
    deadline = time.monotonic() + TOTAL_SECONDS
    try:
        with (
            urllib.request.urlopen(url, timeout=CONNECT_SECONDS) as answer,
            target.open("wb") as file,
        ):
            while block := answer.read(1 << 16):
                file.write(block)
                if time.monotonic() > deadline:
                    raise SourceError(f"{url} took longer than {TOTAL_SECONDS} seconds.")
    except (OSError, ValueError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{url} cannot be fetched ({error}).") from error
    return target


def download_wheel(requirement: str, folder: Path) -> Path:
    """Fetch one wheel from the package index with pip, without installing it.

    Raises
    ------
    SourceError
        If pip is not there, fails, or takes longer than `TOTAL_SECONDS`.
    """
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--retries", "1",
               "--timeout", str(CONNECT_SECONDS), "--dest", str(folder), requirement]  # fmt: skip
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TOTAL_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SourceError(f"pip could not fetch {requirement} ({error}).") from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise SourceError(f"pip could not fetch {requirement}: {last}.")
    return wheels[0]
