"""The cache of downloaded files: its folder, verification and locking.

Each file is accompanied by ``NAME.fetched``, JSON with its address, size and SHA-256. Only one
process at a time downloads into a folder; other processes wait for it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from nearfar.datasets.catalogue import Dataset, RemoteFile
from nearfar.datasets.download import Progress, download, download_wheel, verified
from nearfar.errors import SourceError
from nearfar.runtime.checks import local_path
from nearfar.runtime.file_lock import try_lock

Tell = Callable[[str], None]
"""Called with the terms of a data set before the download."""

LOCK: Final = ".lock"
"""The name of the lock file, held by the process that downloads."""
_POLL_SECONDS: Final = 0.2
_WHEEL: Final = "pip:"

_log = logging.getLogger("nearfar")


def cache_folder() -> Path:
    """Return the folder of data sets: ``$NEARFAR_CACHE``, else the platform's cache directory."""
    if chosen := os.environ.get("NEARFAR_CACHE"):
        return local_path(chosen, "NEARFAR_CACHE")
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "nearfar"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "nearfar"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "nearfar" / "Cache"
    return Path.home() / ".cache" / "nearfar"


def folder_of(data: Dataset) -> Path:
    """Return the folder of a data set in the cache."""
    return cache_folder() / data.name


def find(data: Dataset, folder: Path | None = None, *, verify: bool = True) -> Path | None:
    """Return the downloaded file with the interactions; None if a required file is missing.

    Parameters
    ----------
    data : Dataset
        The data set.
    folder : Path, optional
        The folder of the download; by default its folder in the cache.
    verify : bool
        Read every file to verify that it has not changed since the download.

    Raises
    ------
    SourceError
        If a file, required or optional, is damaged.
    """
    place = folder_of(data) if folder is None else folder
    known = [*data.files, *([data.instead] if data.instead is not None else [])]
    there = {file.name for file in known if (place / file.name).is_file()}
    for file in known:
        if verify and file.name in there:
            _verify(data, file, place / file.name)
    first, *others = data.files
    if not all(file.name in there or file.optional for file in others):
        return None
    if first.name in there:
        return place / first.name
    if data.instead is not None and data.instead.name in there:
        return place / data.instead.name
    return None


def origin(path: Path) -> str:
    """Return the address of a downloaded file, or "" if it was put there by hand."""
    return str((_note(path) or {}).get("url", ""))


def fetch(
    data: Dataset,
    folder: Path | None = None,
    *,
    force: bool = False,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> Path:
    """Download the missing files of a data set.

    Parameters
    ----------
    data : Dataset
        The data set.
    folder : Path, optional
        Where to put the files; by default its folder in the cache.
    force : bool
        Download also the files that exist already, damaged or not.
    progress : callable, optional
        See `nearfar.datasets.download.Progress`.
    tell : callable, optional
        Called with the terms before the download; by default they are logged as a warning, which
        Python writes to standard error if logging is not configured.

    Returns
    -------
    Path
        The file with the interactions.

    Raises
    ------
    SourceError
        If a required file cannot be downloaded (the message lists all attempts), or if an existing
        file is damaged and `force` is false.
    """
    place = folder_of(data) if folder is None else folder
    with _locked(place):
        there = None if force else find(data, place)
        missing = [file for file in data.files if force or not (place / file.name).exists()]
        if there is not None:
            missing = [file for file in missing if file.optional]
        if missing:
            (_log.warning if tell is None else tell)(data.terms)
        for file in missing:
            got = _obtain(data, file, place, progress)
            there = got if file is data.files[0] else there
    return place / data.files[0].name if there is None else there


def _obtain(data: Dataset, file: RemoteFile, place: Path, progress: Progress | None) -> Path | None:
    """Download one file from the first address that works; None if none does and it is optional."""
    choices = [file]
    if file is data.files[0] and data.instead is not None:
        choices.append(data.instead)
    tried = []
    for choice in choices:
        for url in choice.urls:
            try:
                return _kept_from(url, choice, place, progress)
            except SourceError as error:
                tried.append(str(error) if url in str(error) else f"{_said(url)}: {error}")
    lines = "\n".join(f"  - {line}" for line in tried)
    if file.optional:
        _log.warning("%s of %r could not be downloaded and is left out. Tried:\n%s",
                     file.name, data.name, lines)  # fmt: skip
        return None
    raise SourceError(
        f"{file.name} of the data set {data.name!r} could not be downloaded. Tried:\n{lines}\n"
        f"Try again later (the part that has arrived is kept), or get it from {data.homepage} and "
        "pass the local copy as `path=`."
    )


def _kept_from(url: str, file: RemoteFile, place: Path, progress: Progress | None) -> Path:
    """Download one file from one address, and write its ``.fetched`` note."""
    target = place / file.name
    try:
        if url.startswith(_WHEEL):
            digest = download_wheel(url.removeprefix(_WHEEL), target)
        else:
            size = file.size if file.exact else None
            digest = download(url, target, size=size, checksum=file.checksum, progress=progress)
        note = {"url": _said(url), "size": target.stat().st_size, "sha256": digest}
        _note_of(target).write_text(json.dumps(note), "utf-8")
    except OSError as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(
            f"{str(target)!r} cannot be written: {error}. Check free space and permissions, "
            "or set $NEARFAR_CACHE to another folder."
        ) from error
    return target


def _said(url: str) -> str:
    return f"the wheel {url.removeprefix(_WHEEL)}" if url.startswith(_WHEEL) else url


def _verify(data: Dataset, file: RemoteFile, path: Path) -> None:
    """Compare a file with the note of its download.

    A file that was put there by hand has no note and is compared with the catalogue.
    """
    note = _note(path)
    size, checksum = file.size if file.exact else None, file.checksum
    if note is not None:
        size, checksum = int(note["size"]), f"sha256:{note['sha256']}"
    try:
        verified(path, size, checksum)
    except SourceError as error:
        raise SourceError(
            f"{str(path)!r} is damaged: {error} Download it again: "
            f"`nearfar datasets fetch {data.name} --force`, or "
            f"`nearfar.datasets.fetch({data.name!r}, force=True)`."
        ) from error
    except OSError as error:
        raise SourceError(f"{str(path)!r} cannot be read: {error}.") from error


def _note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.fetched")


def _note(path: Path) -> dict[str, int | str] | None:
    """Read the note of a downloaded file; None if it is missing or malformed."""
    try:
        note = json.loads(_note_of(path).read_text("utf-8"))
        return {"url": str(note["url"]), "size": int(note["size"]), "sha256": str(note["sha256"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextmanager
def _locked(place: Path) -> Iterator[None]:
    """Lock a folder; the system releases the lock when the process ends, even if it is killed."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        held = (place / LOCK).open("ab")
    except OSError as error:
        raise SourceError(
            f"{str(place)!r} cannot be written: {error}. Set $NEARFAR_CACHE to a writable folder, "
            "or pass a local copy as `path=`."
        ) from error
    with held:
        waiting = False
        while not try_lock(held):
            if not waiting:
                _log.warning("Another process is downloading into %s; waiting for it.", place)
            waiting = True
            time.sleep(_POLL_SECONDS)
        yield
