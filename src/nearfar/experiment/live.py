"""The progress of a grid: a table on a terminal, otherwise one line per cell."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

from nearfar.experiment.cells import Cell
from nearfar.experiment.worker import Answer
from nearfar.runtime.progress import Display, shows


class Board(Display):
    """The state of each setting: cells done, running and failed, and the remaining time.

    Parameters
    ----------
    progress : bool or None
        Whether to show it; if None, only if standard error is a terminal.
    rows : sequence of (str, str)
        All (data, setting).
    workers : int
        Number of cells computed at the same time.
    """

    def __init__(
        self, progress: bool | None, rows: Sequence[tuple[str, str]], workers: int
    ) -> None:
        super().__init__(progress, terminal_only=True)
        self._lines = shows(progress)
        self._counts = {row: {"done": 0, "running": 0, "failed": 0} for row in rows}
        self._errors: dict[tuple[str, str], str] = {}
        self._workers, self._seconds, self._n_ended, self._left = workers, 0.0, 0, 0
        self._begun = time.perf_counter()

    def begun(self, cell: Cell) -> None:
        """Record that a cell has started."""
        self._counts[cell.data, cell.setting.name]["running"] += 1

    def ended(self, cell: Cell, answer: Answer, left: int) -> None:
        """Record that a cell has ended, and the number of remaining cells."""
        row = cell.data, cell.setting.name
        self._counts[row]["running"] -= 1
        self._counts[row]["failed" if answer.error else "done"] += 1
        if answer.error:
            self._errors[row] = answer.error
        self._seconds, self._n_ended, self._left = (
            self._seconds + answer.seconds, self._n_ended + 1, left,
        )  # fmt: skip
        if self._lines and not self.visible:
            said = answer.error or f"{answer.seconds:.1f} s"
            rate = cell.setting.options.optimiser.learning_rate
            what = f"{cell.setting.name}, fold {cell.fold + 1}, learning rate {rate:g}"
            print(f"{cell.data}: {what}: {said}; {self._time_left()}", file=sys.stderr, flush=True)

    def _time_left(self) -> str:
        if not self._n_ended:
            return "time left unknown"
        running = sum(count["running"] for count in self._counts.values())
        seconds = self._seconds / self._n_ended * (self._left + running) / self._workers
        return f"about {self._left + running} cells and {seconds / 60:.0f} min left"

    def draw(self) -> Any:
        """Return the table."""
        from rich.markup import escape
        from rich.table import Table

        minutes = (time.perf_counter() - self._begun) / 60
        table = Table(title=f"{minutes:.0f} min; {self._time_left()}", title_justify="left")
        for name in ("data", "setting", "done", "running", "failed", ""):
            table.add_column(
                name, justify="right" if name in {"done", "running", "failed"} else "left"
            )
        for row, counts in self._counts.items():
            error = self._errors.get(row, "")
            table.add_row(
                *map(escape, row), *(str(n or "") for n in counts.values()), escape(error)
            )
        return table
