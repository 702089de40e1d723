"""What a training step costs, beside the time its memory traffic alone would take.

Echonest-sized tables (31,521 users, 159,063 items, 1.4 million pairs of made-up interactions with a
popularity like real ones), d = 128, Adam. The limit is the time to read and write the touched rows
of parameter and both moments once, as random rows, measured in the same run on as many threads;
with 2-stage sampling it is the larger of that and the time of the batch x d x candidates product.

    python benchmarks/step.py [--rounds 5] [--seconds 0.7]

writes results/step.csv. Before timing it checks that the loss is the same for one and two threads.
"""

from __future__ import annotations

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl

import nearfar as nf
from nearfar.engine import Problem
from nearfar.engine.cpu import CPUEngine
from nearfar.ids import Ids
from nearfar.jit import kernel
from nearfar.threads import one_blas_thread

HERE = Path(__file__).parent
N_USERS, N_ITEMS, N_PAIRS, DIM = 31_521, 159_063, 1_405_671, 128
CASES = [
    (sampler, batch, negatives)
    for sampler in (nf.Uniform(), nf.Popularity(1.0), nf.TwoStage(2000))
    for batch in (256, 4096)
    for negatives in (1, 5)
]


def made_up() -> nf.Interactions:
    """Draw pairs: users uniformly, items by a power law."""
    rng = np.random.default_rng(0)
    weight = np.arange(1, N_ITEMS + 1) ** -0.8
    items = rng.choice(N_ITEMS, N_PAIRS, p=weight / weight.sum())
    users = rng.integers(0, N_USERS, N_PAIRS)
    return nf.Interactions.from_rows(users, items, Ids.numbered(N_USERS), Ids.numbered(N_ITEMS))


@kernel
def _touch(rows, listed, begin, end):  # type: ignore[no-untyped-def]
    for i in range(begin, end):
        row = listed[i]
        for slot in range(rows.shape[1]):
            for k in range(rows.shape[2]):
                rows[row, slot, k] = rows[row, slot, k] * np.float32(0.9999)


def memory_seconds(rows: np.ndarray, n: int, threads: int, pool: ThreadPoolExecutor) -> float:
    """Seconds to read and write n random rows once, in one pass over many."""
    listed = np.random.default_rng(1).integers(0, len(rows), 60_000)
    bounds = [len(listed) * i // threads for i in range(threads + 1)]
    begun = time.perf_counter()
    list(pool.map(lambda i: _touch(rows, listed, bounds[i], bounds[i + 1]), range(threads)))
    return (time.perf_counter() - begun) * n / len(listed)


def product_seconds(batch: int, candidates: int, threads: int, pool: ThreadPoolExecutor) -> float:
    """Seconds of the batch x d x candidates product, blocks of 256 rows on each thread."""
    a = np.ones((256, DIM), np.float32)
    b = np.ones((candidates, DIM), np.float32)
    out = [np.empty((256, candidates), np.float32) for _ in range(threads)]
    rounds = 8
    with one_blas_thread():
        begun = time.perf_counter()
        list(
            pool.map(
                lambda i: [np.matmul(a, b.T, out=out[i]) for _ in range(rounds)], range(threads)
            )
        )
        return (time.perf_counter() - begun) * batch / (256 * rounds * threads)


def main() -> None:
    """Time every case in turn, several rounds, and print medians with their spread."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.7)
    args = parser.parse_args()
    data, lines = made_up(), []
    for sampler, batch, negatives in CASES:
        options = nf.Options(dim=DIM, sampler=sampler, batch=batch, negatives=negatives)
        problem = Problem(data, options, horizon=100_000)
        engines = {threads: CPUEngine(problem, threads=threads) for threads in (1, 2)}
        losses = [engine.run(20)["triplet"] for engine in engines.values()]
        if not np.array_equal(*losses) or not np.isfinite(losses[0]).all():
            raise SystemExit(f"{options}: the engines disagree; nothing is timed.")
        for threads, engine in engines.items():
            with ThreadPoolExecutor(threads) as pool:
                lines.append(timed(engine, threads, pool, args.rounds, args.seconds))
            print(lines[-1], flush=True)
            engine.close()
    pl.DataFrame(lines).write_csv(HERE / "results" / "step.csv")


def timed(
    engine: CPUEngine, threads: int, pool: ThreadPoolExecutor, rounds: int, seconds: float
) -> dict[str, object]:
    """Time one case: each round the step and, right after it, its limits."""
    options = engine.problem.options
    begun = time.perf_counter()
    engine.run(4)
    count = max(2, int(4 * seconds / (time.perf_counter() - begun)))
    steps, limits = [], []
    touched = float(np.mean([unique_rows(engine) for _ in range(4)]))
    n_candidates = engine.problem.n_candidates
    for _ in range(rounds):
        begun = time.perf_counter()
        engine.run(count)
        steps.append((time.perf_counter() - begun) / count)
        limit = memory_seconds(engine.state.rows, int(touched), threads, pool)
        if n_candidates:
            limit = max(limit, product_seconds(options.batch, n_candidates, threads, pool))
        limits.append(limit)
    ratios = [step / limit for step, limit in zip(steps, limits, strict=True)]
    return {
        "sampler": type(options.sampler).__name__,
        "batch": options.batch,
        "negatives": options.negatives,
        "threads": threads,
        "step_ms": round(1e3 * statistics.median(steps), 3),
        "step_ms_min": round(1e3 * min(steps), 3),
        "step_ms_max": round(1e3 * max(steps), 3),
        "pairs_per_second": int(options.batch / statistics.median(steps)),
        "limit_ms": round(1e3 * statistics.median(limits), 3),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_min": round(min(ratios), 2),
        "ratio_max": round(max(ratios), 2),
    }


def unique_rows(engine: CPUEngine) -> int:
    """Count the different rows of the next step."""
    engine.run(1)
    return int(engine._plans.size[0, 1])


if __name__ == "__main__":
    main()
