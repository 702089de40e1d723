"""Recommendations for many users at once: a folder of Parquet files, made part by part.

Each part holds the lists of so many users that memory stays bounded, and is written whole or not at
all. The manifest says what the lists are of: the model, k, the filters, the users. So a run that
was killed goes on with the parts that are missing, and a folder of anything else is refused. The
parts are the same whether a run was interrupted or not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import Any

import polars as pl

from nearfar.errors import EmptyDataError, StoreError
from nearfar.model.cml import CML
from nearfar.model.export import write_new
from nearfar.runtime import store
from nearfar.runtime.checks import check_count
from nearfar.runtime.progress import Stages
from nearfar.search.item_index import ItemIndex, digest_of

KIND = "batch"
"""What the manifest of the folder calls it."""
PART_ROWS = 2**18
"""Rows of a part, about; what is in memory at a time is some hundred bytes for each."""


@dataclass(frozen=True)
class Written:
    """What a call of `recommend_to` did."""

    n_users: int
    """Users in all."""
    n_parts: int
    """Parts in all."""
    n_made: int
    """Parts made by this call; the others were there."""


def recommend_to(
    path: str | PathLike[str],
    model: CML,
    users: Iterable[Any] | None = None,
    k: int = 10,
    *,
    exclude_seen: bool = True,
    allow: Iterable[Any] | None = None,
    deny: Iterable[Any] | None = None,
    index: ItemIndex | None = None,
    threads: int | None = None,
    device: str = "cpu",
    progress: bool | None = None,
) -> Written:
    """Write the recommendations of many users to a folder, or what is missing of them there.

    Read them with ``polars.scan_parquet("FOLDER/part-*.parquet")``: user_id, rank (from 1),
    item_id, score, users in the order given, as `CML.recommend` has them.

    Parameters
    ----------
    path : path
        The folder: new, empty, or one of the same model, users, k, filters, index and device.
    model : CML
    users : ids, optional
        Whom to recommend to; every user if None.
    k, exclude_seen, allow, deny, index, threads, device
        As in `CML.recommend`.
    progress : bool, optional
        Show a progress bar; where the error stream is a terminal if None.

    Returns
    -------
    Written

    Raises
    ------
    StoreError
        The folder is of other settings or holds something else, or it cannot be written.
    EmptyDataError
        There are no users.
    UnknownIdError, OptionError, MissingExtraError
        As `CML.recommend`.
    """
    check_count("k", k)
    asked = _column(model, users)
    options: dict[str, Any] = {
        "exclude_seen": exclude_seen,
        "allow": None if allow is None else list(allow),
        "deny": None if deny is None else list(deny),
        "device": device,
    }
    size = max(1, PART_ROWS // k)
    folder, starts, n_made = Path(path), range(0, len(asked), size), 0
    _open(folder, {**_identity(model, asked, k, index, options), "part_users": size})
    with Stages(progress) as stages:
        stages.begin("recommending", len(asked))
        for part, start in enumerate(starts):
            some, file = asked.slice(start, size), folder / f"part-{part:05}.parquet"
            if not file.exists():
                found = model.recommend(some, k, **options, threads=threads, index=index)
                write_new({file: found.write_parquet})
                n_made += 1
            stages.advance(len(some))
    return Written(len(asked), len(starts), n_made)


def _identity(
    model: CML, asked: pl.Series, k: int, index: ItemIndex | None, options: dict[str, Any]
) -> dict[str, Any]:
    """Say what makes the lists these lists, in plain values: threads do not."""
    return {
        "model": digest_of(model.user_vectors, model.item_vectors),
        "interactions": model.interactions.fingerprint,
        "users": _digest(asked.to_list()),
        "k": k,
        "exclude_seen": options["exclude_seen"],
        "allow": _digest(options["allow"]),
        "deny": _digest(options["deny"]),
        "index": None if index is None else index.digest(),
        "device": options["device"],
    }


def _column(model: CML, users: Iterable[Any] | None) -> pl.Series:
    """Give the ids of the users asked for, after a look whether all are known."""
    ids = model.interactions.user_ids
    asked = ids.values if users is None else ids.take(ids.rows(users))
    if not len(asked):
        raise EmptyDataError("There are no users to recommend to; give some, or None for all.")
    return asked


def _digest(ids: list[Any] | None) -> str | None:
    return None if ids is None else sha256(repr(ids).encode()).hexdigest()


def _open(folder: Path, settings: dict[str, Any]) -> None:
    """Begin a folder, or go on with one of the same settings; what a killed run left is removed."""
    store.check_replaceable(folder, kind=KIND)
    if (folder / store.MANIFEST).exists():
        theirs = store.load_folder(folder, kind=KIND).meta
        differ = [name for name in settings if theirs.get(name) != settings[name]]
        if differ:
            raise StoreError(
                f"{str(folder)!r} holds recommendations of other settings (other"
                f" {', '.join(differ)}); choose another folder, or remove that one to start over."
            )
    store.save_folder(folder, kind=KIND, meta=settings)
