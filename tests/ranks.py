"""Ranks: threads of one process, without a network between them; and real processes."""

import os
import socket
import subprocess
import sys
import threading

import numpy as np

from nearfar.engine.cluster import process_group
from nearfar.engine.cluster.process_group import Traffic


class _Meeting:
    def __init__(self, size):
        self.barrier, self.brought = threading.Barrier(size, timeout=120), [None] * size


class ThreadGroup:
    """`nearfar.engine.cluster.process_group.Group` in memory; lengths that differ are an error."""

    def __init__(self, meeting, rank):
        self.meeting, self.rank, self.size = meeting, rank, len(meeting.brought)
        self.traffic = Traffic()

    def _all(self, mine):
        self.traffic.collectives += 1
        self.meeting.brought[self.rank] = mine
        self.meeting.barrier.wait()
        found = list(self.meeting.brought)
        self.meeting.barrier.wait()
        return found

    def exchange(self, send, counts, expected, out):
        assert len(send) == counts.sum()
        assert len(out) == expected.sum()
        cut = np.cumsum(counts)[:-1]
        self.traffic.bytes_sent += send.nbytes - np.split(send, cut)[self.rank].nbytes
        parts = [brought[self.rank] for brought in self._all(np.split(send.copy(), cut))]
        assert [len(part) for part in parts] == expected.tolist()
        out[:] = np.concatenate(parts)
        return out

    def total(self, values):
        return np.sum(self._all(np.array(values)), axis=0)


def on_ranks(size, work):
    """Return ``work(group)`` of each of `size` ranks."""
    meeting, found, errors = _Meeting(size), [None] * size, []

    def go(rank):
        try:
            found[rank] = work(ThreadGroup(meeting, rank))
        except BaseException as error:
            errors.append(error)
            meeting.barrier.abort()

    threads = [threading.Thread(target=go, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return found


def joined_ranks(monkeypatch):
    """Return `on_ranks` for work that takes the rank, where `join` returns the group of each."""
    mine = threading.local()
    monkeypatch.setattr(process_group, "join", lambda: mine.group)

    def run(size, work):
        def go(group):
            mine.group = group
            return work(group.rank)

        return on_ranks(size, go)

    return run


def start(size, script, *arguments, **environment):
    """Start a Python script in `size` processes that find each other on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo",
        "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, **environment,
    }  # fmt: skip
    words = [sys.executable, "-c", script, *map(str, arguments)]
    return [
        subprocess.Popen(
            words,
            env={
                **os.environ,
                **{key: str(value) for key, value in shared.items()},
                "RANK": str(r),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for r in range(size)
    ]


def ended(processes, codes=(0,)):
    """Wait for processes; return what they have printed. Their exit codes are among `codes`."""
    printed = [process.communicate(timeout=240)[0] for process in processes]
    for process, text in zip(processes, printed, strict=True):
        assert process.returncode in codes, text
    return printed
