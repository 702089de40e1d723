"""The memory of a catalogue of a million items with fifty features each, from frame to lists.

The features are numbers of categories, drawn from 200,000 with probabilities that fall as those of
words do; 31,521 users have 1.4 million made-up pairs. A tenth of the items have no pair, so they
are recommended by what they are alone. Measured is the resident memory of the whole process and
its peak so far: with the frame of features, `Features.from_frame`, one epoch of
``CML(items=Hybrid(Linear()))`` with the defaults, and the lists of 1,000 users among all items.

    python benchmarks/features.py [--dim 64 128] [--threads 2]

Each dimension runs in a process of its own. It checks that points have length 1, that losses are
numbers, that cold items have points of their own and that lists hold distinct items. Writes
results/features.csv.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import polars as pl

import nearfar as nf
from common import N_USERS, forget_peak, in_own_process, made_up, memory_mib, show, write

N_ITEMS, N_PAIRS, EACH, VOCABULARY, COLD = 1_000_000, 1_405_671, 50, 200_000, 0.1
DEMAND_MIB = 4096


def frame_of(ids: Any) -> pl.DataFrame:
    """Draw the features of all items."""
    drawn = np.random.default_rng(0).zipf(1.3, EACH * len(ids)) % VOCABULARY
    listed = pl.Series("words", drawn.astype(np.int32)).reshape((len(ids), EACH)).arr.to_list()
    return pl.DataFrame({"item_id": ids, "words": listed})


def interactions() -> nf.Interactions:
    """Draw the pairs, and leave out those of the cold items."""
    data = made_up(N_USERS, N_ITEMS, N_PAIRS)
    cold = np.random.default_rng(1).random(data.n_items) < COLD
    return data.subset(~cold[data.items])


def measure(dim: int, threads: int) -> dict[str, Any]:
    """Go from the frame to the lists in this process; give its memory in MiB."""
    data = interactions()
    frame = frame_of(data.item_ids.to_list())
    forget_peak()
    line: dict[str, Any] = {"items": N_ITEMS, "features": EACH, "dim": dim, "threads": threads}
    line["start_mib"] = round(memory_mib())

    begun = time.perf_counter()
    features = nf.Features.from_frame(frame, categories="words")
    line["features_s"] = round(time.perf_counter() - begun, 1)
    line["features_mib"] = round(memory_mib("VmHWM"))
    del frame

    begun = time.perf_counter()
    model = nf.CML(dim=dim, items=nf.Hybrid(encoder=nf.Linear()))
    model = model.fit(
        data, item_features=features, epochs=1, seed=0, threads=threads, progress=False
    )
    line["fit_s"] = round(time.perf_counter() - begun, 1)
    line["fit_mib"] = round(memory_mib("VmHWM"))

    users = data.user_ids.take(np.flatnonzero(data.user_counts)[:1000]).to_list()
    lists = model.recommend(users, k=20, threads=threads)
    check(model, data, lists)
    return line | {"peak_mib": round(memory_mib("VmHWM"))}


def check(model: nf.CML, data: nf.Interactions, lists: pl.DataFrame) -> None:
    """Stop if the model is not one."""
    points = model.item_vectors
    cold = points[data.item_counts == 0][:1000]
    if not np.allclose(np.linalg.norm(points, axis=1), 1.0, atol=1e-4):
        raise SystemExit("A point is not of length 1.")
    if not np.isfinite(model.history["loss"].to_numpy()).all():
        raise SystemExit("A loss is no number.")
    if len(np.unique(cold.round(5), axis=0)) < 0.9 * len(cold):
        raise SystemExit("Cold items share points.")
    if lists.select(pl.struct("user_id", "item_id").is_duplicated().any()).item():
        raise SystemExit("A list holds an item twice.")


def main() -> None:
    """Measure all dimensions."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dim", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure(**args.case)))
        return
    lines = [in_own_process(__file__, {"dim": d, "threads": args.threads}) for d in args.dim]
    show("A million items with fifty features each", lines)
    write("features", lines)
    missed = [line["dim"] for line in lines if line["peak_mib"] >= DEMAND_MIB]
    print(f"At or above {DEMAND_MIB} MiB: d = {missed}" if missed else "All below the demand.")


if __name__ == "__main__":
    main()
