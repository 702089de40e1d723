"""What a step costs when another process spins on the same cores, and which threads a run uses.

**A busy machine.** The step (popularity, five negatives, d = 128, Echonest's size, two threads,
batch 256 and 4096) on the idle machine, and beside one process that does nothing but ``while True:
pass``, pinned to one core or left to the scheduler. Signals stop and continue the spinning
processes, so idle and busy rounds alternate. With one of two cores shared, a step must take 1.33
times as long; it takes twice as long if the thread on the shared core has half of the work and the
other waits. `others` is how many cores all other processes used: the idle rounds should have none.

**Threads.** In slices of 0.1 s of `CML.fit` (2-stage, which multiplies matrices; with validation)
and of `evaluate`, with threads=1 and threads=2: the cores that this process has used, and how many
of its threads have computed most of the slice. More than was asked for is not `obeyed`: a library
would have brought threads of its own.

    python benchmarks/busy.py [--rounds 7] [--seconds 0.4]

writes results/busy.csv and results/threads.csv. Before timing it checks that the losses are the
same beside a spinning process. Needs Linux.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

import nearfar as nf
from common import DIM, HINGE, Spread, made_up, ratios, rounds, show, write
from nearfar.engine import Problem
from nearfar.engine.cpu.cpu_engine import CPUEngine

THREADS, NEGATIVES = 2, 5
N_WATCHED = 200_000
"""Pairs of the run whose threads are watched."""
SLICE, AWAKE, SLACK = 0.1, 0.6, 0.2
"""Seconds of a slice; the share of it that a busy thread computes; cores that are let pass."""
SPIN = """
import os, sys
if sys.argv[1:]:
    os.sched_setaffinity(0, {int(sys.argv[1])})
while True:
    pass
"""


# ------------------------------------------------------------------------------ busy machine


@contextmanager
def spinner(*core: int) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that spins, on `core` if given, and stop it at once until it is wanted."""
    process = subprocess.Popen([sys.executable, "-c", SPIN, *map(str, core)])
    time.sleep(0.3)
    process.send_signal(signal.SIGSTOP)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def beside(process: subprocess.Popen[bytes] | None, work: Callable[[], object]) -> object:
    """Do `work` while `process` spins."""
    if process is None:
        return work()
    process.send_signal(signal.SIGCONT)
    try:
        return work()
    finally:
        process.send_signal(signal.SIGSTOP)


def others_seconds() -> float:
    """Read the processor time that everything but this process has used."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    busy = sum(fields) - fields[3] - fields[4]  # idle, and waiting for a disk
    return busy / os.sysconf("SC_CLK_TCK") - time.process_time()


def noting_others(work: Callable[[], object], noted: list[float]) -> None:
    """Do `work` and note how many cores other processes used meanwhile."""
    others, begun = others_seconds(), time.perf_counter()
    work()
    noted.append((others_seconds() - others) / (time.perf_counter() - begun))


def make_engine(batch: int) -> CPUEngine:
    sampler = nf.Popularity(1.0)
    options = replace(HINGE, dim=DIM, sampler=sampler, batch=batch, negatives=NEGATIVES)
    return CPUEngine(Problem(made_up(), options), threads=THREADS)


def timed(batch: int, args: argparse.Namespace) -> list[dict[str, object]]:
    """Time one batch size idle and beside each spinning process, in turn."""
    engine = make_engine(batch)
    with ExitStack() as stack:
        foreign = {
            "idle": None,
            "spinning, pinned": stack.enter_context(spinner(max(os.sched_getaffinity(0)))),
            "spinning, free": stack.enter_context(spinner()),
        }
        check(engine, batch, foreign["spinning, pinned"])
        count = steps_in(args.seconds, engine)
        others: dict[str, list[float]] = {name: [] for name in foreign}
        cases = {
            name: partial(
                noting_others, partial(beside, process, partial(engine.run, count)), others[name]
            )
            for name, process in foreign.items()
        }
        seconds = rounds(cases, args.rounds)
    engine.close()
    return [
        {
            "batch": batch,
            "threads": THREADS,
            "beside": name,
            **Spread.of([1e3 * value / count for value in values]).columns("step_ms"),
            **ratios(values, seconds["idle"]).columns("to_idle", 2),
            "others": round(statistics.median(others[name]), 2),
        }
        for name, values in seconds.items()
    ]


def check(engine: CPUEngine, batch: int, process: subprocess.Popen[bytes] | None) -> None:
    """Compare the first losses beside a spinning process with those of another, idle engine."""
    other = make_engine(batch)
    idle, busy = other.run(20)["triplet"], beside(process, lambda: engine.run(20)["triplet"])
    other.close()
    if not np.array_equal(idle, busy) or not np.isfinite(idle).all():
        raise SystemExit("The losses depend on what else the machine does; nothing is timed.")


def steps_in(seconds: float, engine: CPUEngine) -> int:
    """Count the steps that take about `seconds`."""
    begun = time.perf_counter()
    engine.run(20)
    return max(4, int(20 * seconds / (time.perf_counter() - begun)))


# --------------------------------------------------------------------------------- threads


class Watch:
    """Records, slice by slice, what share of a core each thread of this process has used."""

    def __init__(self) -> None:
        self.slices: list[list[float]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        before, then = processor_seconds(), time.perf_counter()
        while not self._done.wait(SLICE):
            after, now = processor_seconds(), time.perf_counter()
            used = [after[task] - before.get(task, 0.0) for task in after]
            self.slices.append([seconds / (now - then) for seconds in used])
            before, then = after, now


def processor_seconds() -> dict[int, float]:
    """Read the processor time of each thread of this process."""
    seconds = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            seconds[int(task.name)] = int((task / "schedstat").read_text().split()[0]) / 1e9
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
    return seconds


def threads_used() -> list[dict[str, object]]:
    """Fit and evaluate with one and with two threads, and watch."""
    learned, test = nf.split.ratio(made_up(n_pairs=N_WATCHED), test=0.1, seed=0)
    held_out = test.subset(test.pair_users() < 3000)
    model = nf.CML(HINGE, dim=DIM, sampler=nf.TwoStage(2000), batch=4096)
    lines = []
    for threads in (1, 2):
        calls: dict[str, Callable[[], object]] = {
            "fit": partial(
                model.fit, learned, epochs=1, validation=held_out, threads=threads, progress=False
            ),
            "evaluate": partial(nf.evaluate, model, learned, held_out, threads=threads),
        }
        lines += [watched(name, threads, call) for name, call in calls.items()]
    return lines


def watched(name: str, threads: int, call: Callable[[], object]) -> dict[str, object]:
    """Do the call twice, the first time to load its kernels, and say which threads computed."""
    call()
    with Watch() as watch:
        call()
    cores = [sum(shares) for shares in watch.slices]
    busy = [sum(share > AWAKE for share in shares) for shares in watch.slices]
    return {
        "call": name,
        "threads": threads,
        "slices": len(cores),
        **Spread.of(cores).columns("cores_used", 2),
        "most_busy_threads": max(busy),
        "obeyed": max(busy) <= threads and max(cores) < threads + SLACK,
    }


def main() -> None:
    """Time the steps beside other processes, then watch the threads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.4)
    args = parser.parse_args()
    lines = [line for batch in (256, 4096) for line in timed(batch, args)]
    show("A step beside a process that spins", lines)
    write("busy", lines)
    used = threads_used()
    show("Threads that compute at once", used)
    write("threads", used)


if __name__ == "__main__":
    main()
