"""Training on a GPU: parity, steps a second beside a floor and beside rivals, time to quality.

**Parity.** On small data, over samplers, losses, optimisers and geometries: the GPU engine against
the same steps in plain torch on the processor and against the reference. Without it nothing is
timed. Before each row of the table the GPU engine's first losses are held against the CPU engine's.

**Steps.** Echonest-sized (31,521 users, 159,063 items, 1.4 million made-up pairs) and with five
million items: the GPU engine, with `fast=True` where there are matrix products; the CPU engine, on
as many threads as `fit` would take; and the same loss in plain torch, with dense Adam and with
SparseAdam (what these leave out: gpu_rivals.py). All of a row are timed in turn, round by round.
Adam's learning rate is so low that every round does the work of the first steps, when nearly every
pair is violated: that is the most work.

`floor_us` is what the step's launches would take if they were empty (of 1,024 programs each), plus
its rows at the pace of a copy (each read once, parameter and both moments, and written once if the
step moves it), plus its matrix products at the pace of a large one. Launches are counted in the
code (a sort by torch, in 2-stage sampling with more than 8,192 entries, as one); what is planned
for many steps together has no share in the floor. `least_floor_us` is the same with two launches:
whatever the program, pairs are compared before rows are moved.

**Quality.** The defaults on a fold of real data, on either engine: seconds, NDCG@50 and MAP@50 on
the validation part.

    PYTHONPATH=src python benchmarks/gpu.py [--gowalla FILE.npz] [--out DIR]

writes gpu_parity.csv, gpu_machine.csv, gpu_quality.csv and gpu_step.csv to benchmarks/results in
one go of some minutes, and needs no more than torch, triton, numpy, numba, scipy and threadpoolctl.
FILE.npz comes from a folder that `nearfar prepare` wrote (this needs all of nearfar):

    python benchmarks/gpu.py --pack FOLDER FILE.npz

With --small, or where no GPU is at hand, everything runs on torch's CPU device at a small size, to
show that it runs; then results are only written if --out is given.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from gpu_checks import Fold, Line, Training, disagreements, parity, quality
from gpu_rivals import Machine
from gpu_step import Tables, large_table, usual_table
from nearfar.method.options import Options

RESULTS = Path(__file__).parent / "results"


@dataclass
class Report:
    """Prints what is known as soon as it is, and keeps it in files."""

    folder: Path | None
    note: str
    begun: float = field(default_factory=time.perf_counter)

    def seconds(self) -> float:
        """Time since the start."""
        return time.perf_counter() - self.begun

    def say(self, text: str) -> None:
        """Print a line."""
        print(f"{self.seconds():6.1f} s  {self.note}{text}", flush=True)

    def write(self, name: str, lines: Sequence[Line]) -> None:
        """Write lines to `name`.csv, if results are written at all."""
        if self.folder is None or not lines:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)


@dataclass(frozen=True)
class Sizes:
    """How large everything is."""

    tables: Tables = Tables()  # noqa: RUF009
    copied: int = 2**28
    """Numbers in the array whose copying is timed."""
    multiplied: int = 8192
    """Rows of the matrices whose product is timed."""
    training: Training = Training(Options(), epochs=24, cpu_seconds=60.0)  # noqa: RUF009


SMALL = Sizes(
    Tables(
        data=(2_000, 5_000, 30_000), large=(2_000, 20_000, 30_000), dim=16, batches=(32, 128),
        candidates=200, shared=48, rounds=2, seconds=0.001,
    ),
    copied=2**20,
    multiplied=256,
    training=Training(Options(dim=16, batch=64, negatives=48), epochs=2, cpu_seconds=5.0),
)  # fmt: skip


def pack(folder: Path, file: Path) -> None:
    """Put the first fold of a data set into one file of arrays."""
    from common import first_fold

    learn, held_out = first_fold(folder)
    np.savez_compressed(
        file, train_indptr=learn.indptr, train_items=learn.items, valid_indptr=held_out.indptr,
        valid_items=held_out.items, n_items=learn.n_items,
    )  # fmt: skip
    print(f"{file}: {learn.n_users:,} users, {learn.n_items:,} items, {learn.n_pairs:,} pairs")


def main(arguments: Sequence[str] | None = None) -> None:
    """Check, measure the machine, train, and time; or pack data for that."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gowalla", type=Path, metavar="FILE.npz", help="from --pack")
    parser.add_argument("--out", type=Path, metavar="DIR", help="by default benchmarks/results")
    parser.add_argument("--small", action="store_true", help="a small size, on torch's CPU device")
    parser.add_argument("--limit", type=float, default=480.0, help="begin no row later, seconds")
    parser.add_argument("--pack", type=Path, nargs=2, metavar=("FOLDER", "FILE.npz"))
    args = parser.parse_args(arguments)
    if args.pack is not None:
        pack(*args.pack)
        return
    small = args.small or not torch.cuda.is_available()
    if small:
        torch.set_num_threads(1)  # steps this small are only delayed by more
    device = torch.device("cpu" if small else "cuda")
    report = Report(folder_of(args.out, small), "no GPU: figures mean nothing: " if small else "")
    measure(SMALL if small else Sizes(), device, args, report)


def folder_of(out: Path | None, small: bool) -> Path | None:
    """Choose where results go: at a small size nowhere, unless a place is named."""
    return out if out is not None or small else RESULTS


def measure(sizes: Sizes, device: torch.device, args: argparse.Namespace, report: Report) -> None:
    """Do everything, and stop where an engine is wrong."""
    lines = parity(device, report.say)
    report.write("gpu_parity", lines)
    if not all(line["holds"] for line in lines):
        raise SystemExit("The engines disagree; nothing is timed.")
    machine = Machine.measured(device, sizes.copied, sizes.multiplied)
    report.say(f"machine: {machine.line()}")
    report.write("gpu_machine", [machine.line()])
    wrong = train(sizes, device, args.gowalla, report)
    step_tables(sizes.tables, machine, report, args.limit)
    report.say("done" if report.folder is None else "done; the tables are in files")
    if wrong:
        raise SystemExit(f"The engines learn other things: {'; '.join(wrong)}.")


def train(sizes: Sizes, device: torch.device, file: Path | None, report: Report) -> list[str]:
    """Train with both engines; give what they do not agree on."""
    if file is None:
        report.say("quality: skipped: no --gowalla FILE.npz")
        return []
    lines = quality(Fold.load(file), sizes.training, device, report.say)
    report.write("gpu_quality", lines)
    return disagreements(lines)


def step_tables(tables: Tables, machine: Machine, report: Report, limit: float) -> None:
    """Time the steps; what is known is written after every row."""
    lines: list[Line] = []

    def late() -> bool:
        if report.seconds() > limit:
            report.say(f"the rows that are left are skipped: {limit:.0f} s are over")
            return True
        return False

    for found in chain(
        usual_table(tables, machine, late), large_table(tables, machine, late, report.say)
    ):
        lines += found
        report.write("gpu_step", lines)
        for line in found:
            report.say(f"step: { {name: v for name, v in line.items() if v is not None} }")


if __name__ == "__main__":
    main()
