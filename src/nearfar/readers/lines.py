"""Files of text line by line, compressed or not, for the readers that are written in Python."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from nearfar.errors import DataError, NearfarError

_OPENERS: Final[dict[str, Callable[..., Any]]] = {
    ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open,
}  # fmt: skip


def compression(path: Path) -> str:
    """Give the suffix that says how a file is compressed: ".gz", ".bz2", ".xz", or ""."""
    last = path.suffix.lower()
    return last if last in _OPENERS else ""


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading its bytes, decompressed.

    Raises
    ------
    DataError
        If it is missing, cannot be read, or its compression is damaged or cut off.
    """
    if not path.is_file():
        raise DataError(f"There is no file {str(path)!r}; check the path.")
    opener = _OPENERS.get(compression(path), open)
    try:
        with opener(path, "rb") as file:
            yield file
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise DataError(
            f"{str(path)!r} is damaged or cut off: {error}. Get the file again."
        ) from error
    except OSError as error:
        if isinstance(error, NearfarError):
            raise
        raise DataError(f"{str(path)!r} cannot be read: {error}. Get the file again.") from error


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    r"""Give the number of each line, from 1, and its bytes without the line end.

    Lines end with ``\n`` or ``\r\n``; a mark of UTF-8 at the very start is left out.

    Raises
    ------
    DataError
        As `opened`.
    """
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            bare = line.removesuffix(b"\n").removesuffix(b"\r")
            yield number, bare.removeprefix(b"\xef\xbb\xbf") if number == 1 else bare
