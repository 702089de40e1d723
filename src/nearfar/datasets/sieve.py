"""Files with dirt, line by line: what can be read, and a list of what cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

import polars as pl

from nearfar.errors import DataError, EmptyDataError
from nearfar.readers.lines import lines
from nearfar.readers.raw import REJECTED_SCHEMA

SHOWN: Final = 500
"""Characters of a rejected line that are kept."""
PATIENCE: Final = 1000
"""Unreadable lines, more than the readable ones, after which the rest is not looked at."""

Parsed = TypeVar("Parsed")


class MalformedLineError(ValueError):
    """A line is not what it must be; the message is the reason."""


class Sieve:
    """The lines of one file: those that can be read, and a list of those that cannot.

    Parameters
    ----------
    path : Path
        The file.
    form : str
        What a line must be, for the message: ``'"user";"ISBN";"rating"'``.
    prefix : str
        Put before each reason; the name of the file, if it is not the main one.
    """

    def __init__(self, path: Path, form: str, prefix: str = "") -> None:
        self._path = path
        self._form = form
        self._prefix = prefix
        self._n_good = 0
        self._left_out: list[int] = []
        self._rejected: list[tuple[int, str, str]] = []

    def through(
        self,
        parse: Callable[[str], Parsed | None],
        encoding: str = "utf-8",
        errors: str = "strict",
        header: str = "",
    ) -> Iterator[Parsed]:
        """Give what `parse` makes of each line.

        Parameters
        ----------
        parse : callable
            Gets the text of a line that is not blank. None leaves it out, although it is good;
            `MalformedLineError` puts it among the rejected.
        encoding, errors : str
            As of `bytes.decode`; a line that cannot be decoded is rejected.
        header : str
            How a header starts, in small letters, which the file may have above its first line.

        Raises
        ------
        DataError
            If the file cannot be read, or more than half of its lines are malformed.
        EmptyDataError
            If it has none.
        """
        above = header
        for number, line in lines(self._path):
            if not line.strip():
                self._left_out.append(number)
                continue
            try:
                text = line.decode(encoding, errors)
                if above and text.lower().startswith(above):
                    self._left_out.append(number)
                    continue
                row = parse(text)
            except UnicodeDecodeError:
                self._reject(number, f"is not {encoding}", line.decode(encoding, "replace"))
            except MalformedLineError as error:
                self._reject(number, str(error), line.decode(encoding, "replace"))
            else:
                self._n_good += 1
                if row is None:
                    self._left_out.append(number)
                else:
                    yield row
            finally:
                above = ""  # whatever looks like it further below is a line like others
        self._check(0)
        if not self._n_good:
            raise EmptyDataError(f"{str(self._path)!r} has no lines; get the file again.")

    def where(self, row: int) -> str:
        """Say on which line a row, counted from 0 among the good ones, is."""
        number = row + 1
        for left_out in self._left_out:  # in order
            if left_out > number:
                break
            number += 1
        return f"line {number:,} of {str(self._path)!r}"

    @property
    def rejected(self) -> pl.DataFrame:
        """The malformed lines so far, as of `Raw.rejected`."""
        return pl.DataFrame(self._rejected, schema=REJECTED_SCHEMA, orient="row")

    def _reject(self, number: int, reason: str, text: str) -> None:
        self._left_out.append(number)
        self._rejected.append((number, self._prefix + reason, text[:SHOWN]))
        self._check(PATIENCE)

    def _check(self, patience: int) -> None:
        n_bad = len(self._rejected)
        if n_bad > max(self._n_good, patience):
            number, reason, text = self._rejected[0]
            raise DataError(
                f"{n_bad:,} of the first {n_bad + self._n_good:,} lines of {str(self._path)!r} are "
                f"malformed, the first of them line {number:,} ({reason}): {text[:80]!r}. "
                f"Lines must be {self._form}; check that it is the right file."
            )


def described(
    path: Path,
    form: str,
    parse: Callable[[str], Sequence[object]],
    columns: Sequence[str],
    encoding: str = "utf-8",
    header: str = "",
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read a file that says something about each item.

    Parameters
    ----------
    path : Path
        The file.
    form, parse, encoding, header
        As of `Sieve`; a row has the item first.
    columns : sequence of str
        Names of the fields after the item. All are text but ``price``.

    Returns
    -------
    DataFrame
        ``item_id`` and `columns`; each item once.
    DataFrame
        The malformed lines, as of `Raw.rejected`; also those that describe an item once more. Their
        reasons name the file.
    """
    seen: set[object] = set()

    def once(text: str) -> Sequence[object]:
        row = parse(text)
        if row[0] in seen:
            raise MalformedLineError(f"describes {row[0]!r} once more")
        seen.add(row[0])
        return row

    sieve = Sieve(path, form, f"{path.name}: ")
    schema = {name: pl.Float64 if name == "price" else pl.String for name in ("item_id", *columns)}
    rows = list(sieve.through(once, encoding, header=header))
    return pl.DataFrame(rows, schema=schema, orient="row"), sieve.rejected
