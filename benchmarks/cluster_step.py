"""What the exchange costs: a step of a cluster of one process beside that of the CPU engine.

Echonest-sized tables, d = 128, Adam, one thread each, 16 steps at a time in turn. The time is that
of the processor, so that a busy machine does not matter; the least of the rounds counts. The points
of both are compared: they have the same bits.

    python benchmarks/cluster_step.py [--rounds 4]

prints a line for each setting. It needs PyTorch.
"""

from __future__ import annotations

import argparse
import os
import socket
import time
from dataclasses import replace

import numpy as np

import nearfar as nf
from common import DIM, HINGE, made_up
from nearfar.engine import Engine, Problem
from nearfar.engine.cluster.cluster_engine import ClusterEngine
from nearfar.engine.cluster.process_group import Group, join
from nearfar.engine.cpu.cpu_engine import CPUEngine

STEPS = 16
CASES = {
    "2,048 shared negatives, batch 8,192": replace(
        HINGE, dim=DIM, sampler=nf.Shared(), negatives=2048, batch=8192,
        triplet=nf.Triplet(temperature=0.3),
    ),
    "5 negatives of each pair, batch 4,096": replace(HINGE, dim=DIM, negatives=5, batch=4096),
}  # fmt: skip


def alone() -> Group:
    """Return a group of this process alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK="0", WORLD_SIZE="1")
    return join()


def measure(problem: Problem, group: Group, rounds: int) -> dict[str, float]:
    """Return the least processor time of a step, in milliseconds."""
    engines: dict[str, Engine] = {
        "cpu": CPUEngine(problem, threads=1),
        "cluster": ClusterEngine(problem, group=group, threads=1),
    }
    spent: dict[str, list[float]] = {name: [] for name in engines}
    for turn in range(rounds + 1):
        for name, engine in engines.items():
            begun = time.process_time()
            engine.run(STEPS)
            if turn:  # the first compiles
                spent[name].append((time.process_time() - begun) / STEPS * 1e3)
    points = [engine.points() for engine in engines.values()]
    if not np.array_equal(*points):
        raise SystemExit("the engines disagree")
    for engine in engines.values():
        engine.close()
    return {name: min(times) for name, times in spent.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    rounds, data, group = parser.parse_args().rounds, made_up(), alone()
    for name, options in CASES.items():
        found = measure(Problem(data, options, horizon=STEPS * (rounds + 1)), group, rounds)
        print(
            f"{name}: {found['cpu']:.2f} ms on one machine, {found['cluster']:.2f} ms in a cluster"
            f" of one, {found['cluster'] / found['cpu']:.2f} times as long",
            flush=True,
        )


if __name__ == "__main__":
    main()
