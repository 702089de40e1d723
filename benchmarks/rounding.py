"""How often the CPU engine's second stage chooses another candidate than the reference.

Stage 2 compares a sum of weights with a random number. The CPU engine has the weights in float32,
the reference in float64; where they round to different sides, they choose different candidates.
Both get the same tables here: Gowalla, d = 128, 2,000 candidates, before
training and after 3,000 steps.

    python benchmarks/rounding.py [--steps 25]

takes some minutes: the reference is plain loops.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

import nearfar as nf
from common import HINGE
from nearfar.engine import Problem
from nearfar.engine.cpu.cpu_engine import CPUEngine
from nearfar.engine.reference import ReferenceEngine

DATA = Path(__file__).parent / "../../shared/data/gowalla-lightgcn.parquet"


def gowalla(path: Path) -> nf.Interactions:
    """Read users with more than 20 interactions, train and test parts together."""
    table = pl.read_parquet(path).select("user", "item").unique()
    return nf.Interactions.from_frame(
        table.filter(pl.len().over("user") > 20), user="user", item="item"
    )


def disagreements(problem: Problem, trained: int, steps: int) -> tuple[int, int]:
    """Count the draws that differ, and all draws, in `steps` steps after `trained` steps."""
    engine = CPUEngine(problem, threads=2)
    if trained:
        engine.run(trained)
    engine.settle()
    tables = engine.state.copy()
    reference = ReferenceEngine(problem, tables.copy())
    differ = drawn = 0
    for step in range(trained, trained + steps):
        engine.state.rows[:] = tables.rows
        engine.state.last[:] = np.where(tables.last > 0, step, 0)  # up to date: nothing drifts
        engine.state.step = step
        engine.run(1)
        size = engine._plans.size[0, 0]
        entries = engine._plans.entries[0, :size, 2:]
        found = np.where(entries >= 0, entries - problem.n_users, -1)
        expected = np.array(reference.negatives(step, reference.pairs(step)))
        differ += int((found != expected).sum())
        drawn += found.size
    engine.close()
    return differ, drawn


def main() -> None:
    """Count before training and after 3,000 steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--steps", type=int, default=25)
    args = parser.parse_args()
    options = replace(HINGE, sampler=nf.TwoStage(2000), optimiser=nf.Adam(learning_rate=2e-4))
    data = gowalla(args.data)
    for seed, trained in enumerate((0, 3000)):
        differ, drawn = disagreements(Problem(data, options, seed), trained, args.steps)
        print(f"after {trained} steps: {differ} of {drawn} draws differ", flush=True)


if __name__ == "__main__":
    main()
