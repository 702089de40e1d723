"""The HTML page of a report: one file without scripts or external resources.

For each data set it has the tables at the best epoch, without and with the popularity prior, and at
the last epoch, the significance of the differences, plots, statistics of the sampled negatives, and
how it was made; at the end, the cells that failed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

import polars as pl

from nearfar.errors import MissingExtraError
from nearfar.experiment.rates import rate_of, validated
from nearfar.experiment.sections import (
    COMPARED,
    WHEN,
    Comparisons,
    Part,
    caption_of,
    flat_options,
    in_common,
    incomplete,
    warned,
)
from nearfar.experiment.tables import SHOWN, Shown, Which, name_of, summary
from nearfar.experiment.writers import headings

LEVEL: Final = 0.05
"""Corrected p-values below it count as significant."""
_FAILED: Final = "failed."
"""An anchor that cannot be that of a data set: names of files do not end with a full stop."""
_STYLE: Final = """
body { font: 16px/1.45 Georgia, serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
       color: #111; background: #fff }
h2 { border-top: 2px solid #111; padding-top: 1rem; margin-top: 3rem }
table { border-collapse: collapse; border-top: 2px solid; border-bottom: 2px solid; margin: 1em 0;
        font-variant-numeric: tabular-nums; font-size: 0.9rem }
th, td { padding: 0.15em 0.7em; text-align: right; vertical-align: top; white-space: nowrap }
th { font-weight: normal }
th[scope=row], .text td { text-align: left }
.text td { white-space: normal }
thead th, tbody { border-bottom: 1px solid #777 }
caption { text-align: left; font-style: italic; padding-bottom: 0.5em; white-space: normal }
.wide { overflow-x: auto }
figure { margin: 1.5em 0 }
svg { max-width: 100%; height: auto }
pre { white-space: pre-wrap; font-size: 0.8rem; border-left: 2px solid #777; padding-left: 1em }
"""


def page(
    contents: Sequence[tuple[Part, Comparisons, Mapping[str, str]]],
    failures: Sequence[Mapping[str, str]],
) -> str:
    """Return the whole page.

    Parameters
    ----------
    contents : sequence of (Part, Comparisons, mapping of str to str)
        Each part, its comparisons, and how it was made.
    failures : sequence of mapping of str to str
        "what", "error" and "traceback" of each failed cell.

    Returns
    -------
    str
    """
    links = [f'<li><a href="#{part.file}">{escape(part.title)}</a></li>' for part, *_ in contents]
    if failures:
        links.append(f'<li><a href="#{_FAILED}">Cells that failed ({len(failures)})</a></li>')
    sections = [_section(*content) for content in contents]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n<title>Results</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n<h1>Results</h1>\n"
        f"<ul>\n{_lines(links)}</ul>\n{_lines(sections)}{_failed(failures)}</body>\n</html>\n"
    )


def _lines(parts: Iterable[str]) -> str:
    return "".join(f"{part}\n" for part in parts)


def _section(part: Part, compared: Comparisons, made: Mapping[str, str]) -> str:
    blocks = [f'<h2 id="{part.file}">{escape(part.title)}</h2>']
    for which in part.versions:
        blocks += [f"<h3>{WHEN[which]}</h3>", _results(part, which)]
    if note := incomplete(part):
        blocks.append(f"<p>{escape(note)}</p>")
    if said := warned(part):
        items = "".join(f"<li>{escape(text)}</li>" for text in said)
        blocks += ["<h3>Warnings</h3>", f"<ul>{items}</ul>"]
    blocks += ["<h3>Significance of the differences</h3>", _differences(compared)]
    blocks += ["<h3>Plots</h3>", _plots(part)]
    blocks += ["<h3>The sampled negatives</h3>", _draws(part)]
    blocks += ["<h3>How it was made</h3>", _made(part, made)]
    return _lines(blocks)


def _table(
    names: Sequence[str],
    groups: Iterable[Sequence[Sequence[str]]],
    caption: str = "",
    kind: str = "",
) -> str:
    """Return a table; the cells are HTML, the names and the caption are text."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    bodies = []
    for rows in groups:
        lines = [
            f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'
            for first, *rest in rows
        ]
        bodies.append(f"<tbody>\n{_lines(lines)}</tbody>")
    said = f"<caption>{escape(caption)}</caption>\n" if caption else ""
    return (
        f'<div class="wide"><table class="{kind}">\n{said}<thead><tr>{head}</tr></thead>\n'
        f"{_lines(bodies)}</table></div>"
    )


def _results(part: Part, which: Which) -> str:
    rows = part.rows(which)
    groups: dict[str, list[list[str]]] = {}
    for row in rows:
        first, *rest = row.cells(_emphasised)
        groups.setdefault(row.group, []).append([escape(first), *rest])
    return _table(headings(rows), groups.values(), caption_of(part, which), "results")


def _emphasised(figure: Shown) -> str:
    text = escape(figure.text)
    if figure.best_uniform:
        return f"<b><i>{text}</i></b>"
    return f"<b>{text}</b>" if figure.best else text


def _differences(compared: Comparisons) -> str:
    blocks = []
    for which, among in _AMONG.items():
        found = compared.get((which, which), _NOTHING)
        for metric in COMPARED if found.height else ():
            rows = found.filter(pl.col("metric") == metric)
            title = SHOWN[metric] + among
            blocks += [_matrix(rows, title), _listing(rows, title)]
    if not blocks:
        blocks = ["<p>There is only one setting, so there are no differences.</p>"]
    if ("prior", "best") in compared:
        blocks += [_gains(compared["prior", "best"], metric) for metric in COMPARED]
    return _lines([_EXPLAINED, *blocks])


_AMONG: Final[dict[Which, str]] = {"best": "", "prior": ", with the popularity prior"}
_NOTHING: Final = pl.DataFrame()
_EXPLAINED: Final = (
    "<p>Row minus column, in percentage points, at the best epoch. All p-values are corrected "
    "by Holm's procedure for the number of pairs of the table; a difference is significant if p is "
    f"below {LEVEL}. ● both tests are significant; ○ only Wilcoxon's signed-rank test over users "
    "and folds is: these trained models differ, but retrained models might not; △ only the "
    "paired t-test over folds is.</p>"
)


def _matrix(rows: pl.DataFrame, title: str) -> str:
    names = list(dict.fromkeys([*rows["a"], *rows["b"]]))
    cells = {}
    for row in rows.iter_rows(named=True):
        cells[row["a"], row["b"]] = _difference(row, 1)
        cells[row["b"], row["a"]] = _difference(row, -1)
    numbers = [str(number) for number in range(1, len(names) + 1)]
    lines = [
        [f"{number}. {escape(name)}", *(cells.get((name, other), "") for other in names)]
        for number, name in zip(numbers, names, strict=True)
    ]
    return _table(["", *numbers], [lines], title)


def _difference(row: Mapping[str, Any], sign: int) -> str:
    if row["difference"] is None:
        return "—"
    users, folds = (
        row[name] is not None and row[name] < LEVEL for name in ("wilcoxon_p_holm", "fold_p_holm")
    )
    mark = {(True, True): "●", (True, False): "○", (False, True): "△"}.get((users, folds), "")
    return f"{100 * sign * row['difference']:+.2f}{mark}"


def _listing(rows: pl.DataFrame, title: str) -> str:
    lines = [
        [escape(row["a"]), escape(row["b"]), *_tests(row)] for row in rows.iter_rows(named=True)
    ]
    table = _table(
        ["setting", "minus", *_TESTS],
        [lines],
        f"{title}: differences in percentage points; p-values are corrected, intervals are not.",
    )
    return f"<details><summary>{title}: all pairs</summary>\n{table}\n</details>"


def _gains(compared: pl.DataFrame, metric: str) -> str:
    rows = compared.filter(pl.col("metric") == metric)
    lines = [
        [escape(row["a"]), f"{_difference(row, 1)}", *_tests(row)]
        for row in rows.iter_rows(named=True)
    ]
    return _table(
        ["setting", "gain", *_TESTS],
        [lines],
        f"{SHOWN[metric]} with the popularity prior minus without it: differences in percentage "
        "points; p-values are corrected for the number of settings, intervals are not.",
    )


_TESTS: Final = (
    "users x folds", "difference", "95% interval", "Wilcoxon p", "t-test p", "over folds",
    "95% interval", "t-test p",
)  # fmt: skip


def _tests(row: Mapping[str, Any]) -> list[str]:
    return [
        str(row["n"]), _points(row["difference"]),
        f"{_points(row['low'])} … {_points(row['high'])}", _p(row["wilcoxon_p_holm"]),
        _p(row["t_p_holm"]), _points(row["fold_difference"]),
        f"{_points(row['fold_low'])} … {_points(row['fold_high'])}", _p(row["fold_p_holm"]),
    ]  # fmt: skip


def _points(value: float | None) -> str:
    return "—" if value is None else f"{100 * value:+.3f}"


def _p(value: float | None) -> str:
    return "—" if value is None else f"{value:.2g}"


def _plots(part: Part) -> str:
    try:
        from nearfar.experiment.plots import page_plots

        drawn = page_plots(part.outcomes)
    except MissingExtraError as error:
        return f"<p>There are no plots. {escape(str(error))}</p>"
    return _lines(
        f"<figure>\n<figcaption>{escape(title)}</figcaption>\n{svg}\n</figure>"
        for title, svg in drawn.items()
    )


def _draws(part: Part) -> str:
    """Return the table "sampling" of the diagnostics, averaged over folds."""
    names = {
        "violated": "violated pairs %", "held_out": "false negatives %",
        "false_push": "their share of the push %", "missed": "not drawn %",
        "effective_mean": "chosen from, mean", "effective_p10": "10%", "effective_p50": "median",
        "effective_p90": "90%",
    }  # fmt: skip
    lines = []
    for setting in summary(part.outcomes)["setting"]:
        own = [o.diagnostics.get("sampling") for o in part.outcomes if name_of(o) == setting]
        frames = [frame for frame in own if frame is not None]
        if frames:
            means = pl.concat(frames, how="diagonal").fill_nan(None).mean().row(0, named=True)
            lines.append([escape(str(setting)), *(_drawn(n, means.get(n)) for n in names)])
    if not lines:
        return "<p>These outcomes have no diagnostics.</p>"
    return _table(
        ["setting", *names.values()], [lines],
        "With the vectors of the best epoch, means over folds: pairs with a negative inside the "
        "margin; draws that are held-out items of the user, and their share of the gradient that "
        "pushes negatives away; negatives that could not be drawn; and the effective number of "
        "items that a negative is chosen from.",
    )  # fmt: skip


def _drawn(name: str, value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "—"
    return f"{value:.1f}" if name.startswith("effective") else f"{100 * value:.2f}"


def _made(part: Part, made: Mapping[str, str]) -> str:
    common = _table(
        ["all rows", ""], [[[escape(k), escape(v)] for k, v in made.items()]], kind="text"
    )
    return _lines([common, _each(part), _rates(part)])


def _each(part: Part) -> str:
    """Return a table of what differs between the rows: options, epochs, time."""
    flat = {name_of(outcome): flat_options(outcome) for outcome in part.outcomes}
    common = in_common(part)
    differing = sorted({name for one in flat.values() for name in one} - set(common))
    lines = []
    for row in summary(part.outcomes).iter_rows(named=True):
        options = [escape(flat[row["setting"]].get(name, "")) for name in differing]
        measured = [f"{row[name]:.1f}" for name in _MEASURED]
        lines.append([escape(row["setting"]), str(row["folds"]), *measured, *options])
    return _table(["setting", "folds", *_MEASURED.values(), *differing], [lines],
                  "Each row; epochs and seconds are means over folds.")  # fmt: skip


_MEASURED: Final = {
    "best_epoch": "best epoch", "last_epoch": "last epoch", "seconds": "seconds of training",
    "machine_seconds": "CPU seconds",
}  # fmt: skip


def _rates(part: Part) -> str:
    """Return a table of the metrics by which the learning rates were chosen."""
    metric = part.outcomes[0].cell["schedule"]["metric"]
    found: dict[tuple[str, float], float | None] = {}
    for outcome in [*part.outcomes, *part.others]:
        if outcome.cell["fold"] == 0:
            found[name_of(outcome), rate_of(outcome)] = validated(outcome)
    rates = sorted({rate for _, rate in found})
    values = {key: "—" if best is None else f"{best:.5f}" for key, best in found.items()}
    order = [*summary(part.outcomes)["setting"], *sorted({name for name, _ in found})]
    lines = [
        [escape(name), *(values.get((name, rate), "") for rate in rates)]
        for name in sorted({name for name, _ in found}, key=order.index)
    ]
    return _table(
        ["setting", *(f"{rate:g}" for rate in rates)], [lines],
        f"Choice of the learning rates: {metric} on the validation part of the first fold, at its "
        "best epoch.",
    )  # fmt: skip


def _failed(failures: Sequence[Mapping[str, str]]) -> str:
    if not failures:
        return ""
    blocks = [f'<h2 id="{_FAILED}">Cells that failed</h2>']
    blocks += [
        f"<p><b>{escape(failure['what'])}</b>: {escape(failure['error'])}</p>\n"
        f"<details><summary>traceback</summary>\n<pre>{escape(failure['traceback'])}</pre>\n"
        "</details>"
        for failure in failures
    ]
    return _lines(blocks)
