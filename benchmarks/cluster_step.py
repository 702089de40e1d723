"""What a cluster costs and gains: its steps beside those of the CPU engine, one thread each.

Echonest-sized tables, d = 128, Adam. Both do the same steps in turn, some at a time, and a ratio is
taken of each turn; its median and its least and largest value are printed.

    python benchmarks/cluster_step.py [--rounds 7] [--only 256]

compares a cluster of one process, in processor time, which a busy machine distorts less. The points
of both are compared: they have the same bits.

    python benchmarks/cluster_step.py --processes 2 [--rounds 7] [--only shared]

compares as many processes as are asked for with one, in time by the clock, which says nothing
unless each has an idle core: the load of the machine is printed too. The points are compared within
what float32 allows. It needs PyTorch.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

import nearfar as nf
from common import DIM, HINGE, made_up
from nearfar.engine import Engine, Problem
from nearfar.engine.cluster.cluster_engine import ClusterEngine
from nearfar.engine.cluster.process_group import Group, join
from nearfar.engine.cpu.cpu_engine import CPUEngine
from nearfar.runtime.arrays import Float32

PAIRS = 131_072
"""Pairs of a turn, about."""
CASES = {
    "shared: 2,048 negatives, batch 8,192": replace(
        HINGE, dim=DIM, sampler=nf.Shared(), negatives=2048, batch=8192,
        triplet=nf.Triplet(temperature=0.3),
    ),
    "own, uniform: 5 negatives, batch 4,096": replace(HINGE, dim=DIM, negatives=5, batch=4096),
    "own, popularity: 5 negatives, batch 4,096": replace(
        HINGE, dim=DIM, sampler=nf.Popularity(), negatives=5, batch=4096
    ),
    "own, uniform: 1 negative, batch 4,096": replace(HINGE, dim=DIM, negatives=1, batch=4096),
    "own, uniform: 5 negatives, batch 256": replace(HINGE, dim=DIM, negatives=5, batch=256),
    "2-stage: 5 negatives of 1,024, batch 4,096": replace(
        HINGE, dim=DIM, sampler=nf.TwoStage(1024), negatives=5, batch=4096
    ),
}  # fmt: skip


def free_port() -> str:
    """Return a port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def joined() -> Group:
    """Return the group of this process, which is alone unless it was started as one of several."""
    alone = {"MASTER_ADDR": "127.0.0.1", "RANK": "0", "WORLD_SIZE": "1"}
    if "RANK" not in os.environ:
        os.environ.update(alone, MASTER_PORT=free_port())
    return join()


def steps_of(options: nf.Options) -> int:
    """Return the steps of a turn: a multiple of 16, which the cluster plans at a time."""
    return max(PAIRS // options.batch // 16, 1) * 16


def spent(engine: Engine, steps: int, clock: Callable[[], float]) -> float:
    """Do some steps; return the milliseconds of one."""
    begun = clock()
    engine.run(steps)
    return (clock() - begun) / steps * 1e3


def measure(problem: Problem, group: Group, rounds: int) -> tuple[list[float], list[float]]:
    """Return the times of a step on one machine and in the cluster, turn by turn, on rank 0.

    While rank 0 works alone, the others wait for it.
    """
    steps = steps_of(problem.options)
    clock = time.process_time if group.size == 1 else time.perf_counter
    whole = CPUEngine(problem, threads=1) if group.rank == 0 else None
    part = ClusterEngine(problem, group=group, threads=1)
    one, several = list[float](), list[float]()
    for turn in range(rounds + 1):
        alone = 0.0 if whole is None else spent(whole, steps, clock)
        group.total(np.zeros(1))
        together = spent(part, steps, clock)
        if turn > 0:  # the first compiles
            one.append(alone)
            several.append(together)
    found = part.points()
    if whole is not None:
        check(whole.points(), found, exactly=group.size == 1)
        whole.close()
    part.close()
    return one, several


def check(expected: Float32, found: Float32, *, exactly: bool) -> None:
    """Stop if the engines disagree."""
    off = float(np.sqrt(np.mean((expected - found) ** 2)))
    if not np.array_equal(expected, found) if exactly else not off < 1e-4:
        raise SystemExit(f"the engines disagree by {off:.1e}")


def tell(name: str, one: list[float], several: list[float], size: int) -> None:
    """Print a line."""
    ratios = [b / a if size == 1 else a / b for a, b in zip(one, several, strict=True)]
    unit = "times as long" if size == 1 else "times as fast"
    print(
        f"{name}: {statistics.median(one):.2f} ms on one machine,"
        f" {statistics.median(several):.2f} ms in a cluster of {size};"
        f" {statistics.median(ratios):.2f} {unit} ({min(ratios):.2f} to {max(ratios):.2f})",
        flush=True,
    )


def start(processes: int) -> None:
    """Start this script in so many processes, and wait for them."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "GLOO_SOCKET_IFNAME": "lo"}
    shared |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    ranks = [
        subprocess.Popen([sys.executable, *sys.argv], env=os.environ | shared | {"RANK": str(r)})
        for r in range(processes)
    ]
    codes = [rank.wait() for rank in ranks]
    if any(codes):
        raise SystemExit(f"processes ended with {codes}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--only", default="", help="measure only the settings with this in a name")
    asked = parser.parse_args()
    if asked.processes > 1 and "RANK" not in os.environ:
        start(asked.processes)
        return
    data, group = made_up(), joined()
    for name, options in CASES.items():
        if asked.only not in name:
            continue
        horizon = steps_of(options) * (asked.rounds + 1)
        before = os.getloadavg()[0]
        one, several = measure(Problem(data, options, horizon=horizon), group, asked.rounds)
        if group.rank == 0:
            load = f"load {before:.1f} to {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
            tell(f"{name} ({load})", one, several, group.size)


if __name__ == "__main__":
    main()
