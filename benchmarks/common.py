"""What the benchmarks share: made-up interactions, rounds, tables, memory, processes of their own.

Memory is read from /proc, so those figures need Linux.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from rich.console import Console
from rich.table import Table

import nearfar as nf
from nearfar.data.ids import Ids
from nearfar.engine.cpu.prefetch import prefetch_row
from nearfar.runtime.jit import kernel

RESULTS = Path(__file__).parent / "results"
N_USERS, N_ITEMS, N_PAIRS, DIM = 31_521, 159_063, 1_405_671, 128
"""The size of the Echonest data of the paper."""
HINGE = nf.Options(
    triplet=nf.Triplet(), sampler=nf.Uniform(), optimiser=nf.Adam(), averaging=None, prior=None
)
"""Eq. 1 and Adam: what figures of speed and memory are of, unless they say otherwise."""
WITHOUT_PRIOR = replace(nf.Options(), sampler=nf.Shared(0.0), negatives=512, prior=None)
"""512 shared uniform negatives and distance alone, the defaults before there was a prior."""
MIB = 2.0**20
"""Bytes in the unit of the memory figures."""
_CHUNK = 2**22

Int32 = npt.NDArray[np.int32]


def made_up_pairs(n_users: int, n_items: int, n_pairs: int, seed: int = 0) -> tuple[Int32, Int32]:
    """Draw pairs: users uniformly, items with a popularity of rank^-0.8, ranks in random order.

    The distribution function of the ranks is (rank / n_items)^0.2, so a fifth power inverts it:
    linear time, and no memory beyond the result. A few pairs are drawn more than once.
    """
    rng = np.random.default_rng(seed)
    item_of_rank = rng.permutation(n_items).astype(np.int32)
    users, items = np.empty(n_pairs, np.int32), np.empty(n_pairs, np.int32)
    for begin in range(0, n_pairs, _CHUNK):
        part = slice(begin, min(begin + _CHUNK, n_pairs))
        size = part.stop - begin
        users[part] = rng.integers(0, n_users, size, dtype=np.int32)
        items[part] = item_of_rank[(n_items * rng.random(size) ** 5).astype(np.int32)]
    return users, items


def made_up(
    n_users: int = N_USERS, n_items: int = N_ITEMS, n_pairs: int = N_PAIRS, seed: int = 0
) -> nf.Interactions:
    """Make interactions of `made_up_pairs`."""
    users, items = made_up_pairs(n_users, n_items, n_pairs, seed)
    return nf.Interactions.from_rows(users, items, Ids.numbered(n_users), Ids.numbered(n_items))


def unit_rows(n: int, dim: int, seed: int) -> npt.NDArray[np.float32]:
    """Draw n points of the sphere."""
    rows = np.random.default_rng(seed).standard_normal((n, dim), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


# ------------------------------------------------------------------------------------ time


class Spread(NamedTuple):
    """The median of a few measurements, and how far they lie apart."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise `values`."""
        return cls(statistics.median(values), min(values), max(values))

    def columns(self, name: str, digits: int = 3) -> dict[str, float]:
        """Give the columns `name`, `name`_min and `name`_max of a table."""
        names = (name, f"{name}_min", f"{name}_max")
        return {n: round(value, digits) for n, value in zip(names, self, strict=True)}


def rounds(
    cases: Mapping[Any, Callable[[], object]], n: int, pause: float = 0.0
) -> dict[Any, list[float]]:
    """Time all cases in turn, n times over: what slows the machine down hits all of them.

    `pause` is slept before each, for pools of threads that spin for a while after their work.
    """
    seconds: dict[Any, list[float]] = {name: [] for name in cases}
    for _ in range(n):
        for name, case in cases.items():
            time.sleep(pause)
            begun = time.perf_counter()
            case()
            seconds[name].append(time.perf_counter() - begun)
    return seconds


def ratios(seconds: Sequence[float], others: Sequence[float]) -> Spread:
    """Compare two cases within each round."""
    return Spread.of([a / b for a, b in zip(seconds, others, strict=True)])


@kernel
def _touch(rows, listed, begin, end, ahead):  # type: ignore[no-untyped-def]
    for i in range(begin, end):
        if ahead > 0:
            prefetch_row(rows, listed[min(i + ahead, end - 1)])
        row = listed[i]
        for slot in range(rows.shape[1]):
            for k in range(rows.shape[2]):
                rows[row, slot, k] = rows[row, slot, k] * np.float32(0.9999)


def touch_rows(
    rows: npt.NDArray[np.float32],
    listed: npt.NDArray[np.int64],
    pool: ThreadPoolExecutor,
    threads: int,
    ahead: int = 8,
) -> None:
    """Read and write the listed rows once; each is asked for `ahead` rows before its turn."""
    bounds = [len(listed) * i // threads for i in range(threads + 1)]
    list(pool.map(lambda i: _touch(rows, listed, bounds[i], bounds[i + 1], ahead), range(threads)))


# ---------------------------------------------------------------------------------- memory


def memory_mib(field: str = "VmRSS") -> float:
    """Read the resident memory of this process, or its peak (VmHWM), in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise SystemExit("The resident memory is read from /proc/self/status, which is not there.")


def forget_peak() -> None:
    """Start a new peak from what is in use now: what was freed goes back to the system first."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def available_mib() -> float:
    """Read how much memory can still be taken, in MiB."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) / 1024
    raise SystemExit("The free memory is read from /proc/meminfo, which does not say.")


# ------------------------------------------------------------------------- processes, tables


def in_own_process(
    script: str, case: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run ``script --case JSON`` afresh and read the JSON object in the last line it prints."""
    command = [sys.executable, script, "--case", json.dumps(case)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
    )
    if done.returncode != 0:
        raise SystemExit(f"{Path(script).name}: the case {dict(case)} failed.")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def show(title: str, lines: Sequence[Mapping[str, object]]) -> None:
    """Print lines, which have the same columns, as a table; ranges go behind their medians."""
    if not lines:
        print(f"{title}: none")
        return
    table = Table(title=title, title_justify="left")
    names = [name for name in lines[0] if not name.endswith(("_min", "_max"))]
    for name in names:
        table.add_column(name, justify="left" if isinstance(lines[0][name], str) else "right")
    for line in lines:
        table.add_row(*(_cell(line, name) for name in names))
    Console(width=180).print(table)


def _cell(line: Mapping[str, object], name: str) -> str:
    value = "" if line[name] is None else str(line[name])
    if f"{name}_min" not in line:
        return value
    return f"{value} ({line[f'{name}_min']} to {line[f'{name}_max']})"


def write(name: str, lines: Sequence[Mapping[str, object]]) -> None:
    """Write lines to results/`name`.csv."""
    RESULTS.mkdir(exist_ok=True)
    pl.DataFrame(lines, infer_schema_length=None).write_csv(RESULTS / f"{name}.csv")


def load(path: Path) -> nf.Interactions:
    """Load a folder that `nearfar prepare` wrote, or ml-100k."""
    return nf.datasets.load(path.name) if path.name == "ml-100k" else nf.Interactions.load(path)


def first_fold(path: Path) -> tuple[nf.Interactions, nf.Interactions]:
    """Load data, and give what is learned from on the first fold, and its validation part."""
    train, _ = nf.split.k_fold(load(path), 4, seed=0)[0]
    learn, held_out = nf.split.ratio(train, test=0.1, seed=0)
    return learn, held_out
