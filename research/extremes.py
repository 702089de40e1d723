"""Whether training collapses at the ends of the options' ranges, and whether the watch says so.

Every data set, cut to its first users, is trained at d = 16, 64, 128 and 256 with shared uniform
negatives, with each option at the ends of its range, and with samplers that are known to go wrong.
A run is bad if its last NDCG@50 on the validation part is below half of that of the first setting,
or no better than a popularity recommender's. A bad run without a warning makes this fail; a warning
on a run that is not bad is shown as a false alarm.

    python research/extremes.py gowalla/ lastfm/ amazon-cds/ ml-100k -o results/extremes.csv

takes folders that `nearfar prepare` wrote, or ml-100k. Runs that are in the file already are not
computed again.
"""

from __future__ import annotations

import argparse
import os
import warnings
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import polars as pl

import nearfar as nf
from nearfar.errors import NearfarWarning
from runs import WITHOUT_PRIOR, add_line, has_line, load, loss_at, show

DIMENSIONS = (16, 64, 128, 256)
EPOCHS, EVERY, PATIENCE, K = 72, 3, 4, 50
SEEN = ("effective", "false_push", "dimension")


SETTINGS: dict[str, nf.Options] = {
    "defaults": WITHOUT_PRIOR,
    "beta 1": replace(WITHOUT_PRIOR, sampler=nf.Shared(1.0)),
    "T 0.03": replace(WITHOUT_PRIOR, triplet=loss_at(0.03)),
    "T 0.1, beta 1": replace(WITHOUT_PRIOR, triplet=loss_at(0.1), sampler=nf.Shared(1.0)),
    "T 0": replace(WITHOUT_PRIOR, triplet=nf.Triplet(1.0)),
    "T 4": replace(WITHOUT_PRIOR, triplet=loss_at(4.0)),
    "margin 3": replace(WITHOUT_PRIOR, triplet=nf.Triplet(3.0, temperature=None)),
    "8 negatives": replace(WITHOUT_PRIOR, negatives=8),
    "4096 negatives": replace(WITHOUT_PRIOR, negatives=4096),
    "batch 16": replace(WITHOUT_PRIOR, batch=16),
    "rate 0.3": replace(WITHOUT_PRIOR, optimiser=nf.Adam(0.3)),
    "rate 1e-6": replace(WITHOUT_PRIOR, optimiser=nf.Adam(1e-6)),
    "no averaging": replace(WITHOUT_PRIOR, averaging=None),
    "popularity, 5": replace(
        WITHOUT_PRIOR,
        sampler=nf.Popularity(1.0),
        negatives=5,
        triplet=nf.Triplet(1.0),
        averaging=None,
    ),
    "2-stage, 5": nf.presets.paper_2019("two-stage"),
}


def first_users(data: nf.Interactions, n_users: int) -> nf.Interactions:
    """Cut the data to some users, and the items that two of them have."""
    cut = data.subset(data.pair_users() < n_users).compact()
    return cut.subset(cut.item_counts[cut.items] > 1).compact()


def run(
    options: nf.Options, learn: nf.Interactions, held_out: nf.Interactions
) -> dict[str, object]:
    """Train, and give the last and the best NDCG, and what was warned of."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", NearfarWarning)
        model = nf.CML(options).fit(
            learn, epochs=EPOCHS, validation=held_out, every=EVERY, patience=PATIENCE, k=K, seed=0
        )
    seen = model.history["validation_ndcg"].drop_nulls().to_numpy()
    return {
        "epochs": model.history.height,
        "last": round(float(seen[-1]), 4),
        "best": round(float(np.max(seen)), 4),
        **{name: round(last_of(model.history, name), 2) for name in SEEN},
        "warning": " ".join(str(w.message) for w in said if w.category is NearfarWarning),
    }


def last_of(history: pl.DataFrame, name: str) -> float:
    """Give the last value that is known, NaN if none is."""
    return float([float("nan"), *history[name].drop_nulls().to_list()][-1])


def judged(found: pl.DataFrame) -> pl.DataFrame:
    """Say which runs are bad, and which of them the watch warned of."""
    reference = found.filter(setting="defaults").select("data", "dim", reference="last")
    bad = (pl.col("last") < 0.5 * pl.col("reference")) | (pl.col("last") <= pl.col("popularity"))
    return found.join(reference, on=["data", "dim"]).with_columns(
        bad=bad, warned=pl.col("warning").fill_null("") != ""
    )


def main() -> None:
    """Compute what is missing, and fail if a bad run was not warned of."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--users", type=int, default=1500)
    args = parser.parse_args()
    for path in args.data:
        learn, held_out = nf.split.ratio(first_users(load(path), args.users), test=0.1, seed=0)
        popular = nf.baselines.MostPopular(learn)
        least = nf.evaluate(popular, learn, held_out, k=K).metrics["ndcg"]
        for dim in DIMENSIONS:
            for name, options in SETTINGS.items():
                what = {"data": path.name, "dim": dim, "setting": name}
                if has_line(args.out, what):
                    continue
                figures = run(replace(options, dim=dim), learn, held_out)
                add_line(args.out, what | {"popularity": round(least, 4)} | figures)
    found = judged(pl.read_csv(args.out))
    unsaid = found.filter(pl.col("bad") & ~pl.col("warned"))
    false = found.filter(~pl.col("bad") & pl.col("warned"))
    show("Bad runs", found.filter("bad").drop("warning").to_dicts())
    show("False alarms", false.drop("warning").to_dicts())
    if unsaid.height:
        raise SystemExit(f"{unsaid.height} bad runs were not warned of: {unsaid.to_dicts()}")


if __name__ == "__main__":
    main()
