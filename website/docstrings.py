"""The docstrings of nearfar as reStructuredText: formulas keep their lines, bars are bars.

In a docstring a formula is an indented block, and |B| the size of B. reStructuredText would join
the lines of the one and look for a substitution in the other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

SECTION = re.compile(r"-{3,}$")
LITERAL = re.compile(r"``[^`]*``")


def with_formulas(lines: list[str]) -> list[str]:
    """Mark the indented blocks above the sections of a docstring, and in its notes, as literal.

    Examples
    --------
    >>> with_formulas(["The distance:", "", "    D", "", "Raises", "------", "Bad", "    x"])
    ['The distance:', '', '::', '', '    D', '', 'Raises', '------', 'Bad', '    x']
    """
    written: list[str] = []
    free, before = True, ""
    for n, line in enumerate(lines):
        if SECTION.match(line) and n:
            free = lines[n - 1] in {"Notes", "References"}
        after_space = n > 0 and not lines[n - 1].strip()
        opens = line.startswith("    ") and after_space and not before.startswith(" ")
        if free and opens and not before.endswith("::") and not re.match(r"[-*\d]", before):
            written += ["::", ""]
        written.append(line)
        before = line if line.strip() else before
    return written


def with_bars(lines: Iterable[str]) -> Iterator[str]:
    r"""Escape the bars of text, which is neither code nor a literal block.

    Examples
    --------
    >>> list(with_bars(["|B| rows::", "", "    |B|", "", "``|B|``"]))
    ['\\|B| rows::', '', '    |B|', '', '``|B|``']
    """
    block: int | None = None  # the indent of the text above a literal block
    example = False
    for line in lines:
        indent = len(re.match(r" *(?:[-*] )?", line)[0])  # type: ignore[index]
        if line.strip():
            example = example or line.lstrip().startswith(">>>")
            if block is not None and indent <= block:
                block = None
        else:
            example = False
        if block is None and not example:
            yield _escaped(line)
        else:
            yield line
        if line.rstrip().endswith("::") and block is None:
            block = indent


def _escaped(line: str) -> str:
    parts, end = [], 0
    for literal in LITERAL.finditer(line):
        parts += [re.sub(r"\|(?=\S)", r"\\|", line[end : literal.start()]), literal[0]]
        end = literal.end()
    return "".join([*parts, re.sub(r"\|(?=\S)", r"\\|", line[end:])])
