"""What `nearfar.prepare` did: the figures after each step, and those of the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from nearfar.data.interactions import Interactions
from nearfar.errors import EmptyDataError
from nearfar.prepare.rules import Paper

_QUANTILES: Final = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Step:
    """What was left after one step."""

    name: str
    """What was done."""
    n_pairs: int
    """Rows left; from "each pair once" on, distinct pairs."""
    n_users: int | None = None
    """Users left; None before they have been counted."""
    n_items: int | None = None
    """Items left; None before they have been counted."""


@dataclass(frozen=True)
class Report:
    """What `prepare` did: what each step left, and the figures of the result."""

    steps: tuple[Step, ...]
    """The steps, in order."""
    n_users: int
    """Users of the result."""
    n_items: int
    """Items of the result."""
    n_pairs: int
    """Interactions of the result."""
    density: float
    """Share of all users x items that are interactions."""
    user_quantiles: tuple[float, ...]
    """Items of a user: minimum, quartiles and maximum over the users."""
    item_quantiles: tuple[float, ...]
    """Users of an item: minimum, quartiles and maximum over the items."""

    def __str__(self) -> str:
        return self.text()

    def text(self, paper: Paper | None = None) -> str:
        """Write everything as lines of text; with `paper`, its Table 1 beside the figures."""
        lines = [f"{'pairs':>13} {'removed':>13} {'users':>11} {'items':>11}  step"]
        before = None
        for one in self.steps:
            removed = "" if before is None else f"{before - one.n_pairs:,}"
            sides = ("" if n is None else f"{n:,}" for n in (one.n_users, one.n_items))
            users, items = sides
            lines.append(f"{one.n_pairs:>13,} {removed:>13} {users:>11} {items:>11}  {one.name}")
            before = one.n_pairs
        lines += ["", *self._figures(paper)]
        for name, quantiles in (("items of a user", self.user_quantiles),
                                ("users of an item", self.item_quantiles)):  # fmt: skip
            lines.append(f"{name}: " + " / ".join(f"{q:,g}" for q in quantiles)
                         + " (minimum, quartiles, maximum)")  # fmt: skip
        return "\n".join(lines)

    def _figures(self, paper: Paper | None) -> list[str]:
        rows = [("users", f"{self.n_users:,}"), ("items", f"{self.n_items:,}"),
                ("interactions", f"{self.n_pairs:,}"), ("density", f"{100 * self.density:.3g}%"),
                ("interactions of a user", f"{self.n_pairs / self.n_users:.1f}"),
                ("interactions of an item", f"{self.n_pairs / self.n_items:.1f}")]  # fmt: skip
        if paper is None:
            return [f"{name:<24}{here:>13}" for name, here in rows]
        n_users, n_items, n_pairs = paper.n_users, paper.n_items, paper.n_pairs
        there = (f"{n_users:,}", f"{n_items:,}", f"{n_pairs:,}",
                 f"{100 * n_pairs / n_users / n_items:.3g}%",
                 f"{n_pairs / n_users:.1f}", f"{n_pairs / n_items:.1f}")  # fmt: skip
        head = f"{'':<24}{'here':>13} {'paper, Table 1':>16}"
        return [head, *(f"{name:<24}{here:>13} {theirs:>16}"
                        for (name, here), theirs in zip(rows, there, strict=True))]  # fmt: skip


def step(name: str, n_pairs: int, n_users: int | None = None, n_items: int | None = None) -> Step:
    """Make a step.

    Raises
    ------
    EmptyDataError
        Nothing is left after it.
    """
    if n_pairs == 0:
        raise EmptyDataError(f"Nothing is left after this step: {name}. Loosen the rules.")
    return Step(name, n_pairs, n_users, n_items)


def reported(data: Interactions, steps: list[Step]) -> Report:
    """Put the steps and the figures of the result together."""
    by_user, by_item = (
        tuple(map(float, np.quantile(counts, _QUANTILES)))
        for counts in (data.user_counts, data.item_counts)
    )
    size = (data.n_users, data.n_items, data.n_pairs, data.density)
    return Report(tuple(steps), *size, by_user, by_item)
