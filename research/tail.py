"""Four ways to less popularity bias, side by side: what each costs in accuracy.

From shared uniform negatives without a prior, on the training part of one fold; the figures are
those of the validation part, at its best epoch by NDCG@50. Nothing is tested.

- beta: negatives drawn by popularity^beta, the temperature of the rule for all items.
- beta, 64 negatives: the same with fewer of them.
- beta, T by effective items: the rule's temperature with 1 / sum_j Pr(j)^2 items, Pr of eq. 4: all
  of them if beta is 0, fewer the more some are preferred.
- minus gamma log n: items ranked by u_i.v_j - gamma log n_j with the points of beta 0, n_j
  training interactions.

    python research/tail.py lastfm/ ml-100k -o research/results/tail.csv

takes folders that `nearfar prepare` wrote, or ml-100k. After each run a line is written to
results/tail_runs.csv, and what is there is not computed again. The output puts beside each MAP that
of the first way at the same MMR, between the two of its beta that are next to it.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import polars as pl

import nearfar as nf
from nearfar.search.neighbours import Points
from runs import WITHOUT_PRIOR, add_line, first_fold, has_line, loss_at, show

BETAS, GAMMAS = (0.35, 0.55, 0.65, 0.8, 1.0, 1.5), (0.0, 0.02, 0.04, 0.06, 0.08)
EPOCHS, EVERY, PATIENCE, K = 400, 4, 5, 50
EFFECTIVE, FEWER, BETA, GAMMA = (
    "beta, T by effective items", "beta, 64 negatives", "beta", "minus gamma log n",
)  # fmt: skip


def options(way: str, beta: float, learn: nf.Interactions) -> nf.Options:
    """Give the options of a way that has a beta."""
    items = int((learn.item_counts > 0).sum())
    tail = replace(WITHOUT_PRIOR, sampler=nf.Shared(beta), triplet=loss_at((50.0 / items) ** 0.25))
    if way == FEWER:
        return replace(tail, negatives=64)
    if way == EFFECTIVE:
        weights = learn.item_counts[learn.item_counts > 0] ** beta
        effective = weights.sum() ** 2 / (weights**2).sum()
        return replace(tail, triplet=loss_at((50.0 / effective) ** 0.25))
    return tail


def trained(chosen: nf.Options, learn: nf.Interactions, held_out: nf.Interactions) -> nf.CML:
    """Train; the model is that of the best epoch."""
    return nf.CML(chosen).fit(
        learn, epochs=EPOCHS, validation=held_out, every=EVERY, patience=PATIENCE, k=K, seed=0,
        progress=False,
    )  # fmt: skip


def corrected(model: nf.CML, gamma: float, learn: nf.Interactions) -> Points:
    """Put -gamma log n_j beside the items' points, and 1 beside the users'."""
    users, items = np.asarray(model.user_vectors), np.asarray(model.item_vectors)
    bias = -gamma * np.log(np.maximum(learn.item_counts, 1))
    one = np.ones((len(users), 1), np.float32)
    return Points(np.hstack([users, one]), np.hstack([items, bias[:, None]]).astype(np.float32))


def figures(
    model: nf.CML, scorer: Any, learn: nf.Interactions, held_out: nf.Interactions
) -> dict[str, Any]:
    """Evaluate on the validation part."""
    found = nf.evaluate(scorer, learn, held_out, k=K).metrics
    return {"epoch": model.best_epoch} | {
        name: round(found[name], 5) for name in ("map", "ndcg", "mmr")
    }


def beside_beta(runs: pl.DataFrame) -> pl.DataFrame:
    """Put MAP in %, that of the way beta at the same MMR, and their ratio; NaN where it has none.

    The defaults are its beta 0.
    """
    whole = runs.with_columns(pl.col("map", "ndcg") * 100.0)
    parts = []
    for part in whole.partition_by("data", maintain_order=True):
        is_default = (pl.col("way") == GAMMA) & (pl.col("strength") == 0)
        line = part.filter((pl.col("way") == BETA) | is_default).sort("mmr")
        at = np.interp(part["mmr"], line["mmr"], line["map"], left=np.nan, right=np.nan)
        others = part.with_columns(at_beta=at).filter(pl.col("way") != BETA, ~is_default)
        parts += [line.with_columns(way=pl.lit(BETA), at_beta=np.nan), others]
    table = pl.concat(parts).with_columns(ratio=pl.col("map") / pl.col("at_beta"))
    return table.with_columns(
        pl.col("map", "ndcg", "at_beta", "ratio").round(2), pl.col("mmr").round(1)
    )


def main() -> None:
    """Compute what is missing, a line of the file after each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    file = args.out.with_name(f"{args.out.stem}_runs.csv")
    for path in args.data:
        learn, held_out = first_fold(path)
        for way in (BETA, FEWER, EFFECTIVE):
            for beta in BETAS:
                what = {"data": path.name, "way": way, "strength": beta}
                if not has_line(file, what):
                    model = trained(options(way, beta, learn), learn, held_out)
                    add_line(file, what | figures(model, model, learn, held_out))
        whats = [{"data": path.name, "way": GAMMA, "strength": gamma} for gamma in GAMMAS]
        if missing := [what for what in whats if not has_line(file, what)]:
            model = trained(WITHOUT_PRIOR, learn, held_out)
            for what in missing:
                scorer = corrected(model, what["strength"], learn)
                add_line(file, what | figures(model, scorer, learn, held_out))
    table = beside_beta(pl.read_csv(file))
    table.write_csv(args.out)
    show("Beside the way beta at the same MMR", table.to_dicts())


if __name__ == "__main__":
    main()
