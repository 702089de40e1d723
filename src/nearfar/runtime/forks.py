"""Processes made by fork, which lack the threads of their parent.

polars computes on threads that it starts on first use. In a process that is forked afterwards these
threads do not exist, but polars does not know it, and whatever it computes there never ends.
`check_fork` is called wherever nearfar enters polars, and raises instead. The threads of OpenMP, on
which faiss and PyTorch compute, are lost in the same way; there, a forked process uses one thread.

``nearfar/__init__.py`` calls `before_fork`, so a fork before nearfar is imported is not noticed.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Final

from nearfar.errors import ForkError

_TASKS: Final = Path("/proc/self/task")
_NAMES: Final = re.compile(r"polars-\d|async-executor|tokio-rt")
"""The names of polars' threads, without its cleaning thread, which always runs."""


class _State:
    """What is known of this process."""

    threads_run = False
    """Whether polars' threads ran in the parent when it was forked; set just before the fork."""
    is_cut_off = False
    """Whether this process was forked after polars had started its threads."""
    is_forked = False
    """Whether this process was forked after this module was imported."""


def before_fork() -> None:
    """Record whether the process to be forked has threads that the new process will lack."""
    _State.threads_run = _State.is_cut_off or _polars_runs()


def _after_fork_in_child() -> None:
    _State.is_cut_off, _State.is_forked = _State.threads_run, True


def _polars_runs() -> bool:
    """Return whether polars has started its threads, or may have where that cannot be seen."""
    if "polars" not in sys.modules:
        return False
    if not _TASKS.is_dir():  # not Linux
        return True
    return any(_NAMES.match(_name_of(task)) for task in _TASKS.iterdir())


def _name_of(task: Path) -> str:
    try:
        return (task / "comm").read_text()
    except OSError:  # the thread has just ended
        return ""


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


def is_cut_off() -> bool:
    """Return whether polars cannot compute in this process."""
    return _State.is_cut_off


def openmp_threads(threads: int) -> int:
    """Return the number of threads that OpenMP may use in this process: `threads`, or 1."""
    return 1 if _State.is_forked else threads


def check_fork() -> None:
    """Check that polars can compute in this process.

    Raises
    ------
    ForkError
        The process was forked after polars had started its threads.
    """
    if _State.is_cut_off:
        raise ForkError(
            "This process was forked from one that had already used polars, whose threads do not"
            " survive a fork, so this would never end. Start processes by spawn, such as with"
            ' multiprocessing.get_context("spawn").Pool(), and load data and models there; a server'
            " must load them in each of its workers, not before it forks them."
        )
