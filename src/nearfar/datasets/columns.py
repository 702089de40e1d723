"""The columns of strict sources: selection by name or position, checks, and conversion of types."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl

from nearfar.errors import DataError, EmptyDataError, MissingColumnError
from nearfar.readers.raw import Raw


def named(raw: Raw, columns: dict[str, str], path: Path) -> pl.LazyFrame:
    """Select columns by their name in the source.

    Parameters
    ----------
    raw : Raw
        The source.
    columns : dict of str to str
        The new name of each column, and its name in the source, where a suffix after ``:``
        (``user_id:token``) is ignored.
    path : Path
        The file, for the message.

    Raises
    ------
    MissingColumnError
        If a column does not exist; the message lists those that do.
    """
    there = raw.rows.collect_schema().names()
    short = {name.split(":")[0] if ":" in name else name: name for name in there}
    for source in columns.values():
        if source not in short:
            raise MissingColumnError(
                f"{str(path)!r} must have the columns {', '.join(columns.values())}; got "
                f"{', '.join(there)}. Check that it is the right file."
            )
    return raw.rows.select(pl.col(short[source]).alias(new) for new, source in columns.items())


def placed(raw: Raw, places: dict[str, int], n_columns: int, path: Path) -> pl.LazyFrame:
    """Select columns of a file without a header by their positions, counted from 1.

    Parameters
    ----------
    raw : Raw
        The source.
    places : dict of str to int
        The new name of each column and its position.
    n_columns : int
        The number of columns that the file must have.
    path : Path
        The file, for the message.

    Raises
    ------
    DataError
        If the file has another number of columns.
    """
    there = raw.rows.collect_schema().names()
    if len(there) != n_columns:
        raise DataError(
            f"Lines of {str(path)!r} must have {n_columns} fields ({', '.join(places)}); got "
            f"{len(there)}. Check that it is the right file."
        )
    return raw.rows.select(pl.col(f"column_{place}").alias(new) for new, place in places.items())


def checked(
    rows: pl.LazyFrame, where: Callable[[int], str], path: Path, *, counts: bool = False
) -> pl.LazyFrame:
    """Check the rows of a strict source, and convert their columns to the right types.

    Parameters
    ----------
    rows : LazyFrame
        The columns user, item, value and optionally time. Read once or twice.
    where : callable
        Returns the position of a row in words, for the message.
    path : Path
        The file, for the message if there are no rows.
    counts : bool
        Whether values must be whole numbers of at least 1.

    Returns
    -------
    LazyFrame
        ``value`` is Int64 if all are whole numbers, else Float64; ``time`` is Int64.

    Raises
    ------
    DataError
        At the first id that is missing or not text, value that is not a finite number, or time that
        is not a whole number.
    EmptyDataError
        If there are no rows.
    """
    schema = rows.collect_schema()
    good: dict[str, pl.Expr] = {}
    for name, dtype in schema.items():
        if name in {"user", "item"}:
            good[name] = pl.col(name) != "" if dtype == pl.String else pl.lit(value=False)
        elif dtype == pl.Boolean:
            good[name] = pl.lit(value=False)
        else:
            good[name] = (_whole if name == "time" or counts else _real)(name).is_not_null()
    if counts:
        good["value"] &= _whole("value") >= 1
    found = rows.select(
        pl.len().alias("rows"),
        _whole("value").is_not_null().all().alias("whole"),
        *(fits.fill_null(value=False).all().alias(name) for name, fits in good.items()),
    ).collect(engine="streaming").row(0, named=True)  # fmt: skip
    if not found["rows"]:
        raise EmptyDataError(f"{str(path)!r} has no rows; get the file again.")
    for name, fits in good.items():
        if not found[name]:
            raise _bad(rows, name, fits, where, counts=counts)
    value = _whole("value") if found["whole"] else _real("value")
    times = [_whole("time")] if "time" in schema else []
    return rows.with_columns(value, *times)


def _real(name: str) -> pl.Expr:
    """Return the finite number in a column of text or numbers, or null."""
    number = pl.col(name).cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number)


def _whole(name: str) -> pl.Expr:
    """Return the whole number (also ``5.0``) in a column of text or numbers, or null."""
    number = pl.col(name).cast(pl.Float64, strict=False)
    exact = (number == number.round()) & (number.abs() <= 2**53)
    as_float = pl.when(exact).then(number).cast(pl.Int64, strict=False)
    as_integer = pl.col(name).cast(pl.String).cast(pl.Int64, strict=False)
    return pl.coalesce(as_integer, as_float).alias(name)


def _bad(
    rows: pl.LazyFrame,
    name: str,
    fits: pl.Expr,
    where: Callable[[int], str],
    *,
    counts: bool,
) -> DataError:
    first = rows.select(
        row=pl.int_range(pl.len()), value=pl.col(name), fits=fits.fill_null(value=False)
    ).filter(~pl.col("fits")).head(1).collect().row(0, named=True)  # fmt: skip
    number = "a whole number of at least 1" if counts else "a finite number"
    must = {"value": number, "time": "a whole number of seconds since 1970"}.get(
        name, "an id as text"
    )
    place = where(first["row"])
    return DataError(
        f"The {name} of {place} must be {must}; got {first['value']!r}. Correct or remove the line."
    )
