"""Recommendations for the users of a Spark DataFrame, computed where the users lie.

Each Python worker of Spark maps the saved model into its memory once, so the processes of a machine
share it. The lists are those of `nearfar.CML.recommend`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import lru_cache
from os import PathLike
from typing import TYPE_CHECKING, Any

import polars as pl

from nearfar.errors import DataError, NearfarWarning, OptionError
from nearfar.model.cml import CML
from nearfar.prepare.spark_plan import is_spark_frame
from nearfar.runtime.checks import local_path, one_of, said, switch, whole
from nearfar.runtime.extras import load_extra

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame as SparkFrame

_MISSING = 'nearfar.spark needs PySpark, which is not installed: `pip install "nearfar[spark]"`.'


def recommend(
    users: SparkFrame,
    model: str | PathLike[str],
    k: int = 10,
    *,
    exclude_seen: bool = True,
    unknown: str = "error",
    popularity: float | None = None,
    threads: int = 1,
) -> SparkFrame:
    """Return the items nearest to each user of a Spark DataFrame.

    Parameters
    ----------
    users : DataFrame of PySpark
        The ids of the users, in its column ``user_id`` or its only one; integers or text, as those
        of the model.
    model : path
        The folder of a saved model, at a path that every executor can read.
    k : int
        Number of items.
    exclude_seen, popularity
        As in `nearfar.CML.recommend`.
    unknown : {"error", "skip"}
        What to do with users that the model does not know or that have no training interactions:
        refuse them, or leave them out.
    threads : int
        Threads of each task; give as many as ``spark.task.cpus``.

    Returns
    -------
    DataFrame of PySpark
        ``user_id``, ``rank`` (from 1), ``item_id`` and ``score``. It is computed when it is asked
        for; an id that is refused ends the job then.

    Raises
    ------
    OptionError
        An argument is out of range, or `users` is no DataFrame of PySpark.
    DataError
        `users` has several columns, none of which is ``user_id``, or ids of another type.
    StoreError
        The model cannot be read here.
    MissingExtraError
        PySpark is not installed.
    """
    load_extra("pyspark", _MISSING)
    from pyspark.sql.pandas.types import from_arrow_schema

    column = _column_of(users)
    path, k = str(local_path(model, "model").resolve()), whole("k", k)
    options: dict[str, Any] = {
        "exclude_seen": switch("exclude_seen", exclude_seen),
        "unknown": one_of("unknown", unknown, ("error", "skip")),
        "threads": whole("threads", threads),
    }
    fitted = _mapped(path)
    options["popularity"] = fitted.dial(popularity)
    schema = _schema(fitted)
    _check_type(users, column, fitted)

    def lists(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NearfarWarning)  # of users that are left out
                asked = batch.column(0).to_pylist()
                found = _mapped(path).recommend(asked, k, **options)
            yield from found.to_arrow().cast(schema).to_batches()

    return users.select(column).mapInArrow(lists, from_arrow_schema(schema))


@lru_cache(maxsize=1)
def _mapped(path: str) -> CML:
    return CML.load(path, mmap=True)


def _column_of(users: Any) -> str:
    """Return the name of the column of ids."""
    if not is_spark_frame(users):
        raise OptionError(f"`users` must be a DataFrame of PySpark; got {said(users)}.")
    names: list[str] = users.columns
    if "user_id" in names or len(names) == 1:
        return "user_id" if "user_id" in names else names[0]
    raise DataError(
        f"`users` must have the ids in a column 'user_id', or in its only one; it has"
        f" {', '.join(names)}. Select it, such as with .select('id')."
    )


def _check_type(users: SparkFrame, column: str, model: CML) -> None:
    kind = dict(users.dtypes)[column]
    text = model.interactions.user_ids.dtype == pl.String
    if (kind == "string") != text or kind not in {"string", "tinyint", "smallint", "int", "bigint"}:
        raise DataError(
            f"`users` has ids of the type {kind}, and those of the model are"
            f" {'text' if text else 'integers'}; cast the column {column!r}."
        )


def _schema(model: CML) -> Any:
    """Return the columns of the lists, in the types that Spark has."""
    pyarrow = load_extra("pyarrow", _MISSING)

    def ids(dtype: pl.DataType) -> Any:
        return pyarrow.string() if dtype == pl.String else pyarrow.int64()

    data = model.interactions
    return pyarrow.schema(
        [
            ("user_id", ids(data.user_ids.dtype)),
            ("rank", pyarrow.int32()),
            ("item_id", ids(data.item_ids.dtype)),
            ("score", pyarrow.float32()),
        ]
    )
