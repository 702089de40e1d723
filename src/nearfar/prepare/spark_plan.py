"""Spark for the plan: the log stays where it lies, and the pairs that are left come to the driver.

The session is the caller's, with its own configuration. Sorted ids get numbers without a partition
that holds them all: they are cut into ranges, each range is sorted, and the sizes of the ranges
before it are added to a place within it. Steps are kept as Parquet folders in the scratch folder,
which every executor must reach; unlike Spark's local checkpoints they survive a lost executor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import narwhals.stable.v2 as nw

from nearfar.data.ids import check_axis
from nearfar.errors import DataError, MissingColumnError, OptionError
from nearfar.prepare.checking import check_threshold
from nearfar.prepare.pair_plan import SIDES, Frame
from nearfar.prepare.rules import Rules

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

_PART: Final = 2**25
"""Rows of a part, which is computed at a time and comes to the driver at a time."""
_WHOLE: Final = ("tinyint", "smallint", "int", "bigint")
_FRACTIONS: Final = ("float", "double")


def is_spark_frame(table: object) -> bool:
    """Return whether something is a DataFrame of PySpark, classic or Connect."""
    kind = type(table)
    return kind.__name__ == "DataFrame" and kind.__module__.startswith("pyspark.sql")


class SparkPlan:
    """The hooks of the plan, on Spark.

    Parameters
    ----------
    session : SparkSession
    n_rows : int
        Rows of the table.
    scratch : str
        The address of a folder that every executor can write to and read.
    """

    def __init__(self, session: SparkSession, n_rows: int, scratch: str) -> None:
        self._session, self._scratch = session, scratch
        self._n_parts = 1 + n_rows // _PART
        self._names = count()

    def keep(self, frame: Frame) -> Frame:
        """Write a frame to a Parquet folder and read it from there."""
        kept: Frame = nw.from_native(self._kept(frame.to_native()))
        return kept

    def number(self, rows: Frame, name: str, *, cut: bool = False) -> Frame:
        """Find the distinct values of a column, sorted by ranges; the table of them is kept."""
        from pyspark.sql import Window
        from pyspark.sql import functions as fn

        ranges = max(self._n_parts, int(self._session.conf.get("spark.sql.shuffle.partitions")))
        native: DataFrame = rows.to_native()
        found = native.groupBy(name).agg(fn.count(fn.lit(1)).alias("n"))
        ranged = found.repartitionByRange(ranges, name).withColumn("range", fn.spark_partition_id())
        placed = self._kept(
            ranged.withColumn(
                "place", fn.row_number().over(Window.partitionBy("range").orderBy(name)) - 1
            )
        )
        sizes = {row["range"]: row["n"] for row in
                 placed.groupBy("range").agg(fn.count(fn.lit(1)).alias("n")).collect()}  # fmt: skip
        check_axis(sum(sizes.values()), name)
        starts, at = [], 0
        for one in range(ranges):
            starts.append(at)
            at += sizes.get(one, 0)
        before = fn.element_at(fn.lit(starts), fn.col("range") + 1)
        kept: list[Column | str] = [name, (before + fn.col("place")).cast("bigint").alias("row")]
        if cut:
            part = fn.floor(fn.col("range") * self._n_parts / ranges).cast("int")
            kept += ["n", part.alias("part")]
        numbered: Frame = nw.from_native(placed.select(kept))
        return numbered

    def split(self, rows: Frame, by: str) -> Iterator[Frame]:
        """Cut rows by the users' parts; Spark's windows sort within a pair themselves."""
        if self._n_parts == 1:
            yield rows.drop("part")
            return
        whole = self.keep(rows)
        for part in range(self._n_parts):
            yield whole.filter(nw.col("part") == part).drop("part")

    def _kept(self, frame: DataFrame) -> DataFrame:
        place = f"{self._scratch}/{next(self._names)}"
        frame.write.parquet(place)
        return self._session.read.parquet(place)


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


def spark_checked(table: DataFrame, rules: Rules) -> tuple[Frame, int]:
    """Check the columns that are needed, all in one pass, and convert them.

    Ids are integers or text. Values and times are numbers; times can be dates or timestamps, which
    become microseconds since 1970.

    Raises
    ------
    MissingColumnError
        There is no user or item.
    OptionError
        `rules.min_value` needs a value that is not there.
    DataError
        An id, a value or a time cannot be used; names column and value.
    """
    from pyspark.sql import functions as fn

    types = dict(table.dtypes)
    for side in SIDES:
        if side not in types:
            raise MissingColumnError(
                f"The table has no column {side!r}; it has {', '.join(types)}. Rename the column,"
                f" such as with .withColumnRenamed('id', {side!r})."
            )
    check_threshold(rules, types)
    numbers = ["time"] if "time" in types else []
    if rules.min_value is not None and "value" in types:
        numbers.append("value")
    made = {side: _id(side, types[side]) for side in SIDES}
    made |= {name: _number(name, types[name]) for name in numbers}
    bad = {name: _is_bad(name, types[name]) for name in made}
    asked = [fn.count_if(wrong).alias(name) for name, wrong in bad.items()]
    counted = table.agg(fn.count(fn.lit(1)).alias("rows"), *asked).collect()[0]
    for name, wrong in bad.items():
        if counted[name]:
            value = table.filter(wrong).select(name).first()[0]
            raise DataError(
                f"The column {name!r} must not be missing{', NaN or infinite' * (name in numbers)};"
                f" {counted[name]:,} of {counted['rows']:,} rows are, such as {value!r}. Correct or"
                " drop such rows."
            )
    picked = table.select([one.alias(name) for name, one in made.items()])
    checked: Frame = nw.from_native(picked)
    return checked, int(counted["rows"])


def _id(name: str, kind: str) -> Column:
    from pyspark.sql import functions as fn

    if kind in _WHOLE:
        return fn.col(name).cast("bigint")
    if kind == "string":
        return fn.col(name)
    raise DataError(
        f"A {name} id must be an integer or text; the column {name!r} is of the type {kind}. Cast"
        f" it, such as with .withColumn({name!r}, col({name!r}).cast('string'))."
    )


def _number(name: str, kind: str) -> Column:
    from pyspark.sql import functions as fn

    value = fn.col(name)
    if kind in _WHOLE:
        return value.cast("bigint")
    if kind in _FRACTIONS:
        return value.cast("double")
    if name == "time" and kind == "timestamp":
        return fn.unix_micros(value)
    if name == "time" and kind == "timestamp_ntz":
        return fn.expr(f"timestampdiff(MICROSECOND, timestamp_ntz'1970-01-01 00:00:00', `{name}`)")
    if name == "time" and kind == "date":
        return fn.unix_date(value).cast("bigint") * 86_400_000_000
    raise DataError(
        f"The column {name!r} must hold numbers{', dates or times' * (name == 'time')}; its type is"
        f" {kind}. Cast it first."
    )


def _is_bad(name: str, kind: str) -> Column:
    from pyspark.sql import functions as fn

    value = fn.col(name)
    if kind in _FRACTIONS:
        return value.isNull() | fn.isnan(value) | (fn.abs(value) == float("inf"))
    return value.isNull()
