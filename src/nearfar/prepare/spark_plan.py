"""Spark for the plan: the log stays where it lies, and the pairs that are left come to the driver.

The session is the caller's, with its own configuration. Parquet folders survive a lost executor,
unlike Spark's local checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from tempfile import mkdtemp
from typing import TYPE_CHECKING
from uuid import uuid4

from nearfar.errors import OptionError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def is_spark_frame(table: object) -> bool:
    """Return whether something is a DataFrame of PySpark, classic or Connect."""
    kind = type(table)
    return kind.__name__ == "DataFrame" and kind.__module__.startswith("pyspark.sql")


class SparkEngine:
    """What the plan needs of Spark; see `nearfar.prepare.remote_plan.RemoteEngine`.

    Parameters
    ----------
    session : SparkSession
    """

    def __init__(self, session: SparkSession) -> None:
        self._session = session

    def scratch(self, address: str | None) -> AbstractContextManager[str]:
        """Make a folder for temporary files, and remove it at the end; see `spark_scratch`."""
        return spark_scratch(self._session, address)

    def moments(self, table: DataFrame) -> DataFrame:
        """Turn dates and timestamps into microseconds since 1970, in UTC."""
        from pyspark.sql import functions as fn

        value, kind = fn.col("time"), dict(table.dtypes).get("time")
        since = "timestampdiff(MICROSECOND, timestamp_ntz'1970-01-01 00:00:00', `time`)"
        if kind == "timestamp":
            return table.withColumn("time", fn.unix_micros(value))
        if kind == "timestamp_ntz":
            return table.withColumn("time", fn.expr(since))
        if kind == "date":
            return table.withColumn("time", fn.unix_date(value).cast("bigint") * 86_400_000_000)
        return table

    def keep(self, frame: DataFrame, place: str) -> DataFrame:
        """Write a frame to a Parquet folder and read it from there."""
        frame.write.parquet(place)
        return self._session.read.parquet(place)

    def number(self, values: DataFrame, name: str) -> DataFrame:
        """Sort by ranges, of which Spark makes as many as its shuffles have partitions."""
        from pyspark.sql import Window
        from pyspark.sql import functions as fn

        ranges = int(self._session.conf.get("spark.sql.shuffle.partitions"))
        cut = values.repartitionByRange(ranges, name)
        ranged = cut.withColumn("range", fn.spark_partition_id())
        order = Window.partitionBy("range").orderBy(name)
        return ranged.withColumn("place", fn.row_number().over(order) - 1)


@contextmanager
def spark_scratch(session: SparkSession, scratch: str | None) -> Iterator[str]:
    """Make a folder for temporary files, and remove it at the end.

    Parameters
    ----------
    session : SparkSession
    scratch : str, optional
        The address of the folder that it is made in; by default a local one, if Spark runs on this
        machine alone.

    Raises
    ------
    OptionError
        Spark runs on other machines too, and there is no `scratch`.
    """
    local = session.conf.get("spark.master", "").startswith("local")
    if scratch is None and not local:
        raise OptionError(
            "`scratch` must be the address of a folder that every executor of Spark can write to,"
            " such as 'hdfs:///tmp'; got None."
        )
    place = f"file://{mkdtemp(prefix='nearfar-')}" if scratch is None else str(scratch).rstrip("/")
    place = f"{place}/nearfar-{uuid4().hex}"
    try:
        yield place
    finally:
        _removed(session, place if scratch is not None else place.rpartition("/")[0])


def _removed(session: SparkSession, place: str) -> None:
    """Remove a folder, by the file system of its address."""
    context = session.sparkContext
    path = context._jvm.org.apache.hadoop.fs.Path(place)
    path.getFileSystem(context._jsc.hadoopConfiguration()).delete(path, True)
