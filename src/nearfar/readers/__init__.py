"""Readers of files: separated text, JSON lines, Parquet and Arrow.

A reader is strict: it reads a file completely and exactly as it is written, or raises one
`DataError` that names the file, the line and the remedy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Final

from nearfar.errors import DataError, MissingColumnError, OptionError
from nearfar.readers.columnar import (
    ARROW,
    PARQUET,
    is_parts,
    reading,
    scan_columnar,
    scan_folder,
)
from nearfar.readers.json_lines import distinct_names, scan_json_lines
from nearfar.readers.lines import compression, packing
from nearfar.readers.raw import Raw
from nearfar.readers.spool import from_pipe
from nearfar.readers.text import scan_text, separator_line
from nearfar.runtime.checks import local_folder, local_path, switch
from nearfar.runtime.forks import check_fork

__all__ = ["Raw", "is_parts", "reading", "scan", "scan_json_lines", "scan_text"]

_SEPARATORS: Final = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".inter": "\t"}
_JSON: Final = (".jsonl", ".ndjson", ".json")


def scan(
    path: str | PathLike[str],
    scratch: Path,
    *,
    separator: str | None = None,
    has_header: bool = True,
    encoding: str | None = None,
    quotes: bool | None = None,
    columns: Sequence[str] | None = None,
) -> Raw:
    """Open a file for lazy reading; its suffix determines the format.

    Parameters
    ----------
    path : path
        Text: ``.csv``, ``.tsv``, ``.tab``, ``.inter``, or any other suffix with a `separator`. JSON
        lines: ``.jsonl``, ``.ndjson``, ``.json``. Both may be compressed, with or without the
        suffix ``.gz``, ``.bz2`` or ``.xz``. Parquet: ``.parquet``, ``.pq``. Arrow: ``.arrow``,
        ``.feather``, ``.ipc``. A folder of Parquet or Arrow files (`scan_folder`). A pipe, whose
        first line determines the format.
    scratch : Path
        A folder for temporary copies; it must exist as long as the result is in use.
    separator : str, optional
        The separator of fields in text; by default that of a first line ``sep=;``, which Excel
        writes, or else that of the suffix.
    has_header : bool
        Whether the first line of text has the column names. If not, they are ``column_1``, ...
    encoding : str, optional
        The encoding of text; by default UTF-8.
    quotes : bool, optional
        Whether fields of text can be quoted (`scan_text`); by default true unless the separator is
        a tab.
    columns : sequence of str, optional
        Columns to keep; by default all columns (of JSON lines, all that are not nested).

    Returns
    -------
    Raw
        The rows. Every column of text is a string.

    Raises
    ------
    OptionError
        If an option is out of range, or applies to text only and the file is not text.
    DataError
        If the file is missing, of an unknown kind, or not well-formed.
    MissingColumnError
        If one of `columns` does not exist; the message lists the columns of the file.
    EmptyDataError
        If the file is empty.
    """
    check_fork()
    file, has_header = local_path(path), switch("has_header", has_header)
    scratch = local_folder("scratch", scratch)
    quotes = None if quotes is None else switch("quotes", quotes)
    given = {
        "separator": separator is not None,
        "has_header": not has_header,
        "encoding": encoding is not None,
        "quotes": quotes is not None,
    }
    if file.is_dir():
        _refuse(given, file, "a folder")
        return _only(scan_folder(file), columns, file)
    if _is_pipe(file):
        copy = from_pipe(file, scratch, ".csv" if separator else "")
        form = {"has_header": has_header, "encoding": encoding, "quotes": quotes}
        return _renamed(copy, file, scratch, {**form, "separator": separator, "columns": columns})
    suffix = _suffix(file)
    if suffix in _JSON:
        _refuse(given, file, "JSON lines")
        return scan_json_lines(file, scratch, columns)
    if suffix in (*PARQUET, *ARROW) and not compression(file):
        _refuse(given, file, "Parquet" if suffix in PARQUET else "Arrow")
        return _only(scan_columnar(file), columns, file)
    encoding = "utf-8" if encoding is None else encoding
    mark = _separator(file, suffix, encoding) if separator is None else separator
    raw = scan_text(
        file,
        scratch,
        separator=mark,
        has_header=has_header,
        encoding=encoding,
        quotes=mark != "\t" if quotes is None else quotes,
    )
    return _only(raw, columns, file)


def _suffix(file: Path) -> str:
    """Return the suffix of a file, without that of its compression."""
    return Path(file.stem if compression(file) else file.name).suffix.lower()


def _is_pipe(file: Path) -> bool:
    """Return whether a path is a pipe, or a plain file that a shell has opened without a name."""
    nameless = file == Path("/dev/stdin") or file.parent == Path("/dev/fd")
    return file.exists() and (nameless or not file.is_file())


def _renamed(copy: Path, file: Path, scratch: Path, form: dict[str, Any]) -> Raw:
    """Open the copy of a pipe; messages name the pipe."""
    old, new = repr(str(copy)), repr(str(file))
    try:
        raw = scan(copy, scratch, **form)
    except DataError as error:
        raise type(error)(str(error).replace(old, new)) from error
    return replace(raw, where=lambda row: raw.where(row).replace(old, new))


def _separator(file: Path, suffix: str, encoding: str) -> str:
    line = separator_line(file, encoding)
    if line:
        return line.strip('"')[len("sep=") :]
    if suffix not in _SEPARATORS:
        packing(file)  # it raises, if the file is not text
        known = ", ".join([*_SEPARATORS, *_JSON, *PARQUET, *ARROW])
        raise DataError(
            f"The suffix of {str(file)!r} is unknown; it must be one of {known} (text and JSON may "
            "be followed by .gz, .bz2 or .xz). For a text file with another suffix pass "
            "`separator`."
        )
    return _SEPARATORS[suffix]


def _refuse(given: dict[str, bool], file: Path, kind: str) -> None:
    names = [f"`{name}`" for name, is_given in given.items() if is_given]
    if names:
        raise OptionError(
            f"{' and '.join(names)} can be given for text only; {str(file)!r} is {kind}."
        )


def _only(raw: Raw, columns: Sequence[str] | None, file: Path) -> Raw:
    if columns is None:
        return raw
    names = distinct_names(columns)
    there = raw.rows.collect_schema().names()
    for name in names:
        if name not in there:
            raise MissingColumnError(
                f"{str(file)!r} has no column {name!r}; there are {', '.join(map(repr, there))}."
            )
    return replace(raw, rows=raw.rows.select(names))
