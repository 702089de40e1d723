"""One trial: train a model at a point of the space, and say how good it is on the validation part.

A trial with F folds trains F models, the f-th with seed + f, which is that of its validation part
too. Its value is the mean over the folds of the objective at each model's best epoch. With one
objective, the validation curve of the first fold is reported epoch by epoch, and the pruner may
stop the trial there.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from nearfar.errors import DivergedError, NearfarWarning
from nearfar.method.options import Options
from nearfar.model.cml import CML
from nearfar.training.run import Epoch
from nearfar.tuning.tuning_plan import TuningJob, TuningPlan


class AbandonedError(Exception):
    """The process that started this worker has ended; there is nobody to work for."""


@dataclass
class Attempt:
    """What has become of a trial."""

    options: Options
    pruned: bool = False
    error: str = ""
    """Why training failed, if it did."""
    seconds: float = 0.0
    """Of training, over all folds, without validation."""
    epochs: list[int] = field(default_factory=list)
    """The epochs of each fold."""
    best_epochs: list[int] = field(default_factory=list)
    rows: list[dict[str, float]] = field(default_factory=list)
    """The row of the history at the best epoch of each fold."""
    warnings: list[str] = field(default_factory=list)

    def mean(self, name: str) -> float:
        """Return the mean over folds of a metric on the validation part."""
        return math.fsum(row[f"validation_{name}"] for row in self.rows) / len(self.rows)

    def attributes(self) -> dict[str, Any]:
        """Return what is kept of it, as plain values."""
        metrics = {}
        if self.rows:
            names = [one.removeprefix("validation_") for one in self.rows[0]
                     if one.startswith("validation_")]  # fmt: skip
            metrics = {name: self.mean(name) for name in names}
        return {
            "options": json.dumps(self.options.to_dict()),
            "error": self.error,
            "seconds": self.seconds,
            "epochs": self.epochs,
            "best_epochs": self.best_epochs,
            "metrics": metrics,
            "warnings": self.warnings,
        }


class _Watcher:
    """The callback of a training: reports its curve, and ends it early."""

    def __init__(self, trial: Any, plan: TuningPlan, parent: int | None, *, prunes: bool) -> None:
        self._trial, self._plan, self._parent, self._prunes = trial, plan, parent, prunes
        self.pruned = False

    def __call__(self, event: Epoch) -> bool:
        if self._parent is not None and os.getppid() != self._parent:
            raise AbandonedError
        value = event.record.get(f"validation_{self._plan.objectives[0]}")
        if value is None:
            return False
        if self._prunes:
            self._trial.report(value, event.epoch)
            self.pruned = bool(self._trial.should_prune())
        limit = self._plan.trial_seconds
        return self.pruned or (limit is not None and event.record["seconds"] >= limit)


def attempt(trial: Any, job: TuningJob, options: Options, *, parent: int | None = None) -> Attempt:
    """Train the models of a trial.

    Parameters
    ----------
    trial : optuna.Trial
        Receives the validation curve.
    job : TuningJob
    options : Options
        The point of the space.
    parent : int, optional
        The process for which this one works; training ends if it is no longer there.

    Returns
    -------
    Attempt
        A training that diverges is one with an error; other errors are raised.
    """
    made = Attempt(options)
    prunes = len(job.plan.objectives) == 1
    for fold in range(job.plan.folds):
        watcher = _Watcher(trial, job.plan, parent, prunes=prunes and fold == 0)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", NearfarWarning)
            try:
                _add(made, trained(job, options, fold, callbacks=(watcher,)))
            except DivergedError as error:
                made.error = str(error)
        made.warnings += [str(one.message) for one in said]
        made.pruned = watcher.pruned
        if made.pruned or made.error:
            break
    return made


def trained(
    job: TuningJob, options: Options, fold: int = 0, *, epochs: int | None = None,
    callbacks: tuple[Callable[[Epoch], Any], ...] = (),
) -> CML:  # fmt: skip
    """Return the model of one fold of a trial; the same call makes the same model."""
    plan = job.plan
    schedule = asdict(plan.schedule) | ({} if epochs is None else {"epochs": epochs})
    return CML(options).fit(
        job.train,
        **job.features,
        **schedule,
        validation=plan.validation,
        seed=(plan.seed + fold) % 2**64,
        threads=1,
        progress=False,
        callbacks=callbacks,
    )


def _add(made: Attempt, model: CML) -> None:
    history = model.history
    made.seconds += float(history["seconds"][-1])
    made.epochs.append(history.height)
    made.best_epochs.append(model.best_epoch)
    made.rows.append(history.row(model.best_epoch - 1, named=True))
