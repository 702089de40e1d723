"""How nearfar compiles its kernels: numba, cached on disk, without the interpreter lock.

A kernel is arrays and numbers in, arrays and numbers out. Threads are ordinary Python threads that
run such kernels side by side; numba's own thread pools are not used, because two pools that spin
on the same cores (theirs and that of BLAS) slow each other down several times.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, cast

import numba

Int: TypeAlias = Any
"""A whole number in a kernel's signature: a Python int outside, a machine integer inside."""
Real: TypeAlias = Any
"""A number in a kernel's signature; float32 or float64 as the kernel says."""

F = TypeVar("F", bound=Callable[..., Any])

# Sums may be reordered and fused so that they vectorise; NaN and infinity keep their meaning.
FASTMATH = frozenset({"reassoc", "contract", "nsz", "arcp"})


def kernel(function: F) -> F:
    """Compile `function` on first use and cache the machine code beside the package."""
    return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))


def fast_kernel(function: F) -> F:
    """Like `kernel`, and floating-point sums may be reordered so that they vectorise.

    The order is fixed when the kernel is compiled: the same machine gives the same bits each time.
    """
    compiled = numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=set(FASTMATH))(
        function
    )
    return cast(F, compiled)
