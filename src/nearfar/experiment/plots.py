"""Plots of a comparison, as SVG text for embedding in a page.

They need matplotlib (``pip install nearfar[plot]``). Settings differ by marker, line style and
hatching, never by colour alone. The same outcomes give the same text, regardless of their order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from html import escape
from io import StringIO
from itertools import product
from json import dumps
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from nearfar.experiment.cells import Outcome
from nearfar.experiment.tables import Which, options_of
from nearfar.runtime.arrays import Float64
from nearfar.runtime.canvas import require_matplotlib, styled_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


KINDS: Final = {
    "Uniform": "uniform", "Popularity": "popularity", "TwoStage": "2-stage", "Shared": "shared",
}  # fmt: skip
"""The samplers and their names, in the order of the panels."""
_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
_LINES: Final = ("-", "--", "-.", ":")
_FILLS: Final = ("white", "0.6", "black")
_BARS: Final = (("0.8", ""), ("white", "///"), ("0.45", ""), ("white", "xxx"))
"""Grey and hatching of the bars of a sampler; those of the training interactions are white."""
_NO_METADATA: Final = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def page_plots(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Draw all plots for which there are data.

    Parameters
    ----------
    outcomes : sequence of Outcome
        In any order. If there are several data sets, each has its own plots, whose titles start
        with its name.

    Returns
    -------
    dict of str to str
        From the title to the ``<svg>`` element as text. Ids within it are unique, so that several
        elements can be embedded in one page.

    Raises
    ------
    MissingExtraError
        matplotlib is not installed.
    """
    require_matplotlib()
    names = sorted({outcome.cell["data"] for outcome in outcomes})
    found = {}
    for name in names:
        ours = [outcome for outcome in outcomes if outcome.cell["data"] == name]
        for title, draw in _PLOTS.items():
            text = draw(ours)
            if text is not None:
                found[title if len(names) == 1 else f"{name}: {title}"] = text
    return found


def training_curves(outcomes: Sequence[Outcome]) -> str | None:
    """Draw validation NDCG over the epochs: one line per setting, one panel per sampler.

    The first fold of each setting is shown. A large black marker is the best epoch.

    Returns
    -------
    str or None
        None if no outcome has such a history.
    """
    curves = [(row, _curve(row.outcomes[0])) for row in _rows(outcomes)]
    curves = [(row, curve) for row, curve in curves if len(curve[0])]
    if not curves:
        return None
    panels = _kinds(row for row, _ in curves)
    k = curves[0][0].outcomes[0].cell["schedule"]["k"]

    def draw(figure: Figure) -> None:
        for axes, kind in zip(_side_by_side(figure, len(panels)), panels, strict=True):
            ours = [(row, curve) for row, curve in curves if row.kind == kind]
            for i, (row, curve) in enumerate(ours):
                _draw_curve(axes, i, row, curve)
            axes.set(title=KINDS.get(kind, kind), xlabel="epoch")
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18))
        figure.axes[0].set_ylabel(f"validation NDCG@{k} (%)")

    longest = max(sum(row.kind == kind for row, _ in curves) for kind in panels)
    size = (0.6 + 3.1 * len(panels), 3.1 + 0.16 * longest)
    return _svg("Validation NDCG over the epochs", size, draw)


def _draw_curve(axes: Axes, i: int, row: _Row, curve: tuple[Float64, Float64]) -> None:
    epochs, values = curve
    marker = _MARKERS[i % len(_MARKERS)]
    axes.plot(
        epochs, 100 * values, linestyle=_LINES[i % len(_LINES)], marker=marker, label=row.name,
        color="black" if i % 2 == 0 else "0.45", markerfacecolor="white",
        markevery=max(1, len(epochs) // 8),
    )  # fmt: skip
    best = epochs == row.outcomes[0].best_epoch
    axes.plot(epochs[best], 100 * values[best], marker=marker, color="black", markersize=7)


def _curve(outcome: Outcome) -> tuple[Float64, Float64]:
    """Return the evaluated epochs and their validation NDCG."""
    if "validation_ndcg" not in outcome.history.columns:
        return np.empty(0), np.empty(0)
    seen = outcome.history.select(pl.col("epoch", "validation_ndcg").cast(pl.Float64))
    seen = seen.drop_nulls().drop_nans()
    return seen["epoch"].to_numpy(), seen["validation_ndcg"].to_numpy()


def accuracy_against_popularity(outcomes: Sequence[Outcome], which: Which = "best") -> str | None:
    """Draw MAP against MMR at the best epoch, one marker per setting.

    Markers are means over the folds, bars extend one standard deviation (n - 1) to either side. The
    scale of MMR is logarithmic; if a mean is below 1, it is linear up to 1, to include 0. With the
    popularity prior ("prior"), a grey line leads to each marker from where it is without.

    Returns
    -------
    str or None
        None if no setting has both metrics.
    """
    points = [
        (row, _folds(row, "map", which), _folds(row, "mmr", which)) for row in _rows(outcomes)
    ]
    points = [(row, y, x) for row, y, x in points if len(y) and len(x)]
    if not points:
        return None
    without = [(_folds(row, "map"), _folds(row, "mmr")) for row, *_ in points if which == "prior"]
    lowest = min(x.mean() for x in [*(x for *_, x in points), *(x for _, x in without if len(x))])
    k = points[0][0].outcomes[0].cell["schedule"]["k"]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        styles = [(marker, fill) for fill, marker in product(_FILLS, _MARKERS)]
        for i, (row, y, x) in enumerate(points):
            marker, fill = styles[i % len(styles)]
            axes.errorbar(
                x.mean(), 100 * y.mean(), xerr=_deviation(x), yerr=100 * _deviation(y),
                marker=marker, markerfacecolor=fill, markersize=6, color="black", linestyle="",
                elinewidth=0.5, label=row.name,
            )  # fmt: skip
        for (_, y, x), (y0, x0) in zip(points, without, strict=False):
            if len(y0) and len(x0):
                axes.plot([x0.mean(), x.mean()], [100 * y0.mean(), 100 * y.mean()], color="0.7",
                          linewidth=0.7, zorder=0)  # fmt: skip
        _logarithmic(axes, lowest)
        axes.set(
            xlabel=f"MMR@{k} (training interactions, log scale): low is less biased",
            ylabel=f"MAP@{k} (%)",
        )
        figure.legend(loc="outside right upper")

    title = MAP_AGAINST_MMR[which == "prior"]
    return _svg(title, (8.5, max(4.0, 0.6 + 0.17 * len(points))), draw)


MAP_AGAINST_MMR: Final = ("MAP against MMR", "MAP against MMR, with the popularity prior")


def _logarithmic(axes: Axes, least: float) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    if least >= 1:
        axes.set_xscale("log")
    else:
        axes.set_xscale("symlog", linthresh=1.0)
    low, high = axes.get_xlim()
    wide = low <= 0 or high > 20 * low
    digits = "" if wide else "235" if high > 4 * low else "123456789"
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    some = FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in digits else "")
    axes.xaxis.set_major_formatter(plain)
    axes.xaxis.set_minor_formatter(NullFormatter() if wide else some)


def _folds(row: _Row, metric: str, which: Which = "best") -> Float64:
    """Return the metric at the best epoch in each fold that has it."""
    values = [outcome.metrics.get(which, {}).get(metric) for outcome in row.outcomes]
    return np.array([value for value in values if value is not None and np.isfinite(value)])


def _deviation(values: Float64) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def exposure_by_decile(outcomes: Sequence[Outcome]) -> str | None:
    """Draw the share of the recommendations in each tenth of the items.

    For each sampler, the best setting by test NDCG at the best epoch is shown; for comparison, the
    share of the training interactions. Means over the folds.

    Returns
    -------
    str or None
        None if no outcome has the table "exposure".
    """
    rows = _best_of_each_kind(outcomes, "exposure")
    if not rows:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        width = 0.85 / (1 + len(rows))
        trained = _mean_of(rows[0], "exposure", "interactions")
        bars = [("training interactions", trained, "white", "")]
        for i, row in enumerate(rows):
            listed = _mean_of(row, "exposure", "recommendations")
            bars.append((f"recommended: {row.name}", listed, *_BARS[i % len(_BARS)]))
        for i, (label, shares, grey, hatch) in enumerate(bars):
            at = np.arange(1, len(shares) + 1) + (i - len(rows) / 2) * width
            axes.bar(
                at, 100 * shares, width, label=label, color=grey, hatch=hatch, edgecolor="black",
                linewidth=0.6,
            )  # fmt: skip
        axes.set_xticks(np.arange(1, 11))
        axes.set(
            xlabel="decile of the items by training interactions (1: the most popular tenth)",
            ylabel="share (%)",
        )
        axes.legend(loc="upper right")

    return _svg("Exposure by decile of popularity", (7.5, 3.4), draw)


def cosines_beside_chance(outcomes: Sequence[Outcome]) -> str | None:
    """Draw the distributions of cosines of pairs of items, one panel per sampler.

    For each sampler, the best setting by test NDCG at the best epoch is shown. The grey area is
    p(s), the distribution for random points. Means over the folds.

    Returns
    -------
    str or None
        None if no outcome has the table "cosines".
    """
    rows = _best_of_each_kind(outcomes, "cosines")
    if not rows:
        return None

    def draw(figure: Figure) -> None:
        for axes, row in zip(_side_by_side(figure, len(rows)), rows, strict=True):
            table = row.outcomes[0].diagnostics["cosines"]
            edges = np.append(table["bin_low"].to_numpy(), table["bin_high"][-1])
            dim = row.outcomes[0].cell["setting"]["options"]["dim"]
            axes.stairs(table["density"].to_numpy(), edges, fill=True, color="0.82",
                        label=f"random points, p(s), d = {dim}")  # fmt: skip
            for name, line, label in (
                ("positives", "-", "items of one user"),
                ("negatives", "--", "an item of a user and one that the user does not have"),
            ):
                axes.stairs(_mean_of(row, "cosines", name), edges, linestyle=line, color="black",
                            linewidth=1.0, label=label)  # fmt: skip
            axes.set(title=row.name, xlabel="cosine s of two items (no unit)", xlim=(-1, 1))
            axes.set_xticks([-1.0, -0.5, 0.0, 0.5, 1.0])
        figure.axes[0].set_ylabel("density (per unit of s)")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)

    return _svg("Cosines of pairs of items", (0.6 + 3.1 * len(rows), 3.2), draw)


_PLOTS: Final[Mapping[str, Callable[[Sequence[Outcome]], str | None]]] = {
    "Validation NDCG over the epochs": training_curves,
    MAP_AGAINST_MMR[0]: accuracy_against_popularity,
    MAP_AGAINST_MMR[1]: partial(accuracy_against_popularity, which="prior"),
    "Exposure by decile of popularity": exposure_by_decile,
    "Cosines of pairs of items": cosines_beside_chance,
}


# ------------------------------------------------------------------------- selection of the data


@dataclass(frozen=True)
class _Row:
    """A setting, with its outcomes by fold."""

    name: str
    kind: str
    outcomes: tuple[Outcome, ...]


def _rows(outcomes: Iterable[Outcome]) -> list[_Row]:
    """Group the outcomes by setting, in the order of the table."""
    by_name: dict[str, list[Outcome]] = {}
    for outcome in sorted(outcomes, key=_order):
        by_name.setdefault(outcome.cell["setting"]["name"], []).append(outcome)
    return [_Row(name, _kind(ours[0]), tuple(ours)) for name, ours in by_name.items()]


def _order(outcome: Outcome) -> tuple[Any, ...]:
    options, kind = options_of(outcome), _kind(outcome)
    place = list(KINDS).index(kind) if kind in KINDS else len(KINDS)
    name = outcome.cell["setting"]["name"]
    settled = dumps(outcome.cell, sort_keys=True)
    batch = -options["batch"]  # the largest first, as in the table
    return place, kind, options["negatives"], batch, name, outcome.cell["fold"], settled


def _kind(outcome: Outcome) -> str:
    return str(outcome.cell["setting"]["options"]["sampler"]["kind"])


def _kinds(rows: Iterable[_Row]) -> list[str]:
    return list(dict.fromkeys(row.kind for row in rows))


def _best_of_each_kind(outcomes: Iterable[Outcome], table: str) -> list[_Row]:
    """Return the best setting of each sampler, among those that have the table in every fold."""
    rows = [row for row in _rows(outcomes) if all(table in o.diagnostics for o in row.outcomes)]
    ndcg = {row.name: float(np.mean(values)) if len(values) else -np.inf
            for row in rows for values in (_folds(row, "ndcg"),)}  # fmt: skip
    return [
        max((row for row in rows if row.kind == kind), key=lambda row: ndcg[row.name])
        for kind in _kinds(rows)
    ]


def _mean_of(row: _Row, table: str, column: str) -> Float64:
    """Average a column over the folds."""
    columns = [outcome.diagnostics[table][column].to_numpy() for outcome in row.outcomes]
    mean: Float64 = np.mean(columns, axis=0)
    return mean


# ------------------------------------------------------------------------------------- drawing


def _side_by_side(figure: Figure, n: int) -> list[Axes]:
    return list(figure.subplots(1, n, sharey=True, squeeze=False)[0])


def _svg(title: str, size: tuple[float, float], draw: Callable[[Figure], None]) -> str:
    """Draw a figure of `size` (inches) and return it as an element for a page."""
    text = StringIO()
    with styled_figure(*size) as figure:
        draw(figure)
        figure.savefig(text, format="svg", metadata=_NO_METADATA)
    drawn = text.getvalue()
    element = drawn[drawn.index("<svg ") :]
    prefix = f"f{sha256(element.encode()).hexdigest()[:8]}-"
    element = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{prefix}", element)
    return element.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)
