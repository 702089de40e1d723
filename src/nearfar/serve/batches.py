"""Batches: lists that are requested at the same time are computed together.

The products of one query with a catalogue read the point of every item from memory; those of 64
queries also read them once, so they cost a few times as much, not 64 times. While a batch is being
computed, new queries wait, and all waiting queries form the next batch: no query waits for a batch
to fill, and batches become larger under load. A list does not depend on the rest of its batch.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, Self

from nearfar.search.neighbours import BLOCK_USERS
from nearfar.serve.space import Nearest, Space, Wish

LARGEST: Final = BLOCK_USERS
"""Maximum number of lists in a batch: the number that `top_k` handles in one block."""


@dataclass(frozen=True, eq=False)
class _Waiting:
    space: Space
    wish: Wish
    answer: asyncio.Future[Nearest]

    @property
    def kind(self) -> tuple[int, int]:
        """Lists of one kind, of one table and of similar length, are computed together.

        In a batch with a list of 1000 items, a list of 10 would cost as much as the long one.
        """
        return id(self.space), (self.wish.depth - 1).bit_length()


class Batches:
    """Computes lists on a few threads; to be used from one event loop.

    Parameters
    ----------
    threads : int
        Number of batches computed at the same time, each by one thread.
    """

    def __init__(self, threads: int) -> None:
        self._free = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="nearfar-lists")
        self._waiting: deque[_Waiting] = deque()

    async def nearest(self, space: Space, wish: Wish) -> Nearest:
        """Return the list of a query.

        Raises
        ------
        DataError
            A score is NaN.
        """
        mine = _Waiting(space, wish, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        self._begin()
        return await mine.answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Stop the threads after their current batch."""
        self._pool.shutdown()

    def _begin(self) -> None:
        """Start batches as long as a thread is free and queries are waiting."""
        while self._free and (batch := self._next()):
            self._free -= 1
            wishes = [one.wish for one in batch]
            make: Callable[[], list[Nearest]] = partial(batch[0].space.nearest, wishes)
            done = asyncio.get_running_loop().run_in_executor(self._pool, make)
            done.add_done_callback(partial(self._deliver, batch))

    def _next(self) -> list[_Waiting]:
        """Take the query that has waited longest, and others of its kind; skip cancelled ones."""
        batch: list[_Waiting] = []
        others: list[_Waiting] = []
        for one in self._waiting:
            if one.answer.done():  # cancelled: it timed out, or its client disconnected
                continue
            fits = not batch or (one.kind == batch[0].kind and len(batch) < LARGEST)
            (batch if fits else others).append(one)
        self._waiting = deque(others)
        return batch

    def _deliver(self, batch: list[_Waiting], done: asyncio.Future[list[Nearest]]) -> None:
        self._free += 1
        error = done.exception()
        for at, one in enumerate(batch):
            if one.answer.done():
                continue
            if error is None:
                one.answer.set_result(done.result()[at])
            else:
                one.answer.set_exception(error)
        self._begin()
