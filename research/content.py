"""Content: what hybrids, and simpler recommenders, achieve on articles and films nobody has read.

    python research/content.py citeulike-cold citeulike-p10 citeulike-p1 ml-100k -o research/results

takes CiteULike-t from `--shared`, which is not part of the project, and writes a line for each run
to content_runs.csv and their means to content.csv. The epoch and gamma are chosen on a validation
part; the test part is looked at once. Where everything known is a training part (p10), the chosen
epoch and gamma are used to train on all of it. p1 has one pair a user, of which nothing can be held
out: it takes `--gamma` and `--epochs-p1`.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import polars as pl
import scipy.sparse as sp

import nearfar as nf
from nearfar.errors import NearfarWarning
from nearfar.evaluation.content_baselines import ContentCosine, ContentRidge
from runs import add_line, has_line, show

SHARED = Path(__file__).parent / "../../shared/data"
SEEDS, K = (0, 1, 2), 20
OPTIONS = nf.Options(optimiser=nf.Adam(2e-3))
METHODS = {
    "hybrid, d 128": replace(OPTIONS, items=nf.Hybrid()),
    "hybrid, d 256": replace(OPTIONS, dim=256, items=nf.Hybrid()),
    "hybrid, users' words": replace(OPTIONS, items=nf.Hybrid(), users=nf.Hybrid()),
    "hybrid, d 512, users' words": replace(OPTIONS, dim=512, items=nf.Hybrid(), users=nf.Hybrid()),
    "shuffled features": replace(OPTIONS, items=nf.Hybrid()),
    "no content": OPTIONS,
    "ContentCosine": None,
    "ContentRidge": None,
}
SHOWN = ("recall", "ndcg")


class Task(NamedTuple):
    """A split with its features."""

    learn: nf.Interactions
    validation: nf.Interactions | None
    train: nf.Interactions
    test: dict[str, nf.Interactions]
    """For each kind of candidates what is to be found."""
    features: nf.Features
    known: dict[str, nf.Interactions]
    """For each kind of candidates what is left out of the lists."""
    lengths: tuple[int, ...]


@cache
def articles(shared: Path) -> tuple[pl.DataFrame, nf.Interactions, nf.Features]:
    """Return CiteULike-t: its pairs with their splits, all of them as interactions, the words."""
    pairs = pl.read_parquet(shared / "citeulike-t.parquet")
    words = sp.load_npz(shared / "citeulike-t-bow.npz")
    about = nf.Features.from_matrix(words, np.arange(words.shape[0]), weight="tf-idf")
    whole = nf.Interactions.from_frame(pairs, user="user", item="item")
    return pairs, whole, about


def of_articles(name: str, shared: Path) -> Task:
    """Return a task on CiteULike-t."""
    pairs, whole, about = articles(shared)
    # cold articles are those of the split; p10 and p1 rank all, also those without any pair
    items = whole.item_ids if name.endswith("cold") else whole.item_ids.union(about.ids)

    def part(column: str, *names: str) -> nf.Interactions:
        some = pairs.filter(pl.col(column).is_in(names))
        made = nf.Interactions.from_frame(some, user="user", item="item")
        return made.aligned(whole.user_ids, items)

    if name == "citeulike-cold":
        column = "split_cold"
        train, valid = part(column, "train"), part(column, "warm_valid", "cold_valid")
        known = {
            "cold": part(column, "train", "cold_valid"),
            "warm": part(column, "train", "warm_valid"),
            "all": part(column, "train", "warm_valid", "cold_valid"),
        }
        test = {"cold": part(column, "cold_test"), "warm": part(column, "warm_test")}
        test["all"] = test["cold"].union(test["warm"])
        return Task(train, valid, train, test, about, known, (K,))
    column = f"split_{name.removeprefix('citeulike-')}"
    train, test = part(column, "train"), part(column, "test")
    learn, valid = nf.split.ratio(train, test=0.1, seed=0)
    held_out = valid if valid.n_pairs else None
    return Task(learn, held_out, train, {"all": test}, about, {"all": train}, (50, 100, 300))


def of_films(seed: int) -> Task:
    """Return MovieLens-100K, with a fifth of the films cold."""
    data = nf.datasets.load("ml-100k")
    films = data.item_table.with_columns(
        pl.col("genres").str.split(" | "),
        year=pl.col("title").str.extract(r"\((\d{4})\)").cast(pl.Float64),
    )
    about = nf.Features.from_frame(films, categories="genres", numbers="year")
    rest, cold = nf.split.cold_items(data, 0.2, by="popularity", seed=seed)
    rest, warm = nf.split.ratio(rest, test=0.25, seed=seed)
    learn, valid = nf.split.ratio(rest, test=0.1, seed=seed)
    learn, unseen = nf.split.cold_items(learn, 0.1, by="popularity", seed=seed + 10)
    valid = valid.union(unseen)
    test = {"cold": cold, "warm": warm, "all": cold.union(warm)}
    left_out = dict.fromkeys(test, learn.union(valid))
    return Task(learn, valid, learn, test, about, left_out, (K,))


def words_of_users(train: nf.Interactions, shared: Path) -> nf.Features:
    """Return the words of the articles that each user has, as features of users."""
    words = sp.csr_array(sp.load_npz(shared / "citeulike-t-bow.npz"))
    articles_of = train.to_csr().astype(np.float64)
    counts = sp.csr_array(articles_of @ words[train.item_ids.values.to_numpy()])
    some = np.flatnonzero(np.diff(counts.indptr))
    ids = train.user_ids.take(some)
    return nf.Features.from_matrix(counts[some], ids, name="words", weight="tf-idf")


def shuffled(features: nf.Features, seed: int) -> nf.Features:
    """Return the features of other items."""
    order = np.random.default_rng(seed).permutation(len(features))
    columns = {name: column.placed(order) for name, column in features.columns.items()}
    return nf.Features(features.ids, columns)


def trained(task: Task, method: str, seed: int, args: argparse.Namespace) -> tuple[Any, int]:
    """Return a recommender, and how many epochs it was trained."""
    if method == "ContentCosine":
        return ContentCosine(task.train, task.features), 0
    if method == "ContentRidge":
        return ContentRidge(task.train, task.features, dim=64, seed=seed), 0
    options = METHODS[method]
    features = shuffled(task.features, seed) if method.startswith("shuffled") else task.features
    given: dict[str, Any] = {} if method == "no content" else {"item_features": features}
    users = method.endswith("users' words")
    how: dict[str, Any] = {**given, "seed": seed, "progress": False, "threads": args.threads}
    if task.validation is None:
        if users:
            how["user_features"] = words_of_users(task.train, args.shared)
        model = nf.CML(options, prior=nf.Prior(gamma=args.gamma))
        return model.fit(task.train, epochs=args.epochs_p1, **how), args.epochs_p1
    if users:
        how["user_features"] = words_of_users(task.learn, args.shared)
    model = nf.CML(options).fit(
        task.learn, epochs=args.epochs, validation=task.validation, every=4, patience=2, k=K, **how
    )
    if task.train is task.learn:
        return model, model.best_epoch
    if users:
        how["user_features"] = words_of_users(task.train, args.shared)
    again = nf.CML(options, prior=nf.Prior(gamma=model.gamma))
    return again.fit(task.train, epochs=model.best_epoch, **how), model.best_epoch


def lines_of(
    task: Task, method: str, seed: int, args: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Train and test; yield a line for each kind of candidates and each length."""
    begun = time.process_time()
    model, epochs = trained(task, method, seed, args)
    seconds = time.process_time() - begun
    lists = {kind: (kind, task.test[kind], task.known[kind]) for kind in task.test}
    if len(lists) > 1:  # in one ranking of all: who is pushed out by the others
        for part in ("warm", "cold"):
            lists[f"all, {part}"] = ("all", task.test[part], task.known["all"])
    for name, (kind, test, known) in lists.items():
        for k in task.lengths:
            found = nf.evaluate(model, task.train, test, k=k, exclude=known, candidates=kind,
                                threads=args.threads)  # fmt: skip
            figures = {one: round(found[one], 5) for one in SHOWN}
            gamma = getattr(model, "gamma", 0.0)
            yield {"among": name, "k": k, **figures, "epochs": epochs, "gamma": gamma,
                   "cpu_seconds": round(seconds, 1)}  # fmt: skip


def main() -> None:
    """Compute what is missing, and print the means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=SHARED)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    of_all = [name for name in METHODS if not name.endswith("words")]  # those are articles'
    parser.add_argument("--methods", nargs="+", default=of_all, choices=METHODS)
    parser.add_argument("--epochs", type=int, default=24, help="at most")
    parser.add_argument("--epochs-p1", type=int, default=100)
    parser.add_argument("--gamma", type=float, default=0.06, help="of p1")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    warnings.simplefilter("ignore", NearfarWarning)
    runs = args.out / "content_runs.csv"
    for seed in args.seeds:
        for name in args.tasks:
            task = of_films(seed) if name == "ml-100k" else of_articles(name, args.shared)
            for method in args.methods:
                what = {"task": name, "method": method, "seed": seed}
                if not has_line(runs, what):
                    for line in list(lines_of(task, method, seed, args)):
                        add_line(runs, what | line)
    keys = ["task", "among", "k", "method"]
    means = (
        pl.read_csv(runs)
        .group_by(keys, maintain_order=True)
        .agg(
            pl.len().alias("seeds"),
            *(pl.col(name).mean().round(4) for name in SHOWN),
            *(pl.col(name).std().round(4).alias(f"{name}_std") for name in SHOWN),
            *(pl.col(name).mean().round(3) for name in ("epochs", "gamma", "cpu_seconds")),
        )
        .sort("task", "among", "k", maintain_order=True)
    )
    means.write_csv(args.out / "content.csv")
    show("Content", means.to_dicts())


if __name__ == "__main__":
    main()
