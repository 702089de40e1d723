"""Output of the rows of `nearfar.experiment.tables.layout` in Markdown and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from nearfar.experiment.tables import ABSENT, SHOWN, Row, Shown


def headings(rows: Sequence[Row]) -> list[str]:
    """Return the headings of the columns."""
    gamma = ["gamma"] if rows[0].gamma else []
    paper = [f"{name}, paper" for name in SHOWN.values()] if rows[0].paper else []
    return ["method", "batch", "negatives", *SHOWN.values(), *gamma, *paper]


def markdown(rows: Sequence[Row]) -> str:
    """Return a table in Markdown, with numbers right-aligned."""
    names = headings(rows)
    lines = [names, ["---", *["---:"] * (len(names) - 1)]]
    lines += [row.cells(_emphasised_markdown) for row in _escaped(rows, escape_markdown)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _escaped(rows: Sequence[Row], escape: Callable[[str], str]) -> list[Row]:
    return [replace(row, method=escape(row.method)) for row in rows]


def escape_markdown(text: str) -> str:
    """Escape the special characters of Markdown, and put the text on one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&!])", r"\\\1", " ".join(text.split()))


def _emphasised_markdown(figure: Shown) -> str:
    marks = "***" if figure.best_uniform else "**" if figure.best else ""
    return f"{marks}{figure.text}{marks}"


def latex(rows: Sequence[Row], caption: str) -> str:
    r"""Return a LaTeX table, for ``\usepackage{booktabs}``, with a line between groups.

    Parameters
    ----------
    rows : sequence of Row
    caption : str
        Plain text; it is escaped.

    Returns
    -------
    str
    """
    names = headings(rows)
    lines = [
        r"\begin{table}", r"\centering", rf"\caption{{{escape_latex(caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(names) - 1)}}}", r"\toprule",
        " & ".join(map(escape_latex, names)) + r" \\",
    ]  # fmt: skip
    group = None
    for row in _escaped(rows, escape_latex):
        if row.group != group:
            lines.append(r"\midrule")
        group = row.group
        lines.append(" & ".join(row.cells(_emphasised_latex)).replace(ABSENT, "---") + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


_LATEX: Final = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$",
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}  # fmt: skip


def escape_latex(text: str) -> str:
    """Escape the special characters of LaTeX, and put the text on one line."""
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))


def _emphasised_latex(figure: Shown) -> str:
    text = escape_latex(figure.text)
    if figure.best_uniform:
        return rf"\textbf{{\textit{{{text}}}}}"
    return rf"\textbf{{{text}}}" if figure.best else text
