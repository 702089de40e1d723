"""A case: files, what was done to them, and what must become of them."""

from collections.abc import Callable
from dataclasses import dataclass, field

from nearfar.prepare.rules import Rules

NO_RULES = Rules()


class InvalidError(Exception):
    """What is written cannot be read; the message must name one of the lines, if there are any."""

    def __init__(self, why, *lines, of_rules=False):
        super().__init__(why)
        self.lines = set(lines)
        self.of_rules = of_rules


class FindingError(AssertionError):
    """Something is wrong with a reader, or with its oracle."""


@dataclass(frozen=True)
class Case:
    """Files, how they are read, and what was done to them."""

    target: str
    seed: int
    files: dict[str, bytes]
    given: str
    """The file that is read; the folder, if empty."""
    form: dict = field(default_factory=dict)
    stage: str = "scan"
    rules: Rules = NO_RULES
    changes: tuple[str, ...] = ()
    original: object = None
    """For files that are not text, the content before they were spoilt."""

    def __str__(self):
        shown = {name: data[:300] for name, data in self.files.items()}
        return (
            f"case({self.target!r}, {self.seed}): {self.stage} of {self.given!r} with {self.form} "
            f"and {self.rules}, after {', '.join(self.changes) or 'nothing'}\n{shown}"
        )


@dataclass(frozen=True)
class Right:
    """The contents that are right, and whether an error would be too."""

    contents: list
    refusable: bool = False
    n_rows: int | None = None
    """Any other content will do, too, if it has so many rows."""


@dataclass(frozen=True)
class Target:
    """A reader under test."""

    make: Callable
    expect: Callable
    observe: Callable
    line_by_line: bool = True
