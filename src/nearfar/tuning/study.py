"""A study: its trials in an SQLite file, the processes that work on it, and how it is resumed.

Which point is tried next depends on the trials that have ended and on the seed alone: the sampler
is made anew for each trial, with a seed of (seed, number of ended trials). So one worker makes the
same study whether it was killed or not. With several workers it also depends on which of them is
first.

A trial of a process that was killed is marked as failed when the study is resumed, and does not
count; its point is then tried again.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from nearfar.errors import StoreError
from nearfar.runtime.extras import load_extra
from nearfar.runtime.file_lock import locked, try_lock
from nearfar.tuning.attempts import AbandonedError, Attempt, attempt
from nearfar.tuning.tuning_plan import TuningJob

DATABASE: Final = "study.db"
SETTINGS: Final = "study.json"
_NAME: Final = "nearfar"
_POLL_SECONDS: Final = 0.5
_TO_BEGIN: Final = 8
"""Trials at random points, before the sampler learns from them."""
_MISSING: Final = "Tuning needs Optuna, which is not installed: pip install 'nearfar[tune]'."

Told = Callable[[Any], None]
"""Called with each ended trial."""


def optuna() -> Any:
    """Return the module.

    Raises
    ------
    MissingExtraError
        It is not installed.
    """
    return load_extra("optuna", _MISSING)


@contextmanager
def opened(folder: Path, directions: list[str] | None = None) -> Iterator[Any]:
    """Open the study of a folder; with `directions` it is created if it is not there."""
    library = optuna()
    before = library.logging.get_verbosity()
    library.logging.set_verbosity(library.logging.ERROR)
    storage = library.storages.RDBStorage(
        f"sqlite:///{(folder / DATABASE).resolve()}",
        engine_kwargs={"connect_args": {"timeout": 120}},
    )
    try:
        if directions is None:
            yield library.load_study(study_name=_NAME, storage=storage)
        else:
            yield library.create_study(
                study_name=_NAME, storage=storage, directions=directions, load_if_exists=True
            )
    finally:
        storage.remove_session()
        storage.engine.dispose()
        library.logging.set_verbosity(before)


def prepare_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Create the folder of a study, or check that the study there has the same settings.

    Raises
    ------
    StoreError
        The folder has a study of other data or settings, or holds something else.
    """
    file, plain = folder / SETTINGS, json.loads(json.dumps(settings))
    if not file.exists():
        if folder.exists() and any(folder.iterdir()):
            raise StoreError(f"{str(folder)!r} has no study and is not empty; give a new folder.")
        folder.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        part.write_text(json.dumps(plain, indent=2) + "\n")
        part.replace(file)
        return
    try:
        found = json.loads(file.read_text())
        different = [name for name in plain if found.get(name) != plain[name]]
    except (ValueError, AttributeError) as error:
        raise StoreError(f"{str(file)!r} is damaged: {error}. Give a new folder.") from error
    if different:
        name = different[0]
        raise StoreError(
            f"The study in {str(folder)!r} has other settings: its {name} is {found.get(name)!r},"
            f" and that of this call is {plain[name]!r}. Give the same, or a new folder."
        )


@contextmanager
def only_here(folder: Path) -> Iterator[None]:
    """Refuse to work on a study that another process is working on.

    Raises
    ------
    StoreError
        Another process is.
    """
    with open(folder / "running.lock", "w") as file:
        if not try_lock(file):
            raise StoreError(
                f"The study in {str(folder)!r} is being run by another process; wait for it, or"
                " give another folder. For several trials at a time use workers=."
            )
        yield


def run_study(
    folder: Path, job: TuningJob, *, trials: int, seconds: float | None, workers: int, tell: Told
) -> None:
    """Run trials until `trials` have ended, or no more may begin.

    Parameters
    ----------
    folder : Path
        A folder of `prepare_folder`.
    job : TuningJob
    trials : int
        Number of trials of the study, with those of earlier calls.
    seconds : float or None
        No trial begins later than this after the call. Those that have begun end.
    workers : int
        Processes; with 1, this one.
    tell : callable
        Called with each trial that ends.
    """
    until = None if seconds is None else time.time() + seconds
    with only_here(folder), opened(folder, job.plan.directions) as study:
        state = optuna().trial.TrialState
        for one in study.get_trials(deepcopy=False, states=(state.RUNNING,)):
            study.tell(one.number, state=state.FAIL)
        if workers == 1:
            _work_on(study, folder, job, trials, until, tell, None)
            return
        told = {one.number for one in ended(study)}
        how = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=how) as pool:
            here = os.getpid()
            busy = {pool.submit(work, folder, job, trials, until, here) for _ in range(workers)}
            while busy:
                done, busy = wait(busy, timeout=_POLL_SECONDS)
                for one in ended(study):
                    if one.number not in told:
                        told.add(one.number)
                        tell(one)
                for future in done:
                    future.result()


def work(folder: Path, job: TuningJob, trials: int, until: float | None, parent: int) -> None:
    """Run trials in a process of its own."""
    with opened(folder) as study:
        _work_on(study, folder, job, trials, until, lambda _: None, parent)


def _work_on(
    study: Any,
    folder: Path,
    job: TuningJob,
    trials: int,
    until: float | None,
    tell: Told,
    parent: int | None,
) -> None:
    while until is None or time.time() < until:
        with locked(folder / "asking.lock"):
            trial = _next(study, job, trials)
            if trial is None:
                return
            options = job.space.options(job.space.suggest(trial), job.train)
        try:
            made = attempt(trial, job, options, parent=parent)
        except AbandonedError:
            return
        _record(study, trial, made, job)
        tell(study.get_trials(deepcopy=False)[trial.number])


def _next(study: Any, job: TuningJob, trials: int) -> Any:
    """Return a new trial, or None if there are enough."""
    library = optuna()
    state = library.trial.TrialState
    n_ended, all_of_them = len(ended(study)), study.get_trials(deepcopy=False)
    n_begun = n_ended + sum(one.state == state.RUNNING for one in all_of_them)
    if n_begun >= trials:
        return None
    if n_begun == 0 and not any(one.state == state.WAITING for one in all_of_them):
        study.enqueue_trial(job.space.defaults)
    study.sampler = library.samplers.TPESampler(
        n_startup_trials=_TO_BEGIN, seed=(job.plan.seed * 1_000_003 + n_begun) % 2**32
    )
    study.pruner = library.pruners.MedianPruner(
        n_startup_trials=5, n_warmup_steps=job.plan.epochs // 5
    )
    return study.ask()


def _record(study: Any, trial: Any, made: Attempt, job: TuningJob) -> None:
    state = optuna().trial.TrialState
    for name, value in made.attributes().items():
        trial.set_user_attr(name, value)
    if made.error:
        study.tell(trial, state=state.FAIL)
    elif made.pruned:
        study.tell(trial, state=state.PRUNED)
    else:
        study.tell(trial, [made.mean(name) for name in job.plan.objectives])


def ended(study: Any) -> list[Any]:
    """Return the trials that have ended: completed, pruned, or with an error of their own."""
    state = optuna().trial.TrialState
    return [
        one
        for one in study.get_trials(deepcopy=False)
        if one.state in (state.COMPLETE, state.PRUNED)
        or (one.state == state.FAIL and one.user_attrs.get("error"))
    ]
