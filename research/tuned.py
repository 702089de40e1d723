"""Does `nearfar.tune` beat the defaults? Chosen on validation, tested once.

    python research/tuned.py lastfm/ -o study/ --seconds 1500

The first of four folds is the test part. The study sees the training part alone. Then the defaults
and the best options are trained with the study's seed, validation part and epochs, and tested.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import polars as pl

import nearfar as nf
from nearfar.tuning.attempts import trained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--space", default="shared")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=1500.0)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    train, test = nf.split.k_fold(nf.Interactions.load(given.data), 4, seed=0)[0]
    tuned = nf.tune(
        train, space=given.space, trials=given.trials, seconds=given.seconds, epochs=given.epochs,
        workers=given.workers, study=given.out / "study", progress=True,
    )  # fmt: skip
    found = {
        "default": nf.evaluate(trained(tuned.job, nf.Options()), train, test, threads=1),
        "tuned": nf.evaluate(tuned.fit(), train, test, threads=1),
    }
    rows = [{"options": name, **one.metrics} for name, one in found.items()]
    pl.DataFrame(rows).write_csv(given.out / "tested.csv")
    tuned.table.write_csv(given.out / "trials.csv")
    tuned.importance.write_csv(given.out / "importance.csv")
    users = {name: one.per_user.with_columns(fold=pl.lit(0)) for name, one in found.items()}
    compared = [
        asdict(nf.experiment.paired(users["tuned"], users["default"], metric))
        for metric in ("ndcg", "map", "recall")
    ]
    pl.DataFrame(compared, infer_schema_length=None).write_csv(given.out / "paired.csv")
    print(tuned.best, rows, compared, sep="\n")


if __name__ == "__main__":
    main()
