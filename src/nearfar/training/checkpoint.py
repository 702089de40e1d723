"""Checkpoints: a run that is killed at any moment resumes and ends with the same bits."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from os import PathLike
from typing import Any, NamedTuple

import numpy as np

from nearfar.data.interactions import Interactions
from nearfar.engine import Collective, Problem, State
from nearfar.errors import StoreError
from nearfar.runtime import store
from nearfar.runtime.arrays import Arrays, Float32
from nearfar.runtime.checks import local_path
from nearfar.training.kept_together import all_kept, together
from nearfar.training.schedule import Schedule

KIND = "checkpoint"


class Saved(NamedTuple):
    """The content of a checkpoint."""

    state: State
    best_points: Float32 | None
    progress: dict[str, Any]


class Checkpoint:
    """The folder of one run.

    It is bound to the data, the options, the seed and the schedule of its run, except the number of
    epochs, which may grow. A run that differs in any of them is refused.

    Parameters
    ----------
    path : path
    problem, schedule, validation
        The run.
    seconds : float
        Time between two saves.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        problem: Problem,
        schedule: Schedule,
        validation: Interactions | None,
        seconds: float,
    ) -> None:
        self.path, self.seconds = local_path(path, "checkpoint"), seconds
        self.identity = identity(problem, schedule, validation)
        self._saved_at = time.monotonic()

    def is_due(self) -> bool:
        """Return whether `seconds` have passed since the last save."""
        return time.monotonic() - self._saved_at >= self.seconds

    def load(self) -> Saved | None:
        """Read the run; None if there is none yet.

        Raises
        ------
        StoreError
            The folder is damaged, or holds another run.
        """
        if not (self.path / store.MANIFEST).exists():
            return None
        folder = store.load_folder(self.path, kind=KIND)
        theirs = folder.meta["identity"]
        differ = [name for name, mine in self.identity.items() if theirs.get(name) != mine]
        if differ:
            detail = "; ".join(
                f"{name} is {theirs.get(name)!r} there and {self.identity[name]!r} here"
                for name in differ
            )
            raise StoreError(
                f"the checkpoint in {str(self.path)!r} is of another run: {detail}. Use another"
                f" folder, or remove that folder to start again."
            )
        tables = _whole(folder.arrays)
        step, optional = folder.meta["step"], map(tables.get, ("mean", "cache", "cached_at"))
        state = State(tables["rows"], tables["last"], step, *optional)
        return Saved(state, tables.get("best_points"), folder.meta["progress"])

    def save(
        self,
        state: State,
        best_points: Float32 | None,
        progress: Mapping[str, Any],
    ) -> None:
        """Write the current state of the run, atomically."""
        tables = _tables(state, best_points)
        meta = self._meta(state, progress)
        store.save_folder(self.path, kind=KIND, meta=meta, arrays={"tables": tables})
        self._saved_at = time.monotonic()

    def save_part(
        self,
        engine: Collective,
        best_points: Float32 | None,
        progress: Mapping[str, Any],
    ) -> None:
        """Write the current state of a run of several processes: each its rows, then one the list.

        They must see the same folder. Until the list is replaced, the folder holds the run as it
        was saved before. `best_points` are those of the process's rows. The first writes the cache.

        Raises
        ------
        StoreError
            A process cannot write its part, or the first one does not see it.
        """
        tables = _tables(engine.own, best_points) | {"joint": engine.table_rows}
        if engine.rank > 0:  # all have the same
            tables = {name: table for name, table in tables.items() if name not in _OF_ALL}
        write = partial(store.keep_part, self.path, f"part{engine.rank}", tables, kind=KIND)
        told = "the checkpoint"
        kept = all_kept(engine, ["part"], lambda: [write()], told)
        meta = self._meta(engine.own, progress)
        commit = partial(store.save_folder, self.path, kind=KIND, meta=meta, cut=kept)
        together(engine, commit if engine.rank == 0 else None, told)
        self._saved_at = time.monotonic()

    def _meta(self, state: State, progress: Mapping[str, Any]) -> dict[str, Any]:
        return {"identity": self.identity, "step": state.step, "progress": dict(progress)}


_OF_ALL = "cache", "cached_at"
"""What every process of a cluster has whole."""


def _tables(state: State, best_points: Float32 | None) -> Arrays:
    """Return the tables of a state by name."""
    tables: Arrays = {"rows": state.rows, "last": state.last}
    if best_points is not None:
        tables["best_points"] = best_points
    for name in ("mean", "cache", "cached_at"):
        if (one := getattr(state, name)) is not None:
            tables[name] = one
    return tables


def _whole(saved: Mapping[str, Arrays]) -> Arrays:
    """Return the tables of all rows: as they were saved, or put together from parts."""
    if "tables" in saved:
        return saved["tables"]
    parts = list(saved.values())
    n = sum(len(part["joint"]) for part in parts)
    of_all = {name: part[name] for part in parts for name in _OF_ALL if name in part}
    whole = {
        name: np.empty((n, *table.shape[1:]), table.dtype)
        for name, table in parts[0].items()
        if name != "joint" and name not in _OF_ALL
    }
    for part in parts:
        for name, table in whole.items():
            table[part["joint"]] = part[name]
    return whole | of_all


def identity(
    problem: Problem, schedule: Schedule, validation: Interactions | None
) -> dict[str, Any]:
    """Return the values that identify a run, for JSON."""
    looks = asdict(schedule)
    del looks["epochs"]
    return {
        "data": problem.interactions.fingerprint,
        "validation": None if validation is None else validation.fingerprint,
        "seed": problem.seed,
        "options": problem.options.to_dict(),
        "schedule": looks,
    }
