"""Accuracy against popularity bias: the defaults and the long tail above the paper's grid.

For each data set with a Table 2 and a study in docs/results/, MAP@50 over MMR@50 of every row of
the paper's grid, and ours: the defaults, which are beta = 0, and the long tails with as many
negatives, from the largest MMR to the smallest, and the long tails with 64 negatives. Each makes a
line, level to the right of its largest MMR, that ends at the smallest; the front is the upper one.

    python research/front.py

draws docs/results/front.png and writes results/front.csv: a line for each row of the grid, with
what the front has at its MMR.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.axes import Axes

HERE = Path(__file__).parent
PAGES = HERE.parent / "docs" / "results"
DATA = ("gowalla", "lastfm", "amazon-cds")
FEWER: dict[str, Any] = {"marker": ".", "ls": ":", "label": "long tail, 64 negatives"}
MARKERS = {"uniform": "o", "popularity": "s", "2-stage": "^"}


def figures(file: Path) -> pl.DataFrame:
    """Give MAP and NDCG in % and MMR of each setting of a report, means over its folds."""
    return (
        pl.read_csv(file)
        .filter(pl.col("metric").is_in(["map", "ndcg", "mmr"]), which="best")
        .pivot("metric", index=["data", "setting", "method", "negatives", "folds"], values="mean")
        .with_columns(pl.col("map", "ndcg") * 100.0)
    )


def lines_of(study: pl.DataFrame) -> list[pl.DataFrame]:
    """Keep the defaults and the long tails: a line for each number of negatives, by MMR."""
    ours = pl.col("setting").str.starts_with("long tail") | (pl.col("setting") == "shared")
    return study.filter(ours).sort("mmr").partition_by("negatives", maintain_order=True)


def compared(grid: pl.DataFrame, lines: list[pl.DataFrame]) -> pl.DataFrame:
    """Put beside each row of the grid what the front has at its MMR, NaN below the smallest."""
    at = {
        name: np.fmax.reduce(
            [np.interp(grid["mmr"], line["mmr"], line[name], left=np.nan) for line in lines]
        )
        for name in ("map", "ndcg")
    }
    return grid.with_columns(
        front_map=at["map"],
        front_ndcg=at["ndcg"],
        above=(at["map"] > grid["map"].to_numpy()) & (at["ndcg"] > grid["ndcg"].to_numpy()),
    )


def draw(axes: Axes, name: str, grid: pl.DataFrame, lines: list[pl.DataFrame]) -> None:
    """Draw a panel."""
    for line in lines:
        usual = line["negatives"][0] == 512
        look = {"marker": "D", "label": "defaults and long tail"} if usual else FEWER
        axes.plot(line["mmr"], line["map"], color="black", **look)
        for setting, x, y in line.select("setting", "mmr", "map").iter_rows() if usual else ():
            beta = setting.removeprefix("long tail, beta ")
            text = "beta 0" if setting == "shared" else beta
            axes.annotate(text, (x, y), (4, -9), textcoords="offset points", fontsize=7)
    for method, marker in MARKERS.items():
        rows = grid.filter(method=method)
        axes.plot(rows["mmr"], rows["map"], marker, mfc="white", mec="0.3", label=method)
    axes.set_title(name)
    axes.set_xlabel("MMR@50, less is better")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)


def main() -> None:
    """Draw, write and print."""
    picture, panels = plt.subplots(1, len(DATA), figsize=(12, 4), layout="constrained")
    found = []
    for name, axes in zip(DATA, panels, strict=True):
        grid = figures(PAGES / name / f"{name}.csv")
        ours = lines_of(figures(PAGES / f"{name}-study" / f"{name}-study.csv"))
        draw(axes, name, grid, ours)
        found.append(compared(grid, ours))
    panels[0].set_ylabel("MAP@50, %")
    panels[0].legend(fontsize=8)
    picture.savefig(PAGES / "front.png", dpi=120)
    table = pl.concat(found).select(
        "data", "setting", "folds",
        *(pl.col(c).round(2) for c in ("mmr", "map", "front_map", "ndcg", "front_ndcg")), "above",
    )  # fmt: skip
    table.write_csv(HERE / "results" / "front.csv")
    below = table.filter(~pl.col("above"))
    with pl.Config(tbl_rows=-1, fmt_str_lengths=40):
        print(f"{table.height - below.height} of {table.height} rows lie below the front; not:")
        print(below)


if __name__ == "__main__":
    main()
