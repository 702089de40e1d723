"""Fetching one file: resumed where it broke off, verified, and put in place by a rename.

What has arrived is in ``NAME.part``, and what the server said of it, its ETag or date, in
``NAME.part.from``: the next try asks for the rest only on the condition that this still holds
(``If-Range``), and starts over where it does not or where the server knows no ranges.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import md5, sha256
from pathlib import Path
from typing import Any, Final

from nearfar.errors import SourceError

Progress = Callable[[str, int, int | None], None]
"""Is told the name of a file, the bytes that are there, and how many there will be, if known."""

CONNECT_SECONDS: Final = 10
"""How long to wait for an answer, so that a machine without a network moves on quickly."""
STALL_SECONDS: Final = 30
"""How long to wait for the next bytes of a file before asking for the rest anew."""
WHEEL_SECONDS: Final = 120
"""How long pip may take."""
RETRIES: Final = 4
"""How often to try again without a byte of progress."""
BACKOFF_SECONDS: Final = 1.0
"""The pause before the first of them; each further one is twice as long."""
_BLOCK: Final = 1 << 18
_PASSING: Final = {408, 425, 429, 500, 502, 503, 504}
"""Answers that say "not now"."""


def download(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    checksum: str | None = None,
    progress: Progress | None = None,
) -> str:
    """Fetch one file over HTTP; what an earlier run left unfinished is resumed.

    Parameters
    ----------
    url : str
        Its address; redirections are followed.
    target : Path
        What it becomes once it is whole and verified, in a folder that exists.
    size : int, optional
        How many bytes it must have.
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
        If it cannot be had from there, or is not what it must be.
    OSError
        If it cannot be written.
    """
    part = _Part(target.with_name(f"{target.name}.part"), url)
    resumed = bool(part.validator)
    _complete(part, size, progress)
    try:
        digest = verified(part.path, size, checksum)
    except SourceError:
        part.discard()
        if not resumed:
            raise
        # What was left may have been of another file: once more, from nothing.
        return download(url, target, size=size, checksum=checksum, progress=progress)
    part.become(target)
    return digest


def verified(path: Path, size: int | None, checksum: str | None) -> str:
    """Give the SHA-256 of a file that has the size and the checksum it must have.

    Raises
    ------
    SourceError
        If it has not; names what it must be and what it is.
    """
    found = path.stat().st_size
    if size is not None and found != size:
        raise SourceError(f"{path.name} must have {size:,} bytes; got {found:,}.")
    kind, _, wanted = (checksum or "sha256:").partition(":")
    hashes = {"sha256": sha256()} | ({"md5": md5(usedforsecurity=False)} if kind == "md5" else {})
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            for one in hashes.values():
                one.update(block)
    got = hashes[kind].hexdigest()
    if wanted and got != wanted:
        raise SourceError(f"{path.name} must have the {kind} {wanted}; got {got}.")
    return hashes["sha256"].hexdigest()


def download_wheel(requirement: str, target: Path) -> str:
    """Fetch one wheel from the package index with pip, without installing it.

    Returns
    -------
    str
        Its SHA-256.

    Raises
    ------
    SourceError
        If pip is not there, fails, or takes longer than `WHEEL_SECONDS`.
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
            raise SourceError(f"pip could not fetch {requirement} ({error}).") from error
        wheels = sorted(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise SourceError(f"pip could not fetch {requirement}: {last}.")
        os.replace(wheels[0], target)
    return verified(target, None, None)


class _BrokenError(Exception):
    """It went wrong in a way that may be over at the next try."""

    def __init__(self, reason: object, *, answered: bool = True) -> None:
        super().__init__(str(reason))
        self.answered = answered


@dataclass(frozen=True)
class _Part:
    """What has arrived of a file, and from where."""

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
        """What the same server must still say of the file for the rest to fit; "" if unknown."""
        try:
            said = json.loads(self._note.read_text("utf-8"))
            fits = said["url"] == self.url and self.size > 0
            return str(said["validator"]) if fits else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def begin(self, validator: str) -> None:
        """Forget what has arrived, and note where the new bytes come from."""
        self.discard()
        self._note.write_text(json.dumps({"url": self.url, "validator": validator}), "utf-8")

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def become(self, target: Path) -> None:
        os.replace(self.path, target)
        self._note.unlink(missing_ok=True)


def _complete(part: _Part, size: int | None, progress: Progress | None) -> None:
    """Go on until the file is whole, over as many connections as it takes."""
    answered, failures, most = False, 0, 0
    while True:
        try:
            return _transfer(part, size, progress)
        except _BrokenError as error:
            answered = answered or error.answered
            failures, most = (0, part.size) if part.size > most else (failures + 1, most)
            if not answered or failures > RETRIES:
                tries = f"; {failures} tries without progress" if answered else ""
                raise SourceError(f"{part.url} cannot be fetched ({error}{tries}).") from error
            time.sleep(BACKOFF_SECONDS * 2 ** max(failures - 1, 0))


def _transfer(part: _Part, size: int | None, progress: Progress | None) -> None:
    """Fetch what is missing over one connection."""
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
        _receive(answer, part, total, progress)
    if total is not None and part.size != total:
        raise _BrokenError(f"it broke off after {part.size:,} of {total:,} bytes")


def _ask(part: _Part, done: int, validator: str) -> http.client.HTTPResponse | None:
    """Ask for the file from byte `done` on; None if nothing is missing."""
    headers = {"User-Agent": "nearfar", "Accept-Encoding": "identity"}
    if done:
        headers |= {"Range": f"bytes={done}-", "If-Range": validator}
    request = urllib.request.Request(part.url, headers=headers)
    try:
        answer: http.client.HTTPResponse = _opener().open(request, timeout=CONNECT_SECONDS)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and done:
                if error.headers.get("Content-Range", "") == f"bytes */{done}":
                    return None
                part.discard()
                raise _BrokenError("the file there is another one now") from error
            if error.code in _PASSING:
                raise _BrokenError(error) from error
            raise SourceError(f"{part.url} cannot be fetched ({error}).") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise _BrokenError(reason, answered=False) from error
    return answer


def _begin(answer: http.client.HTTPResponse, part: _Part, done: int) -> int | None:
    """See what the server sends, all or the rest; give the size of the whole file, if known."""
    if answer.headers.get_content_type() == "text/html":
        raise SourceError(f"{part.url} answers with a web page, not with the file.")
    said = _validator(answer)
    length = answer.headers.get("Content-Length", "")
    if answer.status != 206:
        part.begin(said)
        return int(length) if length.isdecimal() else None
    sent = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
    if done and sent and int(sent[1]) == done and said in {"", part.validator}:
        return int(sent[2])
    part.discard()
    raise _BrokenError("it sent another part than was asked for")


def _validator(answer: http.client.HTTPResponse) -> str:
    """Give what ``If-Range`` may name: a strong ETag, else the date."""
    tag = str(answer.headers.get("ETag", ""))
    return tag if tag.startswith('"') else str(answer.headers.get("Last-Modified", ""))


def _check_room(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise SourceError(
            f"There is no room for {path.stem!r} in {str(path.parent)!r}: {needed:,} bytes are "
            f"missing and {free:,} are free. Make room, or set $NEARFAR_CACHE to another disk."
        )


def _receive(
    answer: http.client.HTTPResponse, part: _Part, total: int | None, progress: Progress | None
) -> None:
    there = part.size
    with part.path.open("ab") as file:
        while block := _block(answer):
            file.write(block)
            there += len(block)
            if progress is not None:
                progress(part.path.stem, there, total)
        file.flush()
        os.fsync(file.fileno())


def _block(answer: http.client.HTTPResponse) -> bytes:
    """Give the next bytes, as soon as there are any; none at the end."""
    try:
        return answer.read1(_BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(error) from error


class _Patience:
    """A connection that waits longer for the bytes of a file than for the answer."""

    sock: Any

    def getresponse(self) -> http.client.HTTPResponse:
        sock = self.sock  # the connection lets go of it when it has the answer
        answer: http.client.HTTPResponse = super().getresponse()  # type: ignore[misc]
        with suppress(OSError):  # closed already: the answer was empty
            sock.settimeout(STALL_SECONDS)
        return answer


class _Connection(_Patience, http.client.HTTPConnection):
    pass


class _SafeConnection(_Patience, http.client.HTTPSConnection):
    pass


class _Handler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, req)


class _SafeHandler(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_SafeConnection, req, context=ssl.create_default_context())


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_Handler, _SafeHandler)
