"""Amazon reviews of 2014: ratings (1-5) with times, for each category of products.

Collected by Julian McAuley and others from amazon.com, May 1996 to July 2014, and offered for
research. No licence is stated; cite R. He and J. McAuley, *Ups and Downs*, WWW 2016, and
J. McAuley, C. Targett, Q. Shi and A. van den Hengel, *Image-Based Recommendations on Styles and
Substitutes*, SIGIR 2015.

Two forms are accepted; in both, a line that is anything else is an error:

- ``reviews_Movies_and_TV_5.json``, the 5-core: one object per line, with ``reviewerID``, ``asin``,
  ``overall`` and ``unixReviewTime``. In a folder or an archive its name must start with
  ``reviews_`` or end in such a number; a file passed as the path may have any name that ends in
  ``.json``.
- ``ratings_Movies_and_TV.csv``, all ratings: user, item, rating, time, without a header. The files
  of 2018 have the item first; they are not accepted.

The products are described in ``meta_Movies_and_TV.json`` in the same place, if it exists: one
object per line, as JSON or as the literal of a Python dictionary. Its HTML entities (``&amp;``) are
decoded. Its malformed lines are left out and listed in `Raw.rejected`.
"""

from __future__ import annotations

import ast
import html
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import polars as pl

from nearfar.datasets.columns import checked, named, placed
from nearfar.datasets.members import bare, find
from nearfar.datasets.sieve import MalformedLineError, described
from nearfar.errors import DataError
from nearfar.prepare.rules import Paper, Rules
from nearfar.readers.json_lines import scan_json_lines
from nearfar.readers.raw import Raw
from nearfar.readers.text import scan_text

PAPER: Final = Paper(
    Rules(min_value=4, strictly=True, min_user_items=20), 11_181, 94_661, 620_059
)  # fmt: skip
"""The preparation described in the paper."""

_KEYS: Final = {"user": "reviewerID", "item": "asin", "value": "overall", "time": "unixReviewTime"}
_PLACES: Final = {"user": 1, "item": 2, "value": 3, "time": 4}
_COLUMNS: Final = ("title", "categories", "brand", "price")
_ITEM_LENGTH: Final = 10


def read(path: Path, scratch: Path) -> Raw:
    """Read the ratings and, if available, the products.

    Parameters
    ----------
    path : Path
        ``reviews_*.json`` or ``ratings_*.csv``, or a folder or zip archive with one of them.
    scratch : Path
        A folder for parsed rows; it must exist as long as the result is in use.

    Returns
    -------
    Raw
        The columns user, item (String), value (Int64, or Float64 if one is a fraction) and time
        (Int64, seconds since 1970). Items have title, categories (separated by ``" | "``) and
        brand, as text, and price (Float64); unknown values are null.

    Raises
    ------
    DataError
        If the file cannot be found or read, or a line is malformed.
    """
    pattern = r"reviews_[^.]+\.json|[^.]+_[0-9]+\.json|ratings_[^.]+\.csv"
    found = find(path, pattern, "reviews_*.json or ratings_*.csv", scratch)
    if found.name.endswith(".json"):
        raw = scan_json_lines(found.file, scratch, list(_KEYS.values()))
        rows = named(raw, _KEYS, found.file)
    else:
        raw = scan_text(found.file, scratch, has_header=False)
        rows = placed(raw, _PLACES, len(_PLACES), found.file)
        _check_order(rows, found.file)
    rows = checked(rows, raw.where, found.file)
    about = found.beside(rf"meta_{re.escape(_category(found.file))}\.json")
    if about is None:
        return Raw(rows, raw.where)
    items, rejected = described(about, "one object each, with an asin", _product, _COLUMNS)
    return Raw(rows, raw.where, items, rejected)


def _category(file: Path) -> str:
    """Return the common part of the names of all files of a category, in lower case."""
    stem = bare(file.name).rsplit(".", 1)[0]
    return re.sub(r"^(reviews|ratings)_|_[0-9]+$", "", stem)


def _check_order(rows: pl.LazyFrame, file: Path) -> None:
    first = rows.head(100).select(pl.col("user", "item").str.len_chars() == _ITEM_LENGTH).collect()
    if not first.is_empty() and first["user"].all() and not first["item"].all():
        raise DataError(
            f"{str(file)!r} seems to have the item before the user, as the files of 2018; lines "
            "must be user,item,rating,time. Swap its first two columns."
        )


def _product(text: str) -> tuple[str, str | None, str | None, str | None, float | None]:
    about = _object(text)
    item = about.get("asin")
    if not isinstance(item, str) or not item:
        raise MalformedLineError("has no asin")
    categories = dict.fromkeys(_texts(about.get("categories", about.get("category"))))
    row = (item, _text(about.get("title")), " | ".join(categories) or None,
           _text(about.get("brand")), _price(about.get("price")))  # fmt: skip
    try:
        "".join(field for field in row if isinstance(field, str)).encode()
    except UnicodeEncodeError:
        raise MalformedLineError("has half of a surrogate pair") from None
    return row


def _object(text: str) -> dict[Any, Any]:
    try:
        about = json.loads(text)
    except (ValueError, RecursionError):
        about = _literal(text)
    if not isinstance(about, dict):
        raise MalformedLineError("is not an object")
    return about


def _literal(text: str) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unknown escapes such as "\d", which are kept
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise MalformedLineError("is neither JSON nor a Python dictionary") from None


def _text(value: object) -> str | None:
    return html.unescape(value).strip() or None if isinstance(value, str) else None


def _texts(value: object) -> Iterator[str]:
    """Yield the texts in a list of lists."""
    if isinstance(value, list):
        for part in value:
            yield from _texts(part)
    elif text := _text(value):
        yield text


def _price(value: object) -> float | None:
    """Read a price: a number, or text such as "$1,012.99"."""
    if isinstance(value, str):
        plain = value.strip().removeprefix("$").replace(",", "")
        return float(plain) if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,6})?", plain) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0 <= value < 1e12 else None
