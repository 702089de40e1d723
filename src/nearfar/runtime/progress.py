"""What a run shows while it goes: one line that moves, on the error stream."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self


def shows(progress: bool | None) -> bool:
    """Whether to show progress: as told, or where the error stream is a terminal."""
    return sys.stderr.isatty() if progress is None else progress


class Stages:
    """The steps of a job, one after the other: a line that names the step, or silence.

    Parameters
    ----------
    progress : bool or None
        Show it; None where the error stream is a terminal.
    """

    def __init__(self, progress: bool | None) -> None:
        self._show = shows(progress)
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if self._show:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[share]}"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._end()
            self._bar.stop()

    def begin(self, name: str, total: int | None = None) -> None:
        """Begin the next step; `total` is how much there is to `advance`, if that is known."""
        if self._bar is not None:
            self._end()
            self._task = self._bar.add_task(name, total=total, share="")

    def advance(self, n: int) -> None:
        """Take that so much more of the step is done."""
        if self._bar is not None:
            self._bar.advance(self._task, n)
            task = self._bar.tasks[-1]
            self._bar.update(self._task, share=f"{task.completed:,.0f} of {task.total:,.0f}")

    def _end(self) -> None:
        if self._task is not None:
            total = self._bar.tasks[-1].total or 1
            self._bar.update(self._task, total=total, completed=total)


class Reporter:
    """A progress bar over the epochs of a run, or silence.

    Parameters
    ----------
    progress : bool or None
        Show it; None where the error stream is a terminal.
    epochs, steps_per_epoch : int
    """

    def __init__(self, progress: bool | None, epochs: int, steps_per_epoch: int) -> None:
        self._epochs, self._length = epochs, steps_per_epoch
        self._show = shows(progress)
        self._bar: Any = None
        self._task: Any = None
        self._validation = ""

    def __enter__(self) -> Self:
        if self._show:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            self._bar = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=False,
            )
            self._task = self._bar.add_task("", total=self._epochs)
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def steps(self, done: int, loss: float) -> None:
        """Take the steps done in all, and the mean loss of the epoch so far."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done / self._length)
            self.note(f"loss {loss:.4f}{self._validation}")

    def note(self, text: str) -> None:
        """Say what is being done."""
        if self._bar is not None:
            self._bar.update(self._task, description=f"epochs, {text}")

    def epoch(self, record: dict[str, float]) -> None:
        """Take the record of an epoch that is done."""
        if self._bar is not None:
            if "validation_ndcg" in record:
                self._validation = f", NDCG {record['validation_ndcg']:.4f}"
            self.note(f"loss {record['loss']:.4f}{self._validation}")
