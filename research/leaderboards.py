"""Recall@20 and NDCG@20 on the fixed splits of the literature, beside peers tuned alike.

d = 64; all items are ranked, training items left out. Every method chooses among some settings by
NDCG@20 on a validation part, a tenth of each user's training items; with `--test` the best setting
of each is trained on all training items, and evaluated once on the test part.

    python research/leaderboards.py gowalla-lightgcn.parquet -o results/leaderboard_gowalla.csv
    python research/leaderboards.py gowalla-lightgcn.parquet -o results/leaderboard_gowalla.csv \
        --test

The file has the columns user, item and split, which is train or test. After each run a line is
written to results/leaderboard_gowalla_runs.csv, and what is there is not computed again; with
`--test` the output gets a line a method. `--only nearfar EASE` runs some of the methods.

    python research/leaderboards.py gowalla-lightgcn.parquet -o results/leaderboard_gowalla.csv \
        --curve

trains nearfar's tested setting again and evaluates it on the test part with every gamma, into
results/leaderboard_gowalla_curve.csv. Nothing is chosen by that.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "2")

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.linalg import lapack
from scipy.sparse import csr_matrix, diags_array
from scipy.sparse.linalg import svds

import nearfar as nf
from nearfar.runtime.devices import torch_device
from nearfar.search.neighbours import Points
from runs import add_line, has_line

Float32 = npt.NDArray[np.float32]
Setting = dict[str, Any]
K, DIM, SHARE, SEED = 20, 64, 0.1, 0
GAMMAS = tuple(n / 100 for n in range(16))


@dataclass(frozen=True)
class Part:
    """What is trained on and what is tested on.

    `epochs` if validation has chosen them already, and with them `gamma` of the popularity prior
    and the weight of the `neighbours`. nearfar is trained on `device`, and EASE's matrix inverted
    there.
    """

    train: nf.Interactions
    held_out: nf.Interactions
    threads: int
    epochs: int | None = None
    device: str = "cpu"
    gamma: float | None = None
    neighbours: float | None = None


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
        """Write one tile; see `nearfar.search.neighbours.Scorer`."""
        part = self.pairs[rows] @ self.weights[:, first_item : first_item + out.shape[1]]
        out[:] = part.toarray() if hasattr(part, "toarray") else part


class ByUsers:
    """Scores by EASE's matrix between users, up to the scores of the items that a user has."""

    def __init__(self, pairs: csr_matrix, between: Float32, weight: float) -> None:
        self.of_items, self.between = pairs.T.tocsr(), between
        self.n_users, self.n_items = pairs.shape
        self.scale = np.empty((self.n_items, 1), np.float32)
        for first in range(0, self.n_items, 1024):
            block = slice(first, first + 1024)
            own = self.of_items[block]
            squares = own.multiply(own @ between).sum(axis=1)
            self.scale[block] = weight / (np.asarray(squares) - 1.0)

    def score_block(self, rows: Any, first_item: int, out: Float32) -> None:
        """Write one tile; see `nearfar.search.neighbours.Scorer`."""
        block = slice(first_item, first_item + out.shape[1])
        out[:] = (self.scale[block] * (self.of_items[block] @ self.between[:, rows])).T


class ByFilter:
    """Scores by GF-CF: a linear filter, and `weight` times an ideal low-pass one, of a user's row.

    With N = U^-1/2 X I^-1/2, U and I the diagonal matrices of the counts, and V its 256 first right
    singular vectors: X (N'N + weight I^-1/2 V V' I^1/2).
    Shen et al., How Powerful is Graph Convolution for Recommendation?, CIKM 2021.
    """

    def __init__(self, pairs: csr_matrix, weight: float) -> None:
        self.pairs, self.weight = pairs, weight
        self.n_users, self.n_items = pairs.shape
        of_users, of_items = (
            np.maximum(np.asarray(pairs.sum(axis=axis)).ravel(), 1.0) for axis in (1, 0)
        )
        normal = diags_array(of_users**-0.5) @ pairs @ diags_array(of_items**-0.5)
        self.linear = (normal.T @ normal).tocsc()
        vectors, root = svds(normal, k=256, random_state=SEED)[2].T, of_items[:, None] ** 0.5
        self.left, self.right = pairs @ (vectors / root), vectors * root

    def score_block(self, rows: Any, first_item: int, out: Float32) -> None:
        """Write one tile; see `nearfar.search.neighbours.Scorer`."""
        block = slice(first_item, first_item + out.shape[1])
        out[:] = (self.pairs[rows] @ self.linear[:, block]).toarray()
        out += self.weight * (self.left[rows] @ self.right[block].T)


def fit_nearfar(part: Part, setting: Setting) -> tuple[Any, int]:
    """Train `CML`; choose the epoch on the validation part, and what is added to the products.

    That is a prior and neighbours in settings with a beta; the others have neither.
    """
    beta = setting.get("beta", 0.0)
    prior = nf.Prior(gamma=part.gamma) if beta else None
    options = nf.Options(
        dim=DIM,
        sampler=nf.Shared(beta),
        prior=prior,
        neighbours=nf.CoOccurrence(weight=part.neighbours) if beta else None,
        batch=setting["batch"],
        negatives=setting["negatives"],
        triplet=nf.Triplet(setting["margin"], temperature=setting["temperature"]),
        optimiser=nf.Adam(setting["learning_rate"]),
    )
    search = {} if part.epochs else {"validation": part.held_out, "every": 5, "patience": 3, "k": K}
    model = nf.CML(options).fit(
        part.train,
        epochs=part.epochs or 100,
        seed=SEED,
        threads=part.threads,
        device=part.device,
        **search,
    )
    return model, part.epochs or model.best_epoch


def fit_popularity(part: Part, setting: Setting) -> tuple[Any, int]:
    """Count."""
    return nf.baselines.MostPopular(part.train), 0


def fit_ease(part: Part, setting: Setting) -> tuple[Any, int]:
    """Solve for a matrix between items: B = I - P / diag P, P = (X'X + lambda I)^-1.

    H. Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019. Where there are fewer
    users than items, by the smaller K = (XX' + lambda I)^-1: X P = K X, lambda P = I - X'K X.
    """
    pairs, weight = matrix(part.train), setting["weight"]
    if part.train.n_users < part.train.n_items:
        return ByUsers(pairs, inverse_of(pairs @ pairs.T, weight, part.device), weight), 0
    between = inverse_of(pairs.T @ pairs, weight, part.device)
    between *= -1.0 / np.diag(between)
    np.fill_diagonal(between, 0.0)
    return ByItems(pairs, between), 0


def fit_gfcf(part: Part, setting: Setting) -> tuple[Any, int]:
    """Filter the graph of users and items."""
    return ByFilter(matrix(part.train), **setting), 0


def inverse_of(gram: csr_matrix, weight: float, device: str) -> Float32:
    """Give (gram + weight I)^-1: for 41,000 rows it has 6.7 GB."""
    whole = np.asarray(gram.toarray(), np.float32, order="F")
    whole[np.diag_indices_from(whole)] += weight
    inverse = _inverted(whole) if device == "cpu" else _inverted_on(device, whole)
    n = len(inverse)
    x = np.random.default_rng(SEED).standard_normal(n).astype(np.float32)
    y = inverse @ x
    again = gram @ y + weight * y
    if not np.allclose(again, x, atol=0.01):
        raise SystemExit(f"The inverse of EASE with {weight} is off by {abs(again - x).max()}.")
    return inverse


def _inverted(whole: Float32) -> Float32:
    """Invert a positive definite matrix in its place."""
    factor, failed = lapack.spotrf(whole, lower=1, overwrite_a=1, clean=0)
    inverse, bad = lapack.spotri(factor, lower=1, overwrite_c=1)
    if failed or bad:
        raise SystemExit(f"The matrix of EASE has no inverse: {failed}, {bad}.")
    n = len(inverse)
    for first in range(0, n, 2048):  # lapack gives the lower half
        block, after = slice(first, first + 2048), slice(first + 2048, n)
        inverse[block, after] = inverse[after, block].T
        square = np.tril(inverse[block, block])
        inverse[block, block] = square + np.tril(square, -1).T
    return inverse


def _inverted_on(device: str, whole: Float32) -> Float32:
    """Invert a positive definite matrix, column by column as LAPACK has it, on a torch device."""
    import torch

    there = torch.from_numpy(whole.T).to(torch_device(device))  # symmetric: no copy is turned
    factor = torch.linalg.cholesky(there)
    del there
    found: Float32 = torch.cholesky_inverse(factor).cpu().numpy()
    return found


def fit_knn(part: Part, setting: Setting) -> tuple[Any, int]:
    """Find each item's nearest items with `implicit`, and score by them."""
    from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, TFIDFRecommender

    kinds = {"cosine": CosineRecommender, "tf-idf": TFIDFRecommender, "bm25": BM25Recommender}
    model = kinds[setting["weights"]](K=setting["neighbours"], num_threads=part.threads)
    pairs = matrix(part.train)
    model.fit(pairs, show_progress=False)
    return ByItems(pairs, model.similarity.tocsc()), 0


def fit_als(part: Part, setting: Setting) -> tuple[Any, int]:
    """Factorise with the alternating least squares of `implicit`."""
    from implicit.cpu.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(
        factors=DIM,
        iterations=15,
        random_state=SEED,
        num_threads=part.threads,
        **setting,
    )
    model.fit(matrix(part.train), show_progress=False)
    return Points(model.user_factors, model.item_factors), 0


def fit_ials(part: Part, setting: Setting) -> tuple[Any, int]:
    """Factorise with the alternating least squares of `irspack`, as its source advises.

    Regularisation grows with the number of interactions (nu = 1), starts are small, and alpha0 and
    the regularisation are tuned together over powers of three. Rendle et al., Revisiting the
    Performance of iALS on Item Recommendation Benchmarks, RecSys 2022.
    """
    from irspack.recommenders import IALSRecommender

    model = IALSRecommender(
        matrix(part.train).astype(np.float64),
        n_components=DIM,
        nu=1.0,
        train_epochs=16,
        random_seed=SEED,
        n_threads=part.threads,
        **setting,
    ).learn()
    found = model.get_user_embedding(), model.get_item_embedding()
    return Points(*(np.ascontiguousarray(vectors, np.float32) for vectors in found)), 0


def fit_bpr(part: Part, setting: Setting) -> tuple[Any, int]:
    """Factorise with the Bayesian personalised ranking of `implicit`."""
    from implicit.cpu.bpr import BayesianPersonalizedRanking

    model = BayesianPersonalizedRanking(
        factors=DIM, random_state=SEED, num_threads=part.threads, **setting
    )
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
    "GF-CF": (fit_gfcf, grid(weight=(0.0, 0.1, 0.3))),
    "EASE": (fit_ease, grid(weight=(30.0, 100.0, 300.0))),
    "implicit ALS": (fit_als, grid(regularization=(0.01, 1.0, 30.0), alpha=(1.0, 5.0, 20.0, 80.0))),
    "irspack iALS": (
        fit_ials,
        grid(alpha0=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0), reg=(0.0003, 0.001, 0.003, 0.01)),
    ),
    "implicit BPR": (
        fit_bpr,
        grid(learning_rate=(0.03, 0.1), regularization=(0.001, 0.01), iterations=(100, 300)),
    ),
    "nearfar": (
        fit_nearfar,
        [
            {
                "negatives": n,
                "batch": n // 2,
                "learning_rate": rate,
                "margin": margin,
                "temperature": temperature,
            }
            for n, rate, margin, temperatures in (
                (512, 0.005, 0.2, (0.15, 0.2, 0.25)),
                (512, 0.005, 1.0, (0.2, 0.25, 0.3)),
                (2048, 0.01, 0.2, (0.2,)),
                (2048, 0.01, 1.0, (0.15, 0.2, 0.25)),
                (4096, 0.015, 1.0, (0.2,)),
            )
            for temperature in temperatures
        ]
        + [
            {
                "negatives": 1024,
                "batch": 512,
                "learning_rate": 0.0075,
                "margin": 1.0,
                "temperature": temperature,
                "beta": 0.5,
            }
            for temperature in (0.15, 0.25)
        ],
    ),
}
"""Each with the settings that it chooses among."""


def run(name: str, setting: Setting, part: Part) -> dict[str, Any]:
    """Train and evaluate; give a line of the file."""
    fit, begun = METHODS[name][0], time.perf_counter()
    model, best = fit(part, setting)
    trained = time.perf_counter() - begun
    where = part.device if isinstance(model, nf.CML) else "cpu"
    found = nf.evaluate(
        model, part.train, part.held_out, k=K, threads=part.threads, device=where
    ).metrics
    return {
        "method": name,
        "setting": json.dumps(setting),
        "epochs": best,
        "seconds": round(trained, 1),
        **{figure: found[figure] for figure in ("recall", "ndcg", "mmr", "coverage")},
        "device": part.device if name in ("nearfar", "EASE") else "cpu",
        "gamma": model.gamma if isinstance(model, nf.CML) else None,
        "neighbours": model.neighbour_weight if isinstance(model, nf.CML) else None,
    }


def compute(file: Path, phase: str, name: str, setting: Setting, part: Part) -> None:
    """Run what the file lacks."""
    if not has_line(file, {"phase": phase, "method": name, "setting": json.dumps(setting)}):
        add_line(file, {"phase": phase, **run(name, setting, part)})


def curve(runs: pl.DataFrame, part: Part) -> pl.DataFrame:
    """Train the setting that was tested again, and give its figures at every gamma."""
    tested = runs.filter(phase="test", method="nearfar").row(-1, named=True)
    again = replace(
        part, epochs=tested["epochs"], gamma=tested["gamma"], neighbours=tested["neighbours"]
    )
    model, _ = fit_nearfar(again, json.loads(tested["setting"]))
    settings = [gamma / model.gamma for gamma in GAMMAS]
    found = nf.front(model, part.train, part.held_out, popularity=settings, k=K).frame
    columns = found.select("recall", "ndcg", "mmr", "coverage").with_columns(
        gamma=pl.Series(GAMMAS)
    )
    return columns.with_columns(tested=pl.col("gamma") == tested["gamma"])


def summary(runs: pl.DataFrame) -> pl.DataFrame:
    """Give a line a method: what was chosen, from how many runs, and its figures, some in %."""
    chosen = runs.filter(phase="test").unique("method", keep="last", maintain_order=True)
    of_validation = runs.filter(phase="validation").rename({"ndcg": "validation_ndcg"})
    tried = of_validation.group_by("method").agg(runs=pl.len())
    percent = ("recall", "ndcg", "validation_ndcg", "coverage")
    return (
        chosen.join(
            of_validation.select("method", "setting", "validation_ndcg"), ["method", "setting"]
        )
        .join(tried, "method")
        .sort("ndcg")
        .select(
            "method",
            pl.col("setting").map_elements(in_words, pl.String),
            "runs",
            pl.when(pl.col("epochs") > 0).then(pl.col("epochs")).alias("epochs"),
            *((pl.col(name) * 100.0).round(2) for name in percent),
            pl.col("mmr").round(1),
            pl.col("seconds").round(0).cast(int),
            "device",
        )
    )


def in_words(setting: str) -> str:
    """Write a setting without brackets."""
    return ", ".join(f"{name} {value}" for name, value in json.loads(setting).items())


def main() -> None:
    """Compute what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--curve", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="of nearfar and of EASE's inverse")
    args = parser.parse_args()
    train, test = fixed_split(args.data)
    learned, held_out = nf.split.ratio(train, test=SHARE, seed=SEED)
    file = args.out.with_name(f"{args.out.stem}_runs.csv")
    if args.curve:
        part = Part(train, test, args.threads, device=args.device)
        found = curve(pl.read_csv(file), part)
        found.write_csv(args.out.with_name(f"{args.out.stem}_curve.csv"))
        return
    for name in args.only:
        for setting in METHODS[name][1]:
            part = Part(learned, held_out, args.threads, device=args.device)
            compute(file, "validation", name, setting, part)
    if not args.test:
        return
    tried = pl.read_csv(file).filter(phase="validation").sort("ndcg", descending=True)
    for name in args.only:
        best = tried.filter(method=name).row(0, named=True)
        part = Part(
            train, test, args.threads, best["epochs"], args.device, best.get("gamma"),
            best.get("neighbours"),
        )  # fmt: skip
        compute(file, "test", name, json.loads(best["setting"]), part)
    summary(pl.read_csv(file)).write_csv(args.out)


if __name__ == "__main__":
    main()
