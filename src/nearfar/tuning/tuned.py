"""The result of a study: its best options, and tables of all of it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import polars as pl

from nearfar.evaluation import metrics
from nearfar.method.options import Options
from nearfar.model.cml import CML
from nearfar.tuning.attempts import trained
from nearfar.tuning.spaces import SearchSpace
from nearfar.tuning.study import ended, optuna
from nearfar.tuning.tuning_plan import TuningJob

_LEAST: Final = 10
"""Completed trials from which importances are computed."""


@dataclass(frozen=True, eq=False)
class Tuned:
    """The result of `nearfar.tune`."""

    table: pl.DataFrame
    """One row for each trial that has ended, in their order: ``trial``, ``state`` ("complete",
    "pruned" or "failed"), the metrics on the validation part (means over folds), the values of the
    options that vary, ``epochs``, ``best_epoch`` (of the first fold), ``seconds`` of training,
    ``error``, and the number of ``warnings``. A pruned trial has the metrics of its curve so
    far."""
    front: pl.DataFrame
    """The rows of complete trials that no other beats in every objective, the best in the first
    objective first. With one objective, the best row."""
    importance: pl.DataFrame
    """``option`` and ``importance``: how much the values of an option differ between the best
    tenth of the trials and all of them, as shares; no rows before 10 complete trials."""
    settings: dict[str, Any]
    """What was searched, and how trials were judged."""
    options: dict[int, Options] = field(repr=False)
    """The options of each trial, by number."""
    job: TuningJob = field(repr=False)

    @property
    def trial(self) -> int:
        """The number of the best trial by the first objective."""
        return int(self.front["trial"][0])

    @property
    def best(self) -> Options:
        """The options of the best trial."""
        return self.options[self.trial]

    @property
    def epochs(self) -> int:
        """The epochs of the best trial's first fold, which a limit of seconds may have cut."""
        return int(self.front["epochs"][0])

    def fit(self) -> CML:
        """Train the best trial's model again: that of its first fold, to the same bits.

        To learn from the validation part as well, use ``CML(tuned.best).fit(train,
        epochs=...)``; without it, no epoch is chosen, and gamma of the prior follows its rule.
        """
        return trained(self.job, self.best, epochs=self.epochs)


def tuned_from(study: Any, job: TuningJob) -> Tuned:
    """Return the result of a study.

    Raises
    ------
    ValueError
        No trial is complete.
    """
    trials = ended(study)
    chosen = {t.number: Options.from_dict(json.loads(t.user_attrs["options"])) for t in trials}
    table = pl.DataFrame(
        [_row(one, chosen[one.number], job.space) for one in trials], infer_schema_length=None
    )
    return Tuned(table, front_of(table, job.plan.objectives), _importance(study, job, table),
                 job.settings(), chosen, job)  # fmt: skip


def _row(trial: Any, options: Options, space: SearchSpace) -> dict[str, Any]:
    kept, plain = trial.user_attrs, options.to_dict()
    found = kept["metrics"]
    return {
        "trial": trial.number,
        "state": {"FAIL": "failed"}.get(trial.state.name, trial.state.name.lower()),
        **{name: found.get(name) for name in metrics.names()},
        **{one.path: _at(plain, one.path) for one in space.dimensions},
        "epochs": next(iter(kept["epochs"]), None),
        "best_epoch": next(iter(kept["best_epochs"]), None),
        "seconds": kept["seconds"],
        "error": kept["error"] or None,
        "warnings": len(kept["warnings"]),
    }


def _at(plain: Any, path: str) -> float | None:
    """Return the value at a path of `Options.to_dict`; None if the data decide it."""
    first, *rest = path.split(".")
    if first == "hybrid":
        first = "items" if plain["items"] is not None else "users"
    value = plain[first]
    for name in rest:
        value = value[name]
    return None if value is None else float(value)


def front_of(table: pl.DataFrame, objectives: Sequence[str]) -> pl.DataFrame:
    """Return the rows of complete trials that no other row dominates.

    Row a dominates row b if it is at least as good in every objective and better in one. Of equal
    rows the first stays.

    Examples
    --------
    >>> table = pl.DataFrame({"trial": [0, 1, 2], "state": "complete",
    ...                       "ndcg": [0.2, 0.3, 0.1], "mmr": [10.0, 30.0, 20.0]})
    >>> front_of(table, ["ndcg", "mmr"])["trial"].to_list()
    [1, 0]
    """
    rows = table.filter(pl.col("state") == "complete")
    signs = [1.0 if metrics.REGISTRY[name].lower_is_better else -1.0 for name in objectives]
    costs = rows.select(objectives).to_numpy() * np.array(signs)
    no_worse = (costs[:, None] <= costs[None]).all(axis=2)
    better = (costs[:, None] < costs[None]).any(axis=2)
    earlier = np.arange(len(costs))[:, None] < np.arange(len(costs))[None]
    beaten = (no_worse & (better | earlier)).any(axis=0)
    kept = rows.filter(pl.Series(~beaten))
    return kept.sort(objectives[0], descending=signs[0] < 0, maintain_order=True)


def _importance(study: Any, job: TuningJob, table: pl.DataFrame) -> pl.DataFrame:
    """Return importances by PED-ANOVA (Watanabe et al., IJCAI 2023), for the first objective."""
    found: dict[str, float] = {}
    if (table["state"] == "complete").sum() >= _LEAST:
        library = optuna()
        sign = 1.0 if job.plan.directions[0] == "minimize" else -1.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the evaluator is experimental in older Optuna
            found = library.importance.get_param_importances(
                study,
                evaluator=library.importance.PedAnovaImportanceEvaluator(),
                target=lambda one: sign * one.values[0],
            )
    rows = {"option": list(found), "importance": [float(one) for one in found.values()]}
    return pl.DataFrame(rows, schema={"option": pl.String, "importance": pl.Float64})
