"""Four ways to less popularity bias, side by side: what each costs in accuracy.

From the defaults, on the training part of one fold; the figures are those of the validation part,
at its best epoch by NDCG@50. Nothing is tested.

- beta: `presets.long_tail(beta)`.
- beta, 64 negatives: the same with fewer of them.
- beta, T by effective items: the rule's temperature with 1 / sum_j Pr(j)^2 items, Pr of eq. 4: all
  of them if beta is 0, fewer the more some are preferred.
- minus gamma log n: items ranked by u_i.v_j - gamma log n_j with the points of the defaults, n_j
  training interactions.

    python benchmarks/tail.py lastfm/ ml-100k -o benchmarks/results/tail.csv

takes folders that `nearfar prepare` wrote, or ml-100k. Runs that are in the file already are not
computed again.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

import nearfar as nf
from common import add_line, first_fold, has_line, loss_at
from nearfar.neighbours import Points

BETAS, GAMMAS = (0.35, 0.55, 0.65, 0.8, 1.0, 1.5), (0.0, 0.02, 0.04, 0.06, 0.08)
EPOCHS, EVERY, PATIENCE, K = 400, 4, 5, 50
EFFECTIVE, FEWER, BETA, GAMMA = (
    "beta, T by effective items", "beta, 64 negatives", "beta", "minus gamma log n",
)  # fmt: skip


def options(way: str, beta: float, learn: nf.Interactions) -> nf.Options:
    """Give the options of a way that has a beta."""
    tail = nf.presets.long_tail(beta)
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


def main() -> None:
    """Compute what is missing, a line of the file after each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    for path in args.data:
        learn, held_out = first_fold(path)
        for way in (BETA, FEWER, EFFECTIVE):
            for beta in BETAS:
                what = {"data": path.name, "way": way, "strength": beta}
                if not has_line(args.out, what):
                    model = trained(options(way, beta, learn), learn, held_out)
                    add_line(args.out, what | figures(model, model, learn, held_out))
        whats = [{"data": path.name, "way": GAMMA, "strength": gamma} for gamma in GAMMAS]
        if missing := [what for what in whats if not has_line(args.out, what)]:
            model = trained(nf.Options(), learn, held_out)
            for what in missing:
                scorer = corrected(model, what["strength"], learn)
                add_line(args.out, what | figures(model, scorer, learn, held_out))


if __name__ == "__main__":
    main()
