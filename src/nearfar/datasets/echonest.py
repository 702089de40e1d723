"""Echo Nest Taste Profile: how often 1,019,318 listeners played 384,546 songs, 48 million pairs.

Published by The Echo Nest with the Million Song Dataset, for research, under the terms of its API.
T. Bertin-Mahieux, D. P. W. Ellis, B. Whitman and P. Lamere, *The Million Song Dataset*,
ISMIR 2011; B. McFee, T. Bertin-Mahieux, D. P. W. Ellis and G. Lanckriet, *The Million Song Dataset
Challenge*, AdMIRe 2012.

The file is ``train_triplets.txt``: user, song and plays, separated by tabs, without a header. It is
clean, so any other line is an error. Two more files are used if they are in the same place:

``sid_mismatches.txt``
    Songs whose id points to the recording of another song. Their rows are marked as dropped.
``unique_tracks.txt``
    ``track<SEP>song<SEP>artist<SEP>title``. Songs with the same artist and title become one item,
    whose id is the smallest of theirs. Artists and titles are compared after Unicode's NFKC,
    without regard to case and with every run of blanks as one. If a song is described several
    times, its first description counts. A song without a title or an artist, or that is listed as a
    mismatch, is not merged. A user may thus have several rows of one item, and the rules of the
    paper add up their plays: a user who played two copies of a song three times each has played the
    song six times.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Final

import polars as pl

from nearfar.datasets.columns import checked, placed
from nearfar.datasets.members import Member, find
from nearfar.datasets.sieve import MalformedLineError, Sieve
from nearfar.prepare.rules import Paper, Rules
from nearfar.readers.raw import Raw, nothing_rejected
from nearfar.readers.spool import spooled
from nearfar.readers.text import scan_text

PAPER: Final = Paper(
    Rules(min_value=5, repeats="sum", min_user_items=21, min_item_users=5),
    31_521, 159_063, 1_405_671,
)  # fmt: skip
"""The preparation described in the paper; adding up plays of merged songs is our interpretation."""
MISMATCH: Final = "song and track do not match (sid_mismatches.txt)"
"""The reason for which a row is dropped."""

_MISMATCH: Final = re.compile(r"ERROR: <(SO[0-9A-Z]{16}) (TR[0-9A-Z]{16})>.*")
_SONGS: Final = pl.Schema(dict.fromkeys(("item_id", "title", "artist", "key"), pl.String))


def read(path: Path, scratch: Path) -> Raw:
    """Read the plays and, if available, the songs.

    Parameters
    ----------
    path : Path
        ``train_triplets.txt``, or a folder or zip archive with it.
    scratch : Path
        A folder for unpacked files; it must exist as long as the result is in use.

    Returns
    -------
    Raw
        The columns user, item (String), value (Int64, the plays) and, with ``sid_mismatches.txt``,
        dropped. With ``unique_tracks.txt``, items have title and artist.

    Raises
    ------
    DataError
        If the file cannot be found or read, or a line is malformed.
    """
    found = find(path, r"train_triplets\.txt", "train_triplets.txt", scratch)
    raw = scan_text(found.file, scratch, separator="\t", has_header=False, quotes=False)
    rows = placed(raw, {"user": 1, "item": 2, "value": 3}, 3, found.file)
    rows = checked(rows, raw.where, found.file, counts=True)
    wrong, wrong_lines = _mismatches(found)
    songs, song_lines = _songs(found, set(wrong["item"]), scratch)
    if not wrong.is_empty():
        rows = rows.join(wrong.lazy(), on="item", how="left", maintain_order="left")
    if songs is not None:
        rows = _merged(rows, songs)
        songs = songs.filter(pl.col("item_id") == pl.col("one"))
        songs = songs.select("item_id", "title", "artist")
    return Raw(rows, raw.where, songs, pl.concat([wrong_lines, song_lines]))


def _mismatches(found: Member) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read the dropped songs, each once, with the reason, and the malformed lines."""
    path = found.beside(r"sid_mismatches\.txt")
    songs: list[str] = []
    rejected = nothing_rejected()
    if path is not None:
        sieve = Sieve(path, "'ERROR: <song track> ...'", f"{path.name}: ")
        # only the ids matter, so a name in a broken encoding must not keep a song
        songs = list(dict.fromkeys(sieve.through(_mismatch, errors="replace")))
        rejected = sieve.rejected
    frame = pl.DataFrame({"item": songs}, schema={"item": pl.String})
    return frame.with_columns(dropped=pl.lit(MISMATCH)), rejected


def _mismatch(text: str) -> str:
    match = _MISMATCH.fullmatch(text)
    if match is None:
        raise MalformedLineError("does not name a song and a track")
    return match[1]


def _songs(
    found: Member, wrong: set[str], scratch: Path
) -> tuple[pl.DataFrame | None, pl.DataFrame]:
    """Read the descriptions: item_id, title, artist and, in ``one``, the id after merging."""
    path = found.beside(r"unique_tracks\.txt")
    if path is None:
        return None, nothing_rejected()

    def described(text: str) -> tuple[str, str, str, str | None] | None:
        row = _song(text)
        return None if row[0] in wrong else row

    sieve = Sieve(path, "track<SEP>song<SEP>artist<SEP>title", f"{path.name}: ")
    every = spooled(sieve.through(described), _SONGS, scratch).collect()
    first = every.unique("item_id", keep="first", maintain_order=True)
    smallest = pl.col("item_id").min().over("key")
    one = pl.when(pl.col("key").is_null()).then(pl.col("item_id")).otherwise(smallest)
    return first.with_columns(one=one), sieve.rejected


def _song(text: str) -> tuple[str, str, str, str | None]:
    fields = text.split("<SEP>")
    if len(fields) != 4 or not fields[1]:
        raise MalformedLineError("does not have 4 fields separated by <SEP>")
    _, song, artist, title = fields
    names = [" ".join(unicodedata.normalize("NFKC", name).casefold().split())
             for name in (artist, title)]  # fmt: skip
    return song, title, artist, "\n".join(names) if all(names) else None


def _merged(rows: pl.LazyFrame, songs: pl.DataFrame) -> pl.LazyFrame:
    """Replace the ids of merged songs."""
    others = songs.filter(pl.col("item_id") != pl.col("one")).select("item_id", "one")
    joined = rows.join(
        others.lazy(), left_on="item", right_on="item_id", how="left", maintain_order="left"
    )
    return joined.with_columns(item=pl.coalesce("one", "item")).drop("one")
