"""Daft for the plan: on this machine, or on the Ray cluster that Daft is told to run on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from nearfar.errors import OptionError

if TYPE_CHECKING:
    from daft import DataFrame

_PARTITION: Final = 2**36
"""Daft's increasing ids are the number of the partition times this, plus a place within it."""


def is_daft_frame(table: object) -> bool:
    """Return whether something is a DataFrame of Daft."""
    kind = type(table)
    return kind.__name__ == "DataFrame" and kind.__module__.startswith("daft.")


class DaftEngine:
    """What the plan needs of Daft; see `nearfar.prepare.remote_plan.RemoteEngine`."""

    @contextmanager
    def scratch(self, address: str | None) -> Iterator[str]:
        """Make a folder for temporary files in another one, and remove it at the end.

        Raises
        ------
        OptionError
            Daft runs on other machines too, and there is no address; or it is not a path, which is
            all that can be removed.
        """
        import daft

        runner = daft.get_or_create_runner().name
        if address is None and runner != "native":
            raise OptionError(
                "`scratch` must be a folder that every worker of Daft can write to, such as one on"
                f" a shared disk; got None, and Daft runs on {runner}."
            )
        if address is not None and "://" in address:
            raise OptionError(
                f"`scratch` must be the path of a folder with Daft; got {address!r}. Use a disk"
                " that all workers share."
            )
        place = Path(mkdtemp(prefix="nearfar-") if address is None else address)
        own = place if address is None else place / f"nearfar-{uuid4().hex}"
        try:
            yield str(own)
        finally:
            shutil.rmtree(own, ignore_errors=True)

    def moments(self, table: DataFrame) -> DataFrame:
        """Turn dates and timestamps into microseconds since 1970, in UTC."""
        from daft import DataType, col
        from daft.functions import to_unix_epoch

        if "time" not in table.column_names:
            return table
        kind = table.schema()["time"].dtype
        if kind.is_date():
            value = col("time").cast(DataType.timestamp("us"))
            return table.with_column("time", to_unix_epoch(value, "us"))
        if kind.is_timestamp():
            return table.with_column("time", to_unix_epoch(col("time"), "us"))
        return table

    def keep(self, frame: DataFrame, place: str) -> DataFrame:
        """Write a frame to a Parquet folder and read it from there."""
        import daft

        frame.write_parquet(place)
        return daft.read_parquet(place)

    def number(self, values: DataFrame, name: str) -> DataFrame:
        """Sort; the ranges are the partitions that Daft sorts into."""
        from daft import DataType, col
        from daft.functions import monotonically_increasing_id

        placed = values.sort(name).with_column("at", monotonically_increasing_id())
        at = col("at").cast(DataType.int64())
        return placed.with_columns({"range": at // _PARTITION, "place": at % _PARTITION}).exclude(
            "at"
        )
