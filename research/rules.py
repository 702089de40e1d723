"""Rules for the second stage, side by side: which candidates should push, and how hard.

A batch of 256 pairs shares 512 different candidates, drawn uniformly. A rule gives each pair (i, j)
a share of the gradient of eq. 1 for each candidate k: what a draw of one negative would give on
average. Everything else is the same for all: points on the sphere, d = 128, Adagrad, one fold, the
best epoch by NDCG@50 on the validation part. Each rule has one number of its own: three are tried
at the middle learning rate, then the two other rates with the best of them, by the same NDCG.

    python research/rules.py ml-100k lastfm/ -o research/results/rules.csv

takes folders that `nearfar prepare` wrote, or ml-100k. Runs that are in the file already are not
computed again. The best of each rule are printed and put into rules_best.csv; with `--show` nothing
else is done.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.sparse import csr_matrix

import nearfar as nf
from nearfar.method.geometry import normalise
from runs import add_line, first_fold, has_line

Float32 = npt.NDArray[np.float32]
Array = npt.NDArray[Any]

DIM, BATCH, CANDIDATES = 128, 256, 512
RATES = (0.03, 0.1, 0.3)
EPOCHS, EVERY, PATIENCE, K = 200, 4, 4, 50


@dataclass(frozen=True)
class Batch:
    """What a rule may look at. Entries of candidates that the user has are not `allowed`."""

    s: Float32
    """(B, C) u_i.v_k."""
    near: Float32
    """(B, 1) u_i.v_j."""
    z: Float32
    """(B, C) v_j.v_k."""
    allowed: Array
    epoch: int

    def inside(self, margin: float) -> Float32:
        """x_k = margin - 2 (s_ij - s_ik): how far inside the margin."""
        x: Float32 = margin - 2.0 * (self.near - self.s)
        return x


def shares(log_weight: Array, allowed: Array) -> Array:
    """Normalise weights over the allowed candidates; rows without any are 0."""
    masked = np.where(allowed, log_weight, -np.inf)
    top = masked.max(axis=1, keepdims=True)
    weight = np.exp(masked - np.where(np.isfinite(top), top, 0.0))
    return weight / np.maximum(weight.sum(axis=1, keepdims=True), 1e-30)


def hinge(batch: Batch, chosen: Array, margin: float = 1.0) -> Array:
    """Keep the shares of those inside the margin: the others push nothing."""
    return np.where(batch.inside(margin) > 0, chosen, 0.0)


def away(s: Array, dim: float = DIM) -> Array:
    """Give log 1 / p(s) for s >= 0; a negative product counts as 0."""
    return -0.5 * (dim - 3.0) * np.log1p(-(np.minimum(np.maximum(s, 0.0), 0.9999) ** 2))


def nearest_of(batch: Batch, allowed: Array, margin: float) -> Array:
    """Take the allowed candidate that is nearest to the user."""
    masked = np.where(allowed, batch.s, -np.inf)
    one = np.zeros_like(batch.s)
    np.put_along_axis(one, masked.argmax(axis=1)[:, None], 1.0, axis=1)
    return hinge(batch, one * allowed, margin)


def nearest(batch: Batch, margin: float) -> Array:
    """Take eq. 1 itself with all candidates as negatives: the nearest to the user."""
    return nearest_of(batch, batch.allowed, margin)


def like_the_positive(batch: Batch, tau: float) -> Array:
    """Choose as the paper's stage 2 does: 1 / p(v_j.v_k)^tau for v_j.v_k >= 0."""
    return hinge(batch, shares(tau * away(batch.z), batch.allowed & (batch.z >= 0)))


def like_the_positive_without_cut(batch: Batch, tau: float) -> Array:
    """Choose by 1 / p(v_j.v_k)^tau; a product below 0 weighs as much as 0."""
    return hinge(batch, shares(tau * away(batch.z), batch.allowed))


def near_the_user(batch: Batch, tau: float) -> Array:
    """Choose by 1 / p(u_i.v_k)^tau; a product below 0 weighs as much as 0."""
    return hinge(batch, shares(tau * away(batch.s), batch.allowed))


def effective_dimension(batch: Batch, tau: float) -> Array:
    """Choose by 1 / p(u_i.v_k)^tau, p in the dimension 1 / mean s^2 that the points really have."""
    dim = 1.0 / max(float(np.mean(batch.s**2)), 1e-4)
    return hinge(batch, shares(tau * away(batch.s, max(dim, 4.0)), batch.allowed))


def measured_density(batch: Batch, tau: float) -> Array:
    """Choose by 1 / p(u_i.v_k)^tau with the density of u.v in the batch itself, in 50 bins."""
    count, edges = np.histogram(batch.s[batch.allowed], bins=50)
    density = np.maximum(count, 1.0)[np.clip(np.searchsorted(edges, batch.s) - 1, 0, 49)]
    return hinge(batch, shares(-tau * np.log(density), batch.allowed))


def by_violation(batch: Batch, power: float) -> Array:
    """Choose by x_k^power, the violated margin itself."""
    x = batch.inside(1.0)
    return hinge(batch, shares(power * np.log(np.maximum(x, 1e-9)), batch.allowed & (x > 0)))


def semi_hard(batch: Batch, margin: float) -> Array:
    """Take the nearest of those that are farther than the positive item, but inside the margin."""
    return nearest_of(batch, batch.allowed & (batch.s < batch.near), margin)


def soft_hinge(batch: Batch, temperature: float) -> Array:
    """Draw by exp(x_k / T), then the hinge."""
    return hinge(batch, shares(2.0 / temperature * batch.s, batch.allowed))


def soft_maximum(batch: Batch, temperature: float) -> Array:
    """Share as the gradient of T log(1 + sum exp(x_k / T)), margin 0: what `Triplet` does."""
    x = np.where(batch.allowed, batch.inside(0.0), -np.inf)
    top = np.maximum(x.max(axis=1, keepdims=True), 0.0)
    part = np.exp((x - top) / temperature)
    return part / (part.sum(axis=1, keepdims=True) + np.exp(-top / temperature))


def soft_maximum_of_two_points(batch: Batch, temperature: float) -> Array:
    """Take the soft maximum, a user having two points: s is the larger product of the two."""
    return soft_maximum(batch, temperature)


def growing_hardness(batch: Batch, temperature: float) -> Array:
    """Take the soft maximum with a temperature that falls from 1 over the first 40 epochs."""
    done = min(batch.epoch / 40.0, 1.0)
    return soft_maximum(batch, temperature**done)


def spared_relatives(batch: Batch, cap: float) -> Array:
    """Take the soft maximum, T = 0.25, without candidates with v_j.v_k above a cap."""
    spared = Batch(batch.s, batch.near, batch.z, batch.allowed & (batch.z < cap), batch.epoch)
    return soft_maximum(spared, 0.25)


Rule = Callable[[Batch, float], Array]
RULES: dict[Rule, tuple[float, ...]] = {
    nearest: (0.5, 1.0, 1.5),
    like_the_positive: (0.03, 0.1, 1.0),
    like_the_positive_without_cut: (0.03, 0.1, 1.0),
    near_the_user: (0.1, 0.2, 0.4),
    effective_dimension: (0.5, 1.0, 2.0),
    measured_density: (0.5, 1.0, 2.0),
    by_violation: (1.0, 4.0, 16.0),
    semi_hard: (0.5, 1.0, 1.5),
    soft_hinge: (0.15, 0.3, 0.6),
    soft_maximum: (0.15, 0.25, 0.4),
    soft_maximum_of_two_points: (0.15, 0.25, 0.4),
    growing_hardness: (0.15, 0.25, 0.4),
    spared_relatives: (0.3, 0.5, 0.7),
}
"""Each with the values that its number is chosen from."""


class Points128:
    """All points, on the sphere, moved by Adagrad along the sphere."""

    def __init__(self, n: int, rate: float, rng: np.random.Generator) -> None:
        self.x = normalise(rng.normal(size=(n, DIM))).astype(np.float32)
        self.sums = np.full((n, DIM), 0.1, np.float32)
        self.rate = np.float32(rate)

    def move(self, rows: Array, gradients: Float32) -> None:
        """Add up the gradients of equal rows, then step."""
        some, place = np.unique(rows, return_inverse=True)
        add = csr_matrix((np.ones(len(rows), np.float32), (place, np.arange(len(rows)))))
        g, x = add @ gradients, self.x[some]
        g -= np.sum(g * x, axis=1, keepdims=True) * x
        self.sums[some] += g * g
        self.x[some] = normalise(x - self.rate * g / np.sqrt(self.sums[some]))


class Nearest:
    """Scores an item by the nearest of a user's points: max_a u_ia.v_j."""

    def __init__(self, u: Float32, v: Float32) -> None:
        self.u, self.v = u, v
        self.n_users, self.n_items = len(u), len(v)

    def score_block(self, rows: Any, first_item: int, out: Float32) -> None:
        """Write one tile; see `nearfar.search.neighbours.Scorer`."""
        block = slice(first_item, first_item + out.shape[1])
        out[:] = (self.u[rows] @ self.v[block].T).max(axis=1)


def train(rule: Rule, strength: float, rate: float, learn: Any, held_out: Any) -> dict[str, Any]:
    """Train with a rule; give the figures of the best epoch."""
    rng, begun = np.random.default_rng(0), time.perf_counter()
    each = 2 if rule is soft_maximum_of_two_points else 1
    n_points = learn.n_users * each
    has = learn.to_csr().toarray() > 0
    table = Points128(n_points + learn.n_items, rate, rng)
    users, items = learn.pair_users(), learn.items
    best: dict[str, Any] = {"ndcg": -1.0}
    for epoch in range(1, EPOCHS + 1):
        order = rng.permutation(learn.n_pairs)
        for first in range(0, len(order), BATCH):
            pairs = order[first : first + BATCH]
            step(rule, strength, table, each, users[pairs], items[pairs], has, rng, epoch)
        if epoch % EVERY == 0:
            u, v = table.x[:n_points].reshape(learn.n_users, each, DIM), table.x[n_points:]
            found = nf.evaluate(Nearest(u, v), learn, held_out, k=K, threads=1).metrics
            if found["ndcg"] > best["ndcg"]:
                best = {name: found[name] for name in ("map", "ndcg", "mmr")} | {"epoch": epoch}
            elif epoch - best["epoch"] >= EVERY * PATIENCE:
                break
    return best | {"seconds": time.perf_counter() - begun}


def step(
    rule: Rule,
    strength: float,
    table: Points128,
    each: int,
    users: Array,
    items: Array,
    has: Array,
    rng: np.random.Generator,
    epoch: int,
) -> None:
    """Move the points of one batch and its candidates; the nearest of a user's points counts."""
    n_users, n_items = has.shape
    candidates = rng.choice(n_items, min(CANDIDATES, n_items // 2), replace=False)
    own = users[:, None] * each + np.arange(each)
    rows_v, rows_c = n_users * each + items, n_users * each + candidates
    u, v, c = table.x[own.ravel()], table.x[rows_v], table.x[rows_c]
    to_v = np.sum(u.reshape(-1, each, DIM) * v[:, None], axis=2)  # (B, each)
    to_c = (u @ c.T).reshape(-1, each, len(c))
    batch = Batch(to_c.max(axis=1), to_v.max(axis=1, keepdims=True), v @ c.T,
                  ~has[users][:, candidates], epoch)  # fmt: skip
    w = rule(batch, strength).astype(np.float32)
    push, pull = w[:, None], w.sum(axis=1)[:, None]
    if each > 1:
        push = np.where(to_c.argmax(axis=1)[:, None] == np.arange(each)[:, None], push, 0)
        pull = np.where(to_v.argmax(axis=1)[:, None] == np.arange(each), pull, 0)
    push, pull = push.reshape(-1, len(c)), pull.reshape(-1, 1)
    of_u = push @ c - pull * np.repeat(v, each, axis=0)
    of_v = -(pull * u).reshape(-1, each, DIM).sum(axis=1)
    gradients = 2.0 * np.concatenate([of_u, of_v, push.T @ u])
    table.move(np.concatenate([own.ravel(), rows_v, rows_c]), gradients)


def tune(rule: Rule, file: Path, data: str, learn: Any, held_out: Any) -> None:
    """Try the numbers at the middle rate, then the other rates with the best number."""
    of_rule = {"data": data, "rule": rule.__name__}

    def compute(number: float, rate: float) -> None:
        what = of_rule | {"number": number, "rate": rate}
        if not has_line(file, what):
            add_line(file, what | train(rule, number, rate, learn, held_out))

    for number in RULES[rule]:
        compute(number, RATES[1])
    tried = pl.read_csv(file).filter(**of_rule, rate=RATES[1]).sort("ndcg", descending=True)
    for rate in RATES:
        compute(tried["number"][0], rate)


def show(file: Path) -> None:
    """Write the best of each rule, by NDCG on the validation part, to a file of their own."""
    found = (
        pl.read_csv(file)
        .sort("ndcg", descending=True)
        .group_by("data", "rule")
        .head(1)
        .sort("data", "ndcg", descending=[False, True])
        .select(
            "data",
            pl.col("rule").str.replace_all("_", " "),
            "number",
            "rate",
            *((pl.col(name) * 100.0).round(2) for name in ("map", "ndcg")),
            pl.col("mmr").round(1),
            "epoch",
            pl.col("seconds").round(0).cast(int),
        )
    )
    found.write_csv(file.with_name(f"{file.stem}_best.csv"))
    with pl.Config(tbl_rows=-1, tbl_cols=-1):
        print(found)


def main() -> None:
    """Compute what is missing, a line of the file after each run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="*", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--show", action="store_true")
    args = parser.parse_args()
    for path in [] if args.show else args.data:
        learn, held_out = first_fold(path)
        for rule in RULES:
            tune(rule, args.out, path.name, learn, held_out)
    show(args.out)


if __name__ == "__main__":
    main()
