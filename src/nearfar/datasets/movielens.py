"""MovieLens: ratings of films, from 100,000 of 1997-98 to 25 million of 2019.

Collected by the GroupLens Research Project at the University of Minnesota. Its terms: use it for
research, acknowledge it, do not redistribute it without permission, and no commercial use without
permission. F. M. Harper and J. A. Konstan, *The MovieLens Datasets: History and Context*, ACM TiiS
5(4), 2015.

The accepted forms; in each, any other line is an error:

=========  ===========================================================  ======================
data set   ratings                                                      films (optional)
=========  ===========================================================  ======================
100K       ``u.data``: tab-separated, without a header                  ``u.item``
1M, 10M    ``ratings.dat``: ``user::item::rating::time``                ``movies.dat``
20M, 25M   ``ratings.csv``: ``userId,movieId,rating,timestamp``         ``movies.csv``
RecBole's  ``*.inter``: ``user_id:token item_id:token rating:float``    ``*.item``
           ``timestamp:float``, separated by tabs
=========  ===========================================================  ======================

Malformed lines among the films are left out and listed in `Raw.rejected`.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final

import polars as pl

from nearfar.datasets.columns import checked, named, placed
from nearfar.datasets.members import Member, find
from nearfar.datasets.sieve import MalformedLineError, described
from nearfar.errors import DataError
from nearfar.readers.lines import opened
from nearfar.readers.raw import Raw
from nearfar.readers.text import scan_text

RATINGS_SHA256: Final = "6cfffb52c89b05fbc3afb75f6912eeda04c81c2add0dc58e773a0ef6c8adb160"
"""`checksum` of the ratings of MovieLens-100K, the same for every form."""

_COLUMNS: Final = ("user", "item", "value", "time")
_CSV: Final = dict(zip(_COLUMNS, ("userId", "movieId", "rating", "timestamp"), strict=True))
_RECBOLE: Final = dict(zip(_COLUMNS, ("user_id", "item_id", "rating", "timestamp"), strict=True))
_GENRES: Final = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)  # fmt: skip
_NO_GENRES: Final = "(no genres listed)"

Film = tuple[str, str, str | None]


def checksum(ratings: pl.DataFrame) -> str:
    """Hash ratings independently of their order.

    Parameters
    ----------
    ratings : DataFrame
        The columns user, item, value and time, of integers or their text.

    Returns
    -------
    str
        SHA-256 of the lines ``user TAB item TAB value TAB time``, sorted as numbers.

    Raises
    ------
    DataError
        If a value is not an integer.
    """
    try:
        numbers = ratings.select(pl.col(_COLUMNS).cast(pl.Int64)).sort(_COLUMNS)
    except pl.exceptions.InvalidOperationError as error:
        raise DataError(
            "The users, items, ratings and times must be integers to be compared with those of "
            "MovieLens-100K. Check that it is the right file."
        ) from error
    lines = numbers.select(pl.concat_str(_COLUMNS, separator="\t")).to_series()
    return sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def read(path: Path, scratch: Path) -> Raw:
    """Read the ratings and, if available, the films.

    Parameters
    ----------
    path : Path
        One of the files above, or a folder or zip archive with one of them.
    scratch : Path
        A folder for unpacked files; it must exist as long as the result is in use.

    Returns
    -------
    Raw
        The columns user, item (String), value (Int64, or Float64 if one is a fraction) and time
        (Int64, seconds since 1970). Items have title and genres (separated by ``" | "``).

    Raises
    ------
    DataError
        If the file cannot be found or read, or a line is malformed.
    """
    pattern = r"u\.data|ratings\.dat|ratings\.csv|[^.]+\.inter"
    found = find(path, pattern, "u.data, ratings.dat, ratings.csv or *.inter", scratch)
    raw, rows = _ratings(found, scratch)
    rows = checked(rows, raw.where, found.file)
    films = _films(found)
    return Raw(rows, raw.where) if films is None else Raw(rows, raw.where, *films)


def _ratings(found: Member, scratch: Path) -> tuple[Raw, pl.LazyFrame]:
    file, kind = found.file, Path(found.name).suffix
    if kind == ".data":
        raw = scan_text(file, scratch, separator="\t", has_header=False, quotes=False)
        return raw, placed(raw, {name: i for i, name in enumerate(_COLUMNS, 1)}, 4, file)
    if kind == ".dat":  # "::" is an empty field between two ":"
        raw = scan_text(file, scratch, separator=":", has_header=False, quotes=False)
        rows = placed(raw, {name: 2 * i + 1 for i, name in enumerate(_COLUMNS)}, 7, file)
        _check_between(raw, file)
        return raw, rows
    if kind == ".csv":
        raw = scan_text(file, scratch)
        return raw, named(raw, _CSV, file)
    if kind == ".inter":
        raw = scan_text(file, scratch, separator="\t", quotes=False)
        return raw, named(raw, _RECBOLE, file)
    raise DataError(
        f"{str(file)!r} must be u.data, ratings.dat, ratings.csv or *.inter; its name ends "
        "differently. Restore the original name."
    )


def _check_between(raw: Raw, file: Path) -> None:
    between = pl.any_horizontal(pl.col("column_2", "column_4", "column_6").is_not_null())
    bad = raw.rows.select(between.any()).collect(engine="streaming").item()
    if bad:
        row = raw.rows.select(between.arg_max()).collect().item()
        raise DataError(
            f"The fields of {raw.where(row)} must be separated by '::'; got a single ':'. "
            "Correct or remove the line."
        )


def _films(found: Member) -> tuple[pl.DataFrame, pl.DataFrame] | None:
    stem, kind = Path(found.name).stem, Path(found.name).suffix
    name, form, parse, header = {
        ".data": (r"u\.item", "id|title|...", _of_item, ""),
        ".dat": (r"movies\.dat", "id::title::genres", _of_dat, ""),
        ".csv": (r"movies\.csv", "id,title,genres", _of_csv, "movieid,"),
        ".inter": (
            rf"{stem}\.item", "id, title, year and genres separated by tabs", _of_recbole,
            "item_id:",
        ),
    }[kind]  # fmt: skip
    file = found.beside(name)
    if file is None:
        return None
    encoding = _encoding(file) if kind in {".data", ".dat"} else "utf-8"
    return described(file, form, parse, ("title", "genres"), encoding, header)


def _encoding(file: Path) -> str:
    """Return the encoding of a small file: UTF-8, as of 10M, or ISO-8859-1, as of older ones."""
    with opened(file) as source:
        text = source.read()
    try:
        text.decode()
    except UnicodeDecodeError:
        return "iso-8859-1"
    return "utf-8"


def _of_item(text: str) -> Film:
    fields = text.split("|")
    if len(fields) < 5:
        raise MalformedLineError("does not have an id, a title, dates, an address and genres")
    flags = zip(_GENRES, fields[5:], strict=False)
    return _film(fields[0], fields[1], [genre for genre, flag in flags if flag == "1"])


def _of_dat(text: str) -> Film:
    fields = text.split("::")
    if len(fields) != 3:
        raise MalformedLineError("does not have 3 fields")
    return _film(fields[0], fields[1], fields[2].split("|"))


def _of_csv(text: str) -> Film:
    try:
        fields = next(csv.reader([text], strict=True))
    except csv.Error as error:
        raise MalformedLineError(str(error)) from None
    if len(fields) != 3:
        raise MalformedLineError("does not have 3 fields")
    return _film(fields[0], fields[1], fields[2].split("|"))


def _of_recbole(text: str) -> Film:
    fields = text.split("\t")
    if len(fields) != 4:
        raise MalformedLineError("does not have 4 fields")
    item, title, year, genres = fields
    # the official title of the one film without a year; RecBole has the misspelt word as its year
    dated = "unknown" if year == "unkonwn" else f"{title} ({year})"
    return _film(item, dated, [genres] if genres == _NO_GENRES else genres.split(" "))


def _film(item: str, title: str, genres: Sequence[str]) -> Film:
    if not item:
        raise MalformedLineError("the id is missing")
    named_genres = [genre for genre in genres if genre and genre != _NO_GENRES]
    return item, title, " | ".join(named_genres) or None
