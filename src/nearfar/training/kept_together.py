"""Writing a folder by several processes: each its files, then one the list of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nearfar.engine import Collective
from nearfar.errors import StoreError
from nearfar.runtime import store

_DIGEST = 32


def all_kept(
    engine: Collective, stems: Sequence[str], write: Callable[[], list[store.Kept]], what: str
) -> dict[str, store.Kept]:
    """Write this process's files; return what every process has written, by entry.

    Parameters
    ----------
    engine : Collective
    stems : sequence of str
        The beginnings of the entries; each ends in the number of its process.
    write : callable
        Writes a file for each stem, and returns what `nearfar.runtime.store.keep_part` has.
    what : str
        What is written, for errors.

    Raises
    ------
    StoreError
        A process could not write.
    """
    mine = np.zeros((len(stems), _DIGEST + 1))

    def written() -> None:
        for row, kept in zip(mine, write(), strict=True):
            row[:_DIGEST], row[_DIGEST] = list(bytes.fromhex(kept["sha256"])), kept["size"]

    n = together(engine, written, what)
    table = np.zeros((n, *mine.shape))
    table[engine.rank] = mine
    return {
        f"{stem}{rank}": store.part_of(
            f"{stem}{rank}", bytes(one[:_DIGEST].astype(np.uint8)), int(one[_DIGEST])
        )
        for rank, of_rank in enumerate(engine.summed(table))
        for stem, one in zip(stems, of_rank, strict=True)
    }


def together(engine: Collective, work: Callable[[], None] | None, what: str) -> int:
    """Do something in each process, or nothing; return their number.

    Raises
    ------
    StoreError
        It has failed in one of them.
    """
    failed: StoreError | None = None
    try:
        if work is not None:
            work()
    except StoreError as error:
        failed = error
    n, n_failed = engine.summed(np.array([1.0, float(failed is not None)])).tolist()
    if failed is not None:
        raise failed
    if n_failed:
        raise StoreError(
            f"{int(n_failed)} of {int(n)} processes could not write {what}, which is as it was"
            " before; see the error of that process."
        )
    return int(n)
