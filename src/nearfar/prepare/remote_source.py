"""Raw logs as frames of Spark or Daft: addresses that these read, and their columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

import polars as pl

from nearfar.data import table_columns
from nearfar.errors import SourceError, first_line
from nearfar.runtime.extras import load_extra

if TYPE_CHECKING:
    from daft import DataFrame as DaftFrame
    from pyspark.sql import DataFrame as SparkFrame

_NO_SPARK: Final = 'Spark needs PySpark, which is not installed: `pip install "nearfar[spark]"`.'
_NO_DAFT: Final = 'Daft is not installed: `pip install "nearfar[daft]"`.'
_SPARK_FORMS: Final = {".json": "json", ".jsonl": "json", ".orc": "orc"}
_DAFT_FORMS: Final = {".json": "json", ".jsonl": "json", ".csv": "csv"}
"""By the suffix of an address; Parquet otherwise."""


def remote_log(
    engine: Literal["spark", "daft"], address: str, columns: Mapping[str, str | None]
) -> Any:
    """Open a log with an engine that computes where the log lies.

    Parameters
    ----------
    engine : {"spark", "daft"}
        Spark: by the session that is running, or one of Spark's own configuration.
    address : str
        What the engine reads: "s3a://bucket/log", "hdfs:///log" or a local path. The suffixes .json
        and .jsonl, with Spark .orc and with Daft .csv, name the form; everything else is Parquet.
    columns : mapping of str to str or None
        The names of the columns user, item, value and time; users and items with None are
        recognised as in `nearfar.data.table_columns.select`.

    Returns
    -------
    DataFrame of PySpark or Daft
        The columns user and item, and value and time if they are named.

    Raises
    ------
    SourceError
        The engine cannot read the address.
    MissingColumnError
        A column is missing or not recognised.
    MissingExtraError
        The engine is not installed.
    """
    if engine == "spark":
        return _spark_log(address, columns)
    return _daft_log(address, columns)


def _spark_log(address: str, columns: Mapping[str, str | None]) -> SparkFrame:
    load_extra("pyspark", _NO_SPARK)
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    session, form = SparkSession.builder.getOrCreate(), _form(address, _SPARK_FORMS)
    try:
        frame = session.read.format(form).load(address)
        names = frame.columns
    except PySparkException as error:
        raise _unreadable("Spark", address, form, error) from error
    return frame.select([frame[names[at]].alias(part) for part, at in _places(names, columns)])


def _daft_log(address: str, columns: Mapping[str, str | None]) -> DaftFrame:
    daft = load_extra("daft", _NO_DAFT)
    load_extra("narwhals_daft", _NO_DAFT)
    from daft.exceptions import DaftCoreException

    form = _form(address, _DAFT_FORMS)
    try:
        frame = getattr(daft, f"read_{form}")(address)
    except (DaftCoreException, OSError) as error:
        raise _unreadable("Daft", address, form, error) from error
    names = frame.column_names
    return frame.select(*(frame[names[at]].alias(part) for part, at in _places(names, columns)))


def _form(address: str, forms: Mapping[str, str]) -> str:
    return next((one for end, one in forms.items() if address.endswith(end)), "parquet")


def _unreadable(engine: str, address: str, form: str, error: Exception) -> SourceError:
    return SourceError(f"{engine} cannot read {address!r} as {form}: {first_line(error)}")


def _places(names: list[str], columns: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return which column is user, item, value and time."""
    numbered = pl.DataFrame({name: [place] for place, name in enumerate(names)})
    found = table_columns.select(numbered, **columns).collect()
    return [(part, found[part].item()) for part in found.columns]
