"""Python threads that run compiled code in parallel, with BLAS limited to one thread.

Each thread takes whole blocks of work and computes them by itself. BLAS is limited to one thread
meanwhile, because two pools that busy-wait on the same cores slow each other down several times.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from queue import SimpleQueue
from typing import Any, Final, Generic, TypeVar

from threadpoolctl import ThreadpoolController

from nearfar.runtime.checks import whole

MOST: Final = 1024
"""The largest number of threads; more than a machine has cores only take memory."""


def available_threads() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processes_here() -> int:
    """Return how many processes a launcher has started on this machine, 1 without one.

    Examples
    --------
    >>> processes_here()
    1
    """
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def checked_threads(threads: int | None) -> int:
    """Return `threads`, or the number of available cores for None.

    Raises
    ------
    OptionError
        `threads` is not a whole number from 1 to `MOST`.
    """
    if threads is None:
        return available_threads()
    return whole("threads", threads, 1, MOST, remedy="None uses all cores.")


def run_blocks(
    work: Callable[[int], int],
    starts: Sequence[int],
    threads: int,
    progress: Callable[[int], None],
) -> None:
    """Call ``work(start)`` for every start, on `threads` threads, with BLAS limited to one.

    The results of `work` are passed to `progress`, in the calling thread. After an error or an
    interrupt the running blocks are finished, the others are dropped, and all threads are joined.
    """
    threads = min(threads, len(starts))
    with one_blas_thread():
        if threads <= 1:
            for start in starts:
                progress(work(start))
        else:
            _run_on_threads(work, starts, threads, progress)


def _run_on_threads(
    work: Callable[[int], int],
    starts: Sequence[int],
    threads: int,
    progress: Callable[[int], None],
) -> None:
    # `concurrent.futures` is not used: an interrupt that arrives while the caller holds one of its
    # Python-level locks leaves that lock held, and the clean-up then deadlocks. The operations of
    # deque and SimpleQueue are atomic.
    waiting, results = deque(starts), SimpleQueue[int | BaseException]()
    pool = [
        threading.Thread(target=_work_through, args=(waiting, work, results), name="nearfar")
        for _ in range(threads)
    ]
    try:
        for thread in pool:
            thread.start()
        for _ in starts:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            progress(result)
    finally:
        waiting.clear()
        for thread in pool:
            if thread.ident is not None:
                thread.join()


def _work_through(
    waiting: deque[int], work: Callable[[int], int], results: SimpleQueue[int | BaseException]
) -> None:
    while True:
        try:
            start = waiting.popleft()
        except IndexError:
            return
        try:
            results.put(work(start))
        except BaseException as error:  # raised again in the calling thread
            results.put(error)


class _Limit:
    """The limit on BLAS threads, one setting for the process; the last user restores it."""

    def __init__(self) -> None:
        self.unlock()
        self.users = 0
        self.limiter: Any = None

    def unlock(self) -> None:
        """Make the lock anew: in a forked process no thread is left that could release it."""
        self.lock = threading.Lock()


_limit = _Limit()
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_limit.unlock)


@cache
def _controller() -> ThreadpoolController:
    """Find the BLAS libraries: NumPy's, and SciPy's, which compiled code calls for `np.dot`.

    SciPy's is loaded here, because a library that is loaded later would not be found and limited.
    """
    import_module("scipy.linalg.cython_blas")
    return ThreadpoolController()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread in the whole process; may be nested and used from many threads."""
    with _limit.lock:
        if _limit.users == 0:
            _limit.limiter = _controller().limit(limits=1, user_api="blas")
        _limit.users += 1
    try:
        yield
    finally:
        with _limit.lock:
            _limit.users -= 1
            if _limit.users == 0:
                _limit.limiter.restore_original_limits()


@contextmanager
def interrupt_deferred() -> Iterator[None]:
    """Defer Ctrl-C until the block is done, so that its work is complete or not started."""
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield
        return
    caught: list[tuple[Any, ...]] = []
    signal.signal(signal.SIGINT, lambda *args: caught.append(args))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if caught:
        previous(*caught[0])


@contextmanager
def interrupts_noted() -> Iterator[list[Any]]:
    """Note each Ctrl-C in the list that is yielded, for a block that looks at it itself."""
    noted: list[Any] = []
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield noted
        return
    signal.signal(signal.SIGINT, lambda *args: noted.append(args))
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, previous)


T = TypeVar("T")


class Ahead(Generic[T]):
    """A result that is computed on another thread while this one goes on.

    Parameters
    ----------
    work : callable
        Returns the result. It begins at once.
    """

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._results = SimpleQueue[T | BaseException]()
        self._thread = threading.Thread(target=self._compute, name="nearfar-ahead")
        self._thread.start()

    def _compute(self) -> None:
        try:
            self._results.put(self._work())
        except BaseException as error:  # raised where the result is asked for
            self._results.put(error)

    def result(self) -> T:
        """Wait for the result and return it, once; raise what the work raised."""
        self._thread.join()
        found = self._results.get()
        if isinstance(found, BaseException):
            raise found
        return found
