"""Computation of one cell: split, train, choose the epoch on the validation part, test.

A worker is a process that computes one cell after another. It receives cells through a pipe,
answers with the seconds or the error, and saves the outcomes itself.
"""

from __future__ import annotations

import time
import traceback
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path

from nearfar.data import split
from nearfar.data.interactions import Interactions
from nearfar.engine import Problem
from nearfar.errors import NearfarWarning
from nearfar.evaluation.ranking import evaluate
from nearfar.evaluation.result import Evaluation
from nearfar.experiment.analysis import diagnose
from nearfar.experiment.cells import Cell, Outcome, save
from nearfar.search.scoring import scorer_of
from nearfar.training.run import Run

BEST, LAST = "best", "last"
"""The best epoch on the validation part, and the last one."""


@dataclass(frozen=True)
class Answer:
    """The answer of a worker about a cell."""

    seconds: float
    error: str = ""
    """The error in one line; empty on success."""
    trace: str = ""
    """The traceback of the error."""


def compute(cell: Cell, data: Interactions, *, threads: int = 1) -> Outcome:
    """Compute a cell.

    Parameters
    ----------
    cell : Cell
        The cell to compute.
    data : Interactions
        All interactions of the data set.
    threads : int
        Number of threads; the outcome does not depend on it.

    Returns
    -------
    Outcome

    Raises
    ------
    NearfarError
        As `CML.fit` and `evaluate`.
    """
    begun = time.process_time()
    train, test = split.k_fold(data, cell.folds, seed=cell.seed)[cell.fold]
    learned, held_out = split.ratio(train, test=cell.validation, seed=cell.seed)
    options, schedule = cell.setting.options, cell.schedule
    steps = -(-max(learned.n_pairs, 1) // options.batch) * schedule.epochs
    problem = Problem(learned, options, cell.seed, horizon=steps)
    run = Run(problem, schedule, validation=held_out, threads=threads, progress=False)
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", NearfarWarning)
            run.train()
        last = run.engine.points()
        trained = run.outcome()
    finally:
        run.close()
    metrics, per_user = {}, {}
    for which, points in ((BEST, trained.points), (LAST, last)):
        users, items = points[: data.n_users], points[data.n_users :]
        scorer = scorer_of(users, items, options.geometry)
        with warnings.catch_warnings(record=True) as of_evaluation:
            warnings.simplefilter("always", NearfarWarning)
            found: Evaluation = evaluate(scorer, train, test, k=schedule.k, threads=threads)
        metrics[which] = found.to_dict()["metrics"]
        per_user[which] = found.per_user
    tables = diagnose(trained.points, train, test, options, k=schedule.k, seed=cell.seed,
                      threads=threads, learned=learned)  # fmt: skip
    return Outcome(
        cell.to_dict(), trained.best_epoch, trained.history.height,
        float(trained.history["seconds"][-1]), time.process_time() - begun, trained.history,
        metrics, per_user, tables, tuple(str(one.message) for one in [*said, *of_evaluation]),
    )  # fmt: skip


@lru_cache(maxsize=1)
def _loaded(path: Path) -> Interactions:
    return Interactions.load(path)


def attend(cell: Cell, path: Path, results: Path, threads: int) -> Answer:
    """Compute a cell of the data in a folder, and save it; never raise."""
    begun = time.perf_counter()
    try:
        save(compute(cell, _loaded(path), threads=threads), results, cell.key)
    except Exception as error:  # any error; the other cells continue
        line = f"{type(error).__name__}: {error}".splitlines()[0]
        return Answer(time.perf_counter() - begun, line, traceback.format_exc())
    return Answer(time.perf_counter() - begun)


def serve(pipe: Connection, results: Path, threads: int) -> None:
    """Compute the cells received from a pipe, until it sends None or is closed."""
    with suppress(EOFError, ConnectionError):  # the parent process has been killed
        while (job := pipe.recv()) is not None:
            cell, path = job
            pipe.send(attend(cell, path, results, threads))
