"""Progress bars on the error stream.

`Display` is the only class that starts and stops drawing. `Bars` draws tasks on it; `Stages` and
`Reporter` define the tasks of a job and of a training run. rich is imported only if something is
shown.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self

from nearfar.runtime.checks import switch


def shows(progress: bool | None) -> bool:
    """Return `progress`; for None, whether the error stream is a terminal.

    Raises
    ------
    OptionError
        `progress` is not True, False or None.
    """
    return sys.stderr.isatty() if progress is None else switch("progress", progress)


class Display(ABC):
    """A context manager that redraws its content until it ends, if it is shown at all.

    Parameters
    ----------
    progress : bool or None
        Whether to show it; None shows it if the error stream is a terminal.
    terminal_only : bool
        Show nothing if there is no terminal, regardless of `progress`.
    transient : bool
        Erase the content at the end.
    """

    def __init__(
        self, progress: bool | None, *, terminal_only: bool = False, transient: bool = False
    ) -> None:
        self._show, self._terminal_only = shows(progress), terminal_only
        self._transient = transient
        self._live: Any = None

    @abstractmethod
    def draw(self) -> Any:
        """Return the current content, as a renderable of rich."""

    @property
    def visible(self) -> bool:
        """Whether the content is being drawn."""
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

    def _prepare(self) -> None:  # noqa: B027 - optional
        """Create what `draw` needs."""

    def _finish(self) -> None:  # noqa: B027 - optional
        """Update the content for the last time."""


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
"""The columns of a bar, by its kind."""


class Bars(Display):
    """One line with a progress bar for each task.

    Parameters
    ----------
    progress : bool or None
        As in `Display`.
    kind : str
        "busy", "bytes", "epochs", "share" or "steps": the columns of a line.
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
        """Start or update a task: `total`, `completed`, `description` or a field of its kind."""
        if self.visible:
            if task not in self._tasks:
                total = changes.pop("total", None)
                self._tasks[task] = self._bars.add_task(task, total=total, share="")
            self._bars.update(self._tasks[task], advance=advance, **changes)

    def _state(self, task: str) -> Any:
        return self._bars.tasks[self._tasks[task]]


class Stages(Bars):
    """Progress bars for the consecutive steps of a job, one line for each step.

    Parameters
    ----------
    progress : bool or None
        As in `Display`.
    """

    def __init__(self, progress: bool | None) -> None:
        super().__init__(progress, "steps")
        self._step: str | None = None

    def begin(self, name: str, total: int | None = None) -> None:
        """Begin the next step; `total` is the amount of work to `advance`, if known."""
        if self.visible:
            self._finish()
            self._step = name
            self.show(name, total=total)

    def advance(self, n: int) -> None:
        """Add `n` to the completed amount of the current step."""
        if self._step is not None:
            self.show(self._step, advance=n)
            task = self._state(self._step)
            self.show(self._step, share=f"{task.completed:,.0f} of {task.total:,.0f}")

    def _finish(self) -> None:
        if self._step is not None:
            total = self._state(self._step).total or 1
            self.show(self._step, total=total, completed=total)


class Reporter(Bars):
    """A progress bar over the epochs of a training run.

    Parameters
    ----------
    progress : bool or None
        As in `Display`.
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
        """Show the total number of steps done and the mean loss of the epoch so far."""
        self.show("", completed=done / self._length)
        self.note(f"loss {loss:.4f}{self._validation}")

    def note(self, text: str) -> None:
        """Show a text beside the bar."""
        self.show("", description=f"epochs, {text}")

    def epoch(self, record: dict[str, float]) -> None:
        """Show the loss, and the NDCG if validated, from the record of a completed epoch."""
        if "validation_ndcg" in record:
            self._validation = f", NDCG {record['validation_ndcg']:.4f}"
        self.note(f"loss {record['loss']:.4f}{self._validation}")
