"""Compilation of kernels: numba, cached on disk, running without the interpreter lock.

A kernel takes arrays, numbers and records (named tuples) and returns arrays and numbers. Ordinary
Python threads run such kernels in parallel. Numba's own thread pools are not used: two pools that
busy-wait on the same cores (numba's and that of BLAS) slow each other down several times.

**Compilation is most of the cost of a first use**, so a kernel is compiled in one of two ways:

- *Called from Python*, together with everything that it calls: optimised, translated to machine
  code, and cached.
- *Called from another kernel*, as a piece of that kernel's code: only simplified, and not
  translated to machine code, because the kernel that contains it is optimised and translated as a
  whole. It is compiled once for each combination of types; a constant 0 and an int32 both count as
  int64.

Code that a kernel does not need is not compiled. An argument that is None removes the code behind
``if argument is not None``, and `by_record` selects a kernel by the type of its first argument.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core.registry import CPUDispatcher

from nearfar.runtime.caller import warn
from nearfar.runtime.file_lock import locked
from nearfar.runtime.pieces import (
    ByRecord,
    Kernel,
    OptimisedPieceCompiler,
    PieceCompiler,
    PieceDispatcher,
    WholeCompiler,
)

F = TypeVar("F", bound=Callable[..., Any])

_ROOT = Path(__file__).parents[1]
_IMPORT = re.compile(rb"^from (nearfar[\w.]*) import ([\w, ]+|\([^)]*\))", re.MULTILINE)
_MARKS = (b"nearfar.runtime.jit", b"numba")


@cache
def _source(module: str) -> bytes:
    """Return the source of a module that contains kernels or what they use; otherwise b"".

    Such a module mentions this one or numba; a test checks that.
    """
    path = _ROOT.joinpath(*module.split(".")[1:]).with_suffix(".py")
    source = path.read_bytes() if path.is_file() else b""
    return source if any(mark in source for mark in _MARKS) else b""


def _uses(source: bytes) -> set[str]:
    """Return the nearfar modules from which `source` imports, found with a regular expression."""
    found = set()
    for package, names in _IMPORT.findall(source):
        parent = package.decode()
        found |= {parent, *(f"{parent}.{name}" for name in re.findall(r"\w+", names.decode()))}
    return found


def _closure(module: str) -> set[str]:
    """Return the module and, recursively, the modules with kernels that it imports."""
    seen, waiting = set[str](), {module}
    while waiting:
        seen |= waiting
        waiting = {name for one in waiting for name in _uses(_source(one)) if _source(name)} - seen
    return seen


@cache
def fingerprint(module: str) -> str:
    """Hash the sources that the kernels of a module are compiled from.

    To decide whether a cached kernel is out of date, numba checks only the file of that kernel,
    not the files of the kernels it calls; after an upgrade it would use old code. Edits of other
    modules do not trigger compilation.
    """
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(_closure(module)):
        digest.update(name.encode() + b"\0" + _source(name))
    return digest.hexdigest()


def _one_process_at_a_time(file: Any) -> Callable[[Any, Any], None]:
    """Save to a cache of numba's while no other process does: two would take the same file name."""
    save = file.save

    def saved(key: Any, data: Any) -> None:
        with locked(f"{file._index_path}.lock"):
            save(key, data)

    return saved


def _if_possible(use: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Read or write a cache of numba's, or warn: its folder may be full or not accessible."""

    def used(signature: Any, data: Any) -> Any:
        try:
            return use(signature, data)
        except OSError as error:
            _warn_of_no_cache(error)
            return None

    return used


_uncached: list[Exception] = []
"""Why kernels cannot be cached. All fail for the same reason, so a process warns of one."""


def _warn_of_no_cache(error: Exception) -> None:
    if not _uncached:
        _uncached.append(error)
        warn(
            f"Compiled kernels cannot be cached, so every process compiles them again: {error}. Set"
            " NUMBA_CACHE_DIR to a writable folder."
        )


_HOW: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


def _compile(function: F, fastmath: set[str] | bool = False, *, forceinline: bool = False) -> F:
    how: dict[str, Any] = {**_HOW, "fastmath": fastmath, "forceinline": forceinline}

    def njit(keep: bool) -> Any:
        return numba.njit(cache=keep, pipeline_class=WholeCompiler, **how)(function)

    compiled: Any
    try:
        compiled = njit(True)
    except RuntimeError as error:  # numba has found no writable folder
        _warn_of_no_cache(error)
        compiled = njit(False)
    if not hasattr(compiled, "py_func"):  # NUMBA_DISABLE_JIT is set
        return cast(F, compiled)
    if hasattr(compiled._cache, "_cache_file"):
        # numba compares the version before it unpickles the index, which may name moved modules
        file = compiled._cache._cache_file
        file._version = f"{file._version} {fingerprint(function.__module__)}"
        file.save = _one_process_at_a_time(file)
        for name in ("load_overload", "save_overload"):
            setattr(compiled._cache, name, _if_possible(getattr(compiled._cache, name)))
    how |= {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    compiler = OptimisedPieceCompiler if fastmath else PieceCompiler
    piece: Any = numba.njit(pipeline_class=compiler, **how)(function)
    piece.__class__, compiled.__class__ = PieceDispatcher, Kernel
    compiled.piece = piece
    return cast(F, compiled)


def kernel(function: F) -> F:
    """Compile `function` on first use and cache the machine code beside the package.

    Arithmetic is not reordered, so the result has the same bits however it is vectorised.
    """
    return _compile(function)


def inlined(function: F) -> F:
    """Compile like `kernel`, and inline the function into every caller.

    An array is passed as seven numbers and a record as all its numbers, so for a few rows of work a
    call costs more than the arithmetic.
    """
    return _compile(function, forceinline=True)


def reduction(function: F) -> F:
    """Compile like `kernel`, but let a sum over a row be reordered and fused, to vectorise it.

    The order is fixed at compile time. The function must not store anything: for loops that store,
    the compiler generates a scalar and a vector version and selects one by the memory addresses of
    the arrays, so the bits of the result would depend on those addresses.
    """
    return _compile(function, fastmath={"reassoc", "contract"})


def by_record(cases: Mapping[type, Callable[..., Any]]) -> Callable[..., Any]:
    """Combine kernels that do the same for records of different types into one kernel.

    The case is selected when the caller is compiled, so the other cases are not compiled.

    Parameters
    ----------
    cases : mapping from a type of record (a named tuple) to a kernel
        Each kernel takes its record first, followed by the same arguments as the others.
    """
    any_case = next(iter(cases.values()))
    if not isinstance(any_case, CPUDispatcher):  # NUMBA_DISABLE_JIT is set

        def chosen(*args: Any) -> Any:
            return cases[type(args[0])](*args)

        return chosen
    made: Any = numba.njit(**_HOW)(any_case.py_func)
    made.__class__, made.cases = ByRecord, cases
    return cast(Callable[..., Any], made)
