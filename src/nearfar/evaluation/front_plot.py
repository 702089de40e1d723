"""The plot of a front: accuracy against popularity, a point for each setting of the dial."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl

from nearfar.errors import OptionError, StoreError
from nearfar.runtime.canvas import styled_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS: Final = (".png", ".svg", ".pdf")
"""What a plot can be written as."""


def plot_front(frame: pl.DataFrame, k: int, file: Path) -> None:
    """Write the plot of `Front.frame` to a file; see `Front.plot`.

    Raises
    ------
    OptionError
        The name of the file has none of the suffixes `FORMATS`.
    StoreError
        The file cannot be written.
    MissingExtraError
        matplotlib is not installed.
    """
    if file.suffix not in FORMATS:
        raise OptionError(f"`path` must end in one of {', '.join(FORMATS)}; got {str(file)!r}.")
    with styled_figure(5.5, 3.8) as figure:
        draw_front(figure, frame, k)
        try:
            figure.savefig(file, dpi=200)
        except OSError as error:
            raise StoreError(
                f"The plot cannot be written to {str(file)!r}: {error}. Choose a file in an"
                " existing folder."
            ) from error


def draw_front(figure: Figure, frame: pl.DataFrame, k: int) -> None:
    """Draw NDCG, with its standard error, against MMR; the setting is written at each point."""
    x, y, error = (frame[name].to_numpy() for name in ("mmr", "ndcg", "ndcg_se"))
    axes = figure.subplots()
    axes.errorbar(
        x, 100 * y, yerr=100 * error, marker="o", markerfacecolor="white", color="black",
        elinewidth=0.5,
    )  # fmt: skip
    varied = "diversity" if "diversity" in frame.columns else "popularity"
    for setting, at, height in zip(frame[varied], x, 100 * y, strict=True):
        axes.annotate(f"{setting:g}", (at, height), xytext=(5, -10), textcoords="offset points")
    axes.set(
        xlabel=f"MMR@{k} (median training interactions of a list): low is less biased",
        ylabel=f"NDCG@{k} (%), with its standard error",
        title="The settings of the popularity dial" if varied == "popularity" else "Diversity",
    )
