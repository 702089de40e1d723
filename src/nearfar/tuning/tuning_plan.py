"""What a study is asked for: all that its trials have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import numpy as np
import polars as pl
import scipy.sparse as sp

from nearfar.data.features import Features
from nearfar.data.interactions import Interactions, checked_interactions
from nearfar.errors import OptionError
from nearfar.evaluation import metrics
from nearfar.runtime.checks import (
    an_instance,
    checked_seed,
    listed,
    one_of,
    real,
    said,
    set_fields,
    share,
    whole,
)
from nearfar.training.schedule import Schedule
from nearfar.tuning.spaces import SearchSpace, space_of

POPULARITY: Final = ("mmr", "mean_popularity")
"""Objectives for which the popularity dial is searched as well."""


@dataclass(frozen=True)
class TuningPlan:
    """The settings that all trials of a study share."""

    space: str = "shared"
    validation: float | Interactions = 0.1
    folds: int = 1
    epochs: int = 50
    every: int = 2
    patience: int | None = None
    trial_seconds: float | None = None
    objectives: tuple[str, ...] = ("ndcg",)
    k: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        names = _objectives(self.objectives)
        schedule = Schedule(self.epochs, self.every, names[0], self.k, self.patience)
        validation = self.validation
        if not isinstance(validation, Interactions):
            validation = share("validation", validation, "A trial is judged by it alone.")
        folds = whole("folds", self.folds, 1, 100)
        if folds > 1 and isinstance(validation, Interactions):
            raise OptionError(
                f"`folds` must be 1 with a validation part of your own; got {folds}. Pass a share"
                " as `validation`, such as 0.1: each fold is another random one."
            )
        seconds = self.trial_seconds
        set_fields(
            self,
            validation=validation,
            folds=folds,
            epochs=schedule.epochs,
            every=schedule.every,
            patience=schedule.patience,
            k=schedule.k,
            trial_seconds=None if seconds is None else real("trial_seconds", seconds, above=0.0),
            objectives=names,
            seed=checked_seed(self.seed),
        )

    @property
    def schedule(self) -> Schedule:
        """The schedule of each trial; the first objective selects the epoch."""
        return Schedule(self.epochs, self.every, self.objectives[0], self.k, self.patience)

    @property
    def directions(self) -> list[str]:
        """For each objective "minimize" or "maximize", as Optuna writes it."""
        lower = [metrics.REGISTRY[name].lower_is_better for name in self.objectives]
        return ["minimize" if one else "maximize" for one in lower]


def _objectives(given: Any) -> tuple[str, ...]:
    if not isinstance(given, list | tuple):
        raise OptionError(
            f"`objectives` must be a list of metrics, such as ['ndcg']; got {said(given)}."
        )
    names = tuple(one_of("objectives", one, metrics.names()) for one in listed("objectives", given))
    if not 1 <= len(names) <= 3 or len(set(names)) < len(names):
        raise OptionError(
            f"`objectives` must be one to three different metrics; got {said(given)}."
        )
    return names


@dataclass(frozen=True, eq=False)
class TuningJob:
    """A plan and its data; what a worker process receives."""

    plan: TuningPlan
    train: Interactions
    features: dict[str, Any]
    """``item_features`` and ``user_features`` of `CML.fit`, where given."""

    @classmethod
    def of(cls, plan: TuningPlan, train: Any, features: Mapping[str, Any]) -> TuningJob:
        """Check the data, and that they suit the space."""
        train = checked_interactions("train", train)
        given = {name: an_instance(name, one, Features) for name, one in features.items()
                 if one is not None}  # fmt: skip
        job = cls(plan, train, given)
        _ = job.space
        return job

    @property
    def space(self) -> SearchSpace:
        """The space, with hybrids where there are features."""
        sides = tuple(f"{name.removesuffix('_features')}s" for name in self.features)
        dial = any(name in POPULARITY for name in self.plan.objectives)
        return space_of(self.plan.space, sides, dial=dial)

    def settings(self) -> dict[str, Any]:
        """Return what must be the same when a study is resumed, as plain values."""
        plan, part = asdict_of(self.plan), self.plan.validation
        if isinstance(part, Interactions):
            plan["validation"] = part.fingerprint
        dimensions = [f"{one.path}: {one.shown}" for one in self.space.dimensions]
        return {
            "data": self.train.fingerprint,
            "features": {name: _print_of(one) for name, one in sorted(self.features.items())},
            **plan,
            "dimensions": dimensions,
        }


def asdict_of(plan: TuningPlan) -> dict[str, Any]:
    """Return the fields of a plan; the interactions of its validation part as they are."""
    return {**vars(plan), "objectives": list(plan.objectives)}


def _print_of(features: Features) -> str:
    """Return a checksum of features: of their ids, and of what their columns hold."""
    digest = sha256(features.ids.digest())
    for name, column in sorted(features.columns.items()):
        digest.update(f"{name} {column.kind}".encode())
        for part in vars(column).values():
            held = vars(part).values() if isinstance(part, sp.csr_array) else [part]
            for one in held:
                known = one.tobytes() if isinstance(one, np.ndarray) else repr(_plain(one)).encode()
                digest.update(known)
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    return value.to_list() if isinstance(value, pl.Series) else value
