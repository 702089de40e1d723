"""The report of a study: one HTML page and one in Markdown, with the tables beside them as CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

import polars as pl

from nearfar.errors import StoreError
from nearfar.evaluation.metrics import REGISTRY
from nearfar.tuning.tuned import Tuned

_STYLE: Final = """
body { font: 16px/1.45 Georgia, serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
:root { color-scheme: light dark }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem }
th, td { padding: 0.15em 0.7em; text-align: right; white-space: nowrap }
thead th { border-bottom: 1px solid; font-weight: normal }
.wide { overflow-x: auto }
pre { white-space: pre-wrap; border-left: 2px solid; padding-left: 1em }
svg { max-width: 100%; height: auto }
"""
_TITLE: Final = "Tuning"
Block = str | pl.DataFrame
"""A paragraph, or a table."""


def write_tuning_report(tuned: Tuned, folder: Path, command: str) -> Path:
    """Write ``report.html``, ``report.md``, ``trials.csv``, ``front.csv`` and ``importance.csv``.

    Parameters
    ----------
    tuned : Tuned
    folder : Path
    command : str
        The command that trains the winner.

    Returns
    -------
    Path
        The HTML page.

    Raises
    ------
    StoreError
        They cannot be written.
    """
    parts = _sections(tuned, command)
    page = folder / "report.html"
    try:
        for name in ("trials", "front", "importance"):
            frame = tuned.table if name == "trials" else getattr(tuned, name)
            frame.write_csv(folder / f"{name}.csv")
        (folder / "report.md").write_text(_markdown(parts), encoding="utf-8")
        page.write_text(_html(parts, front_picture(tuned)), encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"Writing the report to {str(folder)!r} failed: {error}. Check the free space and the"
            " permissions there."
        ) from error
    return page


def _sections(tuned: Tuned, command: str) -> list[tuple[str, list[Block]]]:
    plan, shown = tuned.job.plan, _columns(tuned)
    part = f"a share of {plan.validation}" if isinstance(plan.validation, float) else "a given part"
    judged = (
        f"Every trial has {plan.epochs} epochs, of which each {plan.every}. is validated"
        f"{'' if plan.trial_seconds is None else f', and {plan.trial_seconds:g} seconds at most'},"
        f" on {part} of the training interactions, {plan.folds} time(s). The first trial has the"
        " starting values. Nothing was tested. The best of many trials is"
        " partly lucky: its value on the validation part is too good by an unknown amount."
    )
    best = [f"Trial {tuned.trial}. The command that trains it:", f"    {command}", "The options:",
            f"    {tuned.best!r}"]  # fmt: skip
    importance: list[Block] = (
        [tuned.importance]
        if tuned.importance.height
        else ["There are fewer than 10 complete trials."]
    )
    space = pl.DataFrame(
        [{"option": d.path, "searched": d.shown, "start": d.default, "why": d.why}
         for d in tuned.job.space.dimensions], strict=False,
    )  # fmt: skip
    return [
        ("The winner", list(best)),
        ("The front" if len(plan.objectives) > 1 else "The best", [tuned.front.select(shown)]),
        ("Importance", importance),
        ("All trials", [tuned.table.select("state", *shown, "error", "warnings")]),
        ("What was searched", [judged, space]),
    ]


def _columns(tuned: Tuned) -> list[str]:
    names = dict.fromkeys((*tuned.job.plan.objectives, "ndcg", "recall", "mmr"))
    dimensions = [one.path for one in tuned.job.space.dimensions]
    return ["trial", *names, *dimensions, "epochs", "best_epoch", "seconds"]


def _cells(frame: pl.DataFrame) -> list[list[str]]:
    return [
        [_cell(name, value) for name, value in row.items()] for row in frame.iter_rows(named=True)
    ]


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "—"
    if name in REGISTRY:
        return f"{value:.{1 if REGISTRY[name].is_count else 4}f}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _markdown(parts: Sequence[tuple[str, list[Block]]]) -> str:
    lines = [f"# {_TITLE}", ""]
    for title, blocks in parts:
        lines += [f"## {title}", ""]
        for block in blocks:
            lines += [block] if isinstance(block, str) else _rows(block)
            lines.append("")
    return "\n".join(lines)


def _rows(frame: pl.DataFrame) -> list[str]:
    lines = [frame.columns, ["---", *["---:"] * (frame.width - 1)], *_cells(frame)]
    return [
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    ]


def _html(parts: Sequence[tuple[str, list[Block]]], picture: str) -> str:
    body = [f"<h1>{_TITLE}</h1>"]
    for title, blocks in parts:
        body.append(f"<h2>{escape(title)}</h2>")
        body += [_paragraph(one) if isinstance(one, str) else _table_of(one) for one in blocks]
        if title == "The front":
            body.append(picture)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{_TITLE}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def _paragraph(text: str) -> str:
    code = text.removeprefix("    ")
    return f"<p>{escape(text)}</p>" if code == text else f"<pre>{escape(code)}</pre>"


def _table_of(frame: pl.DataFrame) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in frame.columns)
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in _cells(frame)
    )
    return (
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n'
        "</table></div>"
    )


def front_picture(tuned: Tuned) -> str:
    """Return an SVG of all complete trials by the first two objectives; empty with one."""
    names = tuned.job.plan.objectives
    if len(names) < 2:
        return ""
    rows = tuned.table.filter(pl.col("state") == "complete")
    x, y = _scaled(rows[names[1]], 50, 590), _scaled(rows[names[0]], 330, 20)
    on = set(tuned.front["trial"])
    dots = "".join(
        f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="4" stroke="currentColor"'
        f' fill="{"currentColor" if n in on else "none"}"><title>trial {n}: {names[0]}'
        f" {_cell(names[0], b)}, {names[1]} {_cell(names[1], a)}</title></circle>"
        for n, a, b in rows.select("trial", names[1], names[0]).iter_rows()
    )
    return (
        '<svg viewBox="0 0 620 380" role="img" aria-label="The front"><path d="M40 15V340H605"'
        f' fill="none" stroke="currentColor"/>{dots}<text x="600" y="365" text-anchor="end"'
        f' fill="currentColor">{names[1]}: {_ends(rows[names[1]], names[1])}</text><text x="45"'
        f' y="14" fill="currentColor">{names[0]}: {_ends(rows[names[0]], names[0])}</text></svg>'
    )


def _scaled(values: pl.Series, first: float, last: float) -> Callable[[float], float]:
    least, most = _limits(values)
    return lambda value: first + (last - first) * (value - least) / ((most - least) or 1.0)


def _limits(values: pl.Series) -> tuple[float, float]:
    numbers = [float(one) for one in values]
    return min(numbers), max(numbers)


def _ends(values: pl.Series, name: str) -> str:
    least, most = _limits(values)
    return f"{_cell(name, least)} to {_cell(name, most)}"
