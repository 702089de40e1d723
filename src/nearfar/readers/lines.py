"""Text files line by line, compressed or not, for the readers written in Python."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from nearfar.errors import DataError, NearfarError

_BLOCK: Final = 2**17
_HEAD: Final = 16


class _Streams(io.RawIOBase):
    """A file of one or more bz2 or xz streams, decompressed.

    `bz2.open` and `lzma.open` ignore any data after a stream that is not another stream, so a file
    whose second stream is damaged is silently cut off. Here only zeros may follow, which are the
    padding of xz.
    """

    def __init__(self, path: Path, decompressor: Callable[[], Any]) -> None:
        self._file = path.open("rb")
        self._new = decompressor
        self._stream = decompressor()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = b""
        while not data:
            packed = b""
            if self._stream.eof:
                packed = self._beyond(self._stream.unused_data)
                if not packed:
                    return 0
                self._stream = self._new()
            elif self._stream.needs_input:
                packed = self._file.read(_BLOCK)
                if not packed:
                    raise EOFError("the last stream does not end")
            data = self._stream.decompress(packed, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _beyond(self, packed: bytes) -> bytes:
        """Return the bytes after a stream, without leading zeros."""
        packed = packed.lstrip(b"\0")
        while not packed and (block := self._file.read(_BLOCK)):
            packed = block.lstrip(b"\0")
        return packed

    def close(self) -> None:
        self._file.close()
        super().close()


def _streams(decompressor: Callable[[], Any]) -> Callable[[Path, str], IO[bytes]]:
    return lambda path, _: io.BufferedReader(_Streams(path, decompressor), _BLOCK)


_OPENERS: Final[dict[str, Callable[..., Any]]] = {
    ".gz": gzip.open,
    ".bz2": _streams(bz2.BZ2Decompressor),
    ".xz": _streams(lzma.LZMADecompressor),
}


_SIGNATURES: Final = {
    b"\x1f\x8b": ".gz",
    b"\xfd7zXZ\0": ".xz",
    **{b"BZh%d1AY&SY" % level: ".bz2" for level in range(1, 10)},
}
"""How compressed files begin; no text does."""
_FOREIGN: Final = {
    b"\x28\xb5\x2f\xfd": "is compressed with zstd. Unpack it with `zstd -d`, or use gzip or xz",
    b"PK\x03\x04": "is a zip archive or an Excel workbook. Unpack the archive, or save the sheet as"
    " CSV",
    b"PAR1": "is a Parquet file. Give it the suffix .parquet",
    b"ARROW1": "is an Arrow file. Give it the suffix .arrow",
}
"""How other files begin, and what to do with them."""


def compression(path: Path) -> str:
    """Return the suffix of the compression of a file: ".gz", ".bz2", ".xz", or ""."""
    last = path.suffix.lower()
    return last if last in _OPENERS else ""


def packing(path: Path) -> str:
    """Return the compression of a file, as `compression`, or what its first bytes say.

    Raises
    ------
    DataError
        If it has no suffix of a compression and is neither text nor compressed text.
    """
    found = compression(path)
    if found or not path.is_file():
        return found
    head = beginning(path)
    for signature, what in _FOREIGN.items():
        if head.startswith(signature):
            raise DataError(f"{str(path)!r} {what}.")
    return next((suffix for start, suffix in _SIGNATURES.items() if head.startswith(start)), "")


def beginning(path: Path) -> bytes:
    """Return the first bytes of a file; none if it cannot be read, which `opened` reports."""
    try:
        with path.open("rb") as file:
            return file.read(_HEAD)
    except OSError:
        return b""


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading its bytes, decompressed.

    Raises
    ------
    DataError
        If the file is missing, is not text, cannot be read, or its compression is damaged or cut
        off.
    """
    if not path.is_file():
        raise DataError(f"There is no file {str(path)!r}; check the path.")
    opener = _OPENERS.get(packing(path), open)
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
    r"""Yield the number of each line, from 1, and its bytes without the line end.

    Lines end with ``\n`` or ``\r\n``; a UTF-8 byte order mark at the start is removed.

    Raises
    ------
    DataError
        As `opened`.
    """
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            bare = line.removesuffix(b"\n").removesuffix(b"\r")
            yield number, bare.removeprefix(b"\xef\xbb\xbf") if number == 1 else bare
