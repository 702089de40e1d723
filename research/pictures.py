"""Pictures of the pages, from the tables beside them.

    python research/pictures.py

draws docs/results/dial.png from results/prior_test.csv: NDCG against MMR of one trained model at
each setting of the popularity dial, and of training without a prior; and
docs/results/leaderboards.png from results/leaderboard_*.csv: NDCG of all methods on two published
splits.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

HERE = Path(__file__).parent
PAGES = HERE.parent / "docs" / "results"
DATA = {"ml-100k": "MovieLens-100K", "lastfm": "Last.fm", "gowalla": "Gowalla",
        "amazon-cds": "Amazon CDs"}  # fmt: skip
SPLITS = {"gowalla": "Gowalla", "amazon_cds": "Amazon CDs"}


def draw_dial(axes: Axes, rows: pl.DataFrame) -> None:
    """Draw NDCG in % against MMR at each setting, and without a prior."""
    model = rows.filter(pl.col("beta") > 0).sort("popularity")
    without = rows.filter(beta=0.0)
    axes.plot(model["mmr"], 100 * model["ndcg"], marker="D", ms=5, color="black", label="one model")
    for setting, x, y in model.select("popularity", "mmr", "ndcg").iter_rows():
        place = (-24, -12) if setting > 1 else (5, -10)
        axes.annotate(f"{setting:g}", (x, 100 * y), place, textcoords="offset points", fontsize=8)
    look = {"mfc": "white", "mec": "0.3", "ls": "", "ms": 7}
    axes.plot(without["mmr"], 100 * without["ndcg"], "s", label="trained without a prior", **look)
    axes.margins(x=0.12)
    axes.set_xlabel("MMR@50, less is less popular")


def dial(table: pl.DataFrame) -> Figure:
    """Return the picture of the dial, a panel for each data set."""
    picture, panels = plt.subplots(2, 2, figsize=(9, 7), layout="constrained")
    for (name, title), axes in zip(DATA.items(), panels.flat, strict=True):
        draw_dial(axes, table.filter(data=name))
        axes.set_title(title)
    for axes in panels[:, 0]:
        axes.set_ylabel("NDCG@50, %")
    panels[0, 0].legend(loc="lower right")
    return picture


def leaderboards(tables: dict[str, pl.DataFrame]) -> Figure:
    """Return the picture of the published splits: bars from the least to the most accurate."""
    picture, panels = plt.subplots(1, len(tables), figsize=(9, 3.4), layout="constrained")
    for (title, table), axes in zip(tables.items(), panels, strict=True):
        rows = table.sort("ndcg")
        own = ["black" if method == "nearfar" else "0.7" for method in rows["method"]]
        bars = axes.barh(rows["method"], rows["ndcg"], color=own)
        axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
        axes.margins(x=0.12)
        axes.set_title(title)
        axes.set_xlabel("NDCG@20, %")
    return picture


def tables() -> dict[str, pl.DataFrame]:
    """Return the tables of the published splits, by title."""
    return {
        title: pl.read_csv(HERE / "results" / f"leaderboard_{name}.csv")
        for name, title in SPLITS.items()
    }


def main() -> None:
    """Draw both."""
    dial(pl.read_csv(HERE / "results" / "prior_test.csv")).savefig(PAGES / "dial.png", dpi=120)
    leaderboards(tables()).savefig(PAGES / "leaderboards.png", dpi=120)


if __name__ == "__main__":
    main()
