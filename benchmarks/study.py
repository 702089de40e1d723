"""Which negatives keep the promise: the defaults against uniform sampling, and what lies between.

A family is a few settings and a ladder of learning rates: uniform sampling is tuned by its rate,
shared negatives by their temperature, with three runs each, and uniform sampling with up to five
negatives by its batch as well. All is chosen by NDCG@50 on the validation part of the first fold.
The chosen setting of each family is then trained on the other folds.

    python benchmarks/study.py gowalla/ lastfm/ amazon-cds/ ml-100k -o study/ --tested-folds 1

takes folders that `nearfar prepare` wrote, or ml-100k. Runs that are there are not computed again;
`--family` takes some of the families. The report of all runs is written into the folder, and for
each data set `<data>-chosen.csv`: a line a family, with how many runs it was chosen from.
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
from nearfar.experiment.rates import validated, with_chosen_rates
from nearfar.experiment.report import write_report
from nearfar.experiment.table2 import rows
from nearfar.experiment.tables import name_of, summary
from nearfar.schedule import Schedule


@dataclass(frozen=True)
class Family:
    """What is tuned together."""

    settings: tuple[Setting, ...]
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)


def uniform(negatives: int) -> Family:
    """Sample as the paper does, with more negatives."""
    paper = nf.presets.paper_2019("uniform", negatives=5)
    name = f"uniform, {negatives} negatives, batch {paper.batch}"
    return Family((Setting(name, replace(paper, negatives=negatives)),))


def shared(beta: float, **changes: Any) -> Family:
    """Take the defaults with another exponent of the popularity, at three temperatures."""
    what = ", ".join(f"{name} {value}" for name, value in {"beta": beta, **changes}.items())
    settings = (
        Setting(
            f"shared, {what}, T {temperature}",
            nf.Options(
                sampler=nf.Shared(beta),
                triplet=nf.Triplet(0.0, temperature=temperature),
                **changes,
            ),
        )
        for temperature in (0.15, 0.25, 0.4)
    )
    return Family(tuple(settings), (3e-3,))


FAMILIES: dict[str, Family] = {
    "uniform-5": Family(rows(samplers=("uniform",), negatives=(5,))),
    "uniform-20": uniform(20),
    "uniform-50": uniform(50),
    "shared": shared(0.0),
    "shared-beta-0.25": shared(0.25),
    "shared-beta-0.5": shared(0.5),
    "shared-beta-0.75": shared(0.75),
    "shared-no-averaging": shared(0.0, averaging=None),
}


def chosen(outcomes: list[Outcome]) -> pl.DataFrame:
    """Choose the setting of each family, on the validation part of the first fold."""
    kept, _ = with_chosen_rates(outcomes)
    first = {name_of(o): o for o in kept if o.cell["fold"] == 0}
    lines = []
    for name, family in FAMILIES.items():
        names = [setting.name for setting in family.settings if setting.name in first]
        if names:
            values = {name: validated(first[name]) or 0.0 for name in names}
            best = max(names, key=values.__getitem__)
            runs = sum(name_of(o) in names and o.cell["fold"] == 0 for o in outcomes)
            lines.append({"family": name, "runs": runs, "setting": best, "validated": values[best]})
    figures = summary(kept).select(
        "setting", "learning_rate", "folds", "best_epoch", "seconds",
        "map", "map_std", "ndcg", "ndcg_std", "mmr", "mmr_std",
    )  # fmt: skip
    return pl.DataFrame(lines).join(figures, on="setting", how="left", maintain_order="left")


def outcomes_of(results: Path, name: str) -> list[Outcome]:
    """Give the outcomes of a data set."""
    return [outcome for outcome in load_all(results) if outcome.cell["data"] == name]


def main() -> None:
    """Compute what is missing, then write what was chosen, and the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--family", nargs="+", choices=FAMILIES, default=list(FAMILIES))
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
        families = [FAMILIES[name] for name in args.family]
        for rates in dict.fromkeys(family.rates for family in families):
            run(path, 1, rates, *(s for f in families if f.rates == rates for s in f.settings))
        best = set(chosen(outcomes_of(args.out, path.name))["setting"])
        for family in families:
            settings = [setting for setting in family.settings if setting.name in best]
            run(path, args.tested_folds, family.rates, *settings)
        chosen(outcomes_of(args.out, path.name)).write_csv(args.out / f"{path.name}-chosen.csv")
    write_report(args.out)


if __name__ == "__main__":
    main()
