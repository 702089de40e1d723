"""Match the prototype's figures on Gowalla.

One of four folds of Gowalla (train and test parts together, users with more than 20 interactions),
d = 128 on the sphere, batch 256, Adam with learning rate 2e-4, 24 epochs, evaluated on the test
fold every three epochs; the best of these evaluations is reported. That selects on the test fold,
as the prototype did: it is a check of agreement, not a result.

    python benchmarks/prototype.py [--fold 0] [--seed 0] [--threads 2]

writes benchmarks/results/prototype.csv. It needs the file gowalla-lightgcn.parquet (see --data).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import polars as pl

import nearfar as nf
from common import HINGE

HERE = Path(__file__).parent
DATA = HERE / "../../shared/data/gowalla-lightgcn.parquet"

PROTOTYPE = {  # MAP %, NDCG %, MMR
    ("uniform", 1): (4.32, 13.23, 67),
    ("popularity", 1): (4.39, 13.22, 40),
    ("popularity", 5): (4.97, 14.36, 26),
}
SAMPLERS = {"uniform": nf.Uniform(), "popularity": nf.Popularity(1.0)}
SIZE = (14_823, 40_981, 816_410)


def gowalla(path: Path) -> nf.Interactions:
    """Read users with more than 20 interactions, train and test parts together."""
    table = pl.read_parquet(path).select("user", "item").unique()
    data = nf.Interactions.from_frame(
        table.filter(pl.len().over("user") > 20), user="user", item="item"
    )
    found = (data.n_users, data.n_items, data.n_pairs)
    if found != SIZE:
        raise SystemExit(f"{path} has {found} users, items, pairs; the prototype had {SIZE}.")
    return data


def main() -> None:
    """Train the three settings and print them beside the prototype's figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--epochs", type=int, default=24)
    args = parser.parse_args()
    train, test = nf.split.k_fold(gowalla(args.data), folds=4, seed=args.seed)[args.fold]
    lines = []
    for (sampler, negatives), theirs in PROTOTYPE.items():
        model = nf.CML(
            HINGE,
            sampler=SAMPLERS[sampler],
            negatives=negatives,
            optimiser=nf.Adam(learning_rate=2e-4),
        )
        model.fit(
            train, epochs=args.epochs, validation=test, every=3, seed=args.seed,
            threads=args.threads,
        )  # fmt: skip
        best = model.history.row(model.best_epoch - 1, named=True)
        line = {
            "sampler": sampler,
            "negatives": negatives,
            "map": round(100 * best["validation_map"], 2),
            "ndcg": round(100 * best["validation_ndcg"], 2),
            "mmr": round(best["validation_mmr"], 1),
            "best_epoch": model.best_epoch,
            "prototype_map": theirs[0],
            "prototype_ndcg": theirs[1],
            "prototype_mmr": theirs[2],
            "ndcg_ratio": round(100 * best["validation_ndcg"] / theirs[1], 4),
            "training_seconds": round(model.history["seconds"][-1], 1),
        }
        lines.append(line)
        print(line, flush=True)
    pl.DataFrame(lines).write_csv(HERE / "results" / "prototype.csv")


if __name__ == "__main__":
    main()
