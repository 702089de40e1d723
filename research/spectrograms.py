"""What small batches buy where an encoder is large: a CNN over spectrograms, by sampler and batch.

    python research/spectrograms.py -o research/results
    python research/spectrograms.py -o research/results --memory

Made-up data: an item has two of 12 tones and a popularity, a user loves three tones, and picks
items by both. The log-mel spectrogram of an item, 128 bands and 430 frames, has its tones on and
off, among noise and clicks; nothing else says what an item is. A fifth of the items is cold.

Accuracy is measured at a lower resolution (24 x 40), with the same network otherwise, so
that all settings can be trained; every run encodes about as many contents (`ENCODED`), at a
learning rate that grows with the root of the batch, and its best epoch is chosen on a validation
part. Memory is the peak of a process that takes one step at the full resolution, less what it had
before. It is measured with one negative; with more, and where the step would not fit, it is that of
a content, measured at a smaller batch, times the distinct items of the step ("estimated").
Lines that are in spectrogram_runs.csv, or spectrogram_memory.csv,
are not computed again.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

import nearfar as nf
from nearfar.engine import Problem, make_engine
from nearfar.engine.content import has_content
from nearfar.errors import NearfarWarning
from nearfar.model.given_content import given_content
from runs import (
    add_line,
    available_mib,
    forget_peak,
    has_line,
    in_own_process,
    memory_mib,
    show,
)

Float32, Bools = npt.NDArray[np.float32], npt.NDArray[np.bool_]
DIM, TONES, K = 32, 12, 20
BATCHES, NEGATIVES = (64, 256, 1024, 4096), (1, 2, 5)
SAMPLERS = {
    "uniform": nf.Uniform(),
    "popularity": nf.Popularity(),
    "2-stage": nf.TwoStage(500, 0.5, towards="user", sharpness=0.2),
}
ENCODED = 150_000
"""Contents that a run has encoded, at most."""
RATE, MODULE_RATE = 0.01, 3e-3
"""Learning rates at batch 256."""
MOST_MIB = 18 * 1024.0


class Size(NamedTuple):
    """How much data there is, and how fine the spectrograms are."""

    users: int
    items: int
    shape: tuple[int, int]


SMALL, FULL = Size(800, 1_000, (24, 40)), Size(2_500, 8_000, (128, 430))
PAIRS = 20
"""Of each user."""


def tones_of(size: Size, seed: int) -> Bools:
    """Draw which tones each item has, (items, TONES)."""
    rng = np.random.default_rng([seed, 1])
    order = rng.random((size.items, TONES)).argsort(1)
    has = np.zeros((size.items, TONES), np.bool_)
    np.put_along_axis(has, order[:, :2], True, axis=1)
    return has


def interactions(size: Size, seed: int) -> nf.Interactions:
    """Draw what users pick: by popularity, and by the tones that they love."""
    rng = np.random.default_rng([seed, 2])
    tones, popularity = tones_of(size, seed), rng.normal(0.0, 1.0, size.items)
    users, items = [], []
    for user in range(size.users):
        loves = np.zeros(TONES)
        loves[rng.choice(TONES, 3, replace=False)] = 1.0
        worth = popularity + 3.0 * (tones @ loves) + rng.gumbel(size=size.items)
        items.append(np.argpartition(-worth, PAIRS)[:PAIRS])
        users.append(np.full(PAIRS, user))
    pairs = pl.DataFrame({"user": np.concatenate(users), "item": np.concatenate(items)})
    return nf.Interactions.from_frame(pairs, user="user", item="item")


def spectrogram(
    number: int, tones: npt.NDArray[np.bool_], shape: tuple[int, int], seed: int
) -> Float32:
    """Draw the spectrogram of an item, (1, bands, frames)."""
    rng, (bands, frames) = np.random.default_rng([seed, 3, number]), shape
    made = rng.standard_normal(shape, dtype=np.float32)
    made[:, rng.random(frames) < 0.05] += 2.0  # clicks
    for tone in np.flatnonzero(tones[number]):
        band = min(bands - 1, int((tone + 0.5) * bands / TONES))
        on = np.repeat(rng.random(frames // 5 + 1) < 0.4, 5)[:frames]
        made[band, on] += 1.5
    return made[None]


def contents(size: Size, data: nf.Interactions, seed: int) -> nf.Contents:
    """Give the spectrograms of items: made when they are read, at full size; otherwise at once."""
    tones = tones_of(size, seed)

    def load(ids: list[int]) -> Float32:
        return np.stack([spectrogram(number, tones, size.shape, seed) for number in ids])

    ids = data.item_ids.to_list()
    if size is FULL:
        return nf.Contents.from_callable(load, ids)
    return nf.Contents.from_array(load(ids), ids)


class Network(torch.nn.Module):
    """Two convolutions, a mean over time, and a linear layer over bands and channels."""

    def __init__(self, dim: int, bands: int) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(1, 24, 3, stride=2, padding=1)
        self.second = torch.nn.Conv2d(24, 32, 3, stride=2, padding=1)
        self.last = torch.nn.Linear(32 * (bands // 4), dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the vectors (n, d) of spectrograms (n, 1, bands, frames)."""
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.last(x.mean(3).flatten(1))


def network(dim: int) -> Network:
    """Make the network for the lower resolution."""
    return Network(dim, SMALL.shape[0])


def full_network(dim: int) -> Network:
    """Make the network for the full resolution."""
    return Network(dim, FULL.shape[0])


def options_of(case: dict[str, Any], build: Any) -> nf.Options:
    """Return the options of a setting: the paper's loss, with the prior."""
    scale = (case["batch"] / 256) ** 0.5
    encoder = nf.Module(build, learning_rate=MODULE_RATE * scale)
    return replace(
        nf.Options(),
        dim=DIM, sampler=SAMPLERS[case["sampler"]], negatives=case["negatives"],
        batch=case["batch"], triplet=nf.Triplet(0.5), items=nf.Hybrid(encoder),
        optimiser=nf.Adam(RATE * scale),
    )  # fmt: skip


def accuracy(case: dict[str, Any], seed: int, threads: int) -> dict[str, Any]:
    """Train a setting and evaluate it on warm and cold items."""
    data = interactions(SMALL, seed)
    about = contents(SMALL, data, seed)
    rest, cold = nf.split.cold_items(data, 0.2, by="random", seed=seed)
    rest, warm = nf.split.ratio(rest, test=0.2, seed=seed)
    learn, valid = nf.split.ratio(rest, test=0.1, seed=seed)
    learn, unseen = nf.split.cold_items(learn, 0.1, by="random", seed=seed + 10)
    valid = valid.union(unseen)
    options = options_of(case, network)
    begun = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NearfarWarning)  # short of content, few epochs
        model = nf.CML(options).fit(
            learn, item_features=about, validation=valid, epochs=epochs_of(learn, options, seed),
            k=K, seed=seed, threads=threads, progress=False,
        )  # fmt: skip
        line: dict[str, Any] = {"seconds": round(time.process_time() - begun, 1)}
        for kind, test in (("warm", warm), ("cold", cold)):
            found = nf.evaluate(model, learn, test, k=K, candidates=kind, threads=threads,
                                exclude=learn.union(valid))  # fmt: skip
            line[f"ndcg_{kind}"] = round(found["ndcg"], 4)
            line[f"mmr_{kind}"] = round(found["mmr"], 1)
    return {**line, "epochs": model.history.height, "best_epoch": model.best_epoch}


def epochs_of(learn: nf.Interactions, options: nf.Options, seed: int) -> int:
    """Return how many epochs encode `ENCODED` contents, counted in one step of each batch."""
    distinct = distinct_items(learn, options, seed)
    steps = -(-learn.n_pairs // options.batch)
    return max(3, round(ENCODED / (steps * distinct)))


def distinct_items(learn: nf.Interactions, options: nf.Options, seed: int) -> int:
    """Return the distinct items of the first step, by their draws from the training items."""
    counts = learn.item_counts.astype(np.float64)
    rng = np.random.default_rng(seed)
    size = min(options.batch, learn.n_pairs)
    positives = rng.choice(learn.items, size, replace=False)
    weight = options.sampler.proposal(learn.item_counts) * (counts > 0)
    n = size * (options.negatives or 1)
    drawn = rng.choice(learn.n_items, n, p=weight / weight.sum())
    return len(np.union1d(positives, drawn))


def memory(case: dict[str, Any]) -> dict[str, Any]:
    """Take one step at the full resolution in this process; give its peak."""
    data, seed = interactions(FULL, 0), 0
    about, options = contents(FULL, data, seed), options_of(case, full_network)
    known = given_content(options, data, {"items": about, "users": None}, seed, "cpu")
    problem = Problem(data, options, seed, content=known.content, module=known.module)
    if case.get("plan"):
        return {"distinct": distinct_items(data, options, seed)}
    engine = make_engine(problem, None, device="cpu", threads=2)
    engine.run(0)
    forget_peak()
    before = memory_mib()
    engine.run(1)
    peak = memory_mib("VmHWM") - before
    points = engine.points(np.arange(data.n_users, data.n_users + 8))
    if not np.allclose(np.linalg.norm(points, axis=1), 1.0, atol=1e-5):
        raise SystemExit(f"points of {case} are not of length 1")
    assert problem.content is not None
    assert has_content(problem.content)[data.n_users :].all()
    return {"distinct": engine.modules.n_encoded, "peak_mib": round(peak, 1)}  # type: ignore


def cases() -> list[dict[str, Any]]:
    """Return all settings."""
    return [
        {"sampler": sampler, "negatives": negatives, "batch": batch}
        for negatives, batch, sampler in product(NEGATIVES, BATCHES, SAMPLERS)
    ]


def measure_memory(folder: Path) -> None:
    """Measure the peak of the settings with one negative that fit, and estimate the others."""
    file, slope = folder / "spectrogram_memory.csv", 4.0
    for case in cases():
        if has_line(file, case):
            continue
        distinct = in_own_process(__file__, {**case, "plan": True})["distinct"]
        if case["negatives"] > 1 or distinct * slope > min(MOST_MIB, available_mib() - 2048):
            found = {"distinct": distinct, "peak_mib": round(distinct * slope, 1)}
            add_line(file, {**case, **found, "measured": "estimated"})
            continue
        found = in_own_process(__file__, case)
        slope = found["peak_mib"] / found["distinct"]
        add_line(file, {**case, **found, "measured": "measured"})


def measure_accuracy(folder: Path, seeds: list[int], threads: int) -> None:
    """Train and evaluate every setting."""
    file = folder / "spectrogram_runs.csv"
    for seed, case in product(seeds, cases()):
        if not has_line(file, {**case, "seed": seed}):
            add_line(file, {**case, "seed": seed, **accuracy(case, seed, threads)})


def table(folder: Path) -> None:
    """Write the means over seeds beside the memory."""
    runs = pl.read_csv(folder / "spectrogram_runs.csv")
    of = ["sampler", "negatives", "batch"]
    means = runs.group_by(of, maintain_order=True).agg(
        pl.len().alias("seeds"), pl.col("ndcg_warm", "ndcg_cold").mean().round(4),
        pl.col("ndcg_warm").std().round(4).alias("warm_deviation"),
        pl.col("ndcg_cold").std().round(4).alias("cold_deviation"),
        pl.col("mmr_warm").mean().round(1),
        pl.col("epochs", "best_epoch", "seconds").mean().round(1),
    )  # fmt: skip
    peaks = folder / "spectrogram_memory.csv"
    if peaks.exists():
        means = means.join(pl.read_csv(peaks), on=of, how="left")
    means.write_csv(folder / "spectrograms.csv")
    show("spectrograms", means.to_dicts())
    plot(means, folder / "spectrograms.png")


def plot(means: pl.DataFrame, file: Path) -> None:
    """Draw accuracy on warm and cold items against the peak of a step, for each sampler."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    if "peak_mib" not in means.columns:
        return
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharex=True, layout="constrained")
    for axis, kind in zip(axes, ("warm", "cold"), strict=True):
        for (sampler, negatives), some in means.group_by(
            "sampler", "negatives", maintain_order=True
        ):
            ordered, colour = some.sort("batch"), f"C{[*SAMPLERS].index(sampler)}"
            axis.plot(
                ordered["peak_mib"] / 1024, ordered[f"ndcg_{kind}"], colour,
                marker="ox^"[NEGATIVES.index(negatives)], linewidth=1,
                label=f"{sampler}, {negatives} negative{'s' * (negatives > 1)}",
            )  # fmt: skip
        axis.set(xscale="log", xlabel="peak of a step, GiB", ylabel=f"NDCG@20, {kind} items")
        axis.spines[["top", "right"]].set_visible(False)
    axes[1].legend(fontsize=7, frameon=False)
    figure.savefig(file, dpi=150)


def main() -> None:
    """Measure what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--case")
    args = parser.parse_args()
    if args.case:
        print(json.dumps(memory(json.loads(args.case))))
        return
    if args.memory:
        measure_memory(args.output)
    else:
        measure_accuracy(args.output, args.seeds, args.threads)
    table(args.output)


if __name__ == "__main__":
    main()
