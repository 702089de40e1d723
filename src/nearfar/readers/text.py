"""Separated text: checked byte by byte, then read by polars.

A file is first read in chunks, through a decoder and the state machine of
`nearfar.readers.structure`, which decides whether it is well-formed and counts its records. Polars
then reads either the file in place, if it is UTF-8 without quotes and empty lines, or its plain
form, written during the check: polars is faster, but treats quotes and empty lines differently.
"""

from __future__ import annotations

import codecs
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import polars as pl

from nearfar.errors import DataError, EmptyDataError, OptionError
from nearfar.readers import structure
from nearfar.readers.columnar import reading
from nearfar.readers.lines import opened, packing
from nearfar.readers.raw import Raw
from nearfar.readers.spool import unwritable
from nearfar.readers.structure import ESCAPES, PLAIN_SEPARATOR, Structure

CHUNK: Final = 4 * 2**20
"""Number of bytes checked at a time."""
_UTF_8: Final = {"utf-8", "utf-8-sig", "ascii"}
_MARK: Final = b"\xef\xbb\xbf"
_DECLARED: Final = 64
"""Bytes in which a line with the separator ends, in any encoding."""
_LIKE_ZLIB: Final = (b"x\x01", b"x^")
"""Polars takes a text that starts with one of these for compressed."""
_TITLE: Final = b"plain form\n"
_DECLARATION: Final = re.compile('(?i)"?sep=([\t -~])"?(?=\r?\n)')
"""The line in which Excel names the separator, above the header."""


@dataclass(frozen=True)
class _TextSource:
    """A text file and the options for reading it."""

    path: Path
    separator: str
    has_header: bool
    encoding: str
    quotes: bool

    def __post_init__(self) -> None:
        mark = self.separator
        if not isinstance(mark, str) or len(mark) != 1 or not mark.isascii() or mark in '"\r\n\0':
            raise OptionError(
                "`separator` must be one ASCII character, and neither a quote nor a line end nor "
                f"NUL; got {mark!r}."
            )
        try:
            "a".encode(self.encoding)
            codecs.getincrementaldecoder(self.encoding)
        except (LookupError, UnicodeError, TypeError, ValueError) as error:
            raise OptionError(
                f"`encoding` must be one that Python knows, such as 'utf-8' or 'latin-1'; got "
                f"{self.encoding!r}."
            ) from error

    @property
    def in_place(self) -> bool:
        """Whether polars can read the file itself, if it has no quotes and empty lines."""
        if packing(self.path) or codecs.lookup(self.encoding).name not in _UTF_8:
            return False
        with opened(self.path) as file:
            return file.read(2) not in _LIKE_ZLIB


def separator_line(path: Path, encoding: str) -> str:
    """Return the line ``sep=;`` that Excel writes above the header, without its end; or ""."""
    try:
        with opened(path) as file:
            text = codecs.getincrementaldecoder(encoding)().decode(file.read(_DECLARED))
        found = _DECLARATION.match(text.removeprefix("\ufeff"))
    except (DataError, LookupError, UnicodeError, TypeError, ValueError):
        return ""  # `scan_text` reports it
    return found[0] if found else ""


def scan_text(
    path: Path,
    scratch: Path,
    *,
    separator: str = ",",
    has_header: bool = True,
    encoding: str = "utf-8",
    quotes: bool = True,
) -> Raw:
    r"""Check a file of separated text and open it for lazy reading.

    Lines end with ``\n`` or ``\r\n``; empty lines, and a byte order mark and a line ``sep=;`` at
    the start, are skipped. Every record must have as many fields as the first.

    Parameters
    ----------
    path : Path
        The file, possibly compressed (``.gz``, ``.bz2``, ``.xz``).
    scratch : Path
        A folder for a copy of a file that polars cannot read in place: compressed, in an encoding
        other than UTF-8, or with quoted fields or empty lines. It must exist as long as the result
        is in use.
    separator : str
        One ASCII character.
    has_header : bool
        Whether the first record has the column names. If not, they are ``column_1``, ...
    encoding : str
        Any encoding that Python knows.
    quotes : bool
        Whether a field that starts with ``"`` ends at the next ``"`` that is not doubled, and may
        contain separators and line ends. If not, ``"`` is an ordinary character.

    Returns
    -------
    Raw
        Every column is a string, exactly as written; an empty field, quoted or not, is null.

    Raises
    ------
    OptionError
        If `separator` or `encoding` is invalid.
    DataError
        If the file is missing, damaged, or not well-formed; the message names the line.
    EmptyDataError
        If the file has no record.
    StoreError
        If the copy cannot be written.
    """
    source = _TextSource(path, separator, has_header, encoding, quotes)
    copy = None
    found = _walk(source) if source.in_place else None
    if found is None or found.irregular:
        copy = scratch / f"{uuid.uuid4().hex}.csv"
        found = _copied(source, copy)
    if found.records == 0:
        raise EmptyDataError(f"{str(path)!r} is empty; get the file again.")
    return Raw(_rows(source, found, copy), lambda row: _where(source, row), headed=has_header)


def _walk(source: _TextSource, copy: IO[bytes] | None = None, sought: int = 0) -> Structure:
    """Read and check a file, up to the end of record number `sought` if that is not 0.

    Without `copy` and `sought`, reading stops at the first quoted field or empty line.
    """
    found = Structure(source.separator, quotes=source.quotes, sought=sought)
    for text in _utf_8(source, found):
        _keep(found.feed(text, copying=copy is not None), copy)
        if found.mode > structure.BLANK:
            break
        if found.irregular and copy is None and not sought:
            return found
    else:
        _keep(found.end(copying=copy is not None), copy)
    if found.mode > structure.BLANK and found.mode != structure.FOUND:
        raise DataError(_fault(source, found))
    return found


def _copied(source: _TextSource, copy: Path) -> Structure:
    """Check a file and write its plain form, below a first line that marks it as one."""
    try:
        file = copy.open("wb")
    except OSError as error:
        raise unwritable(copy, error) from error
    with file:
        _keep(memoryview(_TITLE), file)
        return _walk(source, file)


def _keep(data: memoryview, copy: IO[bytes] | None) -> None:
    if copy is not None:
        try:
            copy.write(data)
            copy.flush()
        except OSError as error:
            raise unwritable(Path(copy.name), error) from error


def _utf_8(source: _TextSource, found: Structure) -> Iterator[bytes]:
    """Yield the text of a file chunk by chunk, as UTF-8, without what precedes the first record.

    That is a byte order mark and the separator that Excel declares, whose line is left empty.
    """
    declared = len(separator_line(source.path, source.encoding))
    decoder = codecs.getincrementaldecoder(source.encoding)()
    as_it_is = codecs.lookup(source.encoding).name in _UTF_8
    started = ended = False
    with opened(source.path) as file:
        while not ended:
            chunk = file.read(CHUNK if started else len(_MARK))
            ended = not chunk
            before = decoder.getstate()
            try:
                text = decoder.decode(chunk, ended)
                data = chunk if as_it_is else text.encode()
            except UnicodeError as error:
                decoder.setstate(before)
                line = found.line + _lines_before_fault(decoder, chunk)
                raise DataError(_undecodable(source, line, error)) from error
            if data:
                data = data if started else data.removeprefix(_MARK)
                yield data[declared:]
                declared -= min(declared, len(data))
                started = True


def _lines_before_fault(decoder: codecs.IncrementalDecoder, chunk: bytes) -> int:
    """Count the line ends before the first byte that cannot be decoded."""
    count = 0
    try:
        for byte in chunk:
            text = decoder.decode(bytes([byte]))
            text.encode()
            count += text.count("\n")
    except UnicodeError:
        pass
    return count


def _undecodable(source: _TextSource, line: int, error: UnicodeError) -> str:
    reason = str(error)
    if isinstance(error, UnicodeDecodeError):
        reason = f"byte 0x{error.object[error.start]:02x}: {error.reason}"
    return (
        f"Line {line:,} of {str(source.path)!r} is not {source.encoding} ({reason}). Pass the "
        "`encoding` of the file, such as 'latin-1' or 'utf-16', or correct the line."
    )


def _fault(source: _TextSource, found: Structure) -> str:
    """Return the error message: the line, the fault and the remedy."""
    quotes = "or switch `quotes` off if they are ordinary characters here"
    plural = "" if found.fields == 1 else "s"
    line, what, remedy = {
        structure.NUL: (
            found.line, "has a NUL byte",
            "Pass the `encoding` of the file, such as 'utf-16', or get the file again",
        ),
        structure.LONE_RETURN: (
            found.line, "has a carriage return without a line feed after it",
            "Convert the line ends of the file to line feeds",
        ),
        structure.STRAY_QUOTE: (
            found.line, "has a quote inside a field that does not start with one",
            f"Put the field in quotes and double those inside, {quotes}",
        ),
        structure.AFTER_QUOTE: (
            found.line, f"has text after the end of the quoted field that starts in line "
            f"{found.quote_line:,}",
            f"Double the quotes inside the field, check `separator`, {quotes}",
        ),
        structure.UNCLOSED: (
            found.quote_line, "starts a quoted field that does not end",
            f"Close it, {quotes}",
        ),
        structure.WIDTH: (
            found.record_line,
            f"has {found.fields:,} field{plural} where the first has {found.width:,}",
            "Check `separator` and `quotes`, or correct the line",
        ),
    }[found.mode]  # fmt: skip
    return f"Line {line:,} of {str(source.path)!r} {what}. {remedy}."


def _rows(source: _TextSource, found: Structure, copy: Path | None) -> pl.LazyFrame:
    """Open the file or its plain form with polars, and check that it finds the same records."""
    columns = [f"column_{i}" for i in range(1, found.width + 1)]
    n_rows = found.records
    with reading(source.path):
        if source.has_header:
            columns = _header(source, _scanned(source, found, copy, columns))
            n_rows -= 1
        if n_rows == 0:
            return pl.LazyFrame(schema=dict.fromkeys(columns, pl.String))
        rows = _scanned(source, found, copy, columns, skipped=int(source.has_header))
        # not `pl.len()`, for which polars counts lines differently from how it reads them
        last = pl.col(columns[-1])
        counted = rows.select(last.count() + last.null_count()).collect(engine="streaming").item()
    if counted != n_rows:
        raise DataError(
            f"{str(source.path)!r} has {n_rows:,} rows, of which {counted:,} could be read. If the "
            "file has been changed during reading, read it again; otherwise please report this."
        )
    return rows


def _scanned(
    source: _TextSource,
    found: Structure,
    copy: Path | None,
    columns: list[str],
    *,
    skipped: int = 0,
) -> pl.LazyFrame:
    rows = pl.scan_csv(
        source.path if copy is None else copy,
        separator=source.separator if copy is None else PLAIN_SEPARATOR,
        schema=dict.fromkeys(columns, pl.String),
        has_header=False,
        skip_rows=skipped if copy is None else skipped + 1,
        quote_char=None,
        glob=False,
    )
    if copy is None or not found.escaped:
        return rows
    text = pl.all().str.replace_many(list(ESCAPES), list(ESCAPES.values()))
    return rows.with_columns(text).with_columns(pl.when(pl.all() != "").then(pl.all()))


def _header(source: _TextSource, rows: pl.LazyFrame) -> list[str]:
    names = [name or "" for name in rows.head(1).collect().row(0)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(
            f"The header of {str(source.path)!r} has {repeated[0]!r} more than once. Rename the "
            "columns, check `separator`, or pass `has_header=False` if the first line is data."
        )
    return names


def _where(source: _TextSource, row: int) -> str:
    """Find the line in which a row starts, by reading the file again."""
    found = _walk(source, sought=row + 1 + int(source.has_header))
    if found.mode != structure.FOUND:
        return f"row {row + 1:,} of {str(source.path)!r}"
    return f"line {found.record_line:,} of {str(source.path)!r}"
