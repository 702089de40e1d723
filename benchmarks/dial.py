"""What nine settings of the popularity dial cost, beside one evaluation.

`nf.front` at its nine default settings against one `nf.evaluate` of the same model, on one and on
two threads: `CML()` after a few epochs, three quarters of each user's items for training, the best
50 of all items.

    python benchmarks/dial.py [--data FOLDER ...] [--epochs 10] [--rounds 15]

Each folder is one that `nearfar prepare` wrote; without any, the data are made up, of Gowalla's
size. Before timing, each setting of the front must have the metrics of the evaluation there. The
two are timed in turn; `x_evaluation` is the median over the rounds of the ratio within a round, and
`x_medians` is the ratio of the medians. Writes results/dial.csv.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import nearfar as nf
from common import Spread, load, made_up, ratios, rounds, show, write

SIZE = 14_823, 40_981, 816_410
"""Users, items and pairs of Gowalla as it is prepared for the accuracy tables."""
PAUSE = 0.05
"""Seconds in which the threads of BLAS stop spinning."""


def check(model: nf.CML, train: nf.Interactions, test: nf.Interactions, found: Any) -> None:
    """Compare every setting of a front with an evaluation at that setting."""
    rows = zip(found.frame.iter_rows(named=True), found.per_user, strict=True)
    for row, per_user in rows:
        alone = nf.evaluate(model, train, test, popularity=row["popularity"])
        same = {name: row[name] for name in alone.metrics} == alone.metrics
        if not (same and per_user.equals(alone.per_user)):
            raise SystemExit(f"Other metrics at {row['popularity']}; nothing is timed.")


def timed(name: str, data: nf.Interactions, epochs: int, n_rounds: int) -> list[dict[str, Any]]:
    """Train, check, and time both on one and on two threads."""
    train, test = nf.split.ratio(data, test=0.25, seed=0)
    model = nf.CML().fit(train, epochs=epochs)
    check(model, train, test, nf.front(model, train, test))
    lines = []
    for threads in (1, 2):
        cases = {
            "front": partial(nf.front, model, train, test, threads=threads),
            "evaluate": partial(nf.evaluate, model, train, test, threads=threads),
        }
        seconds = rounds(cases, n_rounds, PAUSE)
        front, evaluate = Spread.of(seconds["front"]), Spread.of(seconds["evaluate"])
        lines.append(
            {"data": name, "users": train.n_users, "items": train.n_items, "threads": threads}
            | front.columns("front_s")
            | evaluate.columns("evaluate_s")
            | ratios(seconds["front"], seconds["evaluate"]).columns("x_evaluation", 2)
            | {"x_medians": round(front.median / evaluate.median, 2)}
        )
    return lines


def main() -> None:
    """Time all data sets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="*", default=[])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    sets = {path.name: load(path) for path in args.data} or {"made up": made_up(*SIZE)}
    lines: list[dict[str, Any]] = []
    for name, data in sets.items():
        lines += timed(name, data, args.epochs, args.rounds)
        show("Nine settings of the dial, beside one evaluation", lines)
    write("dial", lines)


if __name__ == "__main__":
    main()
