"""A lock on an open file: other processes see it, and the system releases it with the process."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import IO, Any, Final

_POLL_SECONDS: Final = 0.005

if sys.platform == "win32":
    import msvcrt

    def try_lock(file: IO[Any]) -> bool:
        """Lock a file until it is closed; return False if another process has it locked."""
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def try_lock(file: IO[Any]) -> bool:
        """Lock a file until it is closed; return False if another process has it locked."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks: continue without one
            return True
        return True


@contextmanager
def locked(path: str | PathLike[str]) -> Iterator[None]:
    """Hold the lock on a file, which is created and left there; wait while another process has it.

    Raises
    ------
    OSError
        The file cannot be created.
    """
    with open(path, "w") as file:
        while not try_lock(file):
            time.sleep(_POLL_SECONDS)
        yield
