"""Which negatives keep the promise: shared ones against separate ones, and what lies between.

A family is a few settings and a ladder of learning rates: uniform sampling is tuned by its rate,
shared negatives by their temperature, with up to three runs each, and uniform sampling with up to
five negatives by its batch as well. All is chosen by NDCG@50 on the validation part of the first
fold; with less popularity bias, among those of some beta whose MMR is there below half of that of
the best uniform sampling with up to five negatives. The chosen setting of each family is then
trained on the other folds. Of shared negatives with one thing changed only the hard maximum is
tuned, by its rate.

    python research/study.py lastfm/ -o study/ --tested-folds 4

takes a folder that `nearfar prepare` wrote, or ml-100k. Runs that are there are not computed again;
`--family` takes some of the families. The report of all runs is written into the folder, and
`<data>-chosen.csv`: a line a family, with how many runs it was chosen from.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import polars as pl

import nearfar as nf
from nearfar.experiment.cells import Outcome, Setting, load_all
from nearfar.experiment.grid import Grid
from nearfar.experiment.rates import validated, with_chosen_rates
from nearfar.experiment.report import write_report
from nearfar.experiment.table2 import rows
from nearfar.experiment.tables import longest, name_of, summary
from nearfar.training.schedule import Schedule
from runs import WITHOUT_PRIOR, load, loss_at


@dataclass(frozen=True)
class Family:
    """What is tuned together."""

    settings: tuple[Setting, ...]
    rates: tuple[float, ...] = (5e-3,)
    half_the_bias: bool = False
    """Whether only settings with less than half the MMR of `GRID` may be chosen."""


def uniform(negatives: int) -> Family:
    """Sample as the paper does, with more negatives."""
    paper = nf.presets.paper_2019("uniform", negatives=5)
    name = f"uniform, {negatives} negatives, batch {paper.batch}"
    return Family((Setting(name, replace(paper, negatives=negatives)),), UNIFORM_RATES)


def defaults(what: str = "", **changes: Any) -> Setting:
    """Take shared uniform negatives with one thing changed."""
    return Setting(f"shared, {what}" if what else "shared", replace(WITHOUT_PRIOR, **changes))


def long_tails(betas: tuple[float, ...], **changes: Any) -> Family:
    """Draw with some beta, without a prior, and change other options."""
    what = "".join(f", {value} {name}" for name, value in changes.items())
    settings = (
        Setting(
            f"long tail, beta {beta}{what}",
            replace(WITHOUT_PRIOR, sampler=nf.Shared(beta), **changes),
        )
        for beta in betas
    )
    return Family(tuple(settings), half_the_bias=True)


GRID = "uniform-5"
"""The best of the paper's grid: uniform sampling with up to five negatives at any batch."""
UNIFORM_RATES = (3e-4, 1e-3, 3e-3)
FAMILIES: dict[str, Family] = {
    GRID: Family(rows(samplers=("uniform",), negatives=(5,)), UNIFORM_RATES),
    "uniform-20": uniform(20),
    "uniform-50": uniform(50),
    "shared": Family(
        (
            defaults(),
            *(defaults(f"T {t}", triplet=loss_at(t)) for t in (0.15, 0.3)),
        )
    ),
    "long-tail": long_tails((0.35, 0.45, 0.55, 0.65, 0.8, 1.0, 1.5, 2.0)),
    "long-tail-64": long_tails((0.45, 0.55, 0.65, 0.7, 0.8), negatives=64),
    "without-margin": Family(
        (defaults("margin 0", triplet=replace(WITHOUT_PRIOR.triplet, margin=0.0)),)
    ),
    "hard": Family((defaults("hard maximum, margin 1", triplet=nf.Triplet(1.0)),), UNIFORM_RATES),
    "without-averaging": Family((defaults("no averaging", averaging=None),)),
}


def chosen(outcomes: list[Outcome]) -> pl.DataFrame:
    """Choose the setting of each family, on the validation part of the first fold."""
    kept, _ = with_chosen_rates(outcomes)
    first = {name_of(o): o for o in kept if o.cell["fold"] == 0}
    lines: dict[str, dict[str, Any]] = {}
    for name, family in FAMILIES.items():
        tried = [first[setting.name] for setting in family.settings if setting.name in first]
        runs = [o for o in outcomes if o.cell["fold"] == 0 and name_of(o) in map(name_of, tried)]
        if family.half_the_bias and GRID in lines:
            most = lines[GRID]["validated_mmr"] / 2
            tried = [o for o in tried if mmr_at_best(o) < most]
        if tried:
            best = max(tried, key=lambda outcome: validated(outcome) or 0.0)
            lines[name] = {
                "family": name,
                "runs": len(runs),
                "setting": name_of(best),
                "validated": validated(best),
                "validated_mmr": mmr_at_best(best),
            }
    figures = summary(kept).select(
        "setting", "learning_rate", "folds", "best_epoch", "seconds", "machine_seconds",
        "map", "map_std", "ndcg", "ndcg_std", "mmr", "mmr_std",
    )  # fmt: skip
    return pl.DataFrame(list(lines.values())).join(
        figures, on="setting", how="left", maintain_order="left"
    )


def mmr_at_best(outcome: Outcome) -> float:
    """Give the MMR on the validation part at the epoch that was best there."""
    return float(outcome.history.filter(epoch=outcome.best_epoch)["validation_mmr"][0])


def outcomes_of(results: Path, name: str) -> list[Outcome]:
    """Give the outcomes of a data set."""
    return longest(outcome for outcome in load_all(results) if outcome.cell["data"] == name)


def main() -> None:
    """Compute what is missing, then write what was chosen, and the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--family", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--learning-rate", type=float, nargs="+", choices=UNIFORM_RATES)
    parser.add_argument("--tested-folds", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--patience", type=int, default=5)
    parser.add_argument("--all-settings", action="store_true", help="not only what was chosen")
    parser.add_argument("--workers", type=int)
    args = parser.parse_args()
    schedule = Schedule(epochs=args.epochs, every=args.every, patience=args.patience)

    for path in args.data:
        data = {path.name: load(path)}
        by_rates: dict[tuple[float, ...], list[Setting]] = {}
        for family in (FAMILIES[name] for name in args.family):
            some = tuple(rate for rate in family.rates if rate in (args.learning_rate or ()))
            by_rates.setdefault(some or family.rates, []).extend(family.settings)
        tested = {setting.name for settings in by_rates.values() for setting in settings}
        for folds in dict.fromkeys((1, args.tested_folds)):
            for rates, settings in by_rates.items():
                if wanted := [setting for setting in settings if setting.name in tested]:
                    grid = Grid(wanted, rates, tested_folds=folds, schedule=schedule)
                    if failed := grid.run(data, args.out, workers=args.workers):
                        raise SystemExit(f"Runs failed: {failed}")
            found = chosen(outcomes_of(args.out, path.name))
            if not args.all_settings:
                tested &= set(found["setting"])
        found.write_csv(args.out / f"{path.name}-chosen.csv")
    write_report(args.out)


if __name__ == "__main__":
    main()
