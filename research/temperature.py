"""How much the temperature matters, and whether T = (50 / items)^(1/4) finds a good one.

The defaults are trained with multiples of that temperature on the training part of one fold; the
figure is the best NDCG@50 on the validation part. Nothing is tested.

    python research/temperature.py ml-100k lastfm/ -o research/results/temperature.csv

takes folders that `nearfar prepare` wrote, or ml-100k. Runs that are in the file already are not
computed again.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import polars as pl

import nearfar as nf
from runs import WITHOUT_PRIOR, add_line, first_fold, has_line, loss_at, show

FACTORS = (0.5, 0.7, 1.0, 1.4, 2.0)
EPOCHS, EVERY, PATIENCE, K = 80, 4, 3, 50


def run(learn: nf.Interactions, held_out: nf.Interactions, temperature: float) -> dict[str, float]:
    """Train, and give the figures of the best epoch."""
    model = nf.CML(WITHOUT_PRIOR, triplet=loss_at(temperature)).fit(
        learn, epochs=EPOCHS, validation=held_out, every=EVERY, patience=PATIENCE, k=K, seed=0,
        progress=False,
    )  # fmt: skip
    best = model.history.filter(epoch=model.best_epoch).row(0, named=True)
    figures = ("validation_ndcg", "validation_map", "validation_mmr")
    return {"epoch": model.best_epoch} | {name: round(best[name], 5) for name in figures}


def relative(found: pl.DataFrame) -> pl.DataFrame:
    """Give NDCG with each multiple, as a share of the best of the data set; a line a data set."""
    best = pl.col("validation_ndcg").max().over("data")
    shares = found.with_columns(share=(pl.col("validation_ndcg") / best).round(3)).sort("factor")
    return shares.pivot("factor", index=["data", "items"], values="share")


def main() -> None:
    """Compute what is missing, a line of the file after each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    for path in args.data:
        learn, held_out = first_fold(path)
        items = int((learn.item_counts > 0).sum())
        usual = nf.Options().triplet.at(items).known_temperature
        for factor in FACTORS:
            what = {"data": path.name, "items": items, "factor": factor}
            if not has_line(args.out, what):
                temperature = round(factor * usual, 4)
                figures = run(learn, held_out, temperature)
                add_line(args.out, what | {"temperature": temperature} | figures)
    show("NDCG as a share of the best", relative(pl.read_csv(args.out)).to_dicts())


if __name__ == "__main__":
    main()
