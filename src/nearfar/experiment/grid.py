"""Grids: settings x folds x data sets, computed in parallel, each cell saved when it is done.

The learning rate of each setting is chosen on the validation part of the first fold, by hill
climbing from the middle of a list until both neighbours of the best have been tried. Then the
setting is trained on the other folds with this rate. Every run is tested, but nothing is chosen by
test metrics, and no test metric is reported for rates that were not chosen.
Existing cells are not computed again, so a run that was killed can be resumed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from nearfar.data.interactions import Interactions
from nearfar.errors import OptionError
from nearfar.experiment.cells import Cell, Setting, folder_of, is_saved, load
from nearfar.experiment.live import Board
from nearfar.experiment.pool import Here, Pool, Processes
from nearfar.experiment.rates import chosen_rate, next_rate
from nearfar.experiment.worker import Answer
from nearfar.runtime.checks import (
    an_instance,
    checked_seed,
    listed,
    local_path,
    plain_text,
    real,
    said,
    set_fields,
    share,
    switch,
    whole,
)
from nearfar.runtime.forks import check_fork
from nearfar.runtime.threads import MOST, available_threads, checked_threads
from nearfar.training.schedule import Schedule

RATES: Final = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
"""Learning rates to choose from."""
SCHEDULE: Final = Schedule(epochs=200, every=2, patience=5)
"""Train until five successive evaluations have brought no improvement."""


@dataclass(frozen=True)
class Grid:
    """The settings to compare, and how."""

    settings: tuple[Setting, ...]
    """The rows, with distinct names."""
    learning_rates: tuple[float, ...] = RATES
    """Candidates, in order; each setting uses the best on the validation part of the first fold.
    The middle one is tried first, then the neighbours of the best so far, the higher before the
    lower, until it has no untried neighbour. If empty, settings keep their own learning rates."""
    folds: int = 4
    """Number of parts into which each user's interactions are split."""
    tested_folds: int | None = None
    """Number of folds to test on; all if None."""
    schedule: Schedule = SCHEDULE
    """The number of epochs, and when to stop."""
    validation: float = 0.1
    """Share of each user's training interactions in the validation part."""
    seed: int = 0
    """The seed of the folds, the validation parts and the training."""

    def __post_init__(self) -> None:
        rates = self.learning_rates
        set_fields(
            self,
            settings=tuple(
                an_instance("settings", one, Setting)
                for one in listed("settings", self.settings, "Setting(...)")
            ),
            learning_rates=tuple(
                real("learning_rates", rate, above=0.0)
                for rate in listed("learning_rates", rates, "numbers")
            ),
            folds=whole("folds", self.folds, 1, 10_000),
            tested_folds=(
                None if self.tested_folds is None else whole("tested_folds", self.tested_folds)
            ),
            schedule=an_instance("schedule", self.schedule, Schedule),
            validation=share("validation", self.validation),
            seed=checked_seed(self.seed),
        )
        names = [setting.name for setting in self.settings]
        twice = sorted({name for name in names if names.count(name) > 1})
        if not names or twice:
            raise OptionError(
                "`settings` must be one or more with distinct names; got "
                f"{twice[0]!r} more than once."
                if twice
                else "`settings` must not be empty."
            )
        if self.folds < 2 or (self.tested_folds or 1) > self.folds:
            raise OptionError(
                "`folds` must be at least 2 and `tested_folds` not more than that; got "
                f"{self.folds} and {self.tested_folds}."
            )

    def cells(self, name: str, fingerprint: str, setting: Setting, rate: float) -> list[Cell]:
        """Return the runs of a setting with a learning rate, one per fold."""
        chosen = _with_rate(setting, rate)
        return [
            Cell(name, fingerprint, chosen, fold, self.folds, self.seed, self.schedule,
                 self.validation)
            for fold in range(self.folds if self.tested_folds is None else self.tested_folds)
        ]  # fmt: skip

    def run(
        self,
        data: Mapping[str, Interactions | str | PathLike[str]],
        results: str | PathLike[str],
        *,
        workers: int | None = None,
        threads: int = 1,
        progress: bool | None = None,
    ) -> Failures:
        """Compute all missing cells.

        Parameters
        ----------
        data : mapping of str to Interactions or path
            The data sets by name; a path is a folder written by `Interactions.save`.
        results : path
            A folder, new or of an earlier run; the outcomes are in its ``cells`` and ``failed``.
        workers : int, optional
            Number of processes; the number of cores if None. With 0, this process computes.
        threads : int
            Number of threads of each worker.
        progress : bool, optional
            Whether to show a table of the progress; if None, only if standard error is a terminal.

        Returns
        -------
        dict of str to str
            The errors of failed cells by `Cell.key`. These cells are tried again by the next call.

        Raises
        ------
        OptionError
            `workers` or `threads` is out of range.
        StoreError
            A data set cannot be read.
        """
        check_fork()
        n_workers = available_threads() if workers is None else whole("workers", workers, 0, MOST)
        threads, place = checked_threads(threads), local_path(results, "results")
        progress = None if progress is None else switch("progress", progress)
        with ExitStack() as stack:
            paths = _on_disk(data, stack)
            jobs = _Jobs(self, paths, place)
            board = stack.enter_context(Board(progress, jobs.rows(), max(n_workers, 1)))
            pool: Pool = Processes(n_workers, place, threads) if n_workers else Here(place, threads)
            stack.enter_context(pool)
            while len(jobs) or pool.n_busy:
                while pool.has_room and (job := jobs.next()) is not None:
                    board.begun(job[0])
                    pool.give(*job)
                for cell, answer in pool.answers():
                    jobs.ended(cell, answer)
                    board.ended(cell, answer, jobs.n_expected)
        return jobs.failures


Failures = dict[str, str]


class _Jobs:
    """The cells still to be computed: first the rates of a setting one by one, then its folds."""

    def __init__(self, grid: Grid, paths: Mapping[str, Path], results: Path) -> None:
        self.failures: Failures = {}
        self._grid, self._paths, self._results = grid, paths, results
        self._prints = {name: Interactions.load(path).fingerprint for name, path in paths.items()}
        self._waiting: list[Cell] = []
        self._later: dict[tuple[str, str], int] = {}
        for name in paths:
            for setting in grid.settings:
                self._plan(name, setting)

    def rows(self) -> list[tuple[str, str]]:
        """Return all (data, setting)."""
        return [(name, setting.name) for name in self._paths for setting in self._grid.settings]

    def _plan(self, name: str, setting: Setting) -> None:
        """Queue the next learning rate on the first fold or, once it is chosen, all folds."""
        rates = self._grid.learning_rates or (setting.options.optimiser.learning_rate,)
        cells = {rate: self._grid.cells(name, self._prints[name], setting, rate) for rate in rates}
        self._later[name, setting.name] = 0
        if len(rates) == 1:
            self._waiting += [cell for cell in cells[rates[0]] if not self._is_done(cell)]
            return
        tried = {
            rate: load(folder_of(self._results, cell.key)) if self._is_done(cell) else None
            for rate, (cell, *_) in cells.items()
            if self._is_done(cell) or cell.key in self.failures
        }
        following = next_rate(rates, tried)
        if following is not None:
            self._waiting.append(cells[following][0])
            more = max(min(len(rates), 3) - len(tried) - 1, 0)  # the best and its neighbours
            self._later[name, setting.name] = more + len(cells[following]) - 1
            return
        if (best := chosen_rate(tried)) is not None:  # otherwise all have failed and were reported
            self._waiting += [cell for cell in cells[best][1:] if not self._is_done(cell)]

    def _is_done(self, cell: Cell) -> bool:
        return is_saved(self._results, cell.key)

    def next(self) -> tuple[Cell, Path] | None:
        """Take the next cell, and the folder of its data."""
        if not self._waiting:
            return None
        cell = self._waiting.pop(0)
        return cell, self._paths[cell.data]

    def ended(self, cell: Cell, answer: Answer) -> None:
        """Record that a cell is done or has failed."""
        record = self._results / "failed" / f"{cell.key}.json"
        if answer.error:
            self.failures[cell.key] = answer.error
            said = {"cell": cell.to_dict(), "error": answer.error, "traceback": answer.trace}
            with suppress(OSError):  # on a full disk, `run` still returns the error
                record.parent.mkdir(parents=True, exist_ok=True)
                record.write_text(json.dumps(said, indent=2))
        else:
            record.unlink(missing_ok=True)
        if cell.fold == 0 and len(self._grid.learning_rates) > 1:
            setting = next(s for s in self._grid.settings if s.name == cell.setting.name)
            self._plan(cell.data, setting)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def n_expected(self) -> int:
        """Number of waiting cells and of those that will probably follow."""
        return len(self._waiting) + sum(self._later.values())


def _with_rate(setting: Setting, rate: float) -> Setting:
    optimiser = replace(setting.options.optimiser, learning_rate=float(rate))
    return replace(setting, options=replace(setting.options, optimiser=optimiser))


def _on_disk(data: Mapping[str, Any], stack: ExitStack) -> dict[str, Path]:
    """Save data sets that are only in memory, so that the workers can load them."""
    if not isinstance(data, Mapping):
        raise OptionError(f"`data` must be data sets by name, {{name: data}}; got {said(data)}.")
    if not data:
        raise OptionError("`data` must have at least one data set; got none.")
    paths = {}
    for name, one in data.items():
        plain_text("data", name)
        if isinstance(one, Interactions):
            paths[name] = Path(stack.enter_context(TemporaryDirectory(prefix="nearfar-"))) / "data"
            one.save(paths[name])
        else:
            paths[name] = local_path(one, f"data[{name!r}]")
    return paths
