"""``nearfar table2``: the paper's table on any prepared data."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from nearfar.cli import show
from nearfar.cli.binding import FlagError, build, with_flags
from nearfar.cli.fitting import Json
from nearfar.cli.flags import flags_of
from nearfar.experiment import table2 as paper
from nearfar.experiment.grid import RATES, SCHEDULE, Grid
from nearfar.method.sampling import TwoStage
from nearfar.training.schedule import Schedule

_SCHEDULE_FLAGS: Final = flags_of(Schedule, base=SCHEDULE)
_TWO_STAGE_FLAGS: Final = tuple(
    replace(flag, help=f"Of 2-stage rows: {flag.help}", default="that of the preset")
    for flag in flags_of(TwoStage)
    if flag.field in paper.SECOND_STAGE
)
_Sampler = Enum("_Sampler", {name: name for name in paper.SAMPLERS}, type=str)  # type: ignore[misc]
_Method = Enum("_Method", {name: name for name in paper.METHODS}, type=str)  # type: ignore[misc]
_PAPER: Final = _Method("paper_2019")


@with_flags(_SCHEDULE_FLAGS, into="schedule")
@with_flags(_TWO_STAGE_FLAGS, into="two_stage")
def table2(
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA...", help="Folders written by `nearfar prepare`, with distinct names."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="RESULTS",
            help="Folder for the cells and the report; existing cells are not computed again.",
        ),
    ],
    *,
    preset: Annotated[
        _Method,
        typer.Option(
            help="The rows of the paper, those of its script, or that of CML; results of several"
            " commands are combined in one report."
        ),
    ] = _PAPER,
    samplers: Annotated[
        list[_Sampler] | None,
        typer.Option("--sampler", help="Only these rows; repeatable. [default: all]"),
    ] = None,
    negatives: Annotated[
        list[int] | None,
        typer.Option(help="Only these rows: 1, 2 or 5; repeatable. [default: all]"),
    ] = None,
    batches: Annotated[
        list[int] | None,
        typer.Option(
            "--batch", help="Only these rows: 256, 1024 or 4096; repeatable. [default: all]"
        ),
    ] = None,
    beta: Annotated[float, typer.Option(help="Exponent of the popularity.")] = 1.0,
    dim: Annotated[
        int | None, typer.Option(help="Dimension of the space. [default: that of the preset]")
    ] = None,
    rates: Annotated[
        list[float] | None,
        typer.Option(
            "--learning-rate",
            help="A candidate; the best is chosen on the validation part of the first fold, "
            "starting from the middle one; repeatable. "
            f"[default: {' '.join(f'{rate:g}' for rate in RATES)}]",
        ),
    ] = None,
    folds: Annotated[int, typer.Option(help="Parts of each user's interactions.")] = 4,
    tested_folds: Annotated[
        int | None, typer.Option(help="Number of folds to test on. [default: all]")
    ] = None,
    validation: Annotated[
        float, typer.Option(help="Share of the training part used to choose epoch and rate.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 0,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes. [default: number of cores]")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each process.")] = 1,
    progress: Annotated[
        bool | None,
        typer.Option(help="Show the progress. [default: if stderr is a terminal]"),
    ] = None,
    json: Json = False,
    two_stage: dict[str, Any],
    schedule: dict[str, Any],
) -> None:
    """Compute Table 2 of the SIGIR 2019 paper on any data: 15 rows, all folds, and a report."""
    from nearfar.experiment.report import write_report  # loads scipy, which no other command needs

    names = {path.resolve().name: path for path in data}
    if len(names) < len(data):
        raise FlagError("DATA must be folders with distinct names, which name the tables.")
    rows = paper.rows(
        preset.value,
        samplers=[one.value for one in samplers] if samplers else paper.SAMPLERS,
        negatives=negatives or paper.NEGATIVES,
        batches=batches or paper.BATCHES,
        beta=beta,
        two_stage=two_stage,
        **({} if dim is None else {"dim": dim}),
    )
    grid = Grid(
        rows,
        learning_rates=RATES if rates is None else tuple(rates),
        folds=folds,
        tested_folds=tested_folds,
        schedule=build(SCHEDULE, _SCHEDULE_FLAGS, schedule),
        validation=validation,
        seed=seed,
    )
    failures = grid.run(names, out, workers=workers, threads=threads, progress=progress)
    *_, page = write_report(out)
    if json:
        show.emit({"results": str(out), "report": str(page), "failures": failures})
    else:
        for key, error in failures.items():
            show.note(f"nearfar: cell {key} failed: {error}")
        show.say(f"The report is {page}.")
    if failures:
        raise typer.Exit(1)
