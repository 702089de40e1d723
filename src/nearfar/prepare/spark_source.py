"""Raw logs as DataFrames of Spark: addresses that Spark reads, and their columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from nearfar.data import table_columns
from nearfar.errors import SourceError
from nearfar.runtime.extras import load_extra

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_MISSING: Final = 'Spark needs PySpark, which is not installed: `pip install "nearfar[spark]"`.'
_FORMS: Final = {".json": "json", ".jsonl": "json", ".orc": "orc"}
"""By the suffix of an address; Parquet otherwise."""


def spark_log(address: str, columns: Mapping[str, str | None]) -> DataFrame:
    """Open a log with the session that is running, or one of Spark's own configuration.

    Parameters
    ----------
    address : str
        What Spark reads: "s3a://bucket/log", "hdfs:///log" or a local path. The suffixes .json,
        .jsonl and .orc name the form; everything else is Parquet.
    columns : mapping of str to str or None
        The names of the columns user, item, value and time; users and items with None are
        recognised as in `nearfar.data.table_columns.select`.

    Returns
    -------
    DataFrame of PySpark
        The columns user and item, and value and time if they are named.

    Raises
    ------
    SourceError
        Spark cannot read the address.
    MissingColumnError
        A column is missing or not recognised.
    MissingExtraError
        PySpark is not installed.
    """
    load_extra("pyspark", _MISSING)
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    session = SparkSession.builder.getOrCreate()
    form = next((one for end, one in _FORMS.items() if address.endswith(end)), "parquet")
    try:
        frame = session.read.format(form).load(address)
        names = frame.columns
    except PySparkException as error:
        first = str(error).partition("\n")[0]
        raise SourceError(f"Spark cannot read {address!r} as {form}: {first}") from error
    return frame.select([frame[names[at]].alias(part) for part, at in _places(names, columns)])


def _places(names: list[str], columns: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return which column is user, item, value and time."""
    numbered = pl.DataFrame({name: [place] for place, name in enumerate(names)})
    found = table_columns.select(numbered, **columns).collect()
    return [(part, found[part].item()) for part in found.columns]
