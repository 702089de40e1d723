"""Matrix products inside kernels: one call of BLAS, without numba's way to it.

`numpy.dot` in a kernel compiles several functions for each combination of layouts; this compiles
none, and calls BLAS with the same arguments.
"""

from __future__ import annotations

from typing import Any

from numba import extending
from numba.np import linalg as _linalg

intrinsic: Any = extending.intrinsic
linalg: Any = _linalg


@intrinsic
def product(typing_context, a, b, out):  # type: ignore[no-untyped-def]
    """Put the product of two matrices into `out`, all float32 and contiguous; returns `out`."""
    linalg.ensure_blas()

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return linalg.dot_3_mm(context, builder, signature, args)

    return out(a, b, out), generate
