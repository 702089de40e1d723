"""``nearfar fit`` and ``nearfar crossvalidate``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from nearfar.cli import show
from nearfar.cli.binding import build, with_flags
from nearfar.cli.describing import DESCRIPTION_FLAGS, features_of, hybrid_options
from nearfar.cli.inputs import (
    OPTION_FLAGS,
    RUN_FLAGS,
    SCHEDULE_FLAGS,
    Circumstances,
    circumstances_of,
    load_data,
    options_of,
)
from nearfar.cli.launching import is_first, one_of_several, start
from nearfar.data import split
from nearfar.data.interactions import Interactions
from nearfar.errors import EmptyDataError, NotFittedError
from nearfar.evaluation.metrics import names
from nearfar.evaluation.ranking import evaluate
from nearfar.evaluation.result import Evaluation
from nearfar.method.presets import PRESETS
from nearfar.model.cml import CML
from nearfar.model.fitted import KIND
from nearfar.runtime import store
from nearfar.runtime.checks import share
from nearfar.runtime.progress import shows
from nearfar.training.schedule import Schedule

Data = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        help="A folder written by `nearfar prepare`, or a CSV, TSV or Parquet file of users and"
        " items.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")]
Preset = Enum("Preset", {name: name for name in PRESETS}, type=str)  # type: ignore[misc]
PresetOption = Annotated[
    Preset | None,
    typer.Option(
        help="Start from a published method, or from `long_tail`, which has less popularity bias;"
        " other flags override it."
    ),
]
Given = dict[str, Any]

_model = with_flags(OPTION_FLAGS, into="options")
_length = with_flags(SCHEDULE_FLAGS, into="schedule")
_run = with_flags(RUN_FLAGS, into="run")
_about = with_flags(DESCRIPTION_FLAGS, into="about")


@_run
@_length
@_about
@_model
def fit(
    data: Data,
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="MODEL", help="Folder to save the model in.")
    ],
    *,
    holdout: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Exclude this share of each user's interactions from training, for"
            " `nearfar evaluate`.",
        ),
    ] = None,
    preset: PresetOption = None,
    processes: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Train in N processes on this machine, each with a part of the tables; it starts"
            " torchrun. Without it, the processes are those that a launcher has started.",
        ),
    ] = None,
    json: Json = False,
    options: Given,
    about: Given,
    schedule: Given,
    run: Given,
) -> None:
    """Train a model on interactions and save it."""
    if (code := start(processes)) is not None:
        raise typer.Exit(code)
    chosen = options_of(None if preset is None else preset.value, options)
    model = CML(hybrid_options(chosen, about))
    plan, how = build(Schedule(), SCHEDULE_FLAGS, schedule), circumstances_of(run)
    held_out = None if holdout is None else share("--holdout", holdout)
    store.check_replaceable(out, kind=KIND)
    everything = load_data(data)
    train, features = everything, features_of(about, everything)
    if held_out is not None:
        train, _ = split.ratio(everything, test=held_out, seed=how.seed)
    begun = time.perf_counter()
    try:
        with one_of_several(how) as here:
            model.fit(train, **features, **asdict(plan), **asdict(here), out=out)
    except KeyboardInterrupt as error:
        if is_first():
            _note_kept(model, out)
        raise typer.Exit(130) from error
    if not is_first():
        return
    figures = _summary(model, everything, time.perf_counter() - begun) | {"model": str(out)}
    if json:
        show.emit(figures)
    else:
        _report(figures, plan.metric, data, show_evaluate=holdout is not None)


def _note_kept(model: CML, out: Path) -> None:
    """Print which model an interrupted run has saved."""
    try:
        epochs = model.history.height
    except NotFittedError:
        epochs = 0
    if epochs == 0:
        show.note("nearfar: interrupted before the end of the first epoch; no model is saved.")
        return
    show.note(f"nearfar: interrupted after {epochs} epochs; the model of epoch {model.best_epoch}"
              f" is saved in {out}.")  # fmt: skip


def _summary(model: CML, everything: Interactions, seconds: float) -> dict[str, Any]:
    data = model.interactions
    return {
        "n_users": data.n_users,
        "n_items": data.n_items,
        "n_pairs": data.n_pairs,
        "n_held_out": everything.n_pairs - data.n_pairs,
        "epochs": model.history.height,
        "best_epoch": model.best_epoch,
        "gamma": model.gamma,
        "neighbour_weight": model.neighbour_weight,
        "seconds": seconds,
        "options": model.options.to_dict(),
        "history": model.history.to_dicts(),
    }


def _report(figures: Mapping[str, Any], metric: str, data: Path, *, show_evaluate: bool) -> None:
    best = figures["history"][figures["best_epoch"] - 1]
    rows = [
        ("users", f"{figures['n_users']:,}"),
        ("items", f"{figures['n_items']:,}"),
        ("interactions", f"{figures['n_pairs']:,}"),
        ("held out", f"{figures['n_held_out']:,}"),
        ("epochs", figures["epochs"]),
        ("seconds", f"{figures['seconds']:.1f}"),
        ("epoch kept", figures["best_epoch"]),
        ("its loss", f"{best['loss']:.4f}"),
    ]
    if f"validation_{metric}" in best:
        value = show.figure(metric, best[f"validation_{metric}"])
        rows.append((f"its validation {metric}", value))
    if figures["options"]["prior"] is not None:
        rows.append(("gamma of the prior", f"{figures['gamma']:g}"))
    if figures["options"]["neighbours"] is not None:
        rows.append(("weight of neighbours", f"{figures['neighbour_weight']:g}"))
    out = figures["model"]
    show.table(f"Saved in {out}", ["trained on", ""], rows)
    if show_evaluate:
        show.say(f"Next: nearfar evaluate {out} {data}")


@_run
@_length
@_about
@_model
def crossvalidate(
    data: Data,
    *,
    folds: Annotated[int, typer.Option(help="Number of parts of each user's interactions.")] = 4,
    preset: PresetOption = None,
    json: Json = False,
    options: Given,
    about: Given,
    schedule: Given,
    run: Given,
) -> None:
    """Cross-validate: for each fold, train on the other folds and test on this one."""
    chosen = options_of(None if preset is None else preset.value, options)
    chosen = hybrid_options(chosen, about)
    plan, how = build(Schedule(), SCHEDULE_FLAGS, schedule), circumstances_of(run)
    found: list[Evaluation] = []
    everything = load_data(data)
    features = features_of(about, everything)
    cuts = split.k_fold(everything, folds, seed=how.seed)
    if not all(test.n_pairs for _, test in cuts):
        raise EmptyDataError(f"A fold is empty; use fewer than {folds} `--folds`, or more data.")
    for number, (train, test) in enumerate(cuts, start=1):
        found.append(_fold(number, chosen, features, plan, how, train, test))
        line = ", ".join(f"{name} {show.figure(name, found[-1][name])}" for name in names("short"))
        (show.note if json else show.say)(f"fold {number} of {folds}: {line}")
    spread = {name: _mean_and_std([one[name] for one in found]) for name in names()}
    if json:
        show.emit({"k": plan.k, "options": chosen.to_dict(), "metrics": spread,
                   "folds": [one.to_dict() for one in found]})  # fmt: skip
        return
    rows = [
        (name, show.figure(name, value["mean"]), show.figure(name, value["std"]))
        for name, value in spread.items()
    ]
    show.table(f"{folds} folds, top {plan.k}", ["", "mean", "std"], rows)
    left_out = sum(one.n_new_users for one in found)
    if left_out:
        show.say(
            f"{left_out:,} of {left_out + sum(one.n_users for one in found):,} tested users, over"
            " all folds, were left out: they have no training interactions in the other folds."
        )


def _fold(
    number: int,
    options: Any,
    features: dict[str, Any],
    plan: Schedule,
    how: Circumstances,
    train: Interactions,
    test: Interactions,
) -> Evaluation:
    going = asdict(how)
    if how.checkpoint is not None:
        going["checkpoint"] = how.checkpoint / f"fold-{number}"
    model = CML(options).fit(train, **features, **asdict(plan), **going)
    return evaluate(
        model,
        train,
        test,
        k=plan.k,
        threads=how.threads,
        progress=shows(how.progress),
        device="cpu"
        if how.device in {"reference", "cluster"} or model.neighbour_weight > 0.0
        else how.device,
    )


def _mean_and_std(values: list[float]) -> dict[str, float]:
    """Return the mean over folds and the standard deviation (n - 1)."""
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1))}
