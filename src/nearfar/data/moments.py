"""A single time as a number: dates and datetimes as whole microseconds since 1970, in UTC.

Dates are midnight. A datetime without a zone is UTC. Fractions of a second beyond six digits are
cut off. Text is read as ISO 8601: ``2019-05-01``, ``2019-05-01T12:30``, ``2019-05-01 12:30:00.25Z``
or ``2019-05-01T12:30:00+02:00``. `nearfar.data.times` does the same for columns.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from nearfar.errors import OptionError
from nearfar.runtime.checks import is_integer, real, said

ISO: Final = (
    r"^\s*(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[Tt ](?P<hour>[01][0-9]|2[0-3])"
    r"(?::?(?P<minute>[0-5][0-9])(?::?(?P<second>[0-5][0-9])(?:[.,](?P<fraction>[0-9]+))?)?)?"
    r"\s*(?:[Zz]|UTC|(?P<sign>[+-])(?P<zone_hour>[0-9]{2})(?::?(?P<zone_minute>[0-9]{2}))?)?)?\s*$"
)
"""A date, and perhaps a time of day and a zone."""
AS_ISO: Final = "2019-05-01 or 2019-05-01T12:30:00Z"
"""Examples, for messages."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


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

    Examples
    --------
    >>> moment("at", 5), moment("at", "1970-01-01T00:00:01Z"), moment("at", date(1970, 1, 2))
    (5, 1000000, 86400000000)
    """
    if is_integer(value):
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


def as_microseconds(times: npt.NDArray[np.datetime64]) -> npt.NDArray[np.int64]:
    """Return the microseconds since 1970 of an array of datetime64 without NaT."""
    return times.astype("datetime64[us]").astype(np.int64)


def _since_1970(value: Any) -> int | None:
    if isinstance(value, str):
        return _of_text(value)
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else int(as_microseconds(np.array([value]))[0])
    if value != value:  # pandas' NaT is a datetime
        return None
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    return int((aware - _EPOCH) // timedelta(microseconds=1))


def _of_text(text: str) -> int | None:
    found = re.match(ISO, text)
    if found is None:
        return None
    try:
        days = (date.fromisoformat(found["day"]) - _EPOCH.date()).days
    except ValueError:  # such as February 30
        return None
    names = ("hour", "minute", "second", "zone_hour", "zone_minute")
    hour, minute, second, zone_hour, zone_minute = (int(found[name] or 0) for name in names)
    zone = 60 * zone_hour + zone_minute
    minutes = 60 * (24 * days + hour) + minute + (zone if found["sign"] == "-" else -zone)
    fraction = int((found["fraction"] or "")[:6].ljust(6, "0"))
    return 1_000_000 * (60 * minutes + second) + fraction
