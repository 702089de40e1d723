"""Workers: processes that compute cells in parallel, or this process, one after another."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self

from nearfar.experiment.cells import Cell
from nearfar.experiment.worker import Answer, attend, serve

_POLL_SECONDS: Final = 1.0


class Pool(Protocol):
    """Computes cells; their answers come in any order."""

    @property
    def n_busy(self) -> int:
        """Number of cells being computed."""

    @property
    def has_room(self) -> bool:
        """Whether another cell can be accepted."""

    def give(self, cell: Cell, path: Path) -> None:
        """Start a cell of the data in a folder."""

    def answers(self) -> Iterator[tuple[Cell, Answer]]:
        """Yield the answers of cells that have ended; wait for them at most one second."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Here:
    """The current process as the only worker."""

    def __init__(self, results: Path, threads: int) -> None:
        self._results, self._threads = results, threads
        self._job: tuple[Cell, Path] | None = None

    @property
    def n_busy(self) -> int:
        """0 or 1."""
        return int(self._job is not None)

    @property
    def has_room(self) -> bool:
        """Whether there is no pending cell."""
        return self._job is None

    def give(self, cell: Cell, path: Path) -> None:
        """Accept a cell; it is computed when the answers are requested."""
        self._job = cell, path

    def answers(self) -> Iterator[tuple[Cell, Answer]]:
        """Compute the pending cell."""
        if self._job is not None:
            cell, path = self._job
            self._job = None
            yield cell, attend(cell, path, self._results, self._threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Processes:
    """Worker processes. If one dies, its cell fails, and a new process replaces it.

    Parameters
    ----------
    n : int
        Number of processes.
    results : Path
        The folder for the outcomes.
    threads : int
        Number of threads of each process.
    """

    def __init__(self, n: int, results: Path, threads: int) -> None:
        self._n, self._results, self._threads = n, results, threads
        self._context = multiprocessing.get_context("spawn")
        self._idle: list[tuple[Connection, Any]] = []
        self._busy: dict[Connection, tuple[Any, Cell]] = {}

    @property
    def n_busy(self) -> int:
        """Number of cells being computed."""
        return len(self._busy)

    @property
    def has_room(self) -> bool:
        """Whether a process is idle or can be started."""
        return len(self._busy) < self._n

    def give(self, cell: Cell, path: Path) -> None:
        """Pass a cell to an idle process, or to a new one."""
        pipe, process = self._idle.pop() if self._idle else self._start()
        self._busy[pipe] = process, cell
        pipe.send((cell, path))

    def _start(self) -> tuple[Connection, Any]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=serve, args=(theirs, self._results, self._threads), daemon=True
        )
        process.start()
        theirs.close()
        return ours, process

    def answers(self) -> Iterator[tuple[Cell, Answer]]:
        """Yield the answers of cells that have ended; wait for them at most one second."""
        ready = set(wait(list(self._busy), timeout=_POLL_SECONDS))
        for pipe in [pipe for pipe in self._busy if pipe in ready]:
            process, cell = self._busy.pop(pipe)
            try:
                answer = pipe.recv()
            except (EOFError, OSError):
                process.join()
                answer = Answer(0.0, f"the worker died (exit code {process.exitcode})")
            else:
                self._idle.append((pipe, process))
            yield cell, answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End all processes immediately."""
        for pipe, process in self._idle:
            with suppress(OSError):  # the process has died
                pipe.send(None)
            process.join()
            pipe.close()
        for pipe, (process, _cell) in self._busy.items():
            process.terminate()
            process.join()
            pipe.close()
