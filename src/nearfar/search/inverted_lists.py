"""`Lists`: items in lists around centres, with faiss (IVF-Flat), which only this module uses.

Queries are searched one at a time. For several at once, faiss computes the distances to the centres
by another formula, and the result for one query would depend on the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import sqrt
from pathlib import Path
from typing import Any, Self

import numpy as np

from nearfar.errors import StoreError, first_line
from nearfar.runtime.arrays import Bool, Float32, Int64
from nearfar.runtime.extras import load_extra
from nearfar.runtime.forks import openmp_threads


def load_faiss() -> Any:
    """Import faiss.

    Raises
    ------
    MissingExtraError
        faiss is not installed.
    """
    missing = 'This needs faiss, which is not installed: `pip install "nearfar[ann]"`.'
    return load_extra("faiss", missing)


def write_index(index: Any, what: str, file: Path) -> None:
    """Write a faiss index to a file; `what` describes its content in the error message.

    Raises
    ------
    OSError
        The file could not be written.
    """
    try:
        load_faiss().write_index(index, str(file))
    except RuntimeError as error:
        raise OSError(f"faiss could not write the {what} ({first_line(error)})") from error


class Lists:
    """Items in lists, each around a k-means centre; created by `of` or `opened`.

    Examples
    --------
    >>> import numpy as np
    >>> lists = Lists.of(np.eye(4, dtype=np.float32), seed=0, threads=1)
    >>> len(lists), lists.nearest(np.eye(4, dtype=np.float32)[2], 1, n_probed=2).tolist()
    (2, [2])
    """

    def __init__(self, index: Any) -> None:
        self._faiss, self._index = load_faiss(), index

    @classmethod
    def of(cls, items: Float32, *, seed: int, threads: int) -> Self:
        """Assign the items, shape (M, d), to about sqrt(M) lists, in the order of their rows."""
        faiss = load_faiss()
        n_items, dim = items.shape
        centres = faiss.IndexFlatL2(dim)
        index = faiss.IndexIVFFlat(centres, dim, round(sqrt(n_items)), faiss.METRIC_L2)
        index.cp.seed = seed % 2**31
        index.cp.min_points_per_centroid = 1  # otherwise it prints a warning if there are few items
        with _faiss_threads(faiss, threads):
            index.train(items)
            index.add(items)
        return cls(index)

    @classmethod
    def opened(cls, file: Path, shape: tuple[int, int]) -> Self:
        """Map a file that `write` wrote into memory.

        Parameters
        ----------
        file : Path
        shape : (int, int)
            The number of items and of dimensions that the lists must have.

        Raises
        ------
        StoreError
            faiss cannot read the file, or it does not contain such lists.
        """
        faiss = load_faiss()
        try:
            index = faiss.read_index(str(file), faiss.IO_FLAG_MMAP)
        except RuntimeError as error:
            raise StoreError(
                f"{str(file)!r} is not readable by this version of faiss ({first_line(error)});"
                " make the index again with `nearfar index`."
            ) from error
        if not isinstance(index, faiss.IndexIVFFlat) or cls(index).shape != shape:
            raise StoreError(
                f"{str(file)!r} holds no lists of {shape[0]:,} items in {shape[1]} dimensions; make"
                " the index again with `nearfar index`."
            )
        return cls(index)

    @classmethod
    def _from_bytes(cls, content: bytes) -> Self:
        faiss = load_faiss()
        return cls(faiss.deserialize_index(np.frombuffer(content, np.uint8)))

    def __reduce__(self) -> tuple[Any, ...]:
        return Lists._from_bytes, (self._faiss.serialize_index(self._in_memory()).tobytes(),)

    def _in_memory(self) -> Any:
        """Return the index; if its lists are in a file, to which it only refers, a copy of it."""
        faiss, index = self._faiss, self._index
        mapped = faiss.downcast_InvertedLists(index.invlists)
        if not isinstance(mapped, faiss.OnDiskInvertedLists):
            return index
        lists = faiss.ArrayInvertedLists(index.nlist, index.code_size)
        mapped.copy_subset_to(lists, faiss.InvertedLists.SUBSET_TYPE_ID_RANGE, 0, index.ntotal)
        copied = faiss.IndexIVFFlat(index.quantizer, index.d, index.nlist, index.metric_type)
        copied.replace_invlists(lists, True)
        lists.this.disown()  # `copied` deletes them
        copied.is_trained, copied.ntotal = True, index.ntotal
        return copied

    def write(self, file: Path) -> None:
        """Write the lists to a file.

        Raises
        ------
        OSError
            The file could not be written.
        """
        write_index(self._in_memory(), "lists", file)

    def __len__(self) -> int:
        return int(self._index.nlist)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of items and number of dimensions."""
        return int(self._index.ntotal), int(self._index.d)

    def selector(self, allow: Bool) -> Any:
        """Return the argument `allow` of `nearest` for a mask over the items."""
        return self._faiss.IDSelectorBitmap(np.packbits(allow, bitorder="little"))

    def nearest(self, query: Float32, n: int, *, n_probed: int, allow: Any = None) -> Int64:
        """Return the n nearest items of a query, shape (d,), in the lists nearest to it.

        The nearest item is first. There are fewer than n if these lists do not contain enough.
        """
        how = self._faiss.SearchParametersIVF(nprobe=n_probed, sel=allow)
        _, (found,) = self._index.search(query[None], min(n, self._index.ntotal), params=how)
        rows: Int64 = found[found >= 0]
        return rows

    def order(self, query: Float32) -> Int64:
        """Return all lists in the order in which a query searches them, int64 (n_lists,)."""
        _, (lists,) = self._index.quantizer.search(query[None], len(self))
        order: Int64 = lists
        return order

    def list_of(self) -> Int64:
        """Return the list of each item, int64 (M,)."""
        self._index.make_direct_map()
        lists: Int64 = self._faiss.vector_to_array(self._index.direct_map.array) >> 32
        self._index.make_direct_map(False)
        return lists


@contextmanager
def _faiss_threads(faiss: Any, threads: int) -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(openmp_threads(threads))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
