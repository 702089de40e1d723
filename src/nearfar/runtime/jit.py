"""How nearfar compiles its kernels: numba, cached on disk, without the interpreter lock.

A kernel is arrays and numbers in, arrays and numbers out. Threads are ordinary Python threads that
run such kernels side by side; numba's own thread pools are not used, because two pools that spin
on the same cores (theirs and that of BLAS) slow each other down several times.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core.registry import CPUDispatcher

from nearfar.runtime.caller import warn

F = TypeVar("F", bound=Callable[..., Any])


def _fingerprint() -> str:
    """Hash the sources of all modules that speak of this one or of numba: those with kernels.

    numba looks only at the file of a kernel to see whether its compiled form is out of date, not
    at the files of the kernels it calls; after an upgrade it would go on with old code. What a
    kernel uses is in such a module, and a test keeps it so.
    """
    root, digest = Path(__file__).parents[1], hashlib.blake2b(digest_size=8)
    for path in sorted(root.rglob("*.py")):
        source = path.read_bytes()
        if b"nearfar.runtime.jit" in source or b"numba" in source:
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + source)
    return digest.hexdigest()


_SOURCES = _fingerprint()


class _Inner(CPUDispatcher):
    """A kernel without a way in from Python: calling it from there would crash the process."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"{self.py_func.__name__} is for other kernels only.")


def _compile(function: F, fastmath: set[str] | bool = False, **options: bool) -> F:
    def njit(cache: bool) -> Any:
        settings: dict[str, Any] = {
            "nogil": True,
            "error_model": "numpy",
            "fastmath": fastmath,
            **options,
        }
        return numba.njit(cache=cache, **settings)(function)

    try:
        compiled = njit(cache=True)
    except RuntimeError as error:  # numba has found no folder it may write to
        warn(
            f"Compiled kernels cannot be kept, so every process compiles them anew: {error}. Set"
            f" NUMBA_CACHE_DIR to a folder that can be written."
        )
        return cast(F, njit(cache=False))
    if hasattr(compiled, "_cache"):  # not where NUMBA_DISABLE_JIT is set
        file = compiled._cache._cache_file
        file._source_stamp = (*file._source_stamp, _SOURCES)
    return cast(F, compiled)


def kernel(function: F) -> F:
    """Compile `function` on first use and cache the machine code beside the package.

    Arithmetic is done as it is written, so it gives the same bits however it is vectorised.
    """
    return _compile(function)


def inlined(function: F) -> F:
    """Like `kernel`, compiled into every caller.

    An array travels as seven numbers and a named tuple as all its numbers: for a few rows of work
    a call costs more than the arithmetic.
    """
    return _compile(function, forceinline=True)


def inner(function: F) -> F:
    """Like `kernel`, for other kernels only: without a way in from Python it compiles faster."""
    compiled: Any = _compile(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)
    if isinstance(compiled, CPUDispatcher):  # not where NUMBA_DISABLE_JIT is set
        compiled.__class__ = _Inner
    return cast(F, compiled)


def reduction(function: F) -> F:
    """Like `kernel`, for a sum over a row: terms may be reordered and fused, so it vectorises.

    The order is fixed when the kernel is compiled. The function must not store anything: for loops
    that store, the compiler keeps a scalar and a vector version and picks one by where the arrays
    happen to lie in memory, and then the bits would depend on that.
    """
    return _compile(function, fastmath={"reassoc", "contract"})
