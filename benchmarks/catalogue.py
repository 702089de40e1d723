"""What the size of the catalogue costs: a training step, and the work before the first one.

**Steps.** The same step (batch 256, five negatives, Adam, d = 128, 31,521 users, 1.4 million
made-up pairs) with 10,000 to 5 million items. It does the same arithmetic on nearly as many rows,
so what differs is how long the rows take to come. Beside each time stands that of reading and
writing once, out of the same table, rows that are drawn like those of a step (users and positives
of random pairs, negatives by the sampler, for 2-stage the candidates too), and the ratio of both.
`step_more_ms` and `rows_more_ms` are what a step and its rows take beyond the smallest catalogue.

**Set-up.** Sorting made-up pairs into `Interactions`, the counts and the alias table of the
popularity sampler, and the `Problem`, at 1 and 10 million pairs (and 100 million with --large),
each in a process of its own. The peak of the memory is what comes on top of the given pairs.

    python benchmarks/catalogue.py [--rounds 5] [--seconds 0.4] [--threads 2] [--large]

writes results/catalogue.csv and results/setup.csv. Sizes that do not fit into the free memory are
left out, and that is said. Before timing it checks that one and two threads give the same losses.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

import nearfar as nf
from common import (
    DIM,
    HINGE,
    MIB,
    N_PAIRS,
    N_USERS,
    Spread,
    available_mib,
    forget_peak,
    in_own_process,
    made_up,
    made_up_pairs,
    memory_mib,
    ratios,
    rounds,
    show,
    touch_rows,
    write,
)
from nearfar.data.ids import Ids
from nearfar.engine import Problem
from nearfar.engine.cpu.cpu_engine import CPUEngine
from nearfar.method.proposal import alias_table, popularity_weight

SIZES = (10_000, 100_000, 1_000_000, 5_000_000)
SAMPLERS = (nf.Uniform(), nf.Popularity(1.0), nf.TwoStage(2000))
BATCH, NEGATIVES = 256, 5
TABLES = 3
"""Parameter and both moments of Adam."""
ROOM = 1.6
"""Memory for making a table, in units of the table."""
MEMORY_STEPS = 40
"""Steps whose rows are touched in one measurement of the memory."""

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


# ----------------------------------------------------------------------------------- steps


def engines_of(n_items: int, threads: int) -> dict[str, CPUEngine]:
    """Make an engine for each sampler, all on the same tables, so that they fit into memory."""
    data, engines, state = made_up(N_USERS, n_items, N_PAIRS), {}, None
    for sampler in SAMPLERS:
        options = replace(HINGE, dim=DIM, sampler=sampler, batch=BATCH, negatives=NEGATIVES)
        engine = CPUEngine(Problem(data, options), state, threads=threads)
        engines[type(sampler).__name__], state = engine, engine.state
    return engines


def check() -> None:
    """Compare the losses of one and two threads for every sampler, at a small size."""
    losses = []
    for threads in (1, 2):
        for name, engine in engines_of(10_000, threads).items():
            losses.append((name, engine.run(20)["triplet"]))
            engine.close()
    half = len(losses) // 2
    for (name, one), (_, two) in zip(losses[:half], losses[half:], strict=True):
        if not np.array_equal(one, two) or not np.isfinite(one).all():
            raise SystemExit(f"{name}: the losses depend on the threads; nothing is timed.")


def rows_like_steps(problem: Problem) -> Int64:
    """Draw the rows of `MEMORY_STEPS` steps, each row once a step, in random order."""
    rng = np.random.default_rng(3)
    data, sampler = problem.interactions, problem.options.sampler
    steps = []
    for _ in range(MEMORY_STEPS):
        pairs = rng.integers(0, data.n_pairs, BATCH)
        drawn = rng.integers(0, data.n_pairs, NEGATIVES * BATCH + problem.n_candidates)
        others = data.items[drawn]  # an item is drawn as often as it occurs
        if isinstance(sampler, nf.Uniform):
            others = rng.integers(0, data.n_items, len(drawn))
        items = N_USERS + np.concatenate([data.items[pairs], others])
        rows = np.unique(np.concatenate([data.pair_users()[pairs], items]))
        steps.append(rng.permutation(rows))
    return np.concatenate(steps).astype(np.int64)


def sizes_that_fit() -> list[int]:
    """Leave out, aloud, the catalogues that the free memory cannot hold together."""
    fit, free = [], available_mib()
    for n_items in SIZES:
        table = (N_USERS + n_items) * DIM * TABLES * 4 / MIB
        if table * ROOM > free:
            print(f"{n_items:,} items left out: {table * ROOM:,.0f} MiB needed, {free:,.0f} free.")
        else:
            fit.append(n_items)
            free -= table
    return fit


def timed_steps(args: argparse.Namespace) -> list[dict[str, object]]:
    """Time every sampler at every size, size by size within each round."""
    engines = {n_items: engines_of(n_items, args.threads) for n_items in sizes_that_fit()}
    lines = []
    with ThreadPoolExecutor(args.threads) as pool:
        for name in [type(sampler).__name__ for sampler in SAMPLERS]:
            chosen = {n_items: of[name] for n_items, of in engines.items()}
            lines += timed_sampler(name, chosen, pool, args)
    for of in engines.values():
        for engine in of.values():
            engine.close()
    return lines


def timed_sampler(
    name: str, engines: dict[int, CPUEngine], pool: ThreadPoolExecutor, args: argparse.Namespace
) -> list[dict[str, object]]:
    """Time one sampler: each round a run of steps and the memory, for every size."""
    count, cases = steps_in(args.seconds, next(iter(engines.values()))), {}
    for n_items, engine in engines.items():
        listed = rows_like_steps(engine.problem)
        engine.run(count)
        touch_rows(engine.state.rows, listed, pool, args.threads)
        cases[n_items, "step"] = make_call(engine.run, count)
        cases[n_items, "rows"] = make_call(
            touch_rows, engine.state.rows, listed, pool, args.threads
        )
    seconds = rounds(cases, args.rounds)
    each = {n: [s / count for s in seconds[n, "step"]] for n in engines}
    memory = {n: [s / MEMORY_STEPS for s in seconds[n, "rows"]] for n in engines}
    smallest = min(engines)
    return [
        {
            "sampler": name,
            "n_items": n,
            "threads": args.threads,
            "rows": len(rows_like_steps(engine.problem)) // MEMORY_STEPS,
            "table_mib": round(engine.state.rows.nbytes / MIB),
            **Spread.of([1e3 * s for s in each[n]]).columns("step_ms"),
            **ratios(each[n], each[smallest]).columns("to_smallest", 2),
            **Spread.of([1e3 * s for s in memory[n]]).columns("rows_ms"),
            **ratios(each[n], memory[n]).columns("to_rows", 2),
            "step_more_ms": more_ms(each, n),
            "rows_more_ms": more_ms(memory, n),
        }
        for n, engine in engines.items()
    ]


def more_ms(seconds: dict[int, list[float]], n_items: int) -> float:
    """Give the milliseconds beyond those of the smallest catalogue."""
    more = statistics.median(seconds[n_items]) - statistics.median(seconds[min(seconds)])
    return round(1e3 * more, 3)


def make_call(work: Callable[..., object], *arguments: Any) -> Callable[[], object]:
    """Bind arguments now, not when a loop has moved on."""
    return lambda: work(*arguments)


def steps_in(seconds: float, engine: CPUEngine) -> int:
    """Count the steps that take about `seconds`."""
    engine.run(20)
    begun = time.perf_counter()
    engine.run(20)
    return max(20, int(20 * seconds / (time.perf_counter() - begun)))


# ---------------------------------------------------------------------------------- set-up


def set_up(n_pairs: int) -> dict[str, object]:
    """Time the set-up for `n_pairs` pairs of n_pairs / 50 users and n_pairs / 20 items."""
    shape = n_pairs // 50, n_pairs // 20
    set_up_seconds(*made_up_pairs(20, 50, 1000), (20, 50))  # compiles
    users, items = made_up_pairs(*shape, n_pairs)
    forget_peak()
    before = memory_mib()
    seconds = set_up_seconds(users, items, shape)
    peak = memory_mib("VmHWM") - before
    return {
        "pairs": n_pairs,
        "users": shape[0],
        "items": shape[1],
        **{f"{name}_s": round(value, 3) for name, value in seconds.items()},
        "total_s": round(sum(seconds.values()), 2),
        "us_per_pair": round(1e6 * sum(seconds.values()) / n_pairs, 3),
        "peak_mib": round(peak),
        "bytes_per_pair": round(peak * MIB / n_pairs),
    }


def set_up_seconds(users: Int32, items: Int32, shape: tuple[int, int]) -> dict[str, float]:
    """Do the work before the first step, apart from the tables; give the seconds of each part."""
    ids = Ids.numbered(shape[0]), Ids.numbered(shape[1])
    times = [time.perf_counter()]
    data = nf.Interactions.from_rows(users, items, *ids)
    times.append(time.perf_counter())
    weight = popularity_weight(data.item_counts, 1.0)
    times.append(time.perf_counter())
    alias_table(weight)
    times.append(time.perf_counter())
    Problem(data, replace(HINGE, sampler=nf.Popularity(1.0)))
    times.append(time.perf_counter())
    if data.n_pairs > len(users) or data.item_counts.sum() != data.n_pairs:
        raise SystemExit("The interactions are not those that were given.")
    names = ("from_rows", "counts", "alias_table", "problem")
    return dict(zip(names, np.diff(times).tolist(), strict=True))


def main() -> None:
    """Check, time the steps, then the set-up; or one set-up in a process made for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--large", action="store_true", help="set up 100 million pairs, too")
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case is not None:
        print(json.dumps(set_up(**args.case)))
        return
    check()
    steps = timed_steps(args)
    show(f"A step of {BATCH} pairs, {NEGATIVES} negatives, by the size of the catalogue", steps)
    write("catalogue", steps)
    sizes = (10**6, 10**7, 10**8) if args.large else (10**6, 10**7)
    setups = [in_own_process(__file__, {"n_pairs": n}) for n in sizes]
    show("Set-up", setups)
    write("setup", setups)


if __name__ == "__main__":
    main()
