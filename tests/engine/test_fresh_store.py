"""A place of its own for each start of a run, however the ranks of two starts overlap."""

import threading
import time
from datetime import timedelta

import pytest

from nearfar.errors import ClusterError

distributed = pytest.importorskip("torch.distributed", reason="PyTorch is not installed")
from nearfar.engine.cluster.fresh_store import fresh_store  # noqa: E402

LONG, SHORT = timedelta(seconds=60), timedelta(seconds=0.3)


def started(store, ranks, late=()):
    """Let the ranks come, those in `late` after the others have looked; return their places."""
    found = {}

    def come(rank):
        found[rank] = fresh_store(store, rank, len(ranks), LONG)

    threads = {rank: threading.Thread(target=come, args=(rank,)) for rank in ranks}
    for rank in ranks:
        if rank not in late:
            threads[rank].start()
    for rank in late:
        time.sleep(0.2)
        threads[rank].start()
    for thread in threads.values():
        thread.join()
    return found


@pytest.mark.parametrize("late", [(), (0,), (2,), (1, 2)])
def test_a_start_finds_nothing_of_the_one_before(late):
    store = distributed.HashStore()
    for start in range(3):
        found = started(store, range(3), late)
        assert not any(one.check(["address"]) for one in found.values())
        found[0].set("address", str(start))
        assert {one.get("address") for one in found.values()} == {str(start).encode()}


def test_a_rank_that_asked_before_and_was_ended_is_not_waited_for():
    store = distributed.HashStore()
    store.set("nearfar/here/1", "of a process that is gone")
    found = started(store, range(2), late=(1,))
    found[1].set("address", "new")
    assert found[0].get("address") == b"new"


def test_one_process_waits_for_nobody():
    fresh_store(distributed.HashStore(), 0, 1, SHORT).set("a", "b")


def test_ranks_that_do_not_come_are_named():
    with pytest.raises(ClusterError, match=r"2 of 3 processes have not come.*: .* RANK 1, 2\."):
        fresh_store(distributed.HashStore(), 0, 3, SHORT)
    with pytest.raises(ClusterError, match="process with RANK 0 has not come within"):
        fresh_store(distributed.HashStore(), 1, 2, SHORT)
