"""Recall@20 and NDCG@20 on the fixed splits of the literature, beside peers tuned alike.

d = 64; all items are ranked, training items left out. Every method chooses among some settings by
NDCG@20 on a validation part, a tenth of each user's training items; with `--test` the best setting
of each is trained on all training items, and evaluated once on the test part.

    python benchmarks/leaderboards.py gowalla-lightgcn.parquet -o results/gowalla.csv
    python benchmarks/leaderboards.py gowalla-lightgcn.parquet -o results/gowalla.csv --test

The file has the columns user, item and split, which is train or test. A line is written after each
run, and what is there is not computed again. `--only nearfar EASE` runs some of the methods.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "2")

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.linalg import lapack
from scipy.sparse import csr_matrix

import nearfar as nf
from common import add_line, has_line, loss_at
from nearfar.neighbours import Points

Float32 = npt.NDArray[np.float32]
Setting = dict[str, Any]
K, DIM, SHARE, SEED = 20, 64, 0.1, 0


@dataclass(frozen=True)
class Part:
    """What is trained on and what is tested on; `epochs` if validation has chosen it already."""

    train: nf.Interactions
    held_out: nf.Interactions
    epochs: int | None = None


Fit = Callable[[Part, Setting], tuple[Any, int]]
"""Gives a recommender and the number of epochs that was best, 0 where there are none."""


def fixed_split(path: Path) -> tuple[nf.Interactions, nf.Interactions]:
    """Read the training and the test part, on the same axes."""
    table = pl.read_parquet(path)
    data = nf.Interactions.from_frame(table, user="user", item="item")
    test = table.filter(pl.col("split") == "test")
    users, items = (
        ids.rows(test[name].to_list()).astype(np.int64)
        for ids, name in ((data.user_ids, "user"), (data.item_ids, "item"))
    )
    keys = data.pair_users().astype(np.int64) * data.n_items + data.items
    in_test = np.isin(keys, users * data.n_items + items)
    return data.subset(~in_test), data.subset(in_test)


def matrix(train: nf.Interactions) -> csr_matrix:
    """Give the users x items matrix of ones; a copy in int32, as implicit wants it."""
    ones = np.ones(train.n_pairs, np.float32)
    parts = ones, train.items.astype(np.int32), train.indptr.astype(np.int32)
    return csr_matrix(parts, shape=(train.n_users, train.n_items))


class ByItems:
    """Scores a user's items by a matrix between items, dense or sparse."""

    def __init__(self, pairs: csr_matrix, weights: Any) -> None:
        self.pairs, self.weights = pairs, weights
        self.n_users, self.n_items = pairs.shape

    def score_block(self, rows: Any, first_item: int, out: Float32) -> None:
        """Write one tile; see `nearfar.neighbours.Scorer`."""
        part = self.pairs[rows] @ self.weights[:, first_item : first_item + out.shape[1]]
        out[:] = part.toarray() if hasattr(part, "toarray") else part


def fit_nearfar(part: Part, setting: Setting) -> tuple[Any, int]:
    """Train `CML`, and choose the epoch on the validation part."""
    options = nf.Options(
        dim=DIM,
        negatives=setting["negatives"],
        triplet=loss_at(setting["temperature"]),
    )
    if part.epochs is not None:
        return nf.CML(options).fit(part.train, epochs=part.epochs, seed=SEED), part.epochs
    model = nf.CML(options).fit(
        part.train, epochs=100, validation=part.held_out, every=5, patience=3, k=K, seed=SEED
    )
    return model, model.best_epoch


def fit_popularity(part: Part, setting: Setting) -> tuple[Any, int]:
    """Count."""
    return nf.baselines.Popularity(part.train), 0


def fit_ease(part: Part, setting: Setting) -> tuple[Any, int]:
    """Solve for a matrix between items: B = I - P / diag P, P = (X'X + lambda I)^-1.

    H. Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019. The inverse is taken
    in place: with 41,000 items it has 6.7 GB.
    """
    pairs = matrix(part.train)
    gram = np.asarray((pairs.T @ pairs).toarray(), np.float32, order="F")
    gram[np.diag_indices_from(gram)] += setting["weight"]
    factor, failed = lapack.spotrf(gram, lower=1, overwrite_a=1, clean=0)
    inverse, bad = lapack.spotri(factor, lower=1, overwrite_c=1)
    if failed or bad:
        raise SystemExit(f"EASE with {setting} has no inverse: {failed}, {bad}.")
    n = len(inverse)
    for first in range(0, n, 2048):  # lapack gives the lower half
        block, after = slice(first, first + 2048), slice(first + 2048, n)
        inverse[block, after] = inverse[after, block].T
        square = np.tril(inverse[block, block])
        inverse[block, block] = square + np.tril(square, -1).T
    scale = -1.0 / np.diag(inverse)
    inverse *= scale[None, :]
    np.fill_diagonal(inverse, 0.0)
    return ByItems(pairs, inverse), 0


def fit_knn(part: Part, setting: Setting) -> tuple[Any, int]:
    """Find each item's nearest items with `implicit`, and score by them."""
    from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, TFIDFRecommender

    kinds = {"cosine": CosineRecommender, "tf-idf": TFIDFRecommender, "bm25": BM25Recommender}
    model = kinds[setting["weights"]](K=setting["neighbours"])
    pairs = matrix(part.train)
    model.fit(pairs, show_progress=False)
    return ByItems(pairs, model.similarity.tocsc()), 0


def fit_als(part: Part, setting: Setting) -> tuple[Any, int]:
    """Factorise with the alternating least squares of `implicit`."""
    from implicit.cpu.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(
        factors=DIM, iterations=15, random_state=SEED, use_gpu=False, **setting
    )
    model.fit(matrix(part.train), show_progress=False)
    return Points(model.user_factors, model.item_factors), 0


def fit_bpr(part: Part, setting: Setting) -> tuple[Any, int]:
    """Factorise with the Bayesian personalised ranking of `implicit`."""
    from implicit.cpu.bpr import BayesianPersonalizedRanking

    model = BayesianPersonalizedRanking(factors=DIM, random_state=SEED, **setting)
    model.fit(matrix(part.train), show_progress=False)
    return Points(model.user_factors, model.item_factors), 0


def grid(**axes: tuple[Any, ...]) -> list[Setting]:
    """Give all combinations."""
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


METHODS: dict[str, tuple[Fit, list[Setting]]] = {
    "popularity": (fit_popularity, [{}]),
    "item-kNN": (
        fit_knn,
        grid(weights=("cosine", "tf-idf", "bm25"), neighbours=(50, 200, 800)),
    ),
    "EASE": (fit_ease, grid(weight=(100.0, 300.0, 1000.0))),
    "implicit ALS": (fit_als, grid(regularization=(0.01, 1.0, 30.0), alpha=(1.0, 5.0, 20.0))),
    "implicit BPR": (
        fit_bpr,
        grid(learning_rate=(0.03, 0.1), regularization=(0.001, 0.01), iterations=(100, 300)),
    ),
    "nearfar": (fit_nearfar, grid(negatives=(512, 2048), temperature=(0.15, 0.2, 0.25))),
}
"""Each with the settings that it chooses among."""


def run(name: str, setting: Setting, part: Part) -> dict[str, Any]:
    """Train and evaluate; give a line of the file."""
    fit, begun = METHODS[name][0], time.perf_counter()
    model, best = fit(part, setting)
    trained = time.perf_counter() - begun
    found = nf.evaluate(model, part.train, part.held_out, k=K, threads=2).metrics
    return {
        "method": name,
        "setting": json.dumps(setting),
        "epochs": best,
        "seconds": round(trained, 1),
        **{figure: found[figure] for figure in ("recall", "ndcg", "mmr", "coverage")},
    }


def compute(file: Path, phase: str, name: str, setting: Setting, part: Part) -> None:
    """Run what the file lacks."""
    if not has_line(file, {"phase": phase, "method": name, "setting": json.dumps(setting)}):
        add_line(file, {"phase": phase, **run(name, setting, part)})


def main() -> None:
    """Compute what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--test", action="store_true")
    args = parser.parse_args()
    train, test = fixed_split(args.data)
    learned, held_out = nf.split.ratio(train, test=SHARE, seed=SEED)
    for name in args.only:
        for setting in METHODS[name][1]:
            compute(args.out, "validation", name, setting, Part(learned, held_out))
    if not args.test:
        return
    tried = pl.read_csv(args.out).filter(phase="validation").sort("ndcg", descending=True)
    for name in args.only:
        best = tried.filter(method=name).row(0, named=True)
        setting, part = json.loads(best["setting"]), Part(train, test, best["epochs"])
        compute(args.out, "test", name, setting, part)


if __name__ == "__main__":
    main()
