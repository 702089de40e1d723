"""Cells: one setting on one fold of one data set, and what came of it.

A cell is a pure function of its description: the same description gives the same figures, whoever
computes it and after whatever interruption. Its outcome is a folder of its own, written atomically,
under a name that is a hash of the description.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import Any, Final

import polars as pl

from nearfar.errors import StoreError
from nearfar.method.options import Options
from nearfar.runtime import store
from nearfar.training.schedule import Schedule

KIND: Final = "cell"
"""What the manifest of an outcome calls it."""


@dataclass(frozen=True)
class Setting:
    """A row of the table: a method with everything but its learning rate."""

    name: str
    """What it is called in tables; distinct within a grid."""
    options: Options
    """The hyper-parameters; the learning rate is that of the cell."""


@dataclass(frozen=True)
class Cell:
    """One training run."""

    data: str
    """The name of the data set."""
    fingerprint: str
    """`Interactions.fingerprint` of all of it, before it is cut."""
    setting: Setting
    """What is trained, with the learning rate in it."""
    fold: int
    """Which fold is tested on, from 0."""
    folds: int
    """How many there are."""
    seed: int
    """Of the folds, the validation part and the training."""
    schedule: Schedule
    """How long, and when to look."""
    validation: float
    """Share of each user's training interactions that the best epoch is chosen on."""

    def to_dict(self) -> dict[str, Any]:
        """Give the description in plain values, for JSON."""
        plain = asdict(self)
        plain["setting"] = {
            "name": self.setting.name,
            "options": self.setting.options.to_dict(),
        }
        return plain

    @property
    def key(self) -> str:
        """A name that no other description has: the start of the SHA-256 of it."""
        return sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a cell."""

    cell: dict[str, Any]
    """The description, as of `Cell.to_dict`."""
    best_epoch: int
    """The epoch that was the best on the validation part."""
    last_epoch: int
    """The epoch after which training ended."""
    seconds: float
    """Of training, without evaluations."""
    machine_seconds: float
    """Of processor time, of everything."""
    history: pl.DataFrame
    """`CML.history`: a row an epoch; ``validation_ndcg`` and others where it was evaluated."""
    metrics: dict[str, dict[str, float | None]] = field(default_factory=dict)
    """For "best" and "last", the figures on the test fold."""
    per_user: dict[str, pl.DataFrame] = field(default_factory=dict)
    """For "best" and "last", `Evaluation.per_user`."""
    diagnostics: dict[str, pl.DataFrame] = field(default_factory=dict)
    """Tables of `nearfar.experiment.analysis`, of the best epoch."""
    warnings: tuple[str, ...] = ()
    """What `nearfar.training.diagnostics` and others said about the training."""


def save(outcome: Outcome, results: str | PathLike[str], key: str) -> None:
    """Write an outcome below ``results/cells``, atomically.

    Raises
    ------
    StoreError
        It cannot be written; nothing is left of it then.
    """
    frames = {"history": outcome.history, **outcome.diagnostics}
    frames |= {f"users_{which}": frame for which, frame in outcome.per_user.items()}
    meta = {
        "cell": outcome.cell,
        "best_epoch": outcome.best_epoch,
        "last_epoch": outcome.last_epoch,
        "seconds": outcome.seconds,
        "machine_seconds": outcome.machine_seconds,
        "metrics": outcome.metrics,
        "diagnostics": sorted(outcome.diagnostics),
        "warnings": list(outcome.warnings),
    }
    folder = folder_of(results, key)
    try:
        store.save_folder(folder, kind=KIND, meta=meta, frames=frames)
    except StoreError:
        with suppress(OSError):  # a folder without a manifest is no outcome, but need not stay
            folder.rmdir()
        raise


def folder_of(results: str | PathLike[str], key: str) -> Path:
    """Say where the outcome of a cell is."""
    return Path(results) / "cells" / key


def load(folder: str | PathLike[str]) -> Outcome:
    """Read what `save` wrote.

    Raises
    ------
    StoreError
        It is missing, damaged or something else.
    """
    found = store.load_folder(folder, kind=KIND)
    meta, frames = found.meta, found.frames
    try:
        return Outcome(
            meta["cell"],
            meta["best_epoch"],
            meta["last_epoch"],
            meta["seconds"],
            meta["machine_seconds"],
            frames["history"],
            meta["metrics"],
            {which: frames[f"users_{which}"] for which in meta["metrics"]},
            {name: frames[name] for name in meta["diagnostics"]},
            tuple(meta["warnings"]),
        )
    except KeyError as error:
        raise StoreError(
            f"{str(folder)!r} is no readable outcome: {error} is missing. Remove the folder; the "
            "cell is then computed again."
        ) from error


def load_all(results: str | PathLike[str]) -> list[Outcome]:
    """Read all outcomes below ``results/cells``, in the order of their names."""
    folders = sorted(Path(results, "cells").glob("*"))
    return [load(folder) for folder in folders if (folder / store.MANIFEST).is_file()]
