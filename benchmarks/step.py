"""What a training step costs, beside what its memory traffic and its products alone would take.

Echonest-sized tables (31,521 users x 159,063 items, 1.4 million made-up pairs), d = 128, Adam. The
limit is the time to read and write the touched rows of parameter and both moments once, as random
rows, on as many threads, in the same round: by a plain loop, and by one that asks for its rows
ahead as the engine does, whichever is faster. With 2-stage sampling it is the larger of that and
the time of the batch x d x candidates product. `plain_ratio` is against the plain loop (or the
product).

    python benchmarks/step.py [--rounds 5] [--seconds 0.3]

writes results/step.csv. Before timing it checks that the loss is the same for one and two threads.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

import nearfar as nf
from common import DIM, HINGE, Spread, made_up, ratios, rounds, show, touch_rows, write
from nearfar.engine import Problem
from nearfar.engine.cpu.cpu_engine import CPUEngine
from nearfar.method.sampling import Sampler
from nearfar.runtime.threads import one_blas_thread

TOUCHED = 40_000
"""Rows that are touched in one measurement of the memory."""
PRODUCTS, PRODUCT_ROWS = 4, 256
"""Products in one measurement of the arithmetic, and the rows of each."""
CASES = [
    (sampler, batch, negatives)
    for batch in (256, 4096)
    for negatives in (1, 5)
    for sampler in (
        nf.Uniform(),
        nf.Popularity(1.0),
        nf.TwoStage(2000),
        nf.TwoStage(500, 0.5, towards="user", sharpness=0.1),
    )
]


def main() -> None:
    """Time every case, several rounds, and print medians with their spread."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3)
    args = parser.parse_args()
    data, lines = made_up(), []
    for sampler, batch, negatives in CASES:
        options = replace(HINGE, dim=DIM, sampler=sampler, batch=batch, negatives=negatives)
        problem = Problem(data, options, horizon=100_000)
        engines = {threads: CPUEngine(problem, threads=threads) for threads in (1, 2)}
        check(options, engines)
        for threads, engine in engines.items():
            with ThreadPoolExecutor(threads) as pool:
                lines.append(timed(engine, threads, pool, args))
            engine.close()
    lines = beside_popularity(lines)
    show("Training steps beside their limits", lines)
    write("step", lines)


def check(options: nf.Options, engines: dict[int, CPUEngine]) -> None:
    """Stop unless one and two threads give the same losses."""
    losses = [engine.run(20)["triplet"] for engine in engines.values()]
    if not np.array_equal(*losses) or not np.isfinite(losses[0]).all():
        raise SystemExit(f"{options}: the engines disagree; nothing is timed.")


def timed(
    engine: CPUEngine, threads: int, pool: ThreadPoolExecutor, args: argparse.Namespace
) -> dict[str, Any]:
    """Time one case: each round the step and, right after it, its limits."""
    options, n_candidates = engine.problem.options, engine.problem.n_candidates
    count = max(2, int(args.seconds / seconds_of(engine)))
    n_rows = int(np.mean([unique_rows(engine) for _ in range(4)]))
    listed = np.random.default_rng(1).integers(0, len(engine.state.rows), TOUCHED)
    rows = engine.state.rows
    cases = {
        "step": lambda: engine.run(count),
        "plain": lambda: touch_rows(rows, listed, pool, threads, ahead=0),
        "ahead": lambda: touch_rows(rows, listed, pool, threads, ahead=8),
        "product": lambda: multiply(n_candidates, pool, threads) if n_candidates else None,
    }
    seconds = rounds(cases, args.rounds)
    steps = [s / count for s in seconds["step"]]
    memory = {name: [s * n_rows / TOUCHED for s in seconds[name]] for name in ("plain", "ahead")}
    done = PRODUCTS * PRODUCT_ROWS * threads
    product = [s * options.batch / done if n_candidates else 0.0 for s in seconds["product"]]
    fastest = [min(pair) for pair in zip(memory["plain"], memory["ahead"], strict=True)]
    limit = [max(pair) for pair in zip(fastest, product, strict=True)]
    plain = [max(pair) for pair in zip(memory["plain"], product, strict=True)]
    step = Spread.of([1e3 * s for s in steps])
    return {
        "sampler": name_of(options.sampler),
        "batch": options.batch,
        "negatives": engine.problem.n_negatives,
        "threads": threads,
        **step.columns("step_ms"),
        "groups_per_second": int(1e3 * options.batch / step.median),
        "rows": n_rows,
        "rows_ms": round(1e3 * Spread.of(fastest).median, 3),
        "product_ms": round(1e3 * Spread.of(product).median, 3),
        **ratios(steps, limit).columns("ratio", 2),
        **ratios(steps, plain).columns("plain_ratio", 2),
    }


def name_of(sampler: Sampler) -> str:
    """Return the class of a sampler, and whether its second stage looks towards the user."""
    name = type(sampler).__name__
    return f"{name}, user" if sampler.needs.towards == "user" else name


def seconds_of(engine: CPUEngine) -> float:
    """Measure roughly how long a step takes."""
    return rounds({"step": lambda: engine.run(8)}, 1)["step"][0] / 8


def unique_rows(engine: CPUEngine) -> int:
    """Count the different rows of the next step; with 2-stage sampling its candidates too."""
    engine.run(1)
    plan = engine._plans
    rows = plan.unique[0, : plan.size[0, 1]]
    return len(np.union1d(rows, engine.problem.n_users + plan.candidates[0]))


def multiply(n_candidates: int, pool: ThreadPoolExecutor, threads: int) -> None:
    """Multiply `PRODUCTS` blocks of rows with all candidates on each thread."""
    a = np.ones((PRODUCT_ROWS, DIM), np.float32)
    b = np.ones((n_candidates, DIM), np.float32)
    out = [np.empty((PRODUCT_ROWS, n_candidates), np.float32) for _ in range(threads)]
    with one_blas_thread():
        list(
            pool.map(
                lambda i: [np.matmul(a, b.T, out=out[i]) for _ in range(PRODUCTS)], range(threads)
            )
        )


def beside_popularity(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Say how often as long as one by popularity each step takes."""
    name = ("batch", "negatives", "threads")
    popular = {
        tuple(line[n] for n in name): line["step_ms"]
        for line in lines
        if line["sampler"] == "Popularity"
    }
    return [
        {**line, "to_popularity": round(line["step_ms"] / popular[tuple(line[n] for n in name)], 2)}
        for line in lines
    ]


if __name__ == "__main__":
    main()
