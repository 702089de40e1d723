"""Separated text: checked byte by byte, then read by polars.

A file is read once before polars sees it, in chunks, through a decoder and the machine of
`nearfar.readers.structure`, which decides what is a well-formed file and how many records it has.
Polars, which is faster but has other ideas of quotes and empty lines, then reads either the file in
place, if it is UTF-8 with neither of these, or its plain form, written during the check.
"""

from __future__ import annotations

import codecs
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import polars as pl

from nearfar.errors import DataError, EmptyDataError, OptionError
from nearfar.readers import structure
from nearfar.readers.columnar import reading
from nearfar.readers.lines import compression, opened
from nearfar.readers.raw import Raw
from nearfar.readers.spool import unwritable
from nearfar.readers.structure import ESCAPES, PLAIN_SEPARATOR, Structure

CHUNK: Final = 4 * 2**20
"""Bytes that are checked at a time."""
_UTF_8: Final = {"utf-8", "utf-8-sig", "ascii"}
_MARK: Final = b"\xef\xbb\xbf"
_LIKE_ZLIB: Final = (b"x\x01", b"x^")
"""A text that starts like this is taken for compressed by polars."""
_TITLE: Final = b"plain form\n"


@dataclass(frozen=True)
class _TextSource:
    """A file of text and how it is to be read."""

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
        """Whether polars can read the file itself, if its structure is plain."""
        if compression(self.path) or codecs.lookup(self.encoding).name not in _UTF_8:
            return False
        with opened(self.path) as file:
            return file.read(2) not in _LIKE_ZLIB


def scan_text(
    path: Path,
    scratch: Path,
    *,
    separator: str = ",",
    has_header: bool = True,
    encoding: str = "utf-8",
    quotes: bool = True,
) -> Raw:
    r"""Check a file of separated text and open it, to be read lazily.

    Lines end with ``\n`` or ``\r\n``; empty ones, and a byte order mark at the start, are
    skipped. Every record must have as many fields as the first.

    Parameters
    ----------
    path : Path
        May be compressed (``.gz``, ``.bz2``, ``.xz``).
    scratch : Path
        A folder for a copy of what polars cannot read in place: compressed files, encodings other
        than UTF-8, quoted fields, empty lines. It must stay as long as the result is in use.
    separator : str
        One ASCII character.
    has_header : bool
        Whether the first record has the names of the columns. Without, they are ``column_1``, ...
    encoding : str
        Any that Python knows.
    quotes : bool
        Whether a field that starts with ``"`` ends at the next one that is not doubled, and may
        have separators and line ends in it. Without, ``"`` is a character like others.

    Returns
    -------
    Raw
        Every column is a string, exactly as written; an empty field, quoted or not, is null.

    Raises
    ------
    OptionError
        If `separator` or `encoding` is impossible.
    DataError
        If the file is missing, damaged, or not well-formed; names the line.
    EmptyDataError
        If there is not even a header.
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
    return Raw(_rows(source, found, copy), lambda row: _where(source, row))


def _walk(source: _TextSource, copy: IO[bytes] | None = None, sought: int = 0) -> Structure:
    """Go through a file and check it, up to the end of a record if one is sought.

    Without a copy or a record to look for, the first irregularity ends it.
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
    """Check a file and write its plain form, below a line that no file of another kind has."""
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
    """Give the text of a file chunk by chunk, as UTF-8 without a byte order mark."""
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
                yield data if started else data.removeprefix(_MARK)
                started = True


def _lines_before_fault(decoder: codecs.IncrementalDecoder, chunk: bytes) -> int:
    """Count the line ends that can be decoded before something cannot."""
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
        f"Line {line:,} of {str(source.path)!r} is not {source.encoding} ({reason}). Give the "
        "`encoding` of the file, such as 'latin-1' or 'utf-16', or correct the line."
    )


def _fault(source: _TextSource, found: Structure) -> str:
    """Say what is wrong, where, and what to do."""
    quotes = "or switch `quotes` off if they are ordinary characters here"
    plural = "" if found.fields == 1 else "s"
    line, what, remedy = {
        structure.NUL: (
            found.line, "has a NUL byte",
            "Give the `encoding` of the file, such as 'utf-16', or get the file again",
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
    """Open the file or its plain form with polars, and see whether it finds the same records."""
    columns = [f"column_{i}" for i in range(1, found.width + 1)]
    n_rows = found.records
    with reading(source.path):
        if source.has_header:
            columns = _header(source, _scanned(source, found, copy, columns))
            n_rows -= 1
        if n_rows == 0:
            return pl.LazyFrame(schema=dict.fromkeys(columns, pl.String))
        rows = _scanned(source, found, copy, columns, skipped=int(source.has_header))
        # not `pl.len()`, for which polars counts lines in another way than it reads them
        last = pl.col(columns[-1])
        counted = rows.select(last.count() + last.null_count()).collect(engine="streaming").item()
    if counted != n_rows:
        raise DataError(
            f"{str(source.path)!r} has {n_rows:,} rows, of which {counted:,} could be read. If the "
            "file was changed meanwhile, read it again; otherwise please report this."
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
            "columns, check `separator`, or switch `has_header` off if the first line is data."
        )
    return names


def _where(source: _TextSource, row: int) -> str:
    """Find the line in which a row starts, by going through the file again."""
    found = _walk(source, sought=row + 1 + int(source.has_header))
    if found.mode != structure.FOUND:
        return f"row {row + 1:,} of {str(source.path)!r}"
    return f"line {found.record_line:,} of {str(source.path)!r}"
