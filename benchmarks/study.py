"""Which negatives keep the promise: the defaults against uniform sampling, and what lies between.

A family is a few settings and a ladder of learning rates: uniform sampling is tuned by its rate,
the defaults by their temperature, those with less popularity bias by beta, with three runs each,
and uniform sampling with up to five negatives by its batch as well. All is chosen by NDCG@50 on
the validation part of the first fold; with less popularity bias, among those whose MMR is there
below half of that of the best uniform sampling with up to five negatives. The chosen setting of
each family is then trained on the other folds. The defaults with one thing changed are not tuned.

    python benchmarks/study.py lastfm/ -o study/ --tested-folds 4

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
from common import load
from nearfar.experiment.cells import Outcome, Setting, load_all
from nearfar.experiment.grid import Grid
from nearfar.experiment.rates import with_chosen_rates
from nearfar.experiment.report import write_report
from nearfar.experiment.table2 import rows
from nearfar.experiment.tables import longest, name_of, summary
from nearfar.schedule import Schedule


@dataclass(frozen=True)
class Family:
    """What is tuned together."""

    settings: tuple[Setting, ...]
    rates: tuple[float, ...] = (5e-3,)
    half_the_bias: bool = False
    """Whether only settings with less than half the MMR of `uniform-5` may be chosen."""


def uniform(negatives: int) -> Family:
    """Sample as the paper does, with more negatives."""
    paper = nf.presets.paper_2019("uniform", negatives=5)
    name = f"uniform, {negatives} negatives, batch {paper.batch}"
    return Family((Setting(name, replace(paper, negatives=negatives)),), UNIFORM_RATES)


def defaults(what: str = "", **changes: Any) -> Setting:
    """Take the defaults with one thing changed."""
    return Setting(f"shared, {what}" if what else "shared", replace(nf.Options(), **changes))


UNIFORM_RATES = (3e-4, 1e-3, 3e-3)
LOSS = nf.Options().triplet
FAMILIES: dict[str, Family] = {
    "uniform-5": Family(rows(samplers=("uniform",), negatives=(5,)), UNIFORM_RATES),
    "uniform-20": uniform(20),
    "uniform-50": uniform(50),
    "shared": Family(
        (
            defaults(),
            *(defaults(f"T {t}", triplet=replace(LOSS, temperature=t)) for t in (0.15, 0.3)),
        )
    ),
    "long-tail": Family(
        tuple(
            Setting(f"long tail, beta {beta}", nf.presets.long_tail(beta))
            for beta in (0.35, 0.45, 0.55)
        ),
        half_the_bias=True,
    ),
    "without-margin": Family((defaults("margin 0", triplet=replace(LOSS, margin=0.0)),)),
    "hard": Family((defaults("hard maximum, margin 1", triplet=nf.Triplet(1.0)),), UNIFORM_RATES),
    "without-averaging": Family((defaults("no averaging", averaging=None),)),
}


def chosen(outcomes: list[Outcome]) -> pl.DataFrame:
    """Choose the setting of each family, on the validation part of the first fold."""
    kept, _ = with_chosen_rates(outcomes)
    first = {name_of(o): o for o in kept if o.cell["fold"] == 0}
    lines: list[dict[str, Any]] = []
    for name, family in FAMILIES.items():
        tried = [first[setting.name] for setting in family.settings if setting.name in first]
        runs = [o for o in outcomes if o.cell["fold"] == 0 and name_of(o) in map(name_of, tried)]
        if family.half_the_bias and lines:
            most = lines[0]["validated_mmr"] / 2
            tried = [o for o in tried if at_best(o, "mmr") < most]
        if tried:
            best = max(tried, key=lambda outcome: at_best(outcome, "ndcg"))
            lines.append(
                {
                    "family": name,
                    "runs": len(runs),
                    "setting": name_of(best),
                    "validated": at_best(best, "ndcg"),
                    "validated_mmr": at_best(best, "mmr"),
                }
            )
    figures = summary(kept).select(
        "setting", "learning_rate", "folds", "best_epoch", "seconds", "machine_seconds",
        "map", "map_std", "ndcg", "ndcg_std", "mmr", "mmr_std",
    )  # fmt: skip
    return pl.DataFrame(lines).join(figures, on="setting", how="left", maintain_order="left")


def at_best(outcome: Outcome, metric: str) -> float:
    """Give a figure of the validation part at the epoch that was best there."""
    row = outcome.history.filter(epoch=outcome.best_epoch)
    return float(row[f"validation_{metric}"][0])


def outcomes_of(results: Path, name: str) -> list[Outcome]:
    """Give the outcomes of a data set."""
    return longest(outcome for outcome in load_all(results) if outcome.cell["data"] == name)


def main() -> None:
    """Compute what is missing, then write what was chosen, and the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--family", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--learning-rate", type=float, nargs="+", help="of a ladder, only these")
    parser.add_argument("--tested-folds", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--patience", type=int, default=5)
    parser.add_argument("--workers", type=int)
    args = parser.parse_args()
    schedule = Schedule(epochs=args.epochs, every=args.every, patience=args.patience)

    def run(path: Path, folds: int, rates: tuple[float, ...], *settings: Setting) -> None:
        grid = Grid(settings, rates, tested_folds=folds, schedule=schedule)
        if failed := grid.run({path.name: load(path)}, args.out, workers=args.workers):
            raise SystemExit(f"Runs failed: {failed}")

    for path in args.data:
        for family in (FAMILIES[name] for name in args.family):
            some = tuple(rate for rate in family.rates if rate in (args.learning_rate or ()))
            rates = some or family.rates
            run(path, 1, rates, *family.settings)
            best = set(chosen(outcomes_of(args.out, path.name))["setting"])
            if tested := [setting for setting in family.settings if setting.name in best]:
                run(path, args.tested_folds, rates, *tested)
        chosen(outcomes_of(args.out, path.name)).write_csv(args.out / f"{path.name}-chosen.csv")
    write_report(args.out)


if __name__ == "__main__":
    main()
