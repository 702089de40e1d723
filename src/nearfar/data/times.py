"""Columns of times as numbers; `nearfar.data.moments` says how dates become numbers."""

from __future__ import annotations

from typing import Final

import polars as pl

from nearfar.data.moments import ISO

LOOKS_ISO: Final = r"^\s*[0-9]{4}-[0-9]{2}-[0-9]{2}"
"""Text that starts like this is a date, not a number."""


def microseconds(text: pl.Expr) -> pl.Expr:
    """Return the microseconds since 1970 (Int64) of ISO text; null for other text."""
    parts = text.str.extract_groups(ISO).struct

    def number(name: str) -> pl.Expr:
        return parts.field(name).cast(pl.Int64).fill_null(0)

    day = parts.field("day").str.to_date("%Y-%m-%d", strict=False).cast(pl.Int64)
    zone = 60 * number("zone_hour") + number("zone_minute")
    zone = pl.when(parts.field("sign") == "-").then(-zone).otherwise(zone)
    minutes = 60 * (24 * day + number("hour")) + number("minute") - zone
    fraction = parts.field("fraction").str.slice(0, 6).str.pad_end(6, "0")
    seconds = 60 * minutes + number("second")
    return 1_000_000 * seconds + fraction.cast(pl.Int64).fill_null(0)
