"""The served version of the model, and its replacement."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

from nearfar.serve.loaded import Loaded


class Holder:
    """Holds the current version of the model.

    A request reads `current` once, at its start, and uses the same version to its end.

    Parameters
    ----------
    load : callable
        Loads a version, or raises if that is impossible. The first version is loaded immediately.
    """

    def __init__(self, load: Callable[[], Loaded]) -> None:
        self._load = load
        self._one_at_a_time = asyncio.Lock()
        self.current = load()

    async def replace(self, make: Callable[[Loaded], Loaded]) -> Loaded:
        """Make a new version from the current one in a thread, then serve it.

        Raises
        ------
        NearfarError
            The new version cannot be made. The old version is kept.
        """
        async with self._one_at_a_time:
            self.current = await asyncio.to_thread(make, self.current)
            return self.current

    async def reload(self) -> Loaded:
        """Load a new version in a thread while the old one is served, then replace the old one.

        Concurrent calls load one after another.

        Raises
        ------
        NearfarError
            The new version cannot be loaded or does not work. The old version is kept.
        """
        async with self._one_at_a_time:
            self.current = await asyncio.to_thread(self._load)
            # loading leaves reference cycles, which would accumulate without a collection
            await asyncio.to_thread(gc.collect)
            return self.current
