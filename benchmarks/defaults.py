"""Seconds of training until the defaults have the NDCG@50 of those before the popularity prior.

    python benchmarks/defaults.py --data ml-100k lastfm/ [--epochs 200] [--every 2] [--rounds 3]

ml-100k, or folders that `nearfar prepare` wrote: the training part of the first of four folds, and
its validation part. The former defaults, 512 shared uniform negatives and distance alone, are
trained until `patience` looks in a row find nothing better; the best look is the goal. Then today's
are trained until a look has reached it, in the same round (`reached` says whether one has; if not,
the figures are those of the best look). A look takes the best gamma, as calibration does. Only
training counts: the looks, every `every` epochs for both, are off the clock. A goal that the most
popular items reach ends the program. Writes results/defaults.csv, a line for each data set, in
place of an older one.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

import nearfar as nf
from common import RESULTS, WITHOUT_PRIOR, Spread, first_fold, ratios, show
from nearfar.engine import Problem
from nearfar.evaluation.front import at_gammas
from nearfar.search.scoring import scorer_of
from nearfar.training.calibration import by_rule, gammas
from nearfar.training.run import Epoch

K = 50


class Look(NamedTuple):
    """What was found on the validation part after an epoch."""

    ndcg: float
    epoch: int
    seconds: float
    """Of training until then."""


@dataclass
class Watch:
    """A callback that looks every `every` epochs, and ends training.

    That is when a look has reached the goal, or when `patience` looks have found nothing better.
    """

    problem: Problem
    held_out: nf.Interactions
    tried: Sequence[float]
    """The values of gamma, of which a look takes the best, as calibration does."""
    every: int
    patience: int
    goal: float = math.inf
    looks: list[Look] = field(default_factory=list)

    @property
    def best(self) -> Look:
        """The first of the looks with the highest NDCG."""
        return max(self.looks, key=lambda look: look.ndcg)

    def __call__(self, epoch: Epoch) -> bool:
        """Look at a model after an epoch."""
        if epoch.epoch % self.every:
            return False
        users, items = np.split(epoch.points(), [self.problem.n_users])
        points = scorer_of(users, items, self.problem.options.geometry)
        found = at_gammas(points, self.problem.interactions, self.held_out, self.tried, k=K)
        self.looks.append(Look(max(found.frame["ndcg"]), epoch.epoch, epoch.record["seconds"]))
        stale = len(self.looks) - 1 - self.looks.index(self.best)
        return self.best.ndcg >= self.goal or stale >= self.patience


def watched(
    options: nf.Options,
    learn: nf.Interactions,
    held_out: nf.Interactions,
    args: argparse.Namespace,
    goal: float = math.inf,
) -> Look:
    """Train until the goal is reached or nothing improves, and give the best look."""
    problem = Problem(learn, options)
    tried = gammas(by_rule(problem)) if options.prior else (0.0,)
    watch = Watch(problem, held_out, tried, args.every, args.patience, goal)
    nf.CML(options).fit(
        learn, epochs=args.epochs, callbacks=[watch], seed=0, progress=False, threads=args.threads
    )
    return watch.best


def compared(path: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Train both in turn, and give the line of a data set."""
    learn, held_out = first_fold(path)
    floor = nf.evaluate(nf.baselines.MostPopular(learn), learn, held_out, k=K).metrics["ndcg"]
    former, now = [], []
    for _ in range(args.rounds):
        former.append(watched(WITHOUT_PRIOR, learn, held_out, args))
        goal = former[-1].ndcg
        if goal <= floor:
            raise SystemExit(f"{path.name}: {former[-1]}, but the most popular have {floor}.")
        now.append(watched(nf.Options(), learn, held_out, args, goal))
    line = {
        "data": path.name, "threads": args.threads, "rounds": args.rounds,
        "most_popular": round(floor, 4), "goal": round(goal, 4), "ndcg": round(now[0].ndcg, 4),
        "former_epoch": former[0].epoch, "epoch": now[0].epoch,
        "reached": now[0].ndcg >= goal,
    }  # fmt: skip
    seconds = [look.seconds for look in former], [look.seconds for look in now]
    line |= Spread.of(seconds[0]).columns("former_s", 2)
    line |= Spread.of(seconds[1]).columns("seconds", 2)
    return line | ratios(seconds[1], seconds[0]).columns("ratio", 2)


def main() -> None:
    """Compare on all data sets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--every", type=int, default=2)
    parser.add_argument("--patience", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    file = RESULTS / "defaults.csv"
    for path in args.data:
        line = pl.DataFrame([compared(path, args)])
        if file.exists():
            line = pl.concat([pl.read_csv(file).filter(pl.col("data") != path.name), line])
        line.write_csv(file)
        show("Seconds to the NDCG@50 of the former defaults", line.to_dicts())


if __name__ == "__main__":
    main()
