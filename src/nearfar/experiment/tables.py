"""Tables of results in the layout of the paper's Table 2, and for programs.

`summary` reduces outcomes to one row per setting, `tidy` is the same in long form for programs, and
`layout` determines the cells and the best metrics; `nearfar.experiment.writers` formats them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import polars as pl

from nearfar.errors import DataError, EmptyDataError
from nearfar.evaluation.metrics import REGISTRY, names
from nearfar.experiment.cells import Outcome
from nearfar.experiment.paper import PAPER, PaperData
from nearfar.runtime.checks import an_instance, listed, one_of
from nearfar.runtime.forks import check_fork

Which = Literal["best", "prior", "last"]

VERSIONS: Final[tuple[Which, ...]] = ("best", "prior", "last")
"""What an outcome has metrics for; see `nearfar.experiment.cells.Outcome`."""
SHOWN: Final = {
    name: REGISTRY[name].title + ("" if REGISTRY[name].is_count else " %")
    for name in ("map", "ndcg", "mmr")
}
"""The metrics of the table and their headings."""
SAMPLERS: Final = {
    "Uniform": "uniform", "Popularity": "popularity", "TwoStage": "2-stage", "Shared": "shared",
}  # fmt: skip
"""The groups of rows, in order."""
ABSENT: Final = "—"
"""The text for a missing metric."""


def way_of(outcome: Outcome) -> dict[str, Any]:
    """Return what outcomes must have in common to be compared: the data, the split, the schedule.

    The largest number of epochs is not included: a run that it stopped too early has a
    disadvantage, which is visible from its last epoch.
    """
    names = ("data", "fingerprint", "folds", "seed", "validation")
    schedule = {name: one for name, one in outcome.cell["schedule"].items() if name != "epochs"}
    return {name: outcome.cell[name] for name in names} | schedule


def longest(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Keep, of runs that differ only in the largest number of epochs, the longest."""
    kept: dict[str, Outcome] = {}
    for outcome in sorted(outcomes, key=lambda one: int(one.cell["schedule"]["epochs"])):
        kept[_text([way_of(outcome), outcome.cell["setting"], outcome.cell["fold"]])] = outcome
    return list(kept.values())


def comparable(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Check that outcomes can be compared, and name all settings distinctly.

    One name can belong to several options, if a later run has chosen another learning rate: then
    the learning rate or a number is appended to the name in brackets.

    Raises
    ------
    EmptyDataError
        There are no outcomes.
    DataError
        They are not of one data set, split and trained in the same way, or a fold of a setting
        occurs twice.
    """
    kept = [an_instance("outcomes", one, Outcome) for one in listed("outcomes", outcomes)]
    if not kept:
        raise EmptyDataError("There are no outcomes, so there is nothing to report yet.")
    ways = [way_of(outcome) for outcome in kept]
    for name in ways[0]:
        values = {_text(way[name]) for way in ways}
        if len(values) > 1:
            one, other = sorted(values)[:2]
            raise DataError(
                f"The outcomes must be of one data set, split and trained in the same way; got "
                f"{name} {one} and {other}. Pass those of one of them."
            )
    named = _distinctly(kept)
    seen: set[tuple[str, int]] = set()
    for outcome in named:
        place = name_of(outcome), outcome.cell["fold"]
        if place in seen:
            raise DataError(
                f"Fold {place[1]} of {place[0]!r} occurs more than once; pass each outcome once."
            )
        seen.add(place)
    return named


def name_of(outcome: Outcome) -> str:
    """Return the name of the setting."""
    return str(outcome.cell["setting"]["name"])


def options_of(outcome: Outcome) -> dict[str, Any]:
    """Return `Options.to_dict` of the setting, with the number of negatives that were drawn."""
    options = dict(outcome.cell["setting"]["options"])
    return {**options, "negatives": options["negatives"] or outcome.negatives}


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
    """Reduce the outcomes of one data set to one row per setting.

    Parameters
    ----------
    outcomes : iterable of Outcome
        Of one data set, split and trained in the same way.
    which : {"best", "prior", "last"}
        Use the metrics of the best epoch on the validation part, of the same with the popularity
        prior, or of the last epoch. Outcomes without metrics of "prior" are left out of it: those
        whose options have a prior, and those computed before there was one.

    Returns
    -------
    DataFrame
        Uniform, popularity, 2-stage; within them by negatives, batch (the largest first, as in the
        paper) and name. The columns are ``setting``, ``method`` (the name without the contents of
        the next columns), ``sampler``, ``batch``, ``negatives``, ``learning_rate``; ``folds`` (the
        number tested); means over them: ``gamma`` (of the prior; null if there is none in the
        scores), ``best_epoch``, ``last_epoch``, ``seconds`` (of training), ``machine_seconds``; and
        each metric of `nearfar.evaluate` with its standard deviation (n - 1), such as ``map`` and
        ``map_std``. The deviation for a single fold is null, and so is a metric that a fold lacks.

    Raises
    ------
    OptionError
        `which` is something else.
    EmptyDataError, DataError
        As `comparable`; or no outcome has metrics of "prior".
    """
    check_fork()
    which = one_of("which", which, VERSIONS)
    groups: dict[str, list[Outcome]] = {}
    for outcome in comparable(outcomes):
        if which != "prior" or which in outcome.metrics:
            groups.setdefault(name_of(outcome), []).append(outcome)
    if not groups:
        raise EmptyDataError(
            "`which` must be 'best' or 'last' for these outcomes; got 'prior', for which none of "
            "them has metrics: they were computed before there was a popularity prior, or their "
            "options have one, which is then in 'best' and 'last'."
        )
    rows = [_summed_up(name, group, which) for name, group in groups.items()]
    measured: dict[str, pl.DataType] = {
        f"{name}{end}": pl.Float64() for name in names() for end in ("", "_std")
    }
    return pl.DataFrame(_with_methods(sorted(rows, key=_place)), schema=_SETTING | measured)


_SETTING: Final[dict[str, pl.DataType]] = {
    "setting": pl.String(), "method": pl.String(), "sampler": pl.String(), "batch": pl.Int64(),
    "negatives": pl.Int64(), "learning_rate": pl.Float64(), "folds": pl.Int64(),
    "gamma": pl.Float64(), "best_epoch": pl.Float64(), "last_epoch": pl.Float64(),
    "seconds": pl.Float64(), "machine_seconds": pl.Float64(),
}  # fmt: skip
"""The columns of `summary` before the metrics."""


def _summed_up(name: str, outcomes: list[Outcome], which: Which) -> dict[str, Any]:
    options = options_of(outcomes[0])
    row = {
        "setting": name,
        "sampler": options["sampler"]["kind"],
        "batch": options["batch"],
        "negatives": options["negatives"],
        "learning_rate": float(options["optimiser"]["learning_rate"]),
        "folds": len(outcomes),
        "gamma": _mean_gamma(outcomes) if which == "prior" or options.get("prior") else None,
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


def _mean_gamma(outcomes: Sequence[Outcome]) -> float | None:
    known = [outcome.gamma for outcome in outcomes if outcome.gamma is not None]
    return float(np.mean(known)) if len(known) == len(outcomes) else None


def versions_of(outcomes: Iterable[Outcome]) -> list[Which]:
    """Return the versions that any outcome has metrics for, and "best" and "last"."""
    known = {"best", "last"}.union(*(outcome.metrics for outcome in outcomes))
    return [which for which in VERSIONS if which in known]


def _place(row: Mapping[str, Any]) -> tuple[int, str, int, int, str]:
    order, kind = list(SAMPLERS), row["sampler"]
    at = order.index(kind) if kind in SAMPLERS else len(order)
    return at, kind, row["negatives"], -row["batch"], row["setting"]


def _with_methods(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Remove the contents of other columns from the names, unless two rows would become equal."""
    shapes = []
    for row in rows:
        n, batch = row["negatives"], row["batch"]
        short = re.sub(rf", {n} negatives?, batch {batch}(?= \(|$)", "", row["setting"])
        shapes.append((re.sub(r"\btwo-stage(?= \(|$)", SAMPLERS["TwoStage"], short), n, batch))
    for row, shape in zip(rows, shapes, strict=True):
        row["method"] = shape[0] if shapes.count(shape) == 1 else row["setting"]
    return rows


def tidy(outcomes: Sequence[Outcome]) -> pl.DataFrame:
    """Return all metrics in full, one row per setting, epoch and metric; for the CSV file.

    Parameters
    ----------
    outcomes : sequence of Outcome
        As in `summary`.

    Returns
    -------
    DataFrame
        ``data``, the columns of `summary` that are not metrics, ``which`` ("best", "prior" if any
        outcome has it, or "last"), ``metric``, ``mean`` and ``std``. Metrics are fractions, not
        percentages.
    """
    outcomes, parts = comparable(outcomes), []
    for which in versions_of(outcomes):
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
    """A metric as it is shown."""

    text: str
    """Mean ± standard deviation over folds."""
    best: bool
    """Whether no other setting is better; printed in bold."""
    best_uniform: bool
    """Whether it is the best setting with uniform sampling; printed in bold italic."""


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    group: str
    """Uniform, popularity or 2-stage; a line separates groups."""
    method: str
    batch: int
    negatives: int
    figures: tuple[Shown, ...]
    """In the order of `SHOWN`."""
    gamma: tuple[str, ...] = ()
    """gamma of the popularity prior, if any row of the table has one."""
    paper: tuple[str, ...] = ()
    """The metrics of the paper, if requested; dashes if unknown."""

    def cells(self, emphasised: Callable[[Shown], str]) -> list[str]:
        """Return all cells as text."""
        own = [emphasised(figure) for figure in self.figures]
        return [self.method, str(self.batch), str(self.negatives), *own, *self.gamma, *self.paper]


def layout(found: pl.DataFrame, paper: PaperData | None = None) -> list[Row]:
    """Lay out a `summary` like the paper's Table 2.

    The best metric of a column, and the best of uniform sampling, are determined from the means in
    full precision, before rounding; of MMR the lowest is the best.

    Parameters
    ----------
    found : DataFrame
        The result of `summary`.
    paper : {"amazon", "book-crossing", "echonest"}, optional
        Show also the metrics of the paper for this data set.

    Returns
    -------
    list of Row

    Raises
    ------
    OptionError
        `paper` is something else.
    """
    known = next(iter(PAPER.values()))
    if paper is not None:
        one_of("paper", paper, known)
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
        gamma = (_gamma_text(row["gamma"]),) if found["gamma"].count() else ()
        theirs = () if paper is None else _in_the_paper(row, paper)
        group, place = SAMPLERS.get(kind, kind), (row["method"], row["batch"], row["negatives"])
        made.append(Row(group, *place, figures, gamma, theirs))
    return made


def _gamma_text(gamma: float | None) -> str:
    return ABSENT if gamma is None else f"{gamma:.3f}"


def _best(found: pl.DataFrame, metric: str) -> Any:
    return found[metric].min() if REGISTRY[metric].lower_is_better else found[metric].max()


def _in_the_paper(row: Mapping[str, Any], paper: PaperData) -> tuple[str, ...]:
    figures = PAPER.get((row["sampler"], row["negatives"], row["batch"]))
    if figures is None:
        return (ABSENT,) * len(SHOWN)
    accuracy, ranking, popularity = figures[paper]
    return f"{accuracy:.2f}", f"{ranking:.2f}", f"{popularity:.1f}"


def figure_text(metric: str, mean: float | None, std: float | None = None) -> str:
    """Format a metric: accuracy in percent with two decimal places, popularity counts with one.

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
