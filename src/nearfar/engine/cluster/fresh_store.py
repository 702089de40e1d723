"""A place of its own for each start of a run in the store where its ranks find each other.

torchrun keeps the store when it starts the ranks again. A rank that is there first would find the
address that a rank of the start before has left there, and be refused. So rank 0 names a place that
nobody has used, and tells it to those that are there now: they ask under a name that is new too.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

from nearfar.errors import ClusterError

_LOOK_AGAIN: Final = 0.02
"""Seconds."""


def fresh_store(store: Any, rank: int, size: int, timeout: timedelta) -> Any:
    """Return a part of a store that holds nothing of an earlier start; all ranks call it.

    Parameters
    ----------
    store : torch.distributed.Store
    rank, size : int
    timeout : timedelta
        How long the ranks wait for each other.

    Returns
    -------
    torch.distributed.PrefixStore

    Raises
    ------
    ClusterError
        A rank has not come.
    """
    from torch import distributed

    place = _told_to_all(store, size, timeout) if rank == 0 else _asked(store, rank, timeout)
    return distributed.PrefixStore(place, store)  # type: ignore[attr-defined]


def _told_to_all(store: Any, size: int, timeout: timedelta) -> str:
    """Name a place, and tell it to every rank until it has answered."""
    place, missing = f"nearfar/{uuid4().hex}", set(range(1, size))
    end = time.monotonic() + timeout.total_seconds()
    while missing:
        for rank in sorted(missing):
            if store.check([f"nearfar/here/{rank}"]):  # of this start, or of one before
                asked = store.get(f"nearfar/here/{rank}").decode()
                store.set(f"nearfar/go/{asked}", place)
            if store.check([f"{place}/seen/{rank}"]):
                missing.discard(rank)
        if time.monotonic() > end:
            raise ClusterError(
                f"{len(missing)} of {size} processes have not come within {timeout}: those with"
                f" RANK {', '.join(map(str, sorted(missing)))}. See their own errors, and start"
                " the run again."
            )
        time.sleep(_LOOK_AGAIN)
    return place


def _asked(store: Any, rank: int, timeout: timedelta) -> str:
    """Ask rank 0 for the place."""
    from torch.distributed import DistStoreError

    mine = uuid4().hex
    store.set(f"nearfar/here/{rank}", mine)
    try:
        store.wait([f"nearfar/go/{mine}"], timeout)
    except DistStoreError as error:
        raise ClusterError(
            f"the process with RANK 0 has not come within {timeout}. See its own error, and start"
            " the run again."
        ) from error
    place: str = store.get(f"nearfar/go/{mine}").decode()
    store.set(f"{place}/seen/{rank}", "")
    return place
