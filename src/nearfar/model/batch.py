"""Recommendations for many users: a folder of Parquet files, written part by part.

Each part has the lists of a limited number of users, so that memory stays bounded, and is written
completely or not at all. The manifest describes the lists: the model, k, the filters and the users.
A run that was killed therefore continues with the missing parts, and a folder of other settings is
refused. An interrupted and continued run writes the same parts as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from nearfar.data.id_values import first_few
from nearfar.errors import EmptyDataError, OptionError, StoreError
from nearfar.model.asked import checked_index, filter_rows
from nearfar.model.cml import CML
from nearfar.model.export import write_new
from nearfar.model.joint_index import JointIndex
from nearfar.runtime import store
from nearfar.runtime.checks import an_instance, local_path, switch, whole
from nearfar.runtime.devices import resolve_ranking
from nearfar.runtime.forks import check_fork
from nearfar.runtime.progress import Stages, shows
from nearfar.runtime.threads import checked_threads, processes_here
from nearfar.search.diversity import checked_diversity
from nearfar.search.item_index import ItemIndex, digest_of
from nearfar.search.shard_search import Ranks

KIND = "batch"
"""The kind of the folder, as its manifest names it."""
PART_ROWS = 2**18
"""Approximate number of rows of a part; each takes some hundred bytes of memory."""


@dataclass(frozen=True)
class Written:
    """The result of a call of `recommend_to`."""

    n_users: int
    """Total number of users."""
    n_parts: int
    """Total number of parts."""
    n_made: int
    """Number of parts written by this call; the others existed."""
    n_skipped: int = 0
    """Number of users without a list, because the model does not know them or they have no training
    interactions."""


def recommend_to(
    path: str | PathLike[str],
    model: CML,
    users: Iterable[Any] | None = None,
    k: int = 10,
    *,
    exclude_seen: bool = True,
    allow: Iterable[Any] | None = None,
    deny: Iterable[Any] | None = None,
    unknown: str = "error",
    popularity: float | None = None,
    diversity: float = 0.0,
    index: ItemIndex | None = None,
    threads: int | None = None,
    device: str = "cpu",
    progress: bool | None = None,
) -> Written:
    """Write the recommendations of many users to a folder, or the missing parts of them.

    Read them with ``polars.scan_parquet("FOLDER/part-*.parquet")``: the columns user_id, rank (from
    1), item_id and score as in `CML.recommend`, with the users in the given order.

    Parameters
    ----------
    path : path
        The folder: new, empty, or of the same model, users, k, filters, index and device.
    model : CML
    users : ids, optional
        The users to recommend to; if None, all users with training interactions.
    unknown : {"error", "skip"}
        What to do with users that the model does not know or that have no training interactions:
        refuse them, or leave them out and count them in `Written.n_skipped`.
    k : int
        Length of the lists; above the number of items it is cut to that number.
    exclude_seen, allow, deny, popularity, diversity, index, threads
        As in `CML.recommend`.
    device : str
        As in `CML.recommend`, or "cluster": in the processes that torchrun or another launcher has
        started, of which each makes the same call and ranks a range of the items. The lists are
        those of "cpu", and a run of one goes on as one of the other. Load the model by
        ``CML.load(path, mmap=True)``, and each process reads the points of its items only. An
        `index` is refused.
    progress : bool, optional
        Whether to show a progress bar; if None, only if standard error is a terminal.

    Returns
    -------
    Written

    Raises
    ------
    StoreError
        The folder has other settings or contains something else, or it cannot be written.
    EmptyDataError
        There are no users, or none is left.
    DataError, UnknownIdError, OptionError, MissingExtraError
        As `CML.recommend`.

    Warns
    -----
    NearfarWarning
        Ids in `allow` or `deny` are unknown to the model and are ignored.
    """
    check_fork()
    folder, model = local_path(path), an_instance("model", model, CML)
    k, shared = min(whole("k", k), model.interactions.n_items), threads is None
    threads = checked_threads(threads)
    progress, ranks = shows(progress), _ranks(device, index)
    if ranks is None:
        resolve_ranking(device)
    else:
        device, threads = "cpu", max(1, threads // processes_here()) if shared else threads
    index = None if index is None else checked_index(index)
    asked, n_skipped = _column(model, users, unknown)
    options: dict[str, Any] = {
        "exclude_seen": switch("exclude_seen", exclude_seen),
        "allow": _known(model, allow, "allow"),
        "deny": _known(model, deny, "deny"),
        "popularity": model.dial(popularity),
        "diversity": checked_diversity(diversity),
        "device": device,
    }
    if model.neighbours is not None:  # an index or a GPU is refused before there is a folder
        model.recommend(asked.head(0), k, **options, index=index)
    size = max(1, PART_ROWS // k)
    if ranks is None or ranks.rank == 0:
        _open(folder, {**_identity(model, asked, k, index, options), "part_users": size})
    parts = [asked.slice(start, size) for start in range(0, len(asked), size)]
    missing = _missing(folder, len(parts), ranks)
    found_by: Any = index
    if ranks is not None:
        found_by = JointIndex(model, ranks, options["popularity"], threads)
    with Stages(progress) as stages:
        stages.begin("recommending", len(asked))
        for part in sorted(set(range(len(parts))) - set(missing)):
            stages.advance(len(parts[part]))
        at_once, first = (1, 0) if ranks is None else (ranks.size, ranks.rank)
        for start in range(0, len(missing), at_once):
            mine = missing[start + first : start + first + 1]  # the last round has not one for each
            some = parts[mine[0]] if mine else asked.head(0)
            found = model.recommend(some, k, **options, threads=threads, index=found_by)
            for part in mine:
                write_new({_file(folder, part): found.write_parquet})
            stages.advance(sum(len(parts[i]) for i in missing[start : start + at_once]))
    if ranks is not None:
        ranks.total(np.zeros(1))  # until all have written
    return Written(len(asked), len(parts), len(missing), n_skipped)


def _ranks(device: str, index: object) -> Ranks | None:
    """Return the processes of a cluster; None without one.

    Raises
    ------
    OptionError
        There is an index, or no launcher has started this process.
    """
    if not isinstance(device, str) or device != "cluster":
        return None
    if index is not None:
        raise OptionError(
            "`index` cannot be used with device='cluster', whose search is exact; omit one of them."
        )
    from nearfar.engine.cluster import process_group  # it imports PyTorch

    return process_group.join()


def _file(folder: Path, part: int) -> Path:
    return folder / f"part-{part:05}.parquet"


def _missing(folder: Path, n: int, ranks: Ranks | None) -> list[int]:
    """Return the parts that are to be written, as the first process sees them."""
    missing = np.array([not _file(folder, part).exists() for part in range(n)], np.float64)
    if ranks is not None:
        missing = ranks.total(missing if ranks.rank == 0 else np.zeros(n))
    return np.flatnonzero(missing).tolist()


def _identity(
    model: CML, asked: pl.Series, k: int, index: ItemIndex | None, options: dict[str, Any]
) -> dict[str, Any]:
    """Return the settings that determine the lists, as plain values; `threads` is not one."""
    return {
        "model": digest_of(model.user_vectors, model.item_vectors),
        "interactions": model.interactions.fingerprint,
        "users": _digest(asked.to_list()),
        "k": k,
        "exclude_seen": options["exclude_seen"],
        "allow": _digest(options["allow"]),
        "deny": _digest(options["deny"]),
        "popularity": options["popularity"],
        "diversity": options["diversity"] or None,
        "gamma": model.gamma,
        "neighbours": [model.neighbour_weight, str(model.options.neighbours)]
        if model.neighbour_weight > 0.0
        else None,
        "index": None if index is None else index.digest(),
        "device": options["device"],
    }


def _column(model: CML, users: Iterable[Any] | None, unknown: str) -> tuple[pl.Series, int]:
    """Return the ids of the users to recommend to, and the number of those left out."""
    data = model.interactions
    if users is None:
        active = np.flatnonzero(data.user_counts)
        return data.user_ids.take(active), data.n_users - len(active)
    rows, skipped = model.user_rows(users, unknown)
    if not len(rows):
        why = f"; the model knows none of {first_few(skipped)}" if skipped else ""
        raise EmptyDataError(
            f"There are no users to recommend to{why}. Pass some, or None for all."
        )
    return data.user_ids.take(rows), len(skipped)


def _known(model: CML, asked: Iterable[Any] | None, name: str) -> list[Any] | None:
    """Return the ids of a filter that the model knows."""
    if asked is None:
        return None
    ids = model.interactions.item_ids
    return ids.take(filter_rows(ids, asked, name)).to_list()


def _digest(ids: list[Any] | None) -> str | None:
    return None if ids is None else sha256(repr(ids).encode()).hexdigest()


def _open(folder: Path, settings: dict[str, Any]) -> None:
    """Create a folder or open one of the same settings; remove remains of a killed run."""
    store.check_replaceable(folder, kind=KIND)
    if (folder / store.MANIFEST).exists():
        theirs = store.load_folder(folder, kind=KIND).meta
        differ = [name for name in settings if theirs.get(name) != settings[name]]
        if differ:
            raise StoreError(
                f"{str(folder)!r} contains recommendations of other settings (other"
                f" {', '.join(differ)}); choose another folder, or remove that one to start over."
            )
    store.save_folder(folder, kind=KIND, meta=settings)
