"""Cells: one setting on one fold of one data set, and its outcome.

A cell is a pure function of its description: the same description always gives the same metrics,
in any process and after any interruption. Its outcome is a separate folder, written atomically,
whose name is a hash of the description.
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

from nearfar.errors import OptionError, StoreError
from nearfar.method.options import Options
from nearfar.runtime import store
from nearfar.runtime.checks import an_instance, local_path, plain_text, set_fields
from nearfar.runtime.file_lock import locked
from nearfar.training.schedule import Schedule

KIND: Final = "cell"
"""The kind of the folder of an outcome, as its manifest names it."""


@dataclass(frozen=True)
class Setting:
    """A row of the table: a method with all options except the learning rate."""

    name: str
    """The name in tables; distinct within a grid."""
    options: Options
    """The hyper-parameters; the learning rate is that of the cell."""

    def __post_init__(self) -> None:
        remedy = "Pass nearfar.Options(...) or a preset, such as nearfar.presets.paper_2019()."
        set_fields(
            self,
            name=plain_text("name", self.name),
            options=an_instance("options", self.options, Options, remedy),
        )
        if self.options.neighbours is not None:
            raise OptionError(
                f"the `options` of a setting must be without neighbours, because a grid compares"
                f" points and their weights; got neighbours={self.options.neighbours!r}. Use"
                " neighbours=None, or measure the model with fit and evaluate."
            )
        hybrids = [side for side in ("items", "users") if getattr(self.options, side) is not None]
        if hybrids:
            raise OptionError(
                f"the `options` of a setting must be without {hybrids[0]}=Hybrid(...), because a"
                f" grid has no features; use {hybrids[0]}=None, or measure the model with fit and"
                " evaluate."
            )


@dataclass(frozen=True)
class Cell:
    """One training run."""

    data: str
    """The name of the data set."""
    fingerprint: str
    """`Interactions.fingerprint` of the whole data set, before it is split."""
    setting: Setting
    """The setting, with the learning rate included."""
    fold: int
    """The test fold, from 0."""
    folds: int
    """The number of folds."""
    seed: int
    """The seed of the folds, the validation part and the training."""
    schedule: Schedule
    """The number of epochs, and when to evaluate."""
    validation: float
    """Share of each user's training interactions in the validation part."""

    def to_dict(self) -> dict[str, Any]:
        """Return the description as plain values, for JSON."""
        plain = asdict(self)
        plain["setting"] = {
            "name": self.setting.name,
            "options": self.setting.options.to_dict(),
        }
        return plain

    @property
    def key(self) -> str:
        """A unique name: the start of the SHA-256 of the description."""
        return sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Outcome:
    """The outcome of a cell."""

    cell: dict[str, Any]
    """The description, as returned by `Cell.to_dict`."""
    best_epoch: int
    """The best epoch on the validation part."""
    last_epoch: int
    """The last epoch."""
    seconds: float
    """Seconds of training, without evaluations."""
    machine_seconds: float
    """Total CPU seconds."""
    history: pl.DataFrame
    """`CML.history`: one row per epoch; evaluated epochs have ``validation_ndcg`` and others."""
    metrics: dict[str, dict[str, float | None]] = field(default_factory=dict)
    """The metrics on the test fold: "best" at the best epoch, "last" at the last one, and "prior"
    at the best epoch with gamma log f_j added to the scores. If the options have a prior, it is in
    "best" and "last", and there is no "prior"."""
    per_user: dict[str, pl.DataFrame] = field(default_factory=dict)
    """`Evaluation.per_user`, by the names in `metrics`."""
    diagnostics: dict[str, pl.DataFrame] = field(default_factory=dict)
    """Tables of `nearfar.experiment.analysis` for the best epoch."""
    warnings: tuple[str, ...] = ()
    """Warnings of the training, such as those of `nearfar.training.diagnostics`."""
    gamma: float | None = None
    """gamma of the popularity prior (`nearfar.method.prior`): of `nearfar.training.calibration`'s
    values the one that is best on the validation part, unless the options set it. None in an
    outcome that was computed before there was a prior."""
    negatives: int | None = None
    """|N_ij|: that of the options, or the sampler's usual number for the data."""


def save(outcome: Outcome, results: str | PathLike[str], key: str) -> None:
    """Write an outcome below ``results/cells``, atomically; one that is there already stays.

    A cell has one outcome, whoever computes it. The worker of a killed process may finish a cell
    while the next process computes it anew: the first to save wins.

    Raises
    ------
    StoreError
        It cannot be written; no partial outcome is left then.
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
        "gamma": outcome.gamma,
        "negatives": outcome.negatives,
    }
    folder = folder_of(results, key)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent / "writing.lock"):
            if not is_saved(results, key):
                store.save_folder(folder, kind=KIND, meta=meta, frames=frames)
    except StoreError:
        with suppress(
            OSError
        ):  # a folder without a manifest is not an outcome; tidy up if possible
            folder.rmdir()
        raise
    except OSError as error:
        raise StoreError(
            f"Writing {str(folder)!r} failed: {error}. Check the free space and the permissions "
            "there."
        ) from error


def is_saved(results: str | PathLike[str], key: str) -> bool:
    """Return whether the outcome of a cell is there."""
    return (folder_of(results, key) / store.MANIFEST).is_file()


def folder_of(results: str | PathLike[str], key: str) -> Path:
    """Return the folder of the outcome of a cell."""
    return local_path(results, "results") / "cells" / key


def load(folder: str | PathLike[str]) -> Outcome:
    """Read what `save` wrote.

    Raises
    ------
    StoreError
        The folder is missing or damaged, or contains something else.
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
            meta.get("gamma"),
            meta.get("negatives"),
        )
    except KeyError as error:
        raise StoreError(
            f"{str(folder)!r} is not a readable outcome: {error} is missing. Remove the folder; "
            "the cell is then computed again."
        ) from error


def load_all(results: str | PathLike[str]) -> list[Outcome]:
    """Read all outcomes below ``results/cells``, in the order of their names."""
    folders = sorted((local_path(results, "results") / "cells").glob("*"))
    return [load(folder) for folder in folders if (folder / store.MANIFEST).is_file()]
