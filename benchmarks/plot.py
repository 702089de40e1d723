"""Draw the tables in results/ as one picture.

A panel for each table that is there: step, peers, evaluation, catalogue, memory, busy. Bars differ
by hatching and markers by shape, so it can be read without colours; thin lines go from the least to
the greatest measurement.

    python benchmarks/plot.py

writes results/bench.png.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
from matplotlib.axes import Axes

RESULTS = Path(__file__).parent / "results"
STYLES = (("white", ""), ("0.8", ""), ("0.6", "///"), ("0.35", ""), ("0.9", "xxx"))
"""Grey and hatching of the bars of a group."""
MARKERS = ("o-", "s--", "^:")
WIDTH = 0.8
"""Of a group of bars, where the groups are 1 apart."""


def bars(
    axes: Axes,
    groups: Sequence[str],
    series: dict[str, pl.DataFrame],
    column: str,
    *,
    horizontal: bool = False,
) -> None:
    """Draw a group of bars for each name in `groups`, one bar for each frame in `series`.

    A frame has a row a group, with `column` and, if there is a range, `column`_min and _max.
    """
    width = WIDTH / len(series)
    draw = axes.barh if horizontal else axes.bar
    for i, (label, frame) in enumerate(series.items()):
        at = np.arange(len(groups)) - WIDTH / 2 + (i + 0.5) * width
        grey, hatch = STYLES[i % len(STYLES)]
        values = frame[column].to_numpy()
        spread = {("xerr" if horizontal else "yerr"): whiskers(frame, column)}
        draw(
            at, values, width, label=label, color=grey, hatch=hatch, edgecolor="black",
            linewidth=0.6, error_kw={"linewidth": 0.8}, **spread,
        )  # fmt: skip
    if horizontal:
        axes.set_yticks(range(len(groups)), groups, fontsize=8)
        axes.invert_yaxis()
    else:
        axes.set_xticks(range(len(groups)), groups)


def whiskers(frame: pl.DataFrame, column: str) -> np.ndarray | None:
    """Give how far the least and the greatest are from the median, or None if unknown."""
    if f"{column}_min" not in frame.columns:
        return None
    middle = frame[column].to_numpy()
    low, high = frame[f"{column}_min"].to_numpy(), frame[f"{column}_max"].to_numpy()
    return np.maximum(np.stack([middle - low, high - middle]), 0.0)


def aim(axes: Axes, value: float, label: str, *, vertical: bool = False) -> None:
    """Draw the line that is not to be crossed."""
    draw = axes.axvline if vertical else axes.axhline
    draw(value, color="black", linestyle="--", linewidth=1.0, label=label)


# ---------------------------------------------------------------------------------- panels


def by_threads(table: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Split a table into one for each number of threads, with a label."""
    parts = table.partition_by("threads", as_dict=True, maintain_order=True)
    return {f"{n} thread{'s' if n > 1 else ''}": part for (n,), part in parts.items()}


def draw_step(axes: Axes, table: pl.DataFrame) -> None:
    """Draw steps as multiples of their limits, by sampler, batch and negatives."""
    rows = table.select("sampler", "batch", "negatives").unique(maintain_order=True).rows()
    groups = [f"{sampler}, {batch:,} x {negatives}" for sampler, batch, negatives in rows]
    bars(axes, groups, by_threads(table), "ratio", horizontal=True)
    aim(axes, 1.0, "limit: memory traffic, or product", vertical=True)
    axes.set(title="A training step: sampler, batch x negatives", xlabel="time / limit")


def speed_of_peers(table: pl.DataFrame, data: str = "gowalla", threads: int = 2) -> pl.DataFrame:
    """Turn the table of peers.py into what `draw_peers` takes."""
    timed = table.filter(data=data, threads=threads).filter(
        pl.col("positives_per_second").is_not_null()
    )
    batch = (
        pl.when(pl.col("batch").is_null())
        .then(pl.lit(""))
        .otherwise(pl.format(", batch {}", "batch"))
    )
    return timed.with_columns(
        peer=pl.format("{}, {}{}", "peer", "optimiser", batch),
        ratio=pl.col("nearfar_adam_times_as_fast"),
    )


def draw_peers(axes: Axes, table: pl.DataFrame) -> None:
    """Draw the speed of other libraries: peer, positives_per_second or seconds, ratio.

    `ratio`, how many times as fast nearfar is, is written behind the bar.
    """
    column, label = "positives_per_second", "positive pairs per second"
    if column not in table.columns:
        column = label = "seconds"
    bars(axes, table["peer"].to_list(), {"": table}, column, horizontal=True)
    ends = table[f"{column}_max"] if f"{column}_max" in table.columns else table[column]
    for at, (end, ratio) in enumerate(zip(ends, table["ratio"], strict=True)):
        if ratio is not None:
            axes.annotate(f"  {ratio:.3g} x", (end, at), va="center", fontsize=7)
    axes.set(
        title="Other libraries (nearfar is n x as fast)",
        xlabel=f"{label} (logarithmic)",
        xscale="log",
        xlim=(table[column].min() / 4, ends.max() * 3),
    )


def draw_evaluation(axes: Axes, table: pl.DataFrame) -> None:
    """Draw the cost of ranking a user, by library and threads."""
    timed = table.filter(pl.col("to_same_tiles").is_not_null())
    series = by_threads(timed)
    groups = next(iter(series.values()))["case"].to_list()
    bars(axes, groups, series, "us_per_user", horizontal=True)
    axes.set(title="The best 50 of 159,063 items", xlabel="microseconds per user")


def draw_catalogue(axes: Axes, table: pl.DataFrame) -> None:
    """Draw the step and its memory against the number of items."""
    for style, ((name,), part) in zip(
        MARKERS,
        table.partition_by("sampler", as_dict=True, maintain_order=True).items(),
        strict=False,
    ):
        for column, filled, what in (
            ("step_ms", "black", "step"),
            ("rows_ms", "white", "its rows"),
        ):
            axes.errorbar(
                part["n_items"], part[column], whiskers(part, column), fmt=style, color="black",
                markerfacecolor=filled, linewidth=0.8, markersize=4, label=f"{name}, {what}",
            )  # fmt: skip
    axes.set(
        title="A step by the size of the catalogue",
        xlabel="items (logarithmic)",
        ylabel="milliseconds (logarithmic)",
        xscale="log",
        yscale="log",
    )


def draw_memory(axes: Axes, table: pl.DataFrame) -> None:
    """Draw the peak of training as a multiple of what it needs."""
    groups = [f"{n:,} items, {run}" for n, run in table.select("n_items", "run").rows()]
    bars(axes, groups, {"peak": table}, "ratio", horizontal=True)
    aim(axes, 1.25, "aim: 1.25", vertical=True)
    axes.set(title="Memory of training", xlabel="peak / need")


def draw_busy(axes: Axes, table: pl.DataFrame) -> None:
    """Draw the step beside a spinning process as a multiple of the idle one."""
    batches = [f"batch {n:,}" for n in table["batch"].unique(maintain_order=True)]
    series = {
        name: part
        for (name,), part in table.partition_by("beside", as_dict=True, maintain_order=True).items()
    }
    bars(axes, batches, series, "to_idle")
    aim(axes, 2.5, "aim: 2.5")
    axes.set(title="A step on a busy machine", ylabel="time / idle time")


PANELS: dict[str, Callable[[Axes, pl.DataFrame], None]] = {
    "step": draw_step,
    "peers_speed": lambda axes, table: draw_peers(axes, speed_of_peers(table)),
    "evaluation": draw_evaluation,
    "catalogue": draw_catalogue,
    "memory": draw_memory,
    "busy": draw_busy,
}
"""What is drawn, by the name of its table."""


def main() -> None:
    """Draw every table that is there, two panels a row."""
    there = [name for name in PANELS if (RESULTS / f"{name}.csv").is_file()]
    if not there:
        raise SystemExit("results/ holds no table yet; run the benchmarks first.")
    n_rows = -(-len(there) // 2)
    figure, grid = plt.subplots(
        n_rows, 2, figsize=(13, 5 * n_rows), layout="constrained", squeeze=False
    )
    for name, axes in zip(there, grid.flat, strict=False):
        PANELS[name](axes, pl.read_csv(RESULTS / f"{name}.csv"))
        axes.grid(alpha=0.3, linewidth=0.5)
        axes.set_axisbelow(True)
        if len(axes.get_legend_handles_labels()[1]) > 1:
            axes.legend(
                fontsize=7, loc="upper center", bbox_to_anchor=(0.4, -0.13), ncols=3, frameon=False
            )
    for axes in list(grid.flat)[len(there) :]:
        axes.set_axis_off()
    figure.savefig(RESULTS / "bench.png", dpi=150)


if __name__ == "__main__":
    main()
