"""What is shown in motion on the error stream: one display, and the bars that are drawn on it.

`Display` is the only thing that starts and stops drawing. `Bars` draws tasks on it; `Stages` and
`Reporter` say what the tasks of a job and of a run are. rich is imported when something is shown.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self


def shows(progress: bool | None) -> bool:
    """Whether to show progress: as told, or where the error stream is a terminal."""
    return sys.stderr.isatty() if progress is None else progress


class Display(ABC):
    """Something that is drawn again and again until it ends, or silence.

    Parameters
    ----------
    progress : bool or None
        Show it; None where the error stream is a terminal.
    terminal_only : bool
        Be silent where there is no terminal, whatever `progress` is.
    transient : bool
        Erase it at the end.
    """

    def __init__(
        self, progress: bool | None, *, terminal_only: bool = False, transient: bool = False
    ) -> None:
        self._show, self._terminal_only = shows(progress), terminal_only
        self._transient = transient
        self._live: Any = None

    @abstractmethod
    def draw(self) -> Any:
        """Return what rich is to draw now."""

    @property
    def visible(self) -> bool:
        """Whether it is being drawn."""
        return self._live is not None

    def __enter__(self) -> Self:
        if self._show:
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True)
            if console.is_terminal or not self._terminal_only:
                self._prepare()
                self._live = Live(
                    get_renderable=self.draw,
                    console=console,
                    transient=self._transient,
                    refresh_per_second=10,
                )
                self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._finish()
            self._live.stop()
            self._live = None

    def _prepare(self) -> None:  # noqa: B027 - most have nothing to make
        """Make what `draw` needs."""

    def _finish(self) -> None:  # noqa: B027
        """Bring what is drawn to its end."""


_COLUMNS: Final[Mapping[str, Callable[[Any], tuple[Any, ...]]]] = MappingProxyType({
    "busy": lambda rich: (
        rich.SpinnerColumn(), rich.TextColumn("{task.description}"), rich.TimeElapsedColumn(),
    ),
    "bytes": lambda rich: (
        rich.TextColumn("{task.description}"), rich.BarColumn(), rich.DownloadColumn(),
        rich.TransferSpeedColumn(), rich.TimeRemainingColumn(),
    ),
    "epochs": lambda rich: (
        rich.TextColumn("training"), rich.BarColumn(), rich.MofNCompleteColumn(),
        rich.TextColumn("{task.description}"), rich.TimeRemainingColumn(),
    ),
    "share": lambda rich: rich.Progress.get_default_columns(),
    "steps": lambda rich: (
        rich.TextColumn("{task.description}"), rich.BarColumn(),
        rich.TextColumn("{task.fields[share]}"), rich.TimeElapsedColumn(),
    ),
})  # fmt: skip
"""What a bar consists of, by its kind."""


class Bars(Display):
    """A line for each task, with a bar.

    Parameters
    ----------
    progress : bool or None
        As in `Display`.
    kind : str
        "busy", "bytes", "epochs", "share" or "steps": what a line has.
    **how
        As in `Display`.
    """

    def __init__(self, progress: bool | None, kind: str, **how: bool) -> None:
        super().__init__(progress, **how)
        self._kind = kind
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}

    def _prepare(self) -> None:
        from rich import progress as rich

        self._bars = rich.Progress(*_COLUMNS[self._kind](rich), auto_refresh=False)

    def draw(self) -> Any:
        """Return the lines."""
        return self._bars.get_renderable()

    def show(self, task: str, advance: float | None = None, **changes: Any) -> None:
        """Begin a task or change it: `total`, `completed`, `description` or a field of its kind."""
        if self.visible:
            if task not in self._tasks:
                total = changes.pop("total", None)
                self._tasks[task] = self._bars.add_task(task, total=total, share="")
            self._bars.update(self._tasks[task], advance=advance, **changes)

    def _state(self, task: str) -> Any:
        return self._bars.tasks[self._tasks[task]]


class Stages(Bars):
    """The steps of a job, one after the other: a line that names the step, or silence.

    Parameters
    ----------
    progress : bool or None
        Show it; None where the error stream is a terminal.
    """

    def __init__(self, progress: bool | None) -> None:
        super().__init__(progress, "steps")
        self._step: str | None = None

    def begin(self, name: str, total: int | None = None) -> None:
        """Begin the next step; `total` is how much there is to `advance`, if that is known."""
        if self.visible:
            self._finish()
            self._step = name
            self.show(name, total=total)

    def advance(self, n: int) -> None:
        """Take that so much more of the step is done."""
        if self._step is not None:
            self.show(self._step, advance=n)
            task = self._state(self._step)
            self.show(self._step, share=f"{task.completed:,.0f} of {task.total:,.0f}")

    def _finish(self) -> None:
        if self._step is not None:
            total = self._state(self._step).total or 1
            self.show(self._step, total=total, completed=total)


class Reporter(Bars):
    """A progress bar over the epochs of a run, or silence.

    Parameters
    ----------
    progress : bool or None
        Show it; None where the error stream is a terminal.
    epochs, steps_per_epoch : int
    """

    def __init__(self, progress: bool | None, epochs: int, steps_per_epoch: int) -> None:
        super().__init__(progress, "epochs")
        self._epochs, self._length = epochs, steps_per_epoch
        self._validation = ""

    def __enter__(self) -> Self:
        super().__enter__()
        self.show("", total=self._epochs)
        return self

    def steps(self, done: int, loss: float) -> None:
        """Take the steps done in all, and the mean loss of the epoch so far."""
        self.show("", completed=done / self._length)
        self.note(f"loss {loss:.4f}{self._validation}")

    def note(self, text: str) -> None:
        """Say what is being done."""
        self.show("", description=f"epochs, {text}")

    def epoch(self, record: dict[str, float]) -> None:
        """Take the record of an epoch that is done."""
        if "validation_ndcg" in record:
            self._validation = f", NDCG {record['validation_ndcg']:.4f}"
        self.note(f"loss {record['loss']:.4f}{self._validation}")
