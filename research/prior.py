"""The popularity prior: what one model has at each setting of its dial, beside the defaults.

On the training part of one fold; the figures are those of the validation part, on which the epoch
and gamma are chosen. Nothing is tested.

    python research/prior.py lastfm/ -o research/results/prior.csv

takes folders that `nearfar prepare` wrote, or ml-100k: a line for each beta of the sampler and
each setting of the dial. beta = 0 and setting 0 are the defaults.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import polars as pl

import nearfar as nf
from runs import first_fold, show

BETAS = (0.0, 0.35, 0.55, 0.8)
SETTINGS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
EPOCHS, EVERY, PATIENCE, K = 400, 4, 5, 50
SHOWN = ("map", "ndcg", "recall", "mmr", "coverage", "decile_1")


def front_of(beta: float, learn: nf.Interactions, held_out: nf.Interactions) -> pl.DataFrame:
    """Train with one beta; give the figures of all settings."""
    prior = nf.Prior() if beta else None
    model = nf.CML(sampler=nf.Shared(beta), prior=prior).fit(
        learn, epochs=EPOCHS, validation=held_out, every=EVERY, patience=PATIENCE, k=K, seed=0,
        progress=False,
    )  # fmt: skip
    settings = SETTINGS if beta else (0.0,)
    found = nf.front(model, learn, held_out, popularity=settings, k=K)
    return found.frame.select("popularity", "gamma", *SHOWN).insert_column(
        0, pl.lit(beta).alias("beta")
    )


def main() -> None:
    """Train each beta on each data set, and write a line for each setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    parts = []
    for path in args.data:
        learn, held_out = first_fold(path)
        for beta in BETAS:
            frame = front_of(beta, learn, held_out)
            parts.append(frame.insert_column(0, pl.lit(path.name).alias("data")))
            pl.concat(parts).write_csv(args.out)
    show("One model, its dial", pl.concat(parts).to_dicts())


if __name__ == "__main__":
    main()
