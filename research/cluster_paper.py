"""A cluster on paper: what a run would take on machines that nobody here has.

For one process a host, `P` hosts, `N` users, `M` items, a batch of `B` pairs with `C` shared
negatives in `d` dimensions, all in float32:

    a row         4 d (1 + moments + mean) + 16 bytes: its step, its number     `row_bytes`
    a host        (N + M) / P rows + 8 bytes a pair of its users + 16 plans of
                  124 B + 40 C + what every process holds: 8 N for where lists
                  start, 28 M for counts and the table that draws items         `host_bytes`
    sent a step   2 (P - 1) / P (B / P + C) 4 d bytes in 2 collectives,
                  and for the plan 4 bytes a row asked for + 8 (P - 1)            `sent_bytes`
    a step        B / P pairs x C negatives x the time of one, by the threads
                  + B x the time to hash a pair + sent / line + 4 messages to
                  P - 1 others / 1 + 1 / 8 of them for the plan                 `step_seconds`
    recovery      noticing + restarting + reading the state back
                  + half the time between two checkpoints, done again           `recovery_seconds`

The time between checkpoints is the square root of 2 x (time of one) x (time between failures), by
Young. Inputs that are measured (`--measure` does so again, on one thread) are defaults; those that
are assumed about machines and data are flags too, and marked so in their help.

    python research/cluster_paper.py
    python research/cluster_paper.py --measure
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

AHEAD = 16
"""Steps that are planned at a time (`nearfar.engine.cluster.cluster_engine.AHEAD`)."""


@dataclass(frozen=True)
class Paper:
    """The inputs. Seconds, bytes and bytes a second, unless a name says otherwise."""

    users: float = 3e8
    items: float = 1e9
    hosts: int = 64
    pairs_per_user: float = 50.0
    dim: int = 128
    moments: int = 2
    mean: int = 1
    batch: int = 524_288
    negatives: int = 2_048
    threads: int = 32
    ns_negative: float = 14.0
    ns_hash: float = 68.5
    line: float = 10e9 / 8
    message: float = 50e-6
    disk: float = 1e9
    host_failure_days: float = 365.0
    notice: float = 0.5
    restart: float = 62.0


HELP = {
    "pairs_per_user": "assumed", "threads": "assumed; they share a host's work evenly",
    "ns_negative": "measured: a pair and a negative in a step of the CPU engine, all of it, one"
    " thread, nanoseconds",
    "ns_hash": "measured: a pair of the whole batch in the plan, one thread, nanoseconds",
    "line": "assumed: 10 Gbit/s a host", "message": "assumed: latency of a message",
    "disk": "assumed: what a host reads and writes to the shared disk",
    "host_failure_days": "assumed: mean time to the failure of a host",
    "notice": "measured on one machine", "restart": "measured on one machine: to the first step of"
    " those that are left, with a model that is read in no time",
}  # fmt: skip


def row_bytes(dim: int, moments: int, mean: int) -> int:
    """Return the bytes of a row: vector, moments, mean, the step it was last touched, number."""
    return 4 * dim * (1 + moments + mean) + 16


def shared_bytes(n_users: float, n_items: float) -> float:
    """Return what every process holds of all: starts of lists, counts, the table of draws."""
    return 8 * n_users + 28 * n_items


def plan_bytes(batch: float, negatives: float) -> float:
    """Return the bytes of the plans, each of which has the whole batch."""
    return AHEAD * (124 * batch + 40 * negatives)


def sent_bytes(batch: float, negatives: float, dim: int, size: int) -> tuple[float, float]:
    """Return what a process sends at most in a step: vectors, and numbers of the plan."""
    others = (size - 1) / size
    rows = 2 * others * (batch / size + negatives) * 4 * dim
    return rows, 4 * others * batch / size + 8 * (size - 1)


def host_bytes(paper: Paper) -> dict[str, float]:
    """Return the bytes of a host by what they are."""
    rows = (paper.users + paper.items) / paper.hosts
    return {
        "rows": rows * row_bytes(paper.dim, paper.moments, paper.mean),
        "pairs": 8 * paper.users * paper.pairs_per_user / paper.hosts,
        "plans": plan_bytes(paper.batch, paper.negatives),
        "held by all": shared_bytes(paper.users, paper.items),
    }


def step_seconds(paper: Paper) -> dict[str, float]:
    """Return the time of a step by what it is spent on; nothing overlaps."""
    own = paper.batch / paper.hosts
    sent = sum(sent_bytes(paper.batch, paper.negatives, paper.dim, paper.hosts))
    collectives = 2 + 2 / AHEAD
    return {
        "comparing": own * paper.negatives * paper.ns_negative * 1e-9 / paper.threads,
        "hashing": paper.batch * paper.ns_hash * 1e-9 / paper.threads,
        "sending": sent / paper.line,
        "latency": collectives * (paper.hosts - 1) * paper.message,
    }


def recovery_seconds(paper: Paper) -> dict[str, float]:
    """Return the time from a failure until the work of before is done again."""
    read = host_bytes(paper)["rows"] / paper.disk
    between = paper.host_failure_days * 86_400 / paper.hosts
    interval = (2 * read * between) ** 0.5  # a save takes as long as reading
    return {
        "noticing": paper.notice,
        "restarting": paper.restart,
        "reading": read,
        "again": interval / 2,
        "between checkpoints": interval,
        "between failures": between,
    }


def table(paper: Paper) -> list[tuple[str, str]]:
    """Return the rows of the table: what, and how much."""
    memory, step, back = host_bytes(paper), step_seconds(paper), recovery_seconds(paper)
    pairs, lost = paper.users * paper.pairs_per_user, ("noticing", "restarting", "reading", "again")
    sent = sum(sent_bytes(paper.batch, paper.negatives, paper.dim, paper.hosts))
    a_row, a_step = row_bytes(paper.dim, paper.moments, paper.mean), sum(step.values())
    epoch = pairs / paper.batch * a_step
    share = sum(back[name] for name in lost) / back["between failures"]
    saving = back["reading"] / back["between checkpoints"]
    return [
        ("tables, all hosts", f"{(paper.users + paper.items) * a_row / 1e12:.2f} TB"),
        *((f"memory of a host: {name}", f"{n / 1e9:.1f} GB") for name, n in memory.items()),
        ("memory of a host", f"{sum(memory.values()) / 1e9:.1f} GB"),
        ("sent by a host in a step", f"{sent / 1e6:.1f} MB"),
        *((f"time of a step: {name}", f"{one * 1e3:.1f} ms") for name, one in step.items()),
        ("time of a step", f"{a_step * 1e3:.1f} ms"),
        ("time of an epoch", f"{epoch / 3600:.1f} h"),
        ("time of a checkpoint", f"{back['reading']:.0f} s"),
        ("time between checkpoints", f"{back['between checkpoints'] / 60:.0f} min"),
        ("time until it goes on", f"{sum(back[name] for name in lost[:3]):.1f} s"),
        ("time to recover, what is done again too", f"{sum(back[n] for n in lost) / 60:.0f} min"),
        ("lost to failures and checkpoints", f"{100 * (share + saving):.1f} %"),
    ]


def measured() -> dict[str, float]:
    """Measure what a negative and a hash take here, in processor time of one thread."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
    import nearfar as nf
    from common import HINGE, made_up
    from nearfar.engine import Problem
    from nearfar.engine.cpu.cpu_engine import CPUEngine

    batch, negatives, steps = 8192, 2048, 8
    options = replace(HINGE, dim=128, sampler=nf.Shared(), negatives=negatives, batch=batch,
                      triplet=nf.Triplet(temperature=0.3))  # fmt: skip
    problem = Problem(made_up(), options, horizon=64)
    engine = CPUEngine(problem, threads=1)
    step = _least(lambda: engine.run(steps)) / steps
    engine.close()
    plan = _least(_planner(problem)) / AHEAD
    return {"ns_negative": step / batch / negatives * 1e9, "ns_hash": plan / batch * 1e9}


def _planner(problem: Any) -> Any:
    """Return what plans `AHEAD` steps of the first of 64 processes."""
    from nearfar.engine.cluster.content_read import make_slices
    from nearfar.engine.cluster.part_plan import make_part_plans, make_part_sketch, plan_parts
    from nearfar.engine.cluster.shards import make_shards
    from nearfar.engine.cpu.buffers import make_source
    from nearfar.engine.cpu.plan_records import PairRange

    shards = make_shards(problem, 64)
    source = make_source(problem, PairRange(*shards.pairs[:2].tolist()))
    ahead, sketch = make_part_plans(AHEAD, problem, 64), make_part_sketch(problem)
    return lambda: plan_parts(0, 0, AHEAD, source, shards, make_slices(problem), ahead, sketch)


def _least(work: Any, rounds: int = 4) -> float:
    """Return the least processor time of some rounds; the first compiles."""
    spent = []
    for _ in range(rounds + 1):
        begun = time.process_time()
        work()
        spent.append(time.process_time() - begun)
    return float(np.min(spent[1:]))


def main() -> None:
    """Print the table, for the inputs of the flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for one in fields(Paper):
        flag, kind = f"--{one.name.replace('_', '-')}", type(one.default)
        says = f"{HELP.get(one.name, '')} [default: {one.default:g}]"
        parser.add_argument(flag, type=kind, default=one.default, help=says)
    parser.add_argument("--measure", action="store_true", help="measure what can be, and use it")
    given = vars(parser.parse_args())
    paper = Paper(**{name: given[name] for name in given if name != "measure"})
    if given["measure"]:
        found = measured()
        print(", ".join(f"{name} {value:.1f}" for name, value in found.items()))
        paper = replace(paper, **found)
    for what, much in table(paper):
        print(f"{what:40} {much:>12}")


if __name__ == "__main__":
    main()
