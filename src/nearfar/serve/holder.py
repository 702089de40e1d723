"""The version that is being served, and how another one takes its place."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

from nearfar.serve.loaded import Loaded


class Holder:
    """Holds the current version of the model.

    A request reads `current` once, when it begins, and keeps what it got to its end.

    Parameters
    ----------
    load : callable
        Makes a version, and raises where that is not possible. The first is made at once.
    """

    def __init__(self, load: Callable[[], Loaded]) -> None:
        self._load = load
        self._one_at_a_time = asyncio.Lock()
        self.current = load()

    async def reload(self) -> Loaded:
        """Load a new version beside the old one, in a thread, and only then change over.

        Of several calls each loads, one after the other.

        Raises
        ------
        NearfarError
            It cannot be loaded or does not answer. The old version stays.
        """
        async with self._one_at_a_time:
            self.current = await asyncio.to_thread(self._load)
            # there are cycles in what loading leaves; left to themselves, they pile up
            await asyncio.to_thread(gc.collect)
            return self.current
