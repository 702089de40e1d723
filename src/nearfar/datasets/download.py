"""Download of one file through pooch: resumable, verified, and put in place by a rename.

pooch verifies a file and renames it to its final name; it starts over if the connection breaks,
which costs gigabytes for the larger data sets. `_Resuming` is a downloader for pooch that resumes
instead. The bytes that have arrived are in ``NAME.part``, and the server's ETag or date of the file
in ``NAME.part.from``. The next attempt requests the rest on the condition that the file has not
changed (``If-Range``), and starts over if it has or if the server does not support ranges.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nearfar.errors import SourceError

if TYPE_CHECKING:
    import requests

Progress = Callable[[str, int, int | None], None]
"""Called with the name of a file, the bytes that have arrived, and the size of the file or None."""

CONNECT_SECONDS: Final = 10
"""Timeout for a connection, short so that a machine without a network continues quickly."""
STALL_SECONDS: Final = 30
"""Timeout for the next bytes, after which the rest is requested again."""
WHEEL_SECONDS: Final = 120
"""Timeout for pip."""
RETRIES: Final = 4
"""Number of successive retries without progress."""
BACKOFF_SECONDS: Final = 1.0
"""The pause before the first retry; each further pause is twice as long."""
_BLOCK: Final = 1 << 18
_PASSING: Final = {408, 425, 429, 500, 502, 503, 504}
"""HTTP status codes that are worth a retry."""


def download(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    checksum: str | None = None,
    progress: Progress | None = None,
) -> str:
    """Download one file over HTTP; an unfinished download of an earlier run is resumed.

    Parameters
    ----------
    url : str
        Its address; redirects are followed.
    target : Path
        The path of the complete, verified file, in a folder that exists.
    size : int, optional
        The size in bytes that the file must have.
    checksum : str, optional
        ``"sha256:..."`` or ``"md5:..."``.
    progress : callable, optional
        See `Progress`.

    Returns
    -------
    str
        Its SHA-256.

    Raises
    ------
    SourceError
        If the download fails, or the size or checksum is wrong.
    OSError
        If the file cannot be written.
    """
    import pooch  # takes 0.1 s, and only downloads need it

    part = _Part(target.with_name(f"{target.name}.part"), url)
    resumed, downloader = bool(part.validator), _Resuming(part, size, progress)
    try:
        with _quiet(pooch.get_logger()):
            whole = pooch.retrieve(
                url, checksum, f"{target.name}.whole", target.parent, downloader=downloader
            )
    except ValueError as error:
        if not resumed:
            raise SourceError(str(error)) from error
        # The part of an earlier run may be of another version of the file: start over once.
        return download(url, target, size=size, checksum=checksum, progress=progress)
    os.replace(whole, target)
    return verified(target, None, None)


def verified(path: Path, size: int | None, checksum: str | None) -> str:
    """Check the size and the checksum of a file, and return its SHA-256.

    Raises
    ------
    SourceError
        If one differs; the message names the expected and the actual value.
    """
    import pooch

    if size is not None and path.stat().st_size != size:
        raise SourceError(_other_size(path.name, size, path))
    kind, _, wanted = (checksum or "sha256:").partition(":")
    got = str(pooch.file_hash(path, kind))
    if wanted and got != wanted:
        raise SourceError(f"{path.name} must have the {kind} {wanted}; got {got}.")
    return got if kind == "sha256" else str(pooch.file_hash(path, "sha256"))


def download_wheel(requirement: str, target: Path) -> str:
    """Download one wheel from the package index with pip, without installing it.

    Returns
    -------
    str
        Its SHA-256.

    Raises
    ------
    SourceError
        If pip is missing, fails, or takes longer than `WHEEL_SECONDS`.
    """
    with tempfile.TemporaryDirectory(prefix=".wheel-", dir=target.parent) as folder:
        options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--disable-pip-version-check"]
        command = [sys.executable, "-m", "pip", "download", *options, "--retries", "1",
                   "--timeout", str(CONNECT_SECONDS), "--dest", folder, requirement]  # fmt: skip
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=WHEEL_SECONDS, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SourceError(f"pip could not download {requirement} ({error}).") from error
        wheels = sorted(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            last = (done.stderr.strip().splitlines() or ["no error message"])[-1]
            raise SourceError(f"pip could not download {requirement}: {last}.")
        os.replace(wheels[0], target)
    return verified(target, None, None)


class _BrokenError(Exception):
    """A failure that a retry may overcome."""

    def __init__(self, reason: object, *, answered: bool = True) -> None:
        super().__init__(str(reason))
        self.answered = answered


@dataclass(frozen=True)
class _Part:
    """The bytes of a file that have arrived, and their source."""

    path: Path
    url: str

    @property
    def _note(self) -> Path:
        return self.path.with_name(f"{self.path.name}.from")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def validator(self) -> str:
        """The ETag or date that the server's file must still have for a resumption; or ""."""
        try:
            said = json.loads(self._note.read_text("utf-8"))
            fits = said["url"] == self.url and self.size > 0
            return str(said["validator"]) if fits else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def begin(self, validator: str) -> None:
        """Discard the bytes that have arrived, and record the source of the new ones."""
        self.discard()
        self._note.write_text(json.dumps({"url": self.url, "validator": validator}), "utf-8")

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def become(self, target: Path) -> None:
        os.replace(self.path, target)
        self._note.unlink(missing_ok=True)


class _Resuming:
    """A downloader for pooch that continues over a new connection where the last one ended.

    Parameters
    ----------
    part : _Part
        The bytes that have arrived.
    size : int or None
        The size in bytes that the file must have.
    progress : callable or None
        See `Progress`.
    """

    def __init__(self, part: _Part, size: int | None, progress: Progress | None) -> None:
        self._part, self._size, self._progress = part, size, progress

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Download the file to `output_file`; called by pooch."""
        self._complete()
        if self._size is not None and self._part.size != self._size:
            message = _other_size(self._part.path.stem, self._size, self._part.path)
            self._part.discard()
            raise ValueError(message)  # the type that pooch raises for a wrong checksum
        self._part.become(Path(output_file))

    def _complete(self) -> None:
        answered, failures, most = False, 0, 0
        while True:
            try:
                return self._transfer()
            except _BrokenError as error:
                answered = answered or error.answered
                there = self._part.size
                failures, most = (0, there) if there > most else (failures + 1, most)
                if not answered or failures > RETRIES:
                    tries = f"; {failures} tries without progress" if answered else ""
                    message = f"{self._part.url} cannot be downloaded ({error}{tries})."
                    raise SourceError(message) from error
                time.sleep(BACKOFF_SECONDS * 2 ** max(failures - 1, 0))

    def _transfer(self) -> None:
        """Download the missing bytes over one connection."""
        part, size = self._part, self._size
        validator = part.validator
        done = part.size if validator else 0
        answer = _ask(part, done, validator)
        if answer is None:
            return
        with answer:
            total = _begin(answer, part, done)
            if total is not None and size is not None and total != size:
                part.discard()
                raise SourceError(f"{part.url} has {total:,} bytes; it must have {size:,}.")
            if total is not None:
                _check_room(part.path, total - part.size)
            self._receive(answer, total)

    def _receive(self, answer: requests.Response, total: int | None) -> None:
        import urllib3

        there, reason, name = self._part.size, None, self._part.path.stem
        with self._part.path.open("ab") as file:
            try:
                while block := answer.raw.read1(_BLOCK):  # returns as soon as there are any bytes
                    file.write(block)
                    there += len(block)
                    if self._progress is not None:
                        self._progress(name, there, total)
            except (OSError, urllib3.exceptions.HTTPError) as error:
                reason = error
            file.flush()
            os.fsync(file.fileno())
        if total is not None and there != total:
            raise _BrokenError(f"connection broke after {there:,} of {total:,} bytes") from reason
        if reason is not None:
            raise _BrokenError(reason) from reason


def _ask(part: _Part, done: int, validator: str) -> requests.Response | None:
    """Request the file from byte `done` on; None if it is complete."""
    import requests

    headers = {"User-Agent": "nearfar", "Accept-Encoding": "identity"}
    if done:
        headers |= {"Range": f"bytes={done}-", "If-Range": validator}
    patience = (CONNECT_SECONDS, STALL_SECONDS)
    try:
        answer = requests.get(part.url, headers=headers, timeout=patience, stream=True)
    except requests.RequestException as error:
        raise _BrokenError(_reason(error), answered=False) from error
    if answer.ok:
        return answer
    with answer:
        said = f"HTTP Error {answer.status_code}: {answer.reason}"
        if answer.status_code == 416 and done:
            if answer.headers.get("Content-Range", "") == f"bytes */{done}":
                return None
            part.discard()
            raise _BrokenError("the file on the server has changed")
        if answer.status_code in _PASSING:
            raise _BrokenError(said)
        raise SourceError(f"{part.url} cannot be downloaded ({said}).")


def _begin(answer: requests.Response, part: _Part, done: int) -> int | None:
    """Prepare for the whole file or the rest; return the size of the whole file, if known."""
    if answer.headers.get("Content-Type", "").split(";")[0].strip() == "text/html":
        raise SourceError(f"{part.url} returned a web page instead of the file.")
    said = _validator(answer)
    length = answer.headers.get("Content-Length", "")
    if answer.status_code != 206:
        part.begin(said)
        return int(length) if length.isdecimal() else None
    sent = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
    if done and sent and int(sent[1]) == done and said in {"", part.validator}:
        return int(sent[2])
    part.discard()
    raise _BrokenError("the server sent another range than requested")


def _validator(answer: requests.Response) -> str:
    """Return a valid value for ``If-Range``: a strong ETag, else the date."""
    tag = str(answer.headers.get("ETag", ""))
    return tag if tag.startswith('"') else str(answer.headers.get("Last-Modified", ""))


def _other_size(name: str, size: int, path: Path) -> str:
    return f"{name} must have {size:,} bytes; got {path.stat().st_size:,}."


def _reason(error: Exception) -> object:
    """Extract the reason from an error of requests, which adds details of its connection pool."""
    import requests

    if isinstance(error, requests.Timeout):
        return "timed out"
    return getattr(error.args[0] if error.args else None, "reason", error)


def _check_room(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise SourceError(
            f"There is no space for {path.stem!r} in {str(path.parent)!r}: {needed:,} bytes are "
            f"needed and {free:,} are free. Free some space, or set $NEARFAR_CACHE to another disk."
        )


@contextmanager
def _quiet(log: logging.Logger) -> Iterator[None]:
    """Keep pooch from logging each address; `Progress` is shown instead."""
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)
