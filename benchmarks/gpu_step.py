"""The tables of steps a second that gpu.py makes: contestants, their floor, and the rounds."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from gpu_checks import Line, Say, shortened
from gpu_rivals import Interactions, Machine, TorchCML, host_bytes, made_up, took
from nearfar.engine.cpu.cpu_engine import CPUEngine
from nearfar.engine.gpu.gpu_engine import GPUEngine
from nearfar.engine.problem import Problem, State
from nearfar.method.loss import Triplet
from nearfar.method.optimiser import Adam
from nearfar.method.options import Options
from nearfar.method.sampling import Popularity, Sampler, Shared, TwoStage, Uniform
from nearfar.runtime.devices import free_bytes
from nearfar.runtime.threads import available_threads

LAUNCHES = {"Uniform": 3, "Popularity": 3, "TwoStage": 7, "Shared": 6}
LEAST_LAUNCHES = 2
SAME, SAME_FAST = 1e-3, 1e-2
"""So far may the losses of two engines be apart before they are timed, in float32 and in TF32."""
GIB = 2.0**30

FLOOR = (
    "violated", "launches", "rows_read", "rows_written", "bytes", "flops", "floor_us",
    "least_floor_us",
)  # fmt: skip
"""Columns that only the GPU engine's lines fill."""

Row = tuple[Sampler, int, int]
"""Sampler, batch and negatives."""


@dataclass(frozen=True)
class Tables:
    """What is timed, and for how long."""

    data: tuple[int, int, int] = (31_521, 159_063, 1_405_671)
    """Users, items, pairs: the size of the Echonest data of the paper."""
    large: tuple[int, int, int] | None = (100_000, 5_000_000, 1_405_671)
    dim: int = 128
    batches: tuple[int, int] = (256, 4096)
    candidates: int = 2000
    shared: int = 512
    rounds: int = 5
    seconds: float = 0.3
    """A contestant's, in each round."""

    def rows(self) -> list[Row]:
        """List the rows of the table of the usual size."""
        samplers = (Uniform(), Popularity(), TwoStage(self.candidates))
        own = [(s, batch, n) for batch in self.batches for n in (1, 5) for s in samplers]
        return [*own, (Shared(), self.batches[0], self.shared)]


# -------------------------------------------------------------------------------- contestants


@dataclass
class Contestant:
    """What is timed: something that does steps."""

    name: str
    run: Callable[[int], Any]
    """Does so many steps and waits for them."""
    unit: int
    """Steps that are planned together; it does a multiple of them."""
    threads: int | None = None
    engine: GPUEngine | CPUEngine | None = None
    floor: Line = field(default_factory=dict)
    first_s: float = 0.0
    """Of the first call: compilation and capture."""
    log: Any = None
    """What that call has written down."""
    count: int = 0
    steps: list[float] = field(default_factory=list)
    """Seconds a step, round by round."""

    def prepare(self, device: torch.device, seconds: float) -> None:
        """Make the first call, and find out how many steps take so many seconds."""
        begun = time.perf_counter()
        self.log = self.run(self.unit)
        self.first_s = time.perf_counter() - begun
        each = took(device, lambda: self.run(self.unit))
        self.count = self.unit * max(1, round(seconds / each))

    def round(self, device: torch.device) -> None:
        """Time one round."""
        self.steps.append(took(device, lambda: self.run(self.count)) / self.count)

    def close(self) -> None:
        """Let go of threads and captured steps."""
        if self.engine is not None:
            self.engine.close()


def spread(name: str, values: Sequence[float]) -> Line:
    """Give median, least and greatest, to four significant places."""
    found = statistics.median(values), min(values), max(values)
    names = (name, f"{name}_min", f"{name}_max")
    return {n: shortened(value) for n, value in zip(names, found, strict=True)}


def options_of(row: Row, dim: int) -> Options:
    """Give the options of a row: eq. 1, but for the defaults' loss with shared negatives."""
    sampler, batch, negatives = row
    shared = isinstance(sampler, Shared)
    return Options(
        dim=dim, sampler=sampler, batch=batch, negatives=negatives, optimiser=Adam(1e-6),
        triplet=Options().triplet if shared else Triplet(), averaging=None,
    )  # fmt: skip


def gpu_contestants(problem: Problem, state: State, machine: Machine) -> Iterator[Contestant]:
    """Make the GPU engine, and a second one that rounds, if there is a matrix product."""
    name = "GPU" if machine.device.type == "cuda" else "torch on the processor"
    for fast in (False, True) if problem.n_candidates else (False,):
        engine = GPUEngine(problem, state, device=machine.device, fast=fast)
        label = f"{name}, fast" if fast else name
        unit = engine._n_steps if engine._parts.captured else 4
        yield Contestant(label, engine.run, unit, engine=engine)


def rivals(data: Interactions, row: Row, dim: int, device: torch.device) -> list[Contestant]:
    """Make the models in plain torch, which have uniform negatives; both must learn."""
    sampler, batch, negatives = row
    if not isinstance(sampler, Uniform):
        return []
    made = []
    for name, sparse in (("torch, dense Adam", False), ("torch, SparseAdam", True)):
        model = TorchCML(data, device, dim, batch, negatives, sparse=sparse)
        if not model.learns():
            raise SystemExit(f"{name}: the loss does not fall; nothing is timed.")
        made.append(Contestant(name, model.run, 10))
    return made


def floors(engine: GPUEngine, machine: Machine) -> Line:
    """Count what a step cannot do without; a step is done for it."""
    problem, options = engine.problem, engine.problem.options
    log, plan = engine.run(1), engine._plan
    shared = plan.candidates[0] + problem.n_users
    rows = torch.unique(torch.cat([plan.entries[0].flatten(), shared]))
    read, written = int((rows >= 0).sum()), int((engine._tables.last == engine.step).sum())
    n_bytes = 4 * options.dim * options.optimiser.n_slots * (read + written)
    products = 3 if isinstance(options.sampler, Shared) else 1
    flops = 2.0 * products * options.batch * problem.n_candidates * options.dim
    launches = LAUNCHES[type(options.sampler).__name__]

    def floor(n: int) -> float:
        return round(1e6 * machine.floor(n, n_bytes, flops, engine.fast), 3)

    violated = float(log["violated"][0] / log["pairs"][0])
    values = (violated, launches, read, written, n_bytes, int(flops))
    return dict(zip(FLOOR, (*values, floor(launches), floor(LEAST_LAUNCHES)), strict=True))


def check(contestants: Sequence[Contestant], row: Row) -> None:
    """Stop unless the engines' first steps are the same."""
    engines = [c for c in contestants if c.engine is not None]
    n, other = min(len(c.log["pairs"]) for c in engines), engines[-1]
    first = {name: values[:n] for name, values in other.log.items()}
    for c in engines:
        rounded = c.name.endswith("fast") or other.name.endswith("fast")
        same = all(np.array_equal(first[name], c.log[name][:n]) for name in ("pairs", "missed"))
        apart = abs(c.log["triplet"][:n].sum() / first["triplet"].sum() - 1.0)
        if not (same and apart < (SAME_FAST if rounded else SAME)):
            raise SystemExit(f"{row}: {c.name} and {other.name} differ; it is not timed.")


def timed(
    contestants: Sequence[Contestant], table: str, row: Row, machine: Machine, tables: Tables
) -> list[Line]:
    """Time all contestants of a row in turn; a line for each."""
    for c in contestants:
        c.prepare(machine.device, tables.seconds)
    check(contestants, row)
    for c in contestants:
        if isinstance(c.engine, GPUEngine):
            c.floor = floors(c.engine, machine)
    for _ in range(tables.rounds):
        for c in contestants:
            c.round(machine.device)
    sampler, batch, negatives = row
    begin = {"table": table, "sampler": type(sampler).__name__, "batch": batch}
    begin["negatives"] = negatives
    return [begin | line_of(c, contestants[0]) for c in contestants]


def line_of(c: Contestant, gpu: Contestant) -> Line:
    """Put a contestant's times into a line, beside those of the GPU engine."""
    us, floor = [1e6 * s for s in c.steps], c.floor or dict.fromkeys(FLOOR)
    lowest = floor["floor_us"]
    return {
        "engine": c.name,
        "threads": c.threads,
        **spread("steps_per_s", [1e6 / x for x in us]),
        **spread("us_per_step", us),
        **spread("times_gpu", [a / b for a, b in zip(c.steps, gpu.steps, strict=True)]),
        **floor,
        "over_floor": None if lowest is None else round(statistics.median(us) / lowest, 2),
        "first_s": None if c.engine is None else round(c.first_s, 2),
    }


# -------------------------------------------------------------------------------------- tables


def usual_table(tables: Tables, machine: Machine, late: Callable[[], bool]) -> Iterator[list[Line]]:
    """Time the rows of the usual size, the CPU engine among the contestants."""
    data, state = made_up(*tables.data), None
    for row in tables.rows():
        if late():
            return
        if state is None:
            state = Problem(data, options_of(row, tables.dim), seed=1).initial_state()
        yield contest(data, state, row, machine, tables)


def contest(
    data: Interactions, state: State, row: Row, machine: Machine, tables: Tables
) -> list[Line]:
    """Let all contestants of a row start from the same tables; a line for each."""
    problem = Problem(data, options_of(row, tables.dim), seed=1)
    threads = problem.useful_threads(available_threads())
    cpu = CPUEngine(problem, state.copy(), threads=threads)
    contestants = [
        *gpu_contestants(problem, state, machine),
        *rivals(data, row, tables.dim, machine.device),
        Contestant("CPU", cpu.run, 8, threads=threads, engine=cpu),
    ]
    lines = timed(contestants, f"{data.n_items:,} items", row, machine, tables)
    let_go(contestants)
    return lines


def large_table(
    tables: Tables, machine: Machine, late: Callable[[], bool], say: Say
) -> Iterator[list[Line]]:
    """Time the rows with many items, as far as there is memory."""
    if tables.large is None:
        say("the large table is left out")
        return
    if late():
        return
    n_rows = tables.large[0] + tables.large[1]
    on_host = 2.2 * 4 * 3 * n_rows * tables.dim  # the CPU engine has a copy
    if (free := host_bytes()) is not None and free < on_host:
        say(
            f"{tables.large[1]:,} items: left out: {on_host / GIB:.1f} GiB needed on the host,"
            f" {free / GIB:.1f} GiB free"
        )
        return
    data, state = made_up(*tables.large), gaussian(n_rows, tables.dim)
    for row in tables.rows():
        if late():
            return
        what = f"{data.n_items:,} items, {row[0]}, batch {row[1]}, {row[2]} negatives"
        needed = 1.1 * gpu_bytes(n_rows, row, tables.dim)
        free = free_bytes(machine.device)
        if free is not None and free < needed:
            say(f"{what}: left out: {needed / GIB:.1f} GiB needed, {free / GIB:.1f} GiB free")
            continue
        yield contest(data, state, row, machine, tables)


def gpu_bytes(n_rows: int, row: Row, dim: int) -> float:
    """Count what the tables of a row's contestants take together."""
    n_engines = 2 if isinstance(row[0], TwoStage | Shared) else 1
    needed = n_engines * n_rows * (12 * dim + 8)
    if isinstance(row[0], Uniform):
        needed += sum(TorchCML.bytes_needed(n_rows, dim, sparse) for sparse in (False, True))
    return needed


def gaussian(n_rows: int, dim: int) -> State:
    """Make tables of Gaussian rows, moments 0: sooner done than `Problem.initial_state`."""
    rng, rows = np.random.default_rng(2), np.zeros((n_rows, 3, dim), np.float32)
    for first in range(0, n_rows, 2**18):
        part = rows[first : first + 2**18, 0]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32)
    return State(rows, np.zeros(n_rows, np.int64))


def let_go(contestants: list[Contestant]) -> None:
    """Give the memory of a row's contestants back."""
    for c in contestants:
        c.close()
    contestants.clear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
