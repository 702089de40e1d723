"""Tables of results in the layout of the paper's Table 2, for people and for programs.

`summary` reduces outcomes to a row for each setting, `tidy` is the same for machines, and `layout`
says what is shown and which figures are the best; `nearfar.experiment.writers` write that down.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import polars as pl

from nearfar.errors import DataError, EmptyDataError, OptionError
from nearfar.evaluation.metrics import REGISTRY, names
from nearfar.experiment.cells import Outcome
from nearfar.experiment.paper import PAPER, PaperData

Which = Literal["best", "last"]

EPOCHS: Final[tuple[Which, Which]] = ("best", "last")
"""The epochs that an outcome has figures of."""
SHOWN: Final = {
    name: REGISTRY[name].title + ("" if REGISTRY[name].is_count else " %")
    for name in ("map", "ndcg", "mmr")
}
"""The figures of the table and their headings."""
SAMPLERS: Final = {
    "Uniform": "uniform", "Popularity": "popularity", "TwoStage": "2-stage", "Shared": "shared",
}  # fmt: skip
"""The groups of rows, in order."""
ABSENT: Final = "—"
"""Stands for a figure that is not there."""


def way_of(outcome: Outcome) -> dict[str, Any]:
    """Give what outcomes must have in common to be compared: the data, the cut and the schedule.

    The largest number of epochs is not among it: a run that it stopped too early is at a
    disadvantage, and can be seen to have ended there.
    """
    names = ("data", "fingerprint", "folds", "seed", "validation")
    schedule = {name: one for name, one in outcome.cell["schedule"].items() if name != "epochs"}
    return {name: outcome.cell[name] for name in names} | schedule


def longest(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Keep, of runs that differ in the largest number of epochs alone, the one that had most."""
    kept: dict[str, Outcome] = {}
    for outcome in sorted(outcomes, key=lambda one: int(one.cell["schedule"]["epochs"])):
        kept[_text([way_of(outcome), outcome.cell["setting"], outcome.cell["fold"]])] = outcome
    return list(kept.values())


def comparable(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Check that outcomes can be compared, and name all settings distinctly.

    One name may stand for several options, if a later run has chosen another learning rate: then
    the name is given the learning rate, or a number, in brackets.

    Raises
    ------
    EmptyDataError
        There is none.
    DataError
        They are not of one data set, cut and trained in one way, or a fold of a setting is there
        twice.
    """
    kept = list(outcomes)
    if not kept:
        raise EmptyDataError("There is no outcome, so there is nothing to report yet.")
    ways = [way_of(outcome) for outcome in kept]
    for name in ways[0]:
        values = {_text(way[name]) for way in ways}
        if len(values) > 1:
            one, other = sorted(values)[:2]
            raise DataError(
                f"The outcomes must be of one data set, cut and trained in one way; got {name} "
                f"{one} and {other}. Give those of one of them."
            )
    named = _distinctly(kept)
    seen: set[tuple[str, int]] = set()
    for outcome in named:
        place = name_of(outcome), outcome.cell["fold"]
        if place in seen:
            raise DataError(
                f"Fold {place[1]} of {place[0]!r} is there more than once; give each outcome once."
            )
        seen.add(place)
    return named


def name_of(outcome: Outcome) -> str:
    """Give the name of the setting."""
    return str(outcome.cell["setting"]["name"])


def options_of(outcome: Outcome) -> dict[str, Any]:
    """Give `Options.to_dict` of the setting."""
    return dict(outcome.cell["setting"]["options"])


def _distinctly(outcomes: Sequence[Outcome]) -> list[Outcome]:
    kinds: dict[str, dict[str, float]] = {}
    for outcome in outcomes:
        rate = float(options_of(outcome)["optimiser"]["learning_rate"])
        kinds.setdefault(name_of(outcome), {})[_text(options_of(outcome))] = rate
    names = {}
    for name, rates in kinds.items():
        for number, options in enumerate(sorted(rates), 1):
            told = len(set(rates.values())) == len(rates)
            what = f"learning rate {rates[options]:g}" if told else str(number)
            names[name, options] = name if len(rates) == 1 else f"{name} ({what})"
    return [
        replace(o, cell=o.cell | {"setting": {
            "name": names[name_of(o), _text(options_of(o))], "options": options_of(o)}})
        for o in outcomes
    ]  # fmt: skip


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def summary(outcomes: Iterable[Outcome], which: Which = "best") -> pl.DataFrame:
    """Reduce the outcomes of one data set to a row for each setting.

    Parameters
    ----------
    outcomes : iterable of Outcome
        Of one data set, cut and trained in one way.
    which : {"best", "last"}
        The figures of the epoch that was the best on the validation part, or of the last one.

    Returns
    -------
    DataFrame
        Uniform, popularity, 2-stage; within them by negatives, batch (the largest first, as in the
        paper) and name. ``setting``,
        ``method`` (the name without what the next columns say), ``sampler``, ``batch``,
        ``negatives``, ``learning_rate``; ``folds`` (how many were tested); means over them:
        ``best_epoch``, ``last_epoch``, ``seconds`` (of training), ``machine_seconds``; and each
        figure of `nearfar.evaluate` with its standard deviation, n - 1 below, such as ``map`` and
        ``map_std``. The deviation of a single fold is null, and so is a figure that a fold lacks.

    Raises
    ------
    OptionError
        `which` is something else.
    EmptyDataError, DataError
        As `comparable`.
    """
    if which not in EPOCHS:
        raise OptionError(f"`which` must be 'best' or 'last'; got {which!r}.")
    groups: dict[str, list[Outcome]] = {}
    for outcome in comparable(outcomes):
        groups.setdefault(name_of(outcome), []).append(outcome)
    rows = [_summed_up(name, group, which) for name, group in groups.items()]
    measured: dict[str, pl.DataType] = {
        f"{name}{end}": pl.Float64() for name in names() for end in ("", "_std")
    }
    return pl.DataFrame(_with_methods(sorted(rows, key=_place)), schema=_SETTING | measured)


_SETTING: Final[dict[str, pl.DataType]] = {
    "setting": pl.String(), "method": pl.String(), "sampler": pl.String(), "batch": pl.Int64(),
    "negatives": pl.Int64(), "learning_rate": pl.Float64(), "folds": pl.Int64(),
    "best_epoch": pl.Float64(), "last_epoch": pl.Float64(), "seconds": pl.Float64(),
    "machine_seconds": pl.Float64(),
}  # fmt: skip
"""The columns of `summary` in front of the metrics."""


def _summed_up(name: str, outcomes: list[Outcome], which: Which) -> dict[str, Any]:
    options = options_of(outcomes[0])
    row = {
        "setting": name,
        "sampler": options["sampler"]["kind"],
        "batch": options["batch"],
        "negatives": options["negatives"],
        "learning_rate": float(options["optimiser"]["learning_rate"]),
        "folds": len(outcomes),
    }
    for field in ("best_epoch", "last_epoch", "seconds", "machine_seconds"):
        row[field] = float(np.mean([getattr(outcome, field) for outcome in outcomes]))
    in_order = sorted(outcomes, key=lambda outcome: int(outcome.cell["fold"]))
    for metric in names():
        values = [outcome.metrics.get(which, {}).get(metric) for outcome in in_order]
        row[metric] = row[f"{metric}_std"] = None
        if (known := [v for v in values if v is not None]) and len(known) == len(values):
            row[metric] = float(np.mean(known))
            row[f"{metric}_std"] = float(np.std(known, ddof=1)) if len(known) > 1 else None
    return row


def _place(row: Mapping[str, Any]) -> tuple[int, str, int, int, str]:
    order, kind = list(SAMPLERS), row["sampler"]
    at = order.index(kind) if kind in SAMPLERS else len(order)
    return at, kind, row["negatives"], -row["batch"], row["setting"]


def _with_methods(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Shorten the names by what other columns say, unless two rows are then the same."""
    shapes = []
    for row in rows:
        n, batch = row["negatives"], row["batch"]
        short = re.sub(rf", {n} negatives?, batch {batch}(?= \(|$)", "", row["setting"])
        shapes.append((re.sub(r"\btwo-stage$", SAMPLERS["TwoStage"], short), n, batch))
    for row, shape in zip(rows, shapes, strict=True):
        row["method"] = shape[0] if shapes.count(shape) == 1 else row["setting"]
    return rows


def tidy(outcomes: Sequence[Outcome]) -> pl.DataFrame:
    """Give all figures in full, a row for each setting, epoch and figure: what the CSV file holds.

    Parameters
    ----------
    outcomes : sequence of Outcome
        As for `summary`.

    Returns
    -------
    DataFrame
        ``data``, the columns of `summary` that are no figures, ``which`` ("best" or "last"),
        ``metric``, ``mean`` and ``std``. Figures are shares, not percentages.
    """
    parts = []
    for which in EPOCHS:
        found = summary(outcomes, which)
        parts += [
            found.select(
                pl.lit(str(outcomes[0].cell["data"])).alias("data"), *_SETTING,
                pl.lit(which).alias("which"), pl.lit(metric).alias("metric"),
                pl.col(metric).alias("mean"), pl.col(f"{metric}_std").alias("std"),
            )
            for metric in names()
        ]  # fmt: skip
    return pl.concat(parts)


@dataclass(frozen=True)
class Shown:
    """A figure as it is shown."""

    text: str
    """Mean ± standard deviation over folds."""
    best: bool
    """Whether no other setting is better; to be printed bold."""
    best_uniform: bool
    """Whether it is uniform sampling and no other such is better; to be printed bold and italic."""


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    group: str
    """Uniform, popularity, 2-stage: a line is drawn between groups."""
    method: str
    batch: int
    negatives: int
    figures: tuple[Shown, ...]
    """In the order of `SHOWN`."""
    paper: tuple[str, ...] = ()
    """What the paper has, if that is asked for; dashes if it is not known here."""

    def cells(self, emphasised: Callable[[Shown], str]) -> list[str]:
        """Give all cells as text."""
        own = [emphasised(figure) for figure in self.figures]
        return [self.method, str(self.batch), str(self.negatives), *own, *self.paper]


def layout(found: pl.DataFrame, paper: PaperData | None = None) -> list[Row]:
    """Lay out a `summary` like the paper's Table 2.

    The best figure of a column, and the best of uniform sampling, are those with the best mean in
    full precision, not as it is printed; of MMR that is the lowest.

    Parameters
    ----------
    found : DataFrame
        What `summary` gave.
    paper : {"amazon", "book-crossing", "echonest"}, optional
        Show what the paper has for this data set beside.

    Returns
    -------
    list of Row

    Raises
    ------
    OptionError
        `paper` is something else.
    """
    known = next(iter(PAPER.values()))
    if paper is not None and paper not in known:
        raise OptionError(f"`paper` must be one of {', '.join(known)}; got {paper!r}.")
    uniform = found.filter(pl.col("sampler") == "Uniform")
    best, best_uniform = ({m: _best(rows, m) for m in SHOWN} for rows in (found, uniform))
    made = []
    for row in found.iter_rows(named=True):
        kind = row["sampler"]
        figures = tuple(
            Shown(
                figure_text(metric, row[metric], row[f"{metric}_std"]),
                row[metric] is not None and row[metric] == best[metric],
                kind == "Uniform" and row[metric] is not None
                and row[metric] == best_uniform[metric],
            )
            for metric in SHOWN
        )  # fmt: skip
        theirs = () if paper is None else _in_the_paper(row, paper)
        group = SAMPLERS.get(kind, kind)
        made.append(Row(group, row["method"], row["batch"], row["negatives"], figures, theirs))
    return made


def _best(found: pl.DataFrame, metric: str) -> Any:
    return found[metric].min() if REGISTRY[metric].lower_is_better else found[metric].max()


def _in_the_paper(row: Mapping[str, Any], paper: PaperData) -> tuple[str, ...]:
    figures = PAPER.get((row["sampler"], row["negatives"], row["batch"]))
    if figures is None:
        return (ABSENT,) * len(SHOWN)
    accuracy, ranking, popularity = figures[paper]
    return f"{accuracy:.2f}", f"{ranking:.2f}", f"{popularity:.1f}"


def figure_text(metric: str, mean: float | None, std: float | None = None) -> str:
    """Write a figure: accuracy in percent with two places, popularity counts with one.

    Examples
    --------
    >>> figure_text("map", 0.02261, 0.0005), figure_text("mmr", 111.84), figure_text("map", None)
    ('2.26 ± 0.05', '111.8', '—')
    """
    if mean is None:
        return ABSENT
    scale, places = (1, 1) if REGISTRY[metric].is_count else (100, 2)
    text = f"{scale * mean:.{places}f}"
    return text if std is None else f"{text} ± {scale * std:.{places}f}"
