"""Tests that lie in the future: how the best gamma of the popularity prior moves with time.

Each user's last item is tested and the one before is the validation part; beside it the same with
two items drawn at random. The model is trained on the rest, its epoch chosen by NDCG@10 on the
validation part, and the metrics of both parts are written for each gamma. With one item a user,
recall@10 is the hit rate HR@10.

    python research/future.py amazon-beauty-sequences.parquet ml-100k -o research/results/future.csv

takes the file of Amazon Beauty with the columns user, item and position, and ml-100k. Lines that
are there are not computed again.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import polars as pl

import nearfar as nf
from runs import add_line, has_line

GAMMAS = tuple(n / 100 for n in range(16))
BETAS = (0.0, 0.8)
EPOCHS, EVERY, PATIENCE, K, SEED = 60, 5, 3, 10, 0
SHOWN = (
    "data", "part", "beta", "validated", "gamma", "recall", "ndcg", "mmr", "best_gamma",
    "best_ndcg",
)  # fmt: skip
UNIT = 0.01
"""gamma of the trained model, so that setting x of its dial is gamma = x / 100."""


def load(path: Path) -> nf.Interactions:
    """Load interactions with times."""
    if path.name == "ml-100k":
        return nf.datasets.load("ml-100k")
    return nf.Interactions.from_frame(
        pl.read_parquet(path), user="user", item="item", time="position"
    )


def lines_of(data: nf.Interactions, last: bool, beta: float) -> Iterator[dict[str, Any]]:
    """Train once; yield a line for each gamma and each part."""
    past, test = nf.split.leave_one_out(data, seed=SEED, last=last)
    learn, held_out = nf.split.leave_one_out(past, seed=SEED + 1, last=last)
    model = nf.CML(sampler=nf.Shared(beta), prior=nf.Prior(gamma=UNIT)).fit(
        learn, epochs=EPOCHS, validation=held_out, every=EVERY, patience=PATIENCE, k=K, seed=SEED,
        progress=False,
    )  # fmt: skip
    settings = [gamma / UNIT for gamma in GAMMAS]
    for part, asked, known in (("validation", held_out, learn), ("test", test, past)):
        found = nf.front(model, learn, asked, popularity=settings, k=K, exclude=known)
        for gamma, row in zip(GAMMAS, found.frame.to_dicts(), strict=True):
            yield {
                "part": part,
                "gamma": gamma,
                "epochs": len(model.history),
                **{name: round(row[name], 5) for name in ("recall", "ndcg", "ndcg_se", "mmr")},
            }


def chosen(lines: pl.DataFrame) -> pl.DataFrame:
    """Return the test metrics of the gamma that is best on the validation part, and of the best."""
    keys = ["data", "last", "beta"]
    best = lines.filter(part="validation").sort("ndcg").group_by(keys).last()
    tested = lines.filter(part="test")
    most = tested.sort("ndcg").group_by(keys).last()
    found = best.select(*keys, "gamma", validated="ndcg")
    return (
        found.join(tested, [*keys, "gamma"])
        .join(most.select(*keys, best_gamma="gamma", best_ndcg="ndcg"), keys)
        .sort(keys)
        .with_columns(part=pl.when("last").then(pl.lit("the last")).otherwise(pl.lit("random")))
        .select(SHOWN)
    )


def main() -> None:
    """Compute what is missing, and print what validation chose."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    for path in args.data:
        data = load(path)
        for last in (True, False):
            for beta in BETAS:
                what = {"data": path.stem, "last": last, "beta": beta}
                if not has_line(args.out, what):
                    for line in lines_of(data, last, beta):
                        add_line(args.out, what | line)
    chosen(pl.read_csv(args.out)).write_csv(args.out.with_name(f"{args.out.stem}_chosen.csv"))


if __name__ == "__main__":
    main()
