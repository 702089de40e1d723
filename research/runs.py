"""What the research scripts share: data, results that are added line by line, and tables."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

import nearfar as nf

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

from common import (
    WITHOUT_PRIOR,
    available_mib,
    first_fold,
    forget_peak,
    in_own_process,
    load,
    memory_mib,
    show,
)

__all__ = [
    "WITHOUT_PRIOR", "add_line", "available_mib", "first_fold", "forget_peak", "has_line",
    "in_own_process", "load", "loss_at", "memory_mib", "show",
]  # fmt: skip


def loss_at(temperature: float) -> nf.Triplet:
    """Return the loss of the defaults at a temperature."""
    return replace(nf.Options().triplet, temperature=temperature)


def has_line(file: Path, what: Mapping[str, Any]) -> bool:
    """Whether a CSV file has a line with these values: such a run need not be computed again."""
    return file.exists() and len(pl.read_csv(file).filter(**what)) > 0


def add_line(file: Path, line: Mapping[str, Any]) -> None:
    """Print a line, and put it at the end of a CSV file."""
    print(line, flush=True)
    new = pl.DataFrame([line])
    lines = [pl.read_csv(file), new] if file.exists() else [new]
    pl.concat(lines, how="diagonal_relaxed").write_csv(file)
