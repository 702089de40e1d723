"""Last.fm of HetRec 2011: how often 1,892 listeners played 17,632 artists, 92,834 pairs.

Collected by the Information Retrieval Group at the Universidad Autónoma de Madrid from Last.fm. Its
terms: for use that is not commercial, with acknowledgement of Last.fm and of I. Cantador,
P. Brusilovsky and T. Kuflik, *Second Workshop on Information Heterogeneity and Fusion in
Recommender Systems*, RecSys 2011.

The file is ``user_artists.dat``: tab-separated with the header ``userID artistID weight``, where
the weight is the number of plays; any other line is an error. The artists are described in
``artists.dat`` in the same place, if it exists (``id name url pictureURL``, UTF-8); its malformed
lines are left out and listed in `Raw.rejected`. There are no times.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from nearfar.datasets.columns import checked, named
from nearfar.datasets.members import find
from nearfar.datasets.sieve import MalformedLineError, described
from nearfar.readers.raw import Raw
from nearfar.readers.text import scan_text

_NAMES: Final = {"user": "userID", "item": "artistID", "value": "weight"}


def read(path: Path, scratch: Path) -> Raw:
    """Read the plays and, if available, the artists.

    Parameters
    ----------
    path : Path
        ``user_artists.dat``, or a folder or zip archive with it.
    scratch : Path
        A folder for unpacked files; it must exist as long as the result is in use.

    Returns
    -------
    Raw
        The columns user, item (String) and value (Int64, the plays). Items have title (the name of
        the artist) and url.

    Raises
    ------
    DataError
        If the file cannot be found or read, or a line is malformed.
    """
    found = find(path, r"user_artists\.dat", "user_artists.dat", scratch)
    raw = scan_text(found.file, scratch, separator="\t", quotes=False)
    rows = checked(named(raw, _NAMES, found.file), raw.where, found.file, counts=True)
    artists = found.beside(r"artists\.dat")
    if artists is None:
        return Raw(rows, raw.where)
    form = "id, name, url and pictureURL separated by tabs"
    items, rejected = described(artists, form, _artist, ("title", "url"), header="id\t")
    return Raw(rows, raw.where, items, rejected)


def _artist(text: str) -> tuple[str, str, str]:
    fields = text.split("\t")
    if len(fields) != 4 or not fields[0]:
        raise MalformedLineError("does not have 4 fields")
    artist, name, url, _picture = fields
    return artist, name, url
