"""The plan where the log lies: an engine that is not in this process, and what is asked of it.

Steps are kept as Parquet folders in a scratch folder, which every worker of the engine must reach.
Sorted ids get numbers without a partition that holds them all: the engine cuts them into ranges and
counts within each range, and the sizes of the ranges before it are added here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import count
from typing import Any, Final, Protocol

import narwhals.stable.v2 as nw

from nearfar.data.ids import check_axis
from nearfar.prepare.pair_plan import Frame, total

_PART: Final = 2**25
"""Rows of a part, which is computed at a time and comes to this process at a time."""


class RemoteEngine(Protocol):
    """What the plan needs of an engine's own frames, beyond narwhals."""

    def scratch(self, address: str | None) -> AbstractContextManager[str]:
        """Make a folder for temporary files in another one, and remove it at the end."""

    def moments(self, table: Any) -> Any:
        """Turn a column ``time`` of dates or timestamps into microseconds since 1970."""

    def keep(self, frame: Any, place: str) -> Any:
        """Write a frame to a folder and read it from there."""

    def number(self, values: Any, name: str) -> Any:
        """Sort by `name`, and add ``range`` and ``place``.

        Ranges are sorted among each other, and ``place`` counts from 0 within each.
        """


class RemotePlan:
    """The hooks of the plan, on an engine that is not in this process.

    Parameters
    ----------
    engine : RemoteEngine
    n_rows : int
        Rows of the table.
    scratch : str
        The address of a folder that every worker of the engine can write to and read.
    """

    def __init__(self, engine: RemoteEngine, n_rows: int, scratch: str) -> None:
        self._engine, self._scratch = engine, scratch
        self._n_parts = 1 + n_rows // _PART
        self._names = count()

    def keep(self, frame: Frame) -> Frame:
        """Write a frame to a Parquet folder and read it from there."""
        place = f"{self._scratch}/{next(self._names)}"
        kept: Frame = nw.from_native(self._engine.keep(frame.to_native(), place))
        return kept

    def number(self, rows: Frame, name: str, *, cut: bool = False) -> Frame:
        """Find the distinct values of a column, sorted by ranges; the table of them is kept."""
        found = rows.group_by(name).agg(n=nw.len().cast(nw.Int64))
        native = self._engine.number(found.to_native(), name)
        ranged: Frame = nw.from_native(native)
        placed = self.keep(ranged)
        sizes = self.keep(placed.group_by("range").agg(size=nw.len().cast(nw.Int64)))
        n = total(sizes, "size")
        check_axis(n, name)
        before = nw.col("size").cum_sum().over(order_by="range") - nw.col("size")
        starts = sizes.with_columns(start=before).select("range", "start")
        row = (nw.col("start") + nw.col("place")).cast(nw.Int64)
        numbered = placed.join(starts, on="range").with_columns(row=row)
        if not cut:
            return numbered.select(name, "row")
        part = (nw.col("row") * self._n_parts // max(n, 1)).cast(nw.Int32)
        return numbered.select(name, "row", "n", part=part)

    def split(self, rows: Frame, by: str) -> Iterator[Frame]:
        """Cut rows by the users' parts; the engines' windows sort within a pair themselves."""
        if self._n_parts == 1:
            yield rows.drop("part")
            return
        whole = self.keep(rows)
        for part in range(self._n_parts):
            yield whole.filter(nw.col("part") == part).drop("part")
