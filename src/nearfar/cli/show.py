"""Output of the commands: tables, or one JSON object."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nearfar.evaluation.metrics import REGISTRY, names
from nearfar.evaluation.result import Evaluation


def replace_what_cannot_be_shown() -> None:
    """Let characters that the console's encoding lacks become "?" instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def say(*parts: Any) -> None:
    """Print a line on stdout without formatting."""
    print(*parts, flush=True)


def note(*parts: Any) -> None:
    """Print a line on stderr."""
    print(*parts, file=sys.stderr, flush=True)


def emit(figures: Mapping[str, Any]) -> None:
    """Print one JSON object on stdout; NaN becomes null, other types become text."""
    say(json.dumps(_plain(figures), default=str, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table; numbers are right-aligned, and only other text is wrapped."""
    listed = [[str(cell) for cell in row] for row in rows]
    shown = Table(title=escape(title), title_justify="left", title_style="bold")
    for at, name in enumerate(columns):
        right = bool(listed) and all(_is_number(row[at]) for row in listed)
        justify: Literal["left", "right"] = "right" if right else "left"
        shown.add_column(escape(name), justify=justify, no_wrap=right or at == 0)
    for row in listed:
        shown.add_row(*map(escape, row))
    Console().print(shown)


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or cell[:1] in {"-", ""} or cell == "nan"


def counted(n: int, name: str) -> str:
    """Write a count and what is counted.

    >>> counted(1, "user"), counted(2000, "user")
    ('1 user', '2,000 users')
    """
    return f"{n:,} {name}{'' if n == 1 else 's'}"


def figure(name: str, value: float) -> str:
    """Format a metric with a suitable number of decimal places."""
    return f"{value:.1f}" if REGISTRY[name].is_count else f"{value:.4f}"


def evaluations(title: str, found: Mapping[str, Evaluation]) -> None:
    """Print metrics, one column per recommender, with standard errors of means over users."""
    rows = []
    for name in names():
        row = [name]
        for one in found.values():
            cell = figure(name, one[name])
            if REGISTRY[name].is_per_user:
                cell += f" ± {figure(name, one.standard_error(name))}"
            row.append(cell)
        rows.append(row)
    table(title, ["", *found], rows)


def lists_of(
    frame: pl.DataFrame,
    asked: Sequence[Any],
    query: str,
    name: str,
    titles: Callable[[Iterable[Any]], list[str | None]] | None = None,
) -> list[Any]:
    """Convert a frame of lists, as returned by `CML.recommend`, to one entry per requested id.

    With `titles`, which returns the titles of ids or None, entries have titles if any item has one.
    """
    found: dict[Any, list[Any]] = {one: [] for one in asked}
    named = [None] * frame.height if titles is None else titles(frame[name])
    with_title = any(title is not None for title in named)
    for row, title in zip(frame.iter_rows(named=True), named, strict=True):
        titled = {"title": title} if with_title else {}
        found[row[query]].append({name: row[name], **titled, "score": row["score"]})
    as_name = query if query != "query_id" else name
    return [{as_name: one, "nearest": entries} for one, entries in found.items()]


def ranked(title: str, lists: Sequence[Mapping[str, Any]]) -> None:
    """Print the result of `lists_of`, one table per requested id."""
    for entry in lists:
        (_, asked), (_, nearest) = entry.items()
        if not nearest:
            say(f"{title} {asked}: no items are left.")
            continue
        columns = ["rank", *nearest[0]]
        rows = [
            (
                rank,
                *(
                    f"{v:.4f}" if key == "score" else "" if v is None else v
                    for key, v in one.items()
                ),
            )
            for rank, one in enumerate(nearest, start=1)
        ]
        table(f"{title} {asked}", columns, rows)
