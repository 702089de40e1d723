r"""Book-Crossing: 1.15 million ratings of books by readers of bookcrossing.com, 2004.

Collected by Cai-Nicolas Ziegler in August and September 2004. Its terms: free for research if
acknowledged with C.-N. Ziegler, S. M. McNee, J. A. Konstan and G. Lausen, *Improving Recommendation
Lists Through Topic Diversification*, WWW 2005.

The file is ``BX-Book-Ratings.csv``: ISO-8859-1, ``"User-ID";"ISBN";"Book-Rating"``, with or without
that header. Ratings are 1 to 10; 0 means "read, but not rated". There are no times. The books are
described in ``BX-Books.csv`` in the same place, if it exists.

Malformed values are handled as follows:

- ``\"`` and ``\\`` in a field stand for ``"`` and ``\``. A line that has a wrong number of fields
  under this rule is split at every ``";"`` instead: a stray quote, or a backslash before the last
  quote of a field, then belongs to the field.
- HTML entities (``&amp;``) are decoded, in ISBNs and in descriptions.
- Otherwise an ISBN is kept as written: ``0553282352>>4`` and ``2.02.006721.8`` are not repaired,
  ``039332169x`` and ``039332169X`` are two books, ``"8804501367"`` keeps its quotes.
- A line without a user, an ISBN or a rating of 0 to 10 is rejected: left out, and listed in
  `Raw.rejected`. The same holds for malformed lines of ``BX-Books.csv``.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import polars as pl

from nearfar.datasets.members import find
from nearfar.datasets.sieve import MalformedLineError, Sieve, described
from nearfar.prepare.rules import Paper, Rules
from nearfar.readers.raw import Raw
from nearfar.readers.spool import spooled

PAPER: Final = Paper(Rules(min_value=5, min_user_items=11), 3_593, 127_339, 240_020)
"""The preparation described in the paper."""
ENCODING: Final = "iso-8859-1"
"""The encoding of all files."""

_FIELD: Final = r'"((?:[^"\\]|\\.)*)"'
_RATING: Final = re.compile(";".join([_FIELD] * 3))
_BOOK: Final = re.compile(";".join([_FIELD] * 8))
_ESCAPED: Final = re.compile(r'\\(["\\])')
_SCHEMA: Final = pl.Schema({"user": pl.String, "item": pl.String, "value": pl.Int64})
_COLUMNS: Final = ("title", "author", "year", "publisher")


def read(path: Path, scratch: Path) -> Raw:
    """Read the ratings and, if available, the books.

    Parameters
    ----------
    path : Path
        ``BX-Book-Ratings.csv``, or a folder or zip archive with it.
    scratch : Path
        A folder for parsed rows; it must exist as long as the result is in use.

    Returns
    -------
    Raw
        The columns user, item (String) and value (Int64). Items have title, author, year and
        publisher, as text.

    Raises
    ------
    DataError
        If the file cannot be found or read, or more than half of its lines are malformed.
    """
    found = find(path, r"bx-book-ratings\.csv", "BX-Book-Ratings.csv", scratch)
    sieve = Sieve(found.file, '"user";"ISBN";"rating"')
    rows = spooled(sieve.through(_rating, ENCODING, header='"user-id";'), _SCHEMA, scratch)
    books = found.beside(r"bx-books\.csv")
    if books is None:
        return Raw(rows, sieve.where, rejected=sieve.rejected)
    form = '8 quoted fields separated by ";"'
    items, rejected = described(books, form, _book, _COLUMNS, ENCODING, header='"isbn";')
    return Raw(rows, sieve.where, items, pl.concat([sieve.rejected, rejected]))


def _rating(text: str) -> tuple[str, str, int]:
    user, isbn, rating = _fields(text, _RATING, 3)
    if not re.fullmatch("[0-9]+", user):
        raise MalformedLineError("the user is not a number")
    if not re.fullmatch("[0-9]|10", rating):
        raise MalformedLineError("the rating is not an integer from 0 to 10")
    return user, _isbn(isbn), int(rating)


def _book(text: str) -> tuple[str, ...]:
    isbn, *about = _fields(text, _BOOK, 8)
    return _isbn(isbn), *(html.unescape(field) for field in about[: len(_COLUMNS)])


def _fields(text: str, form: re.Pattern[str], n_fields: int) -> Sequence[str]:
    match = form.fullmatch(text)
    if match:
        return [_ESCAPED.sub(r"\1", field) for field in match.groups()]
    fields = text[1:-1].split('";"')
    if len(text) > 1 and text[0] == text[-1] == '"' and len(fields) == n_fields:
        return fields
    raise MalformedLineError(f"does not have {n_fields} quoted fields")


def _isbn(text: str) -> str:
    isbn = html.unescape(text)
    if not isbn.strip():
        raise MalformedLineError("the ISBN is missing")
    return isbn
