"""Files with malformed lines: the lines that can be read, and a list of those that cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

import polars as pl

from nearfar.errors import DataError, EmptyDataError
from nearfar.readers.lines import lines
from nearfar.readers.raw import REJECTED_SCHEMA

SHOWN: Final = 500
"""Number of characters of a rejected line that are kept."""
PATIENCE: Final = 1000
"""Reading stops at more malformed lines than this, if they also outnumber the good lines."""

Parsed = TypeVar("Parsed")


class MalformedLineError(ValueError):
    """A malformed line; the message is the reason."""


class Sieve:
    """The lines of one file: those that can be read, and a list of those that cannot.

    Parameters
    ----------
    path : Path
        The file.
    form : str
        The form of a line, for the message: ``'"user";"ISBN";"rating"'``.
    prefix : str
        The prefix of each reason; the name of the file, if it is not the main one.
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
        """Yield the result of `parse` for each line.

        Parameters
        ----------
        parse : callable
            Called with the text of a line that is not blank. A line for which it returns None is
            left out although it is good; one for which it raises `MalformedLineError` is rejected.
        encoding, errors : str
            As of `bytes.decode`; a line that cannot be decoded is rejected.
        header : str
            The start, in lower case, of a header that may precede the first line.

        Raises
        ------
        DataError
            If the file cannot be read, or more than half of its lines are malformed.
        EmptyDataError
            If the file has no lines.
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
                above = ""  # a line like the header further below is an ordinary line
        self._check(0)
        if not self._n_good:
            raise EmptyDataError(f"{str(self._path)!r} has no lines; get the file again.")

    def where(self, row: int) -> str:
        """Return the line, in words, of a row counted from 0 among the good ones."""
        number = row + 1
        for left_out in self._left_out:  # in order
            if left_out > number:
                break
            number += 1
        return f"line {number:,} of {str(self._path)!r}"

    @property
    def rejected(self) -> pl.DataFrame:
        """The malformed lines so far, as in `Raw.rejected`."""
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
    """Read a file that describes items.

    Parameters
    ----------
    path : Path
        The file.
    form, parse, encoding, header
        As of `Sieve`; the first field of a row is the item.
    columns : sequence of str
        Names of the fields after the item. All are text except ``price``.

    Returns
    -------
    DataFrame
        ``item_id`` and `columns`, with one row per item.
    DataFrame
        The malformed lines, as in `Raw.rejected`, including those that describe an item again.
        Their reasons name the file.
    """
    seen: set[object] = set()

    def once(text: str) -> Sequence[object]:
        row = parse(text)
        if row[0] in seen:
            raise MalformedLineError(f"describes {row[0]!r} again")
        seen.add(row[0])
        return row

    sieve = Sieve(path, form, f"{path.name}: ")
    schema = {name: pl.Float64 if name == "price" else pl.String for name in ("item_id", *columns)}
    rows = list(sieve.through(once, encoding, header=header))
    return pl.DataFrame(rows, schema=schema, orient="row"), sieve.rejected
