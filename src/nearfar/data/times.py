"""Times: numbers as they are; dates and datetimes as whole microseconds since 1970, in UTC.

Dates are midnight. A datetime without a zone is UTC. Fractions of a second beyond six digits are
cut off. Text is read as ISO 8601: ``2019-05-01``, ``2019-05-01T12:30``, ``2019-05-01 12:30:00.25Z``
or ``2019-05-01T12:30:00+02:00``.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from numbers import Integral
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from nearfar.errors import OptionError
from nearfar.runtime.checks import real, said

_ISO: Final = (
    r"^\s*(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt ](?P<hour>[01][0-9]|2[0-3])"
    r"(?::?(?P<minute>[0-5][0-9])(?::?(?P<second>[0-5][0-9])(?:[.,](?P<fraction>[0-9]+))?)?)?"
    r"\s*(?:[Zz]|UTC|(?P<sign>[+-])(?P<zone_hour>[0-9]{2})(?::?(?P<zone_minute>[0-9]{2}))?)?)?\s*$"
)
LOOKS_ISO: Final = r"^\s*[0-9]{4}-[0-9]{2}-[0-9]{2}"
"""Text that starts like this is a date, not a number."""
AS_ISO: Final = "2019-05-01 or 2019-05-01T12:30:00Z"
"""Examples, for messages."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(text: pl.Expr) -> pl.Expr:
    """Return the microseconds since 1970 (Int64) of ISO text; null for other text."""
    parts = text.str.extract_groups(_ISO).struct

    def number(name: str) -> pl.Expr:
        return parts.field(name).cast(pl.Int64).fill_null(0)

    day = parts.field("day").str.to_date("%Y-%m-%d", strict=False).cast(pl.Int64)
    zone = 60 * number("zone_hour") + number("zone_minute")
    zone = pl.when(parts.field("sign") == "-").then(-zone).otherwise(zone)
    minutes = 60 * (24 * day + number("hour")) + number("minute") - zone
    fraction = parts.field("fraction").str.slice(0, 6).str.pad_end(6, "0")
    seconds = 60 * minutes + number("second")
    return 1_000_000 * seconds + fraction.cast(pl.Int64).fill_null(0)


def moment(name: str, value: Any) -> int | float:
    """Return a number as it is, and a date, a datetime or ISO text as microseconds since 1970.

    Parameters
    ----------
    name : str
        The argument, without backquotes.
    value : int, float, date, datetime, numpy.datetime64 or str

    Raises
    ------
    OptionError
        It is anything else, or not a time, such as NaT.
    """
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    if not is_date(value):
        remedy = f"It can also be a date, a datetime or ISO text, such as {AS_ISO}."
        return real(name, value, remedy=remedy)
    since = _since_1970(value)
    if since is None:
        raise OptionError(
            f"`{name}` must be a number, a date, a datetime or ISO text, such as {AS_ISO}; got "
            f"{said(value)}."
        )
    return since


def is_date(value: Any) -> bool:
    """Return whether a value stands for a date or a datetime, and not for a number."""
    return isinstance(value, (date, np.datetime64, str))


def _since_1970(value: Any) -> int | None:
    if isinstance(value, str):
        found: int | None = pl.select(microseconds(pl.lit(value, pl.String))).item()
        return found
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else int(counted(np.array([value]))[0])
    if value != value:  # pandas' NaT is a datetime
        return None
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    return int((aware - _EPOCH) // timedelta(microseconds=1))


def counted(times: npt.NDArray[np.datetime64]) -> npt.NDArray[np.int64]:
    """Return the microseconds since 1970 of an array of datetime64 without NaT."""
    return times.astype("datetime64[us]").astype(np.int64)
