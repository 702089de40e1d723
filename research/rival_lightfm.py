"""LightFM on articles: how long it and a hybrid take to the same accuracy, on one thread each.

    pip install lightfm-next==1.19.0
    python research/rival_lightfm.py -o research/results

takes CiteULike-t (split_cold) from `--shared`, which is not part of the project. LightFM learns
from the same TF-IDF and an identity column for each article, d = 128, by WARP, at each of
`--rates`; the hybrid is that of content.py. Both run on one thread until their NDCG on the
validation part (warm articles among warm ones) has fallen `--patience` times in a row. Seconds are
those of the processor, in training alone. A line for each epoch that was looked at goes to
lightfm.csv; runs that are there are not computed again.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import polars as pl
import scipy.sparse as sp

import nearfar as nf
from content import METHODS, SHARED, K, Task, of_articles
from nearfar.data.feature_space import FeatureSpace
from nearfar.engine import Problem
from nearfar.errors import NearfarWarning
from nearfar.search.neighbours import Points
from nearfar.training.calibration import expected_weight
from runs import add_line, has_line, show

DIM = 128
HYBRID = METHODS["hybrid, d 128"]


class Clock:
    """Seconds of the processor, without those in which it stood still."""

    def __init__(self) -> None:
        self.seconds, self._since = 0.0, time.process_time()

    def stop(self) -> float:
        """Return the seconds so far; they count again after `start`."""
        self.seconds += time.process_time() - self._since
        return self.seconds

    def start(self) -> None:
        """Count from now on."""
        self._since = time.process_time()


def figures(task: Task, scorer: Points, cold: Points) -> dict[str, float]:
    """Return NDCG and recall of the validation part and of the test parts."""
    validation = task.validation
    assert validation is not None
    parts = {
        "validation": (scorer, "warm", validation, task.learn),
        "warm": (scorer, "warm", task.test["warm"], task.known["warm"]),
        "cold": (cold, "cold", task.test["cold"], task.known["cold"]),
    }
    found = {}
    for name, (one, kind, test, known) in parts.items():
        result = nf.evaluate(one, task.learn, test, k=K, exclude=known, candidates=kind, threads=1)
        found |= {f"{name}_{metric}": round(result[metric], 5) for metric in ("ndcg", "recall")}
    return found


def columns_of(task: Task) -> sp.csr_matrix:
    """Return the columns of LightFM: one for each article, and its TF-IDF at length 1."""
    ids, counts = task.learn.item_ids, task.learn.item_counts
    words = FeatureSpace.fit(task.features, ids, counts > 0, {}).encode(task.features, ids).matrix
    own = sp.eye_array(len(ids), format="csr", dtype=np.float32)
    return sp.csr_matrix(sp.hstack([own, words], format="csr", dtype=np.float32))


def epochs_of_lightfm(task: Task, rate: float, most: int) -> Iterator[tuple[int, float, Any]]:
    """Train LightFM; yield epochs, seconds and the scorer after each epoch."""
    from lightfm import LightFM

    columns = columns_of(task)
    pairs = task.learn.to_csr().astype(np.float32).tocoo()
    shape = task.learn.n_users, task.learn.n_items
    liked = sp.coo_matrix((pairs.data, (pairs.coords[0], pairs.coords[1])), shape)
    model = LightFM(no_components=DIM, loss="warp", learning_rate=rate, random_state=0)
    clock = Clock()
    for epoch in range(1, most + 1):
        clock.start()
        model.fit_partial(liked, item_features=columns, epochs=1, num_threads=1)
        seconds = clock.stop()
        bias, items = model.get_item_representations(columns)
        users = np.ascontiguousarray(model.get_user_representations()[1], np.float32)
        scorer = Points(users, np.ascontiguousarray(items, np.float32), bias.astype(np.float32))
        yield epoch, seconds, (scorer, scorer)


def train_hybrid(task: Task, most: int, look: Callable[[int, float, Any], bool]) -> None:
    """Train the hybrid; call `look` with epochs, seconds and the scorer after each epoch."""
    weight = expected_weight(Problem(task.learn, nf.Options()))
    n, clock = task.learn.n_users, Clock()

    def after(event: Any) -> bool:
        seconds = clock.stop()
        points = event.points()
        apart = Points(points[:n], points[n:])
        done = look(event.epoch, seconds, (apart.weighted(weight), apart))
        clock.start()
        return done

    model = nf.CML(HYBRID)
    how: dict[str, Any] = {"item_features": task.features, "progress": False, "threads": 1}
    model.fit(task.learn, epochs=1, **how)  # compiles
    clock.start()
    model.fit(task.learn, epochs=most, callbacks=[after], **how)


class Looks:
    """Evaluates at 1, 2, 3, 4, 6, 8, 12, ... epochs until the validation part falls."""

    def __init__(self, task: Task, what: dict[str, Any], patience: int) -> None:
        self.task, self.what, self.patience = task, what, patience
        self.lines: list[dict[str, Any]] = []
        self.due = 1

    def __call__(self, epoch: int, seconds: float, scorers: Any) -> bool:
        """Evaluate, if it is time to; return whether the run has ended."""
        if epoch < self.due:
            return False
        self.due = epoch + max(1, 2 ** (epoch.bit_length() - 2))
        line = self.what | {"epoch": epoch, "seconds": round(seconds, 1)}
        self.lines.append(line | figures(self.task, *scorers))
        print(self.lines[-1], flush=True)
        values = [one["validation_ndcg"] for one in self.lines]
        return len(values) - 1 - int(np.argmax(values)) >= self.patience


def summary(lines: pl.DataFrame) -> list[dict[str, Any]]:
    """Return each run's best epoch, and when the hybrid was first as good as it."""
    ours = lines.filter(method="hybrid").sort("epoch")
    rows = []
    for (method, rate), run in lines.group_by("method", "rate", maintain_order=True):
        best = run.sort("validation_ndcg", descending=True).row(0, named=True)
        there = ours.filter(pl.col("validation_ndcg") >= best["validation_ndcg"])
        first = there["seconds"][0] if there.height else None
        rows.append({
            "method": method, "rate": rate, **{name: best[name] for name in (
                "epoch", "seconds", "validation_ndcg", "warm_ndcg", "warm_recall", "cold_ndcg")},
            "hybrid_seconds": first, "times": round(best["seconds"] / first, 1) if first else None,
        })  # fmt: skip
    return rows


def main() -> None:
    """Compute what is missing, and print when the hybrid was as good as LightFM's best."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--shared", type=Path, default=SHARED)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.02, 0.05, 0.1])
    parser.add_argument("--epochs", type=int, default=192, help="of LightFM, at most")
    parser.add_argument("--epochs-hybrid", type=int, default=32)
    parser.add_argument("--patience", type=int, default=2)
    args = parser.parse_args()
    warnings.simplefilter("ignore", NearfarWarning)
    file = args.out / "lightfm.csv"
    cold = of_articles("citeulike-cold", args.shared)
    assert cold.validation is not None
    warm = cold.validation.subset((cold.learn.item_counts > 0)[cold.validation.items])
    task = cold._replace(validation=warm)
    what: dict[str, Any] = {"method": "hybrid", "rate": HYBRID.optimiser.learning_rate}
    if not has_line(file, what):
        looks = Looks(task, what, args.patience)
        train_hybrid(task, args.epochs_hybrid, looks)
        for line in looks.lines:
            add_line(file, line)
    for rate in args.rates:
        what = {"method": "LightFM, WARP", "rate": rate}
        if has_line(file, what):
            continue
        looks = Looks(task, what, args.patience)
        for epoch, seconds, scorers in epochs_of_lightfm(task, rate, args.epochs):
            if looks(epoch, seconds, scorers):
                break
        for line in looks.lines:
            add_line(file, line)
    show("LightFM and a hybrid", summary(pl.read_csv(file)))


if __name__ == "__main__":
    main()
