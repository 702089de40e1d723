"""How nearfar compiles its kernels: numba, cached on disk, without the interpreter lock.

A kernel is arrays, numbers and records (named tuples) in, arrays and numbers out. Threads are
ordinary Python threads that run such kernels side by side; numba's own thread pools are not used,
because two pools that spin on the same cores (theirs and that of BLAS) slow each other down several
times.

**Compiling is most of what a first use costs**, so a kernel is compiled in one of two ways:

- *Called from Python*, with everything that it calls: optimised, turned into machine code, cached.
- *Called from another kernel*, as a piece of that one's code: neither optimised nor turned into
  machine code, because both happen to the whole that it becomes a part of. It is compiled once for
  each combination of types: a constant 0 and an int32 are arguments of the same type, int64.

What a kernel does not need is not compiled. An argument that is None removes the code behind
``if argument is not None``, and `by_record` picks a kernel by the type of its first argument.
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
    """Return the source of a module with kernels, or what they use; else nothing.

    Such a module names this one or numba; a test keeps it so.
    """
    path = _ROOT.joinpath(*module.split(".")[1:]).with_suffix(".py")
    source = path.read_bytes() if path.is_file() else b""
    return source if any(mark in source for mark in _MARKS) else b""


def _uses(source: bytes) -> set[str]:
    """Return the modules of nearfar from which a source imports, as far as a pattern can tell."""
    found = set()
    for package, names in _IMPORT.findall(source):
        parent = package.decode()
        found |= {parent, *(f"{parent}.{name}" for name in re.findall(r"\w+", names.decode()))}
    return found


def _closure(module: str) -> set[str]:
    """Return the module, the modules with kernels that it imports, and so on."""
    seen, waiting = set[str](), {module}
    while waiting:
        seen |= waiting
        waiting = {name for one in waiting for name in _uses(_source(one)) if _source(name)} - seen
    return seen


@cache
def fingerprint(module: str) -> str:
    """Hash the sources that the kernels of a module are compiled from.

    numba looks only at the file of a kernel to see whether its compiled form is out of date, not
    at the files of the kernels it calls; after an upgrade it would go on with old code. An edit of
    anything else compiles nothing.
    """
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(_closure(module)):
        digest.update(name.encode() + b"\0" + _source(name))
    return digest.hexdigest()


_HOW: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


def _compile(function: F, fastmath: set[str] | bool = False, *, forceinline: bool = False) -> F:
    how: dict[str, Any] = {**_HOW, "fastmath": fastmath, "forceinline": forceinline}

    def njit(keep: bool) -> Any:
        return numba.njit(cache=keep, pipeline_class=WholeCompiler, **how)(function)

    compiled: Any
    try:
        compiled = njit(True)
    except RuntimeError as error:  # numba has found no folder it may write to
        warn(
            f"Compiled kernels cannot be kept, so every process compiles them anew: {error}. Set"
            " NUMBA_CACHE_DIR to a folder that can be written."
        )
        compiled = njit(False)
    if not hasattr(compiled, "py_func"):  # NUMBA_DISABLE_JIT is set
        return cast(F, compiled)
    if hasattr(compiled._cache, "_cache_file"):
        # what is compared before anything of the file is read, which may name what has moved
        file = compiled._cache._cache_file
        file._version = f"{file._version} {fingerprint(function.__module__)}"
    how |= {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    compiler = OptimisedPieceCompiler if fastmath else PieceCompiler
    piece: Any = numba.njit(pipeline_class=compiler, **how)(function)
    piece.__class__, compiled.__class__ = PieceDispatcher, Kernel
    compiled.piece = piece
    return cast(F, compiled)


def kernel(function: F) -> F:
    """Compile `function` on first use and cache the machine code beside the package.

    Arithmetic is done as it is written, so it gives the same bits however it is vectorised.
    """
    return _compile(function)


def inlined(function: F) -> F:
    """Like `kernel`, compiled into every caller.

    An array travels as seven numbers and a record as all its numbers: for a few rows of work a call
    costs more than the arithmetic.
    """
    return _compile(function, forceinline=True)


def reduction(function: F) -> F:
    """Like `kernel`, for a sum over a row: terms may be reordered and fused, so it vectorises.

    The order is fixed when the kernel is compiled. The function must not store anything: for loops
    that store, the compiler keeps a scalar and a vector version and picks one by where the arrays
    happen to lie in memory, and then the bits would depend on that.
    """
    return _compile(function, fastmath={"reassoc", "contract"})


def by_record(cases: Mapping[type, Callable[..., Any]]) -> Callable[..., Any]:
    """Make one kernel of several that do the same for records of different types.

    Which one is meant is known when the caller is compiled, so the others are not.

    Parameters
    ----------
    cases : mapping from a type of record (a named tuple) to a kernel
        The kernels take such a record first, and then the same arguments.
    """
    any_case = next(iter(cases.values()))
    if not isinstance(any_case, CPUDispatcher):  # NUMBA_DISABLE_JIT is set

        def chosen(*args: Any) -> Any:
            return cases[type(args[0])](*args)

        return chosen
    made: Any = numba.njit(**_HOW)(any_case.py_func)
    made.__class__, made.cases = ByRecord, cases
    return cast(Callable[..., Any], made)
