"""Polars' streaming engine for the plan: what it cannot hold lies in files on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

import narwhals.stable.v2 as nw
import polars as pl

from nearfar.data.ids import check_axis
from nearfar.errors import StoreError
from nearfar.prepare.pair_plan import Frame, changed

_PART: Final = 2**22
"""Rows of a part: as many are sorted in memory at a time, and the rows of one user more."""
_GROUPED: Final = 2**27
"""Rows whose distinct ids are found at a time: it bounds the memory of a table of groups."""
_FULL: Final = "os error 28"
"""What polars says where a disk is full."""


class PolarsPlan:
    """The hooks of the plan, on polars.

    Parameters
    ----------
    n_rows : int
        Rows of the table.
    scratch : Path
        A folder for files: about 20 bytes a row, 28 with weights.
    """

    def __init__(self, n_rows: int, scratch: Path) -> None:
        self._n_rows = n_rows
        self._scratch = scratch
        self._parts: list[int] = []
        self._names = count()

    def keep(self, frame: Frame) -> Frame:
        """Write a frame to a file and read it from there."""
        file = self._scratch / f"{next(self._names)}.arrow"
        self._written(frame.to_native(), file)
        return nw.from_native(pl.scan_ipc(file))

    def number(self, rows: Frame, name: str, *, cut: bool = False) -> Frame:
        """Find the distinct values of a column; the table of them is in memory."""
        n_groups, value = 1 + self._n_rows // _GROUPED, pl.col(name)
        native: pl.LazyFrame = rows.to_native().select(name)
        found = []
        for group in range(n_groups):
            some = native if n_groups == 1 else native.filter(value.hash() % n_groups == group)
            asked = some.group_by(name).agg(n=pl.len().cast(pl.Int64)) if cut else some.unique()
            found.append(asked.collect(engine="streaming"))
        table = pl.concat(found).sort(name).with_row_index("row")
        del found
        check_axis(table.height, name)
        if cut:
            table = table.with_columns(part=((pl.col("n").cum_sum() - 1) // _PART).cast(pl.Int32))
            self._parts = table["part"].unique().sort().to_list()
        return nw.from_native(table.lazy())

    def split(self, rows: Frame, by: str) -> Iterator[Frame]:
        """Cut rows by the users' parts, and sort each part in memory."""
        native: pl.LazyFrame = rows.to_native()
        if len(self._parts) < 2:
            yield _sorted(native.drop("part"), by)
            return
        folder = self._scratch / "parts"
        self._written(  # unordered, which is quicker: each part is sorted later
            native,
            pl.PartitionBy(
                folder,
                key="part",
                include_key=False,
                file_path_provider=lambda file: f"{file.partition_keys['part'][0]}.arrow",
                approximate_bytes_per_file=None,
            ),
        )
        for part in self._parts:
            file = folder / f"{part}.arrow"
            if not file.exists():
                raise changed()
            yield _sorted(pl.scan_ipc(file), by)
            file.unlink()

    def _written(self, frame: pl.LazyFrame, to: Path | pl.PartitionBy) -> None:
        try:
            frame.sink_ipc(
                to,
                compression="uncompressed",
                maintain_order=isinstance(to, Path),
                mkdir=True,
                engine="streaming",
            )
        except (OSError, pl.exceptions.PolarsError) as error:
            if _FULL not in str(error):
                raise
            raise StoreError(
                f"There is no space left for temporary files in {str(self._scratch)!r}; they take "
                "up to 30 bytes a row. Free some, or use another disk."
            ) from error


def _sorted(frame: pl.LazyFrame, by: str) -> Any:
    return nw.from_native(frame.sort(by).collect(engine="streaming").lazy())
