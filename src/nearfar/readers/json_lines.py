"""JSON lines: one object per line.

The type of a column is known only after the last line, because nulls may precede other values, and
integers fractions. The values are therefore written to disk as text, which represents numbers
exactly, and are converted to the type of their column when they are read back.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from nearfar.errors import DataError, EmptyDataError, MissingColumnError, OptionError
from nearfar.readers.lines import lines
from nearfar.readers.raw import Raw
from nearfar.readers.spool import spooled

_KINDS: Final[dict[type, str]] = {
    str: "text", bool: "true or false", int: "a number", float: "a number",
}  # fmt: skip
_NESTED: Final[dict[type, str]] = {list: "an array", dict: "an object"}
_ABSENT: Final = object()
_PYTHON: Final = (
    "It is a dict of Python, not JSON. Write each line again with"
    " `json.dumps(ast.literal_eval(line))`."
)
_MANY_KEYS: Final = 1000
"""The largest number of keys that the error about a missing key lists."""


class _LineError(ValueError):
    """The fault of a line and the remedy; the message continues "Line 7 of 'file'"."""


def scan_json_lines(path: Path, scratch: Path, columns: Sequence[str] | None = None) -> Raw:
    """Read a file of JSON objects, one per line.

    Parameters
    ----------
    path : Path
        A file in UTF-8, possibly compressed (``.gz``, ``.bz2``, ``.xz``). Blank lines are skipped.
    scratch : Path
        A folder for the rows; it must exist as long as the result is in use.
    columns : sequence of str, optional
        Keys to read; by default those of the first object whose value is text, a number, true or
        false. A key that an object lacks is null.

    Returns
    -------
    Raw
        Each column is String, Boolean, Int64 (if all its numbers are written as integers) or
        Float64; a column of nulls is String.

    Raises
    ------
    OptionError
        If `columns` is not a sequence of distinct names.
    DataError
        If the file is missing or damaged; if a line is not a JSON object or has a key twice; or if
        a value of a requested column is nested, of another kind than before, or out of the range of
        its type. The message names the line.
    MissingColumnError
        If no object has a requested key; the message lists the existing keys.
    EmptyDataError
        If the file has no object.
    """
    names = _every_scalar(path) if columns is None else distinct_names(columns)
    table = [_Column(name) for name in names]
    text = spooled(_rows(path, table), pl.Schema(dict.fromkeys(names, pl.String)), scratch)
    rows = text.select(column.typed() for column in table)
    return Raw(rows, lambda row: _where(path, row))


def distinct_names(columns: Sequence[str]) -> list[str]:
    """Check the names of requested columns.

    Raises
    ------
    OptionError
        If they are not one or more distinct names.
    """
    single = isinstance(columns, str) or not isinstance(columns, Iterable)
    names = [] if single else list(columns)
    if not names or not all(map(_is_text, names)) or len(set(names)) < len(names):
        raise OptionError(
            f"`columns` must be a sequence of one or more distinct names; got {columns!r}."
        )
    return names


def _every_scalar(path: Path) -> list[str]:
    """Return the keys of the first object whose values are not nested."""
    for number, first in _objects(path):
        names = [name for name, value in first.items() if type(value) in _KINDS]
        if not names or not all(map(_is_text, names)):
            raise DataError(
                f"Line {number:,} of {str(path)!r} has no key with a text or a number. Name the "
                "`columns` to read."
            )
        return names
    raise _nothing(path)


def _nothing(path: Path) -> EmptyDataError:
    return EmptyDataError(f"{str(path)!r} is empty; get the file again.")


def _is_text(value: Any) -> bool:
    """Return whether a value is a string that UTF-8 can encode; a lone surrogate cannot be."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass
class _Column:
    """The state of a column while the lines are read."""

    name: str
    there: bool = False
    """Whether an object had this key."""
    kind: str | None = None
    """The kind of its values; None before the first value that is not null."""
    kind_line: int = 0
    """The line that determined the kind."""
    fraction_line: int = 0
    """The line of the first number that is not written as an integer; 0 if there is none."""
    long_line: int = 0
    """The line of the first integer that Float64 cannot represent exactly; 0 if there is none."""

    def text(self, value: Any, line: int) -> str | None:
        """Record the kind of a value and return the value as text."""
        if value is _ABSENT:
            return None
        self.there = True
        if value is None:
            return None
        kind = _KINDS.get(type(value))
        if kind is None or kind != self.kind:
            self._see(kind, value, line)
        if kind == "text":
            return self._string(value)
        if type(value) is bool:
            return "true" if value else "false"
        return self._number(value, line)

    def _see(self, kind: str | None, value: Any, line: int) -> None:
        if kind is None:
            raise _LineError(
                f"has {_NESTED[type(value)]} in {self.name!r}, where only text, a number, true, "
                "false or null can be read. Name other `columns`."
            )
        if self.kind is not None:
            raise _LineError(
                f"has {kind} in {self.name!r} where earlier lines have {self.kind} (line "
                f"{self.kind_line:,}). Make them all of one kind."
            )
        self.kind, self.kind_line = kind, line

    def _string(self, value: str) -> str:
        if not value.isascii() and not _is_text(value):
            raise _LineError(
                f"has half of a surrogate pair in {self.name!r}, which is not a character. Correct "
                "the line."
            )
        return value

    def _number(self, value: float, line: int) -> str:
        if isinstance(value, float):
            if not math.isfinite(value):
                raise _LineError(
                    f"has a number in {self.name!r} that is too large. Write it as text, or "
                    "correct the line."
                )
            self.fraction_line = self.fraction_line or line
        elif not -(2**63) <= value < 2**63:
            raise _LineError(
                f"has an integer in {self.name!r} that does not fit into 64 bits. Write it as text."
            )
        elif not self.long_line and float(value) != value:
            self.long_line = line
        if self.fraction_line and self.long_line:
            raise _LineError(
                f"has a number in {self.name!r} that is not compatible with that of line "
                f"{min(self.fraction_line, self.long_line):,}: one is a fraction, and the other an "
                "integer that would lose digits as a float. Write both as text."
            )
        return repr(value)

    def typed(self) -> pl.Expr:
        """Return the column converted to the type of its values."""
        text = pl.col(self.name)
        if self.kind == _KINDS[bool]:
            return text == "true"
        if self.kind == _KINDS[int]:
            return text.cast(pl.Float64 if self.fraction_line else pl.Int64)
        return text


def _rows(path: Path, table: list[_Column]) -> Iterator[tuple[str | None, ...]]:
    """Yield the values of each object as text; at the end, check that every column occurred."""
    keys: dict[str, None] = {}
    number = 0
    for number, found in _objects(path):
        if len(keys) < _MANY_KEYS:
            keys.update(dict.fromkeys(found))
        try:
            yield tuple([column.text(found.get(column.name, _ABSENT), number) for column in table])
        except _LineError as error:
            raise _at(path, number, str(error)) from error
    if number == 0:
        raise _nothing(path)
    missing = [column.name for column in table if not column.there]
    if missing:
        raise MissingColumnError(
            f"No line of {str(path)!r} has {missing[0]!r}; there are "
            f"{', '.join(map(repr, keys)) or 'no keys'}."
        )


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a file, each with its line number."""
    decoder = json.JSONDecoder(object_pairs_hook=_without_repeats, parse_constant=_no_number)
    for number, line in lines(path):
        if not line.strip(b" \t\r"):
            continue
        try:
            found = decoder.decode(line.decode())
        except UnicodeDecodeError as error:
            raise _at(path, number, "is not UTF-8. Save the file as UTF-8.") from error
        except json.JSONDecodeError as error:
            reason = f"is not JSON ({error.msg}, character {error.colno:,})."
            python = error.msg.startswith("Expecting") and _is_python(line)
            remedy = _PYTHON if python else "Put each object on a line of its own."
            raise _at(path, number, f"{reason} {remedy}") from error
        except RecursionError as error:
            raise _at(path, number, "is nested too deeply. Correct or drop the line.") from error
        except _LineError as error:
            raise _at(path, number, str(error)) from error
        except ValueError as error:  # Python refuses to parse integers of thousands of digits
            reason = "has an integer of thousands of digits. Write it as text."
            raise _at(path, number, reason) from error
        if not isinstance(found, dict):
            raise _at(path, number, "is not a JSON object. Put each object on a line of its own.")
        yield number, found


def _is_python(line: bytes) -> bool:
    """Return whether a line is a dict as Python prints it: single quotes, None, True."""
    try:
        return isinstance(ast.literal_eval(line.decode().strip()), dict)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return False


def _at(path: Path, number: int, what: str) -> DataError:
    return DataError(f"Line {number:,} of {str(path)!r} {what}")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise _LineError(f"has the key {repeated!r} twice in one object. Correct the line.")
    return found


def _no_number(name: str) -> float:
    raise _LineError(f"has {name}, which is not JSON. Write null, or drop the line.")


def _where(path: Path, row: int) -> str:
    """Find the line of a row by reading the file again."""
    for place, (number, _) in enumerate(_objects(path)):
        if place == row:
            return f"line {number:,} of {str(path)!r}"
    return f"row {row + 1:,} of {str(path)!r}"
