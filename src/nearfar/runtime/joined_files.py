"""A table that lies in several files, one after the other, as one array.

On Linux the files are mapped side by side into one range of addresses, so the table is there
without being read. That needs pieces that begin on a page of their file and, except for the last,
end on one: `rows_a_page` says how many rows fill whole pages. Elsewhere, and where the pieces do
not fit, they are read into one array.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
import weakref
from collections.abc import Sequence
from functools import cache
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
import numpy.typing as npt

PAGE: Final = 2**16
"""Bytes: a multiple of the page of every machine."""
_MAP_FIXED: Final = 0x10
_FAILED: Final = ctypes.c_void_p(-1).value


class Piece(NamedTuple):
    """Some rows of a table in an open file."""

    file: BinaryIO
    begin: int
    """Where they begin in the file, in bytes."""
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        """The size of the rows."""
        return math.prod(self.shape) * self.dtype.itemsize


def rows_a_page(n_bytes: int) -> int:
    """Return the least number of rows of so many bytes that fill whole pages.

    Examples
    --------
    >>> rows_a_page(4 * 128), rows_a_page(4 * 9)
    (128, 16384)
    """
    return PAGE // math.gcd(PAGE, n_bytes)


def read_joined(pieces: Sequence[Piece], *, mapped: bool) -> npt.NDArray[Any]:
    """Return the rows of all pieces, one after the other.

    Parameters
    ----------
    pieces : sequence of Piece
        At least one.
    mapped : bool
        Map them, read-only, where possible; else they are read.

    Raises
    ------
    ValueError
        The pieces differ in type or width, or a file ends too early.
    """
    dtype, width = pieces[0].dtype, pieces[0].shape[1:]
    if any((piece.dtype, piece.shape[1:]) != (dtype, width) for piece in pieces):
        raise ValueError("the pieces of a table differ in type or width")
    shape = sum(piece.shape[0] for piece in pieces), *width
    filled = [piece for piece in pieces if piece.n_bytes]
    if mapped and filled and _fit(filled):
        flat = np.frombuffer(_mapping(filled), dtype)
        flat.flags.writeable = False
        return flat.reshape(shape)
    whole = np.empty(shape, dtype)
    memory, at = whole.reshape(-1).view(np.uint8), 0
    for piece in filled:
        piece.file.seek(piece.begin)
        if piece.file.readinto(memory[at : at + piece.n_bytes]) != piece.n_bytes:  # type: ignore[attr-defined]
            raise ValueError("a piece of a table ends too early")
        at += piece.n_bytes
    return whole


def _fit(filled: Sequence[Piece]) -> bool:
    """Return whether pieces can be mapped side by side."""
    starts = [piece.begin for piece in filled]
    ends = [piece.n_bytes for piece in filled[:-1]]
    return sys.platform == "linux" and all(n % mmap.PAGESIZE == 0 for n in starts + ends)


def _mapping(filled: Sequence[Piece]) -> Any:
    """Map pieces side by side; the mapping ends with the buffer that is returned."""
    libc, size = _libc(), sum(piece.n_bytes for piece in filled)
    private = mmap.MAP_PRIVATE
    address = libc.mmap(None, size, 0, private | mmap.MAP_ANONYMOUS, -1, 0)
    if address == _FAILED:
        raise OSError(ctypes.get_errno(), f"{size:,} bytes of addresses cannot be reserved")
    buffer = (ctypes.c_ubyte * size).from_address(address)
    weakref.finalize(buffer, libc.munmap, address, size).atexit = False
    at = address
    for piece in filled:
        how = private | _MAP_FIXED
        where = libc.mmap(at, piece.n_bytes, mmap.PROT_READ, how, piece.file.fileno(), piece.begin)
        if where == _FAILED:
            raise OSError(ctypes.get_errno(), f"a file of {piece.n_bytes:,} bytes cannot be mapped")
        at += piece.n_bytes
    return buffer


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
    ]  # fmt: skip
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return libc
