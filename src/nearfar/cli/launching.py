"""Commands that several processes run together: started by torchrun, and told apart by its words.

torchrun says in the environment how many processes there are (WORLD_SIZE) and which this is (RANK);
so do Ray Train and the other launchers of PyTorch.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from nearfar.cli.binding import FlagError
from nearfar.cli.inputs import Circumstances
from nearfar.cli.inputs import ranking_device as checked_ranking_device
from nearfar.engine.cluster.process_group import world_size
from nearfar.runtime.checks import whole
from nearfar.runtime.devices import load_torch


def is_first() -> bool:
    """Return whether this process prints and saves: the only one, or number 0.

    Examples
    --------
    >>> is_first()
    True
    """
    return int(os.environ.get("RANK", "0")) == 0


def start(processes: int | None) -> int | None:
    """Start this command again in so many processes on this machine.

    Returns
    -------
    int or None
        The exit code; None if this process is to do the work.
    """
    if processes is None:
        return None
    processes = whole("--processes", processes)
    if "WORLD_SIZE" in os.environ:
        if processes != world_size():
            raise FlagError(
                f"--processes is {processes}, but this is one of {world_size()} processes that a"
                " launcher has started; omit --processes."
            )
        return None
    if processes == 1:
        return None
    load_torch("`--processes`")
    return _torchrun(processes)


def _torchrun(processes: int) -> int:
    """Run this command in processes that torchrun starts; return its exit code."""
    how = ["--standalone", f"--nproc-per-node={processes}", "-m", "nearfar"]
    command = [sys.executable, "-m", "torch.distributed.run", *how, *sys.argv[1:]]
    # its own default, which it would warn about
    with subprocess.Popen(command, env={"OMP_NUM_THREADS": "1", **os.environ}) as running:
        while True:
            try:
                return running.wait()
            except KeyboardInterrupt:  # the processes have it too, and end in their own way
                continue


def ranking_device(device: str) -> str:
    """Return the device of a ranking: the cluster, if this is one of several processes."""
    size = world_size()
    if size == 1:
        return checked_ranking_device(device)
    if device not in {"cpu", "cluster"}:
        raise FlagError(
            f"--device is {device!r}, but a launcher has started {size} processes, and each would"
            " rank for all users; omit --device to rank together."
        )
    return "cluster"


@contextmanager
def one_of_several(how: Circumstances) -> Iterator[Circumstances]:
    """Train together with the other processes of a launcher, if there are any.

    Yields the circumstances of this process: its device is the cluster, and all but the first show
    no progress.
    """
    size = world_size()
    if size == 1:
        yield how
        return
    if how.device not in {"cpu", "cluster"}:
        raise FlagError(
            f"--device is {how.device!r}, but a launcher has started {size} processes, and each"
            " would train a model of its own; omit --device to train one model together."
        )
    yield replace(how, device="cluster", progress=how.progress if is_first() else False)
