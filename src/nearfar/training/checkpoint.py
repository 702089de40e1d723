"""A run on disk, so that it can be killed at any moment and go on to the same final bits."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy.typing as npt

from nearfar.data.interactions import Interactions
from nearfar.engine import Problem, State
from nearfar.errors import StoreError
from nearfar.runtime import store
from nearfar.runtime.arrays import Float32
from nearfar.training.schedule import Schedule

KIND = "checkpoint"


class Saved(NamedTuple):
    """What a checkpoint holds."""

    state: State
    best_points: Float32 | None
    progress: dict[str, Any]


class Checkpoint:
    """The folder of one run.

    It belongs to the data, the options, the seed and the schedule it was made with (but for the
    number of epochs, which may grow): a run that differs in any of them is refused, not mixed in.

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
        self.path, self.seconds = Path(path), seconds
        self.identity = identity(problem, schedule, validation)
        self._saved_at = time.monotonic()

    def is_due(self) -> bool:
        """Whether the last save is long enough ago."""
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
                f" folder, or remove that one to start over."
            )
        tables = folder.arrays["tables"]
        mean = tables.get("mean")
        state = State(tables["rows"], tables["last"], folder.meta["step"], mean)
        return Saved(state, tables.get("best_points"), folder.meta["progress"])

    def save(
        self,
        state: State,
        best_points: Float32 | None,
        progress: Mapping[str, Any],
    ) -> None:
        """Write the run as it is now, atomically."""
        tables: dict[str, npt.NDArray[Any]] = {"rows": state.rows, "last": state.last}
        if best_points is not None:
            tables["best_points"] = best_points
        if state.mean is not None:
            tables["mean"] = state.mean
        meta = {"identity": self.identity, "step": state.step, "progress": dict(progress)}
        store.save_folder(self.path, kind=KIND, meta=meta, arrays={"tables": tables})
        self._saved_at = time.monotonic()


def identity(
    problem: Problem, schedule: Schedule, validation: Interactions | None
) -> dict[str, Any]:
    """Say what makes a run this run, in plain values."""
    looks = asdict(schedule)
    del looks["epochs"]
    return {
        "data": problem.interactions.fingerprint,
        "validation": None if validation is None else validation.fingerprint,
        "seed": problem.seed,
        "options": problem.options.to_dict(),
        "schedule": looks,
    }
