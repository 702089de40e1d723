"""Newcomers: fold-in against training, and going on against starting over.

``python research/newcomers.py DATA... [--dim 64] [--epochs 20]`` for Parquet files of users and
items, or ``ml-100k``. For each data set, and into ``results/newcomers.csv``:

- *users*: a tenth of the users is held out, a quarter of what they like hidden. NDCG@50 on that,
  with their points folded in by a model that never saw them, and with a model that was trained with
  what is left of theirs (and the mean of their items, popularity and random for comparison).
- *items*: likewise a tenth of the items, a quarter of whose users is hidden; and a tenth of the
  other pairs, for a new item that pushes in everywhere would take the places of others.
- *growth*: a tenth of all pairs comes later, among them all of one user and one item in twenty. A
  model that was trained before and goes on with `partial_fit`, and one that is trained on
  everything, on a fifth of each user's pairs that neither saw; and the seconds both took.

Before anything is timed the popularity recommender must be beaten.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import nearfar as nf
from nearfar.evaluation.baselines import MostPopular, Random
from nearfar.runtime.counter import Purpose, stream, uniform
from nearfar.search.neighbours import Points

RESULTS = Path(__file__).parent / "results" / "newcomers.csv"
FIELDS = (
    "data", "dim", "epochs", "what", "way", "ndcg", "map", "mmr", "n", "seconds", "milliseconds",
)  # fmt: skip


def load(name: str) -> nf.Interactions:
    if not name.endswith(".parquet"):
        return nf.datasets.load(name)
    frame = pl.read_parquet(name)
    if "split" in frame.columns:
        frame = frame.filter(pl.col("split") == "train")
    user, item = frame.columns[:2]
    return nf.Interactions.from_frame(frame, user, item)


def put_together(*parts: nf.Interactions) -> nf.Interactions:
    """Join parts of one set of interactions, on the same axes."""
    users = np.concatenate([part.pair_users() for part in parts])
    items = np.concatenate([part.items for part in parts])
    return nf.Interactions.from_rows(users, items, parts[0].user_ids, parts[0].item_ids)


def turned(data: nf.Interactions) -> nf.Interactions:
    """Let users and items change places, so that `split` cuts by item."""
    return nf.Interactions.from_rows(data.items, data.pair_users(), data.item_ids, data.user_ids)


class Bench:
    """One data set: trains, measures and writes rows."""

    def __init__(self, name: str, data: nf.Interactions, args: argparse.Namespace) -> None:
        self.name, self.data, self.args = name, data, args
        self.rows: list[dict[str, Any]] = []

    def fit(self, train: nf.Interactions) -> tuple[nf.CML, float]:
        """Train a model; give it and the seconds."""
        begun = time.perf_counter()
        model = nf.CML(dim=self.args.dim)
        model.fit(train, epochs=self.args.epochs, threads=self.args.threads)
        return model, time.perf_counter() - begun

    def note(self, what: str, way: str, found: nf.Evaluation, n: int, seconds: float = np.nan,
             ms: float = np.nan) -> float:  # fmt: skip
        """Keep a row; give its NDCG."""
        figures = [found[name] for name in ("ndcg", "map", "mmr")]
        values = (self.name, self.args.dim, self.args.epochs, what, way, *figures, n, seconds, ms)
        self.rows.append(dict(zip(FIELDS, values, strict=True)))
        print(*(f"{v:.4f}" if isinstance(v, float) else v for v in values), flush=True)
        return found["ndcg"]

    def measure(self, recommender: Any, seen: nf.Interactions, test: nf.Interactions) -> Any:
        """Evaluate the first 50."""
        return nf.evaluate(recommender, seen, test, k=50, threads=self.args.threads)

    def newcomers(self, what: str) -> None:
        """Compare fold-in with training, for users or for items."""
        of_items = what == "items"
        data = turned(self.data) if of_items else self.data
        rest, theirs = nf.split.by_user(data, 0.1, seed=1)
        known, hidden = nf.split.ratio(theirs, test=0.25, seed=1)
        if of_items:
            rest, known, hidden = turned(rest), turned(known), turned(hidden)
            rest, others = nf.split.ratio(rest, test=0.1, seed=1)
            hidden = put_together(hidden, others)
        everything = put_together(rest, known)
        trained, _ = self.fit(everything)
        base, _ = self.fit(rest)
        counts = known.item_counts if of_items else known.user_counts
        new = np.flatnonzero(counts)
        n = len(new)
        by_popularity = self.measure(MostPopular(everything), everything, hidden)
        least = self.note(what, "popularity", by_popularity, n)
        self.note(what, "random", self.measure(
            Random(everything.n_users, everything.n_items), everything, hidden), n)  # fmt: skip
        best = self.note(what, "trained", self.measure(trained, everything, hidden), n)
        if best <= least:
            raise SystemExit(f"{self.name}: the trained model is no better than popularity")
        of = known if not of_items else turned(known)
        axis = base.interactions.item_ids if not of_items else base.interactions.user_ids
        liked = [axis.take(of.positives(int(row))).to_list() for row in new]
        fold = base.fold_in_item if of_items else base.fold_in
        vectors = {"mean": self._means(base, of, new, of_items)}
        fold(liked[0])  # compiles
        for steps in (15, 30, 60, 120) if not of_items else (30, 60):
            begun = time.perf_counter()
            found = np.stack([fold(some, steps=steps) for some in liked])
            vectors[f"fold-in, {steps} steps"] = found
            took = 1e3 * (time.perf_counter() - begun) / n
            self._folded(what, f"fold-in, {steps} steps", base, new, found, of_items, everything,
                         hidden, took)  # fmt: skip
        self._folded(what, "mean", base, new, vectors["mean"], of_items, everything, hidden, np.nan)

    def _means(self, base: nf.CML, of: nf.Interactions, new: Any, of_items: bool) -> Any:
        points = base.user_vectors if of_items else base.item_vectors
        means = np.stack([points[of.positives(int(row))].mean(axis=0) for row in new])
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    def _folded(self, what: str, way: str, base: nf.CML, new: Any, vectors: Any, of_items: bool,
                seen: nf.Interactions, hidden: nf.Interactions, ms: float) -> None:  # fmt: skip
        users, items = base.user_vectors.copy(), base.item_vectors.copy()
        (items if of_items else users)[new] = vectors
        found = self.measure(Points(users, items), seen, hidden)
        self.note(what, way, found, len(new), ms=ms)

    def growth(self) -> None:
        """Compare going on with starting over."""
        train, test = nf.split.ratio(self.data, test=0.2, seed=2)
        n = train.n_pairs
        key = stream(0, Purpose.SPLIT, 99)
        coin = uniform(key, np.arange(n))
        by_user = uniform(key, n + np.arange(train.n_users))[train.pair_users()]
        by_item = uniform(key, n + train.n_users + np.arange(train.n_items))[train.items]
        late = (by_user < 0.05) | (by_item < 0.05)
        late |= coin < max(0.0, (0.1 - late.mean()) / (1 - late.mean()))
        before, new = train.subset(~late), train.subset(late)
        model, _ = self.fit(before.compact())
        again, full = self.fit(train)
        share = f"{late.mean():.3f} new"
        self.note("growth", "popularity", self.measure(MostPopular(train), train, test), n)
        self.note("growth", "before", self._on(model, train, test), n)
        best = self.note("growth", f"all, {share}", self.measure(again, train, test), n, full)
        fitted = model._fitted
        for epochs in sorted({2, self.args.epochs // 6, self.args.epochs // 5}):
            model._fitted = fitted
            begun = time.perf_counter()
            model.partial_fit(new.compact(), epochs=epochs, threads=self.args.threads)
            took = time.perf_counter() - begun
            way = f"partial_fit, {epochs} epochs"
            reached = self.note("growth", way, self._on(model, train, test), n, took)
            print(f"    {reached / best:.3f} of the quality in {took / full:.3f} of the time")

    def _on(self, model: nf.CML, train: nf.Interactions, test: nf.Interactions) -> Any:
        """Measure a model on axes that have more users and items than its own."""
        points = []
        for axis, own, vectors in (
            (train.user_ids, model.interactions.user_ids, model.user_vectors),
            (train.item_ids, model.interactions.item_ids, model.item_vectors),
        ):
            table = np.zeros((len(axis), vectors.shape[1]), np.float32)
            table[axis.places(own)] = vectors
            points.append(table)
        return self.measure(Points(*points), train, test)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", nargs="+")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=("users", "items", "growth"), nargs="+")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    for name in args.data:
        bench = Bench(Path(name).stem, load(name), args)
        parts: dict[str, Callable[[], None]] = {
            "users": lambda bench=bench: bench.newcomers("users"),
            "items": lambda bench=bench: bench.newcomers("items"),
            "growth": bench.growth,
        }
        for part in args.only or parts:
            parts[part]()
        write(args.out, bench.rows)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Put rows in the place of those of the same data, dimension and part."""
    names = ("data", "dim", "what")
    done = {tuple(str(row[name]) for name in names) for row in rows}
    old: list[dict[str, Any]] = []
    if path.exists():
        with path.open() as file:
            old = [r for r in csv.DictReader(file) if tuple(r[name] for name in names) not in done]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows([*old, *map(rounded, rows)])


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    """Give as many digits as mean something, and nothing for what was not measured."""
    places = {"ndcg": 4, "map": 4, "mmr": 1, "seconds": 1, "milliseconds": 1}
    return {
        name: value
        if name not in places
        else ""
        if np.isnan(value)
        else f"{value:.{places[name]}f}"
        for name, value in row.items()
    }


if __name__ == "__main__":
    main()
