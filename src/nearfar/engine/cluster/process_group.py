"""How ranks speak with each other: two collective operations, and what they cost.

Only `all_to_all_single` and `all_reduce` of torch.distributed are used: they have uneven parts on
every backend, and kept their names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nearfar.engine.cluster.fresh_store import fresh_store
from nearfar.errors import ClusterError, OptionError, first_line
from nearfar.runtime.arrays import Array, Float64, Int64
from nearfar.runtime.devices import load_torch

TIMEOUT = timedelta(minutes=30)
"""After so long without an answer a rank gives up; a validation takes less."""


@dataclass
class Traffic:
    """What a rank has sent to other ranks, and how often it has spoken with them."""

    bytes_sent: int = 0
    collectives: int = 0


class Group(Protocol):
    """The ranks of a run. Every rank must call the same methods in the same order."""

    rank: int
    """The number of this one."""
    size: int
    """The number of ranks."""
    traffic: Traffic

    def exchange(self, send: Array, counts: Int64, expected: Int64, out: Array) -> Array:
        """Send to each rank its part of `send`, and put what arrives into `out`.

        Parameters
        ----------
        send : array of shape (sum of counts, ...)
            What rank 0 is to have, then rank 1, ...; C-contiguous.
        counts, expected : int64 arrays of shape (size,)
            The lengths of the parts that are sent, and of those that arrive.
        out : array of shape (sum of expected, ...)
            From rank 0, then from rank 1, ...; C-contiguous. It is returned.
        """
        ...

    def total(self, values: Float64) -> Float64:
        """Return the sum over the ranks, the same bits on each."""
        ...


class ProcessGroup:
    """The ranks that torchrun (or Ray Train, or any other launcher) has started.

    Parameters
    ----------
    distributed : module
        ``torch.distributed``, with an initialised default group.
    """

    def __init__(self, distributed: Any) -> None:
        self._distributed = distributed
        self.rank: int = distributed.get_rank()
        self.size: int = distributed.get_world_size()
        self.traffic = Traffic()

    def exchange(self, send: Array, counts: Int64, expected: Int64, out: Array) -> Array:
        """Send and receive parts; see `Group.exchange`."""
        one = send[0].nbytes if len(send) else 0
        self.traffic.bytes_sent += (len(send) - int(counts[self.rank])) * one
        self.traffic.collectives += 1
        if self.size == 1:
            out[:] = send
            return out
        with _told():
            self._distributed.all_to_all_single(
                _tensor(out), _tensor(send), expected.tolist(), counts.tolist()
            )
        return out

    def total(self, values: Float64) -> Float64:
        """Add over the ranks; see `Group.total`."""
        summed = np.array(values)
        self.traffic.collectives += 1
        with _told():
            self._distributed.all_reduce(_tensor(summed))
        return summed


@contextmanager
def _told() -> Iterator[None]:
    """Say what an error of the network means."""
    try:
        yield
    except RuntimeError as error:
        raise ClusterError(
            f"another process of the cluster has ended or cannot be reached: {first_line(error)}."
            " See its own error. A run with a checkpoint goes on from there: start it again with"
            " the same arguments, with any number of processes."
        ) from error


def _tensor(array: npt.NDArray[Any]) -> Any:
    """Return a tensor in the memory of an array."""
    import torch

    return torch.from_numpy(array)


def world_size() -> int:
    """Return the number of processes that a launcher has started, 1 without one.

    Examples
    --------
    >>> world_size()
    1
    """
    return int(os.environ.get("WORLD_SIZE", "1"))


def join() -> ProcessGroup:
    """Return the group of this process; it is joined at the first call.

    Raises
    ------
    OptionError
        No launcher has started this process, or PyTorch comes without torch.distributed.
    MissingExtraError
        PyTorch is not installed.
    """
    distributed = load_torch("A cluster").distributed
    if not distributed.is_available():
        raise OptionError(
            "device='cluster' needs torch.distributed, which this build of PyTorch comes without."
        )
    if not distributed.is_initialized():
        if "WORLD_SIZE" not in os.environ:
            raise OptionError(
                "device='cluster' trains in processes that a launcher starts, and WORLD_SIZE is not"
                " set: run `torchrun --nproc-per-node 4 -m nearfar fit ...`, or `nearfar fit"
                " --processes 4`. Use device='cpu' for one process."
            )
        _initialise(distributed)
    return ProcessGroup(distributed)


def _initialise(distributed: Any) -> None:
    """Join the default group by the launcher's environment, as ``init_process_group`` would."""
    from torch.distributed.rendezvous import rendezvous

    store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
    own = fresh_store(store, rank, size, TIMEOUT)
    distributed.init_process_group("gloo", store=own, rank=rank, world_size=size, timeout=TIMEOUT)
