"""``nearfar tune``: the search for better options, its report, and the command of the winner."""

from __future__ import annotations

import shlex
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from nearfar.cli import show
from nearfar.cli.binding import FlagError, with_flags
from nearfar.cli.describing import DESCRIPTION_FLAGS, STRENGTHS, features_of
from nearfar.cli.fitting import Data, Json
from nearfar.cli.inputs import load_data
from nearfar.cli.writing import option_words, words_of
from nearfar.data import split
from nearfar.runtime.checks import share
from nearfar.runtime.progress import shows
from nearfar.tuning.spaces import SPACES
from nearfar.tuning.tuned import Tuned
from nearfar.tuning.tuner import tune as search
from nearfar.tuning.tuning_report import write_tuning_report

_FEATURE_FLAGS = tuple(one for one in DESCRIPTION_FLAGS if one.field not in STRENGTHS)
_Space = Enum("_Space", {name: name for name in SPACES}, type=str)  # type: ignore[misc]
_SHARED: Any = _Space("shared")


@with_flags(_FEATURE_FLAGS, into="about")
def tune(
    data: Data,
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="STUDY",
            help="Folder for the study and its report; a study that is there is continued.",
        ),
    ],
    *,
    space: Annotated[
        _Space,
        typer.Option(help="What is searched; hybrid needs --item-features or --user-features."),
    ] = _SHARED,
    holdout: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Exclude this share of each user's interactions, as `nearfar fit` does: the study"
            " never sees them.",
        ),
    ] = None,
    validation: Annotated[
        float, typer.Option(help="Share of each user's training interactions that judges trials.")
    ] = 0.1,
    folds: Annotated[
        int, typer.Option(help="Models in a trial, each with another validation part.")
    ] = 1,
    trials: Annotated[int, typer.Option(help="Trials of the study, with those it has.")] = 30,
    seconds: Annotated[
        float, typer.Option(help="No trial begins later than this after the start.")
    ] = 3600.0,
    epochs: Annotated[
        int, typer.Option(help="Passes over the training pairs, in each trial.")
    ] = 50,
    every: Annotated[int, typer.Option(help="Epochs between two validations.")] = 2,
    patience: Annotated[
        int | None,
        typer.Option(help="End a training after so many validations without a new best."),
    ] = None,
    trial_seconds: Annotated[
        float | None, typer.Option(help="End each training after so many seconds of training.")
    ] = None,
    objectives: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC",
            help="A metric to optimise, such as ndcg; repeatable, for their front. [default: ndcg]",
        ),
    ] = None,
    k: Annotated[int, typer.Option(help="Length of the evaluated lists.")] = 50,
    workers: Annotated[int, typer.Option(help="Processes, each of one thread.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    progress: Annotated[
        bool | None,
        typer.Option(help="Print a line for each trial on stderr. [default: on a terminal]"),
    ] = None,
    json: Json = False,
    about: dict[str, Any],
) -> None:
    """Search for better options on a validation part, and print the command that trains them."""
    held_out = None if holdout is None else share("--holdout", holdout)
    described = any(name.endswith("_features") for name in about)
    if described != (space.value == "hybrid"):
        raise FlagError("`--space hybrid` and --item-features or --user-features go together.")
    everything = load_data(data)
    features = features_of(about, everything)
    train = everything
    if held_out is not None:
        train, _ = split.ratio(everything, test=held_out, seed=seed)
    tuned = search(
        train, space=space.value, **features, validation=validation, folds=folds, trials=trials,
        seconds=seconds, epochs=epochs, every=every, patience=patience,
        trial_seconds=trial_seconds, objectives=objectives or ["ndcg"], k=k, workers=workers,
        seed=seed, study=out, progress=shows(progress),
    )  # fmt: skip
    line = command_of(tuned, data, holdout, about)
    page = write_tuning_report(tuned, out, line)
    if json:
        show.emit({"study": str(out), "report": str(page), "command": line, "trial": tuned.trial,
                   "options": tuned.best.to_dict(), "front": tuned.front.to_dicts(),
                   "trials": tuned.table.to_dicts()})  # fmt: skip
    else:
        _print(tuned, page, line)


def command_of(tuned: Tuned, data: Path, holdout: float | None, about: dict[str, Any]) -> str:
    """Return the command that trains the best trial's model (that of its first fold)."""
    plan = tuned.job.plan
    how = {
        "holdout": holdout,
        **about,
        "validation": plan.validation,
        "epochs": tuned.epochs if plan.trial_seconds is not None else plan.epochs,
        "every": plan.every,
        "metric": plan.objectives[0],
        "k": plan.k,
        "patience": plan.patience,
        "seed": plan.seed,
    }
    words = ["nearfar", "fit", str(data), "-o", "model/", *words_of(how)]
    return shlex.join(words + option_words(tuned.best))


def _print(tuned: Tuned, page: Path, line: str) -> None:
    names = ["trial", *tuned.job.plan.objectives, *(d.path for d in tuned.job.space.dimensions)]
    first = tuned.table.filter(tuned.table["trial"] == 0)
    rows = [
        (what, *("data" if value is None else f"{value:.4g}" for value in one))
        for what, frame in (("start", first), ("best", tuned.front))
        for one in frame.select(names).iter_rows()
    ]
    states = tuned.table["state"].value_counts(sort=True)
    said = ", ".join(f"{n} {state}" for state, n in states.iter_rows())
    show.table(f"{tuned.table.height} trials ({said})", ["", *names], rows)
    show.say(f"The report is {page}.")
    show.say(f"Next: {line}")
