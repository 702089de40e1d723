"""Computation of one cell: split, train, choose on the validation part, test.

The epoch is chosen on the validation part, and then gamma, the factor of the popularity prior.

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
from nearfar.method.prior import item_weight
from nearfar.runtime.arrays import Float32
from nearfar.search.scoring import scorer_of
from nearfar.training.calibration import calibrated, found_on
from nearfar.training.run import Run, Trained

BEST, PRIOR, LAST = "best", "prior", "last"
"""The best epoch on the validation part, the same with the popularity prior, and the last one."""


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

    gamma of the prior is chosen by the schedule's metric on the cell's validation part, with the
    points of the best epoch, which is chosen there without the prior. A setting whose options have
    a prior is tested with that, at the best and at the last epoch, and has no third version.

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
    trained = _trained(cell, learned, held_out, threads)
    options, best, own = cell.setting.options, trained.best.points, trained.own_gamma
    versions = {BEST: (best, own), PRIOR: (best, trained.gamma), LAST: (trained.last, own)}
    if options.prior is not None:
        del versions[PRIOR]
    metrics, per_user, of_tests = {}, {}, []
    for which, (points, gamma) in versions.items():
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", NearfarWarning)
            found = _tested(cell, points, gamma, (train, test), threads)
        metrics[which], per_user[which] = found.to_dict()["metrics"], found.per_user
        of_tests = [str(one.message) for one in said]  # the same each time
    tables = diagnose(best, train, test, options, k=cell.schedule.k, seed=cell.seed,
                      threads=threads, learned=learned, gamma=own)  # fmt: skip
    history = trained.best.history
    return Outcome(
        cell.to_dict(), trained.best.best_epoch, history.height, float(history["seconds"][-1]),
        time.process_time() - begun, history, metrics, per_user, tables,
        (*trained.warnings, *of_tests), trained.gamma, trained.negatives,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Model:
    """What a training has made."""

    best: Trained
    """The best epoch."""
    last: Float32
    """The points of the last epoch."""
    gamma: float
    """That of the prior."""
    own_gamma: float
    """What `gamma` is in the setting's own score: 0 without a prior."""
    warnings: tuple[str, ...]
    negatives: int
    """|N_ij|."""


def _trained(cell: Cell, learned: Interactions, held_out: Interactions, threads: int) -> _Model:
    options, schedule = cell.setting.options, cell.schedule
    steps = -(-max(learned.n_pairs, 1) // options.batch) * schedule.epochs
    problem = Problem(learned, options, cell.seed, horizon=steps)
    run = Run(problem, schedule, validation=held_out, threads=threads, progress=False)
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", NearfarWarning)
            run.train()
        last, best = run.engine.points(), run.outcome()
    finally:
        run.close()
    users, items = best.points[: learned.n_users], best.points[learned.n_users :]
    if options.prior is None:
        points = scorer_of(users, items, options.geometry)
        gamma, own = found_on(points, problem, held_out, schedule, threads).gamma, 0.0
    else:
        gamma = calibrated(problem, users, items, run.validation, schedule, threads).gamma
        own = options.prior.popularity * gamma
    told = tuple(str(one.message) for one in said)
    return _Model(best, last, gamma, own, told, problem.n_negatives)


def _tested(
    cell: Cell,
    points: Float32,
    gamma: float,
    parts: tuple[Interactions, Interactions],
    threads: int,
) -> Evaluation:
    train, test = parts
    users, items = points[: train.n_users], points[train.n_users :]
    weight = item_weight(gamma, train.item_counts) if gamma else None
    scorer = scorer_of(users, items, cell.setting.options.geometry, weight)
    return evaluate(scorer, train, test, k=cell.schedule.k, threads=threads)


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
