"""How much memory training takes, beside what it cannot do without.

What it needs: three copies of the table of points (the parameter and both moments of Adam), the
training pairs in compressed form with the user of each, and the room of a step; the aim is 1.25
times that. Measured is the peak of the process from when the interactions are made to the end of
`CML.fit`, beyond what was resident before: interpreter, package and loaded kernels, listed apart.

Echonest's size (31,521 users, 159,063 items, 1.4 million made-up pairs) and one with a million
items, d = 128, batch 256, five negatives by popularity: one epoch; two epochs with pairs of 500
users held out and evaluated after each, so that the best points are kept meanwhile; and one epoch
that is saved as a checkpoint at its end.

    python benchmarks/memory.py [--threads 2]

writes results/memory.csv. Each case runs in a process of its own. It checks that the points are
unit vectors and the losses numbers.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from typing import Any

import numpy as np

import nearfar as nf
from common import (
    DIM,
    HINGE,
    MIB,
    N_USERS,
    forget_peak,
    in_own_process,
    made_up,
    memory_mib,
    show,
    write,
)

N_PAIRS = 1_405_671
CASES = (
    (159_063, "plain"),
    (159_063, "validation"),
    (159_063, "checkpoint"),
    (1_000_000, "plain"),
    (1_000_000, "validation"),
)
TABLES, BATCH, NEGATIVES, HELD_OUT = 3, 256, 5, 500
PLANS = 65_536 * 36
"""Bytes of the plans an engine makes ahead: about as many entries, whatever the batch."""


def measure(n_items: int, run: str, threads: int) -> dict[str, Any]:
    """Train once in this process; give its memory in MiB."""
    forget_peak()
    imported = memory_mib()
    options = replace(HINGE, dim=DIM, batch=BATCH, negatives=NEGATIVES, sampler=nf.Popularity(1.0))
    load_kernels(options, threads)
    forget_peak()
    loaded = memory_mib()
    data, held_out = made_up(N_USERS, n_items, N_PAIRS), None
    if run == "validation":
        data, held_out = hold_out(data)
    forget_peak()
    model = nf.CML(options)
    with tempfile.TemporaryDirectory() as folder:
        model.fit(
            data,
            epochs=1 if held_out is None else 2,
            validation=held_out,
            checkpoint=folder if run == "checkpoint" else None,
            checkpoint_seconds=3600,
            threads=threads,
            progress=False,
        )
    peak, needed = memory_mib("VmHWM") - loaded, needed_mib(data, threads)
    check(model)
    return {
        "n_items": n_items,
        "run": run,
        "imported_mib": round(imported),
        "with_kernels_mib": round(loaded),
        "needed_mib": round(needed, 1),
        "peak_mib": round(peak, 1),
        "ratio": round(peak / needed, 3),
        "more_in_tables": round(TABLES * (peak - needed) / tables_mib(data), 2),
    }


def load_kernels(options: nf.Options, threads: int) -> None:
    """Use everything once on little data, so that it is resident before the measurement."""
    data, held_out = hold_out(made_up(1000, 2000, 20_000))
    nf.CML(options).fit(data, epochs=1, validation=held_out, threads=threads, progress=False)


def hold_out(data: nf.Interactions) -> tuple[nf.Interactions, nf.Interactions]:
    """Hold out a fifth of the pairs of the first users."""
    users = data.pair_users()
    mask = (users < HELD_OUT) & (np.random.default_rng(4).random(len(users)) < 0.2)
    return data.subset(~mask), data.subset(mask)


def tables_mib(data: nf.Interactions) -> float:
    """Size of the parameter and both moments."""
    return float((data.n_users + data.n_items) * DIM * 4 * TABLES / MIB)


def needed_mib(data: nf.Interactions, threads: int) -> float:
    """Add up what training cannot do without."""
    last_steps = 8 * (data.n_users + data.n_items)
    alias_table = (8 + 8 + 4) * data.n_items
    pairs = (4 + 4) * data.n_pairs + 8 * data.n_users
    room = BATCH * (2 + NEGATIVES) * DIM * 4 * (1 + threads)
    return tables_mib(data) + (last_steps + alias_table + pairs + room + PLANS) / MIB


def check(model: nf.CML) -> None:
    """Stop unless the model is one: points on the sphere, losses that are numbers."""
    for points in (model.user_vectors, model.item_vectors):
        lengths = np.linalg.norm(points[:: max(1, len(points) // 10_000)], axis=1)
        if not np.allclose(lengths, 1.0, atol=1e-4):
            raise SystemExit("The points are not on the sphere; the figures are worth nothing.")
    if not np.isfinite(model.history["loss"].to_numpy()).all():
        raise SystemExit("A loss is not a number; the figures are worth nothing.")


def main() -> None:
    """Measure every case in a process of its own; or one case in a process made for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case is not None:
        print(json.dumps(measure(**args.case)))
        return
    lines = [
        in_own_process(__file__, {"n_items": n_items, "run": run, "threads": args.threads})
        for n_items, run in CASES
    ]
    show("Memory of training; `more_in_tables` counts copies of the points beyond the need", lines)
    write("memory", lines)


if __name__ == "__main__":
    main()
