"""MovieLens-100K: 100,000 ratings (1-5) of 1,682 films by 943 users, 1997-98.

Collected by the GroupLens Research Project at the University of Minnesota. Its terms: use it for
research, acknowledge it, do not redistribute it without permission, and no commercial use without
permission. F. M. Harper and J. A. Konstan, *The MovieLens Datasets: History and Context*, ACM TiiS
5(4), 2015.

A local copy may be the official ``ml-100k.zip``, the folder it unpacks to (``u.data``, ``u.item``),
a wheel of RecBole, or a folder with its ``ml-100k.inter`` and ``ml-100k.item``. The ratings of all
of them are the same, and are verified against one checksum.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from hashlib import md5, sha256
from pathlib import Path
from typing import Final

import polars as pl

from nearfar.datasets.source import Fetcher, Source, Tables, download, download_wheel
from nearfar.errors import DataError, SourceError

URL: Final = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
"""The official address."""
URL_MD5 = "0e33842e24a9c977be4e0107933c0723"
"""MD5 of the official archive, as published beside it."""
WHEEL: Final = "recbole==1.2.1"
"""A package of the index that carries the same ratings."""
RATINGS_SHA256 = "6cfffb52c89b05fbc3afb75f6912eeda04c81c2add0dc58e773a0ef6c8adb160"
"""`checksum` of the 100,000 ratings, whatever the source."""

_COLUMNS: Final = ("user", "item", "value", "time")


def checksum(ratings: pl.DataFrame) -> str:
    """Hash ratings independent of their order.

    Parameters
    ----------
    ratings : DataFrame
        The columns user, item, value and time, of integers or their text.

    Returns
    -------
    str
        SHA-256 of the lines ``user TAB item TAB value TAB time``, sorted as numbers.
    """
    numbers = ratings.select(pl.col(_COLUMNS).cast(pl.Int64)).sort(_COLUMNS)
    lines = numbers.select(pl.concat_str(_COLUMNS, separator="\t")).to_series()
    return sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def read(path: Path) -> Tables:
    """Read a local copy in any of the accepted forms, and verify it.

    Raises
    ------
    SourceError
        If it is none of them, or the ratings are not the 100,000.
    """
    member = _members(path)
    if (official := member("u.data")) is not None:
        ratings = _ratings(official, has_header=False)
        items = _official_items(member("u.item"))
    elif (recbole := member("ml-100k.inter")) is not None:
        ratings = _ratings(recbole, has_header=True)
        items = _recbole_items(member("ml-100k.item"))
    else:
        raise SourceError(
            f"{str(path)!r} has neither u.data nor ml-100k.inter in it; give ml-100k.zip, a "
            "RecBole wheel, or a folder with one of the two files."
        )
    found = checksum(ratings)
    if found != RATINGS_SHA256:
        raise SourceError(
            f"The {len(ratings):,} ratings in {str(path)!r} are not those of MovieLens-100K: their "
            f"SHA-256 must be {RATINGS_SHA256}; got {found}. Fetch the file again."
        )
    return Tables(ratings, items)


def _members(path: Path) -> Callable[[str], bytes | None]:
    """Give a function that reads a file by its name from a folder or an archive."""
    if path.is_dir():

        def from_folder(name: str) -> bytes | None:
            places = [path / name, path / "ml-100k" / name]
            return next((place.read_bytes() for place in places if place.is_file()), None)

        return from_folder

    def from_archive(name: str) -> bytes | None:
        try:
            with zipfile.ZipFile(path) as archive:
                inside = [n for n in archive.namelist() if n.rsplit("/", 1)[-1] == name]
                return archive.read(min(inside, key=len)) if inside else None
        except zipfile.BadZipFile as error:
            raise SourceError(f"{str(path)!r} is no zip archive or is damaged: {error}.") from error

    return from_archive


def _ratings(raw: bytes, *, has_header: bool) -> pl.DataFrame:
    try:
        table = pl.read_csv(
            io.BytesIO(raw), separator="\t", has_header=has_header, infer_schema=False,
            quote_char=None,
        )  # fmt: skip
        table.columns = list(_COLUMNS)
        ids = pl.col("user", "item").cast(pl.Int64).cast(pl.String)
        return table.with_columns(ids, pl.col("value", "time").cast(pl.Float64).cast(pl.Int64))
    except (pl.exceptions.PolarsError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"its lines must be user, item, rating, timestamp ({reason}).") from error


def _official_items(raw: bytes | None) -> pl.DataFrame:
    return _items(raw, "u.item", "latin-1", "|", lambda fields: fields[1])


def _recbole_items(raw: bytes | None) -> pl.DataFrame:
    return _items(raw, "ml-100k.item", "utf-8", "\t", _with_year)


def _with_year(fields: list[str]) -> str:
    """Join title and year as the official file has them; RecBole spells the one unknown film so."""
    title, year = fields[1], fields[2]
    return "unknown" if year == "unkonwn" else f"{title} ({year})"


def _items(
    raw: bytes | None, name: str, encoding: str, separator: str, title: Callable[[list[str]], str]
) -> pl.DataFrame:
    if raw is None:
        raise SourceError(f"{name!r} with the titles is missing beside the ratings.")
    try:
        lines = [line.rstrip("\r") for line in raw.decode(encoding).split("\n")]
        rows = [line.split(separator) for line in lines if line and not line.startswith("item_id:")]
        columns = {"item_id": [row[0] for row in rows], "title": [title(row) for row in rows]}
    except (UnicodeDecodeError, IndexError) as error:
        raise DataError(f"{name!r} must have an id and a title in each line ({error}).") from error
    return pl.DataFrame(columns, schema={"item_id": pl.String, "title": pl.String})


def _fetch_official(folder: Path) -> Path:
    archive = download(URL, folder / "ml-100k.zip")
    found = md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
    if found != URL_MD5:
        raise SourceError(f"what {URL} sent must have the MD5 {URL_MD5}; got {found}.")
    return archive


def _fetch_wheel(folder: Path) -> Path:
    return download_wheel(WHEEL, folder)


ML_100K: Final = Source(
    name="ml-100k",
    min_value=4.0,
    read=read,
    fetchers=(
        Fetcher("the official address", _fetch_official),
        Fetcher(f"the wheel {WHEEL}", _fetch_wheel),
    ),
)
"""For `nearfar.datasets.load`."""
