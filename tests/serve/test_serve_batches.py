"""Lists that are made together are those made alone."""

import asyncio
import threading

import numpy as np
import pytest

from nearfar.errors import DataError
from nearfar.search.scoring import scorer_of
from nearfar.serve.batches import Batches
from nearfar.serve.space import Space, Wish


def test_lists_made_together_are_those_made_alone():
    rng = np.random.default_rng(0)
    table = rng.standard_normal((5000, 24), dtype=np.float32)
    space = Space(scorer_of(table, table, "free"), "free")
    wishes = [
        Wish(table[at], int(k), np.unique(rng.integers(0, 5000, 50)).astype(np.int32))
        for at, k in enumerate(rng.integers(1, 70, 40))
    ]

    async def all_at_once():
        with Batches(2) as batches:
            return await asyncio.gather(*(batches.nearest(space, wish) for wish in wishes))

    for wish, found in zip(wishes, asyncio.run(all_at_once()), strict=True):
        (alone,) = space.nearest([wish])
        assert len(found.rows) == wish.k
        assert found.rows.tolist() == alone.rows.tolist()
        assert found.scores == pytest.approx(alone.scores, abs=1e-5)
        assert not set(wish.hidden.tolist()) & set(found.rows.tolist())


class Recorder:
    """A space that notes which wishes came together, and is held up at the first."""

    def __init__(self):
        self.batches, self.go = [], threading.Event()

    def nearest(self, wishes):
        self.batches.append([wish.k for wish in wishes])
        assert self.go.wait(10)
        if any(wish.k == 13 for wish in wishes):
            raise DataError("thirteen")
        return [wish.k for wish in wishes]


def test_what_waits_is_the_next_batch_and_lengths_do_not_mix():
    space = Recorder()

    async def play():
        with Batches(1) as batches:
            wishes = [Wish(None, k, None) for k in (10, 9, 1000, 16, 11, 600)]
            tasks = [asyncio.create_task(batches.nearest(space, wish)) for wish in wishes]
            await asyncio.sleep(0.05)
            tasks[4].cancel()
            space.go.set()
            return await asyncio.gather(*tasks, return_exceptions=True)

    found = asyncio.run(play())
    assert space.batches == [[10], [9, 16], [1000, 600]]
    assert found[:4] == [10, 9, 1000, 16]
    assert found[5] == 600
    assert isinstance(found[4], asyncio.CancelledError)


def test_an_error_goes_to_those_of_its_batch_only():
    space = Recorder()
    space.go.set()

    async def play():
        with Batches(1) as batches:
            wishes = [Wish(None, k, None) for k in (5, 13, 14, 200)]
            tasks = (batches.nearest(space, wish) for wish in wishes)
            return await asyncio.gather(*tasks, return_exceptions=True)

    one, two, three, four = asyncio.run(play())
    assert (one, four) == (5, 200)
    assert isinstance(two, DataError)
    assert two is three
