"""Types of arrays, named after what they hold, and what kernels need of them.

`Int` and `Real` are for the signatures of kernels, where a number is a Python number in the caller
and a machine number in the compiled code.
"""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]
Floats: TypeAlias = npt.NDArray[np.floating[Any]]
"""Of any floating type."""
Int32: TypeAlias = npt.NDArray[np.int32]
Int64: TypeAlias = npt.NDArray[np.int64]
Integers: TypeAlias = npt.NDArray[np.integer[Any]]
"""Of any integer type."""
UInt64: TypeAlias = npt.NDArray[np.uint64]
Arrays: TypeAlias = dict[str, npt.NDArray[Any]]
"""Arrays of any type by name."""
Bool: TypeAlias = npt.NDArray[np.bool_]

DType: TypeAlias = npt.DTypeLike
"""The type of an array's entries."""

Array = TypeVar("Array", bound=npt.NDArray[Any])
"""For a function that returns an array of the same type as its argument."""

Int: TypeAlias = Any
"""An integer in a kernel's signature: a Python int in the caller, a machine integer inside."""
Real: TypeAlias = Any
"""A real number in a kernel's signature; the kernel determines whether float32 or float64."""


def read_only(array: Array) -> Array:
    """Return a read-only view; kernels treat it as another type, and are compiled only for it."""
    view = array.view()
    view.flags.writeable = False
    return view
