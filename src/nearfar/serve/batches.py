"""Making lists together that are wanted at the same time.

The products of one query with a catalogue read every item's point from memory; those of 64 queries
read them once too, and cost a few times as much, not 64 times. So while one batch is being made,
the wishes that come in wait, and then all of them are the next batch: nobody waits for a batch to
fill, and under load the batches grow by themselves. A list does not depend on the others.
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
"""Lists in a batch, at most: what `top_k` handles in one block."""


@dataclass(frozen=True, eq=False)
class _Waiting:
    space: Space
    wish: Wish
    answer: asyncio.Future[Nearest]

    @property
    def kind(self) -> tuple[int, int]:
        """Lists of one kind are made together: of one table, and of a similar length.

        A list of ten beside one of a thousand would cost what that one does.
        """
        return id(self.space), (self.wish.k - 1).bit_length()


class Batches:
    """Makes lists, on a few threads; to be used from one event loop.

    Parameters
    ----------
    threads : int
        Batches to be made side by side, each by one thread.
    """

    def __init__(self, threads: int) -> None:
        self._free = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="nearfar-lists")
        self._waiting: deque[_Waiting] = deque()

    async def nearest(self, space: Space, wish: Wish) -> Nearest:
        """Give the list of `wish`, when its turn has come.

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
        """Let go of the threads, once they have done what they are at."""
        self._pool.shutdown()

    def _begin(self) -> None:
        """Begin batches for as long as a thread is free and somebody waits."""
        while self._free and (batch := self._next()):
            self._free -= 1
            wishes = [one.wish for one in batch]
            make: Callable[[], list[Nearest]] = partial(batch[0].space.nearest, wishes)
            done = asyncio.get_running_loop().run_in_executor(self._pool, make)
            done.add_done_callback(partial(self._deliver, batch))

    def _next(self) -> list[_Waiting]:
        """Take the wish that has waited longest, and those of its kind; nobody's who has gone."""
        batch: list[_Waiting] = []
        others: list[_Waiting] = []
        for one in self._waiting:
            if one.answer.done():  # cancelled: it came too late, or its client has gone
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
