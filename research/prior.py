"""The popularity prior: what one model has at each setting of its dial, beside training without it.

    python research/prior.py lastfm/ ml-100k -o research/results/prior.csv

takes folders that `nearfar prepare` wrote, or ml-100k, and trains each beta on the training part of
the first fold; the metrics are those of the validation part, on which the epoch and gamma are
chosen. Nothing is tested. beta = 0 without a prior is what the defaults were before there was one.

    python research/prior.py lastfm/ ml-100k -o research/results/prior_test.csv --test 0.5

trains beta = 0 without a prior and the given beta with one on each fold, with the same validation,
and tests both, the prior at each setting of the dial; the p-values compare users with beta = 0.
Runs that are in the folder `--runs` are not computed again.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import polars as pl

import nearfar as nf
from nearfar.experiment.significance import paired
from runs import WITHOUT_PRIOR, first_fold, load, show

BETAS = (0.0, 0.35, 0.5, 0.65, 0.8)
SETTINGS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
EPOCHS, K, FOLDS, SEED = 400, 50, 4, 0
SHOWN = ("map", "ndcg", "recall", "mmr", "coverage", "decile_1")


def trained(
    beta: float, learn: nf.Interactions, held_out: nf.Interactions | float, args: argparse.Namespace
) -> nf.CML:
    """Train with one beta, with a prior unless beta is 0."""
    options = nf.Options(sampler=nf.Shared(beta)) if beta else WITHOUT_PRIOR
    return nf.CML(options).fit(
        learn, epochs=args.epochs, validation=held_out, every=args.every, patience=args.patience,
        k=K, seed=SEED, progress=False, threads=args.threads,
    )  # fmt: skip


def front_of(model: nf.CML, train: nf.Interactions, test: nf.Interactions) -> nf.evaluation.Front:
    """Measure all settings of the dial; a model without a prior has one."""
    settings = SETTINGS if model.gamma else (0.0,)
    return nf.front(model, train, test, popularity=settings, k=K)


def validated(args: argparse.Namespace) -> None:
    """Train each beta on the first fold of each data set, and write a line for each setting."""
    parts = []
    for path in args.data:
        learn, held_out = first_fold(path)
        for beta in BETAS:
            model = trained(beta, learn, held_out, args)
            frame = front_of(model, learn, held_out).frame
            names = [pl.lit(path.name).alias("data"), pl.lit(beta).alias("beta")]
            parts.append(frame.select(*names, "popularity", "gamma", *SHOWN))
            pl.concat(parts).write_csv(args.out)
    show("One model, its dial", pl.concat(parts).to_dicts())


def tested(path: Path, fold: int, beta: float, args: argparse.Namespace) -> pl.DataFrame:
    """Train and test on one fold; return the metrics of each user at each setting."""
    folder = args.runs / f"{path.name}-{beta}-{fold}"
    times = folder.with_name(f"{folder.name}.csv")
    train, test = nf.split.k_fold(load(path), FOLDS, seed=SEED)[fold]
    if folder.exists():
        model, seconds = nf.CML.load(folder), pl.read_csv(times)["cpu_seconds"][0]
    else:
        begun = time.process_time()
        model = trained(beta, train, 0.1, args)
        seconds = time.process_time() - begun
        args.runs.mkdir(parents=True, exist_ok=True)
        pl.DataFrame({"cpu_seconds": [seconds]}).write_csv(times)
        model.save(folder)
    found = front_of(model, train, test)
    frames = [
        users.with_columns(
            popularity=pl.lit(row["popularity"]),
            gamma=pl.lit(row["gamma"]),
            coverage=pl.lit(row["coverage"]),
            decile_1=pl.lit(row["decile_1"]),
        )
        for users, row in zip(found.per_user, found.frame.to_dicts(), strict=True)
    ]
    return pl.concat(frames).with_columns(
        fold=pl.lit(fold), epochs=pl.lit(len(model.history)), cpu_seconds=pl.lit(seconds)
    )


def summary(data: str, beta: float, users: pl.DataFrame, without: pl.DataFrame) -> dict[str, Any]:
    """Return a line of the table: means over folds, their deviation, tests over users."""
    folds = users.group_by("fold", maintain_order=True).agg(
        *(pl.col(name).drop_nans().mean() for name in (*SHOWN, "gamma", "epochs", "cpu_seconds"))
    )
    line: dict[str, Any] = {
        "data": data,
        "beta": beta,
        "popularity": users["popularity"][0],
        "folds": len(folds),
        **{name: folds[name].mean() for name in ("gamma", "epochs", "cpu_seconds", *SHOWN)},
        **{f"{name}_std": folds[name].std() for name in ("map", "ndcg", "mmr")},
    }
    for name in ("map", "ndcg", "mmr"):
        line[f"{name}_ratio"] = folds[name].mean() / without[name].drop_nans().mean()
        line[f"{name}_p"] = paired(users, without, name).t_p if beta else None
    return {
        name: float(f"{value:.4g}") if isinstance(value, float) else value
        for name, value in line.items()
    }


def compare(args: argparse.Namespace) -> None:
    """Test what was chosen against training without a prior, fold by fold."""
    for path in args.data:
        lines = []
        runs = {
            beta: pl.concat([tested(path, fold, beta, args) for fold in range(args.folds)])
            for beta in (0.0, args.test)
        }
        for beta, frame in runs.items():
            for _, users in frame.group_by("popularity", maintain_order=True):
                lines.append(summary(path.name, beta, users, runs[0.0]))
        table = pl.DataFrame(lines, infer_schema_length=None)
        if args.out.exists():
            before = pl.read_csv(args.out).filter(pl.col("data") != path.name)
            table = pl.concat([before, table], how="vertical_relaxed")
        table.write_csv(args.out)
        show(path.name, lines)


def main() -> None:
    """Validate, or test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="at most")
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--patience", type=int, default=5)
    parser.add_argument("--test", type=float, help="beta, chosen by validation")
    parser.add_argument("--folds", type=int, default=FOLDS)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    compare(args) if args.test else validated(args)


if __name__ == "__main__":
    main()
