"""`tune`, the search for better options: nothing but the training data is ever looked at."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nearfar.data.features import Features
from nearfar.data.interactions import Interactions
from nearfar.errors import NotFittedError
from nearfar.evaluation.metrics import REGISTRY
from nearfar.runtime.checks import local_path, real, whole
from nearfar.runtime.forks import check_fork
from nearfar.runtime.progress import shows
from nearfar.runtime.threads import MOST
from nearfar.tuning.study import ended, opened, optuna, prepare_folder, run_study
from nearfar.tuning.tuned import Tuned, tuned_from
from nearfar.tuning.tuning_plan import TuningJob, TuningPlan


def tune(
    train: Interactions,
    *,
    space: str = "shared",
    item_features: Features | None = None,
    user_features: Features | None = None,
    validation: float | Interactions = 0.1,
    folds: int = 1,
    trials: int = 30,
    seconds: float | None = 3600.0,
    epochs: int = 50,
    every: int = 2,
    patience: int | None = None,
    trial_seconds: float | None = None,
    objectives: Sequence[str] = ("ndcg",),
    k: int = 50,
    workers: int = 1,
    seed: int = 0,
    study: str | PathLike[str] | None = None,
    progress: bool | None = None,
) -> Tuned:
    """Search for options that are better on a validation part than the defaults.

    Needs Optuna, ``nearfar[tune]``. The first trial has the defaults of the space; the others are
    chosen by a tree-structured Parzen estimator (Optuna's ``TPESampler``), the first eight at
    random. With one objective, a trial whose validation curve is below the median of those of
    earlier trials is stopped; before its epoch ``epochs // 5`` none is.

    Parameters
    ----------
    train : Interactions
        The training data. Keep the test part out of it.
    space : {"shared", "uniform", "popularity", "two-stage", "hybrid"}
        What is searched; see `nearfar.tuning.spaces`. "shared" starts from the defaults of `CML`.
    item_features, user_features : Features, optional
        For the space "hybrid".
    validation : float or Interactions
        The part that judges the trials, as in `CML.fit`.
    folds : int
        Number of models in a trial. The f-th has the seed ``seed + f``, also for its random
        validation part. Their mean counts.
    trials : int
        Number of trials of the study, with those that it already has.
    seconds : float or None
        No trial begins later than this after the call; trials that have begun end.
    epochs, every, patience, k
        The budget of every trial, as in `CML.fit`.
    trial_seconds : float, optional
        End each training at the first validation after so many seconds of training: a budget of
        time instead of epochs. The result then depends on the machine.
    objectives : sequence of str
        One to three metrics. The first selects the epoch and `Tuned.best`; with several, no trial
        is pruned, and the study seeks their front. With "mmr" or "mean_popularity" the setting of
        the popularity dial is searched too.
    workers : int
        Processes, each of one thread. With one, the same call makes the same study.
    seed : int
        Seed of the search, of the validation parts and of the training.
    study : path, optional
        A folder for the study, new or of an earlier call with the same data and settings, which is
        continued. `trials`, `seconds` and `workers` may differ. Without it, nothing is kept.
    progress : bool, optional
        Whether to print a line for each trial on standard error; if None, only on a terminal.

    Returns
    -------
    Tuned

    Raises
    ------
    OptionError
        An argument is out of range, or the space and the features do not go together.
    DataError
        `train` is not `Interactions`, or the validation part has other axes.
    MissingExtraError
        Optuna is not installed.
    StoreError
        The folder has a study of other data or settings, or another process works on it.
    NotFittedError
        No trial has been completed.

    Examples
    --------
    >>> import nearfar as nf
    >>> liked = [(u, i) for u in range(20) for i in range(20) if (u + i) % 2 == 0]
    >>> tuned = tune(nf.Interactions.from_pairs(liked), trials=2, epochs=2, k=5)
    >>> tuned.table["state"].to_list(), tuned.best.sampler.needs.shared
    (['complete', 'complete'], True)
    """
    check_fork()
    plan = TuningPlan(
        space, validation, folds, epochs, every, patience, trial_seconds, tuple_of(objectives), k,
        seed,
    )  # fmt: skip
    job = TuningJob.of(plan, train, {"item_features": item_features,
                                     "user_features": user_features})  # fmt: skip
    n, n_workers = whole("trials", trials, 1, 100_000), whole("workers", workers, 1, MOST)
    limit = None if seconds is None else real("seconds", seconds, above=0.0)
    show = shows(progress)
    place = None if study is None else local_path(study, "study")
    optuna()
    with ExitStack() as stack:
        folder = place
        if folder is None:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="nearfar-"))) / "study"
        prepare_folder(folder, job.settings())
        run_study(
            folder, job, trials=n, seconds=limit, workers=n_workers,
            tell=_line(plan, n) if show else _nothing,
        )  # fmt: skip
        return result_of(folder, job)


def tuple_of(objectives: Any) -> Any:
    """Return a sequence as a tuple; anything else is refused by the plan."""
    return tuple(objectives) if isinstance(objectives, list | tuple) else objectives


def result_of(folder: Path, job: TuningJob) -> Tuned:
    """Return the result of the study in a folder.

    Raises
    ------
    NotFittedError
        No trial has been completed.
    """
    with opened(folder, job.plan.directions) as study:
        trials = ended(study)
        if not any(one.state.name == "COMPLETE" for one in trials):
            why = next((one.user_attrs["error"] for one in trials if one.user_attrs["error"]), "")
            raise NotFittedError(
                f"No trial was completed, of {len(trials)} that ended."
                + (f" The first error: {why}" if why else " Allow more `seconds`.")
            )
        return tuned_from(study, job)


def _nothing(_: Any) -> None:
    pass


def _line(plan: TuningPlan, trials: int) -> Any:
    def tell(trial: Any) -> None:
        kept = trial.user_attrs
        values = ", ".join(
            f"{name} {kept['metrics'][name]:.{1 if REGISTRY[name].is_count else 4}f}"
            for name in plan.objectives
            if name in kept["metrics"]
        )
        state = trial.state.name.lower()
        print(f"trial {trial.number + 1} of {trials}: {state}, {values or kept['error']},"
              f" {kept['seconds']:.1f} s", file=sys.stderr, flush=True)  # fmt: skip

    return tell
