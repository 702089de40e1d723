"""Times as users have them: numbers, dates, datetimes and ISO text."""

import re
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pytest

from nearfar import split
from nearfar.data.ids import Ids
from nearfar.data.interactions import Interactions
from nearfar.data.moments import moment
from nearfar.errors import DataError, OptionError
from nearfar.prepare import prepare

DAY = 86_400_000_000
MAY = 1_556_668_800_000_000
"""2019-05-01, in microseconds since 1970."""
TEXTS = {
    "2019-05-01": MAY,
    " 2019-05-01 ": MAY,
    "2019-05-01T00:00": MAY,
    "2019-05-01 00:00:00": MAY,
    "2019-05-01t00:00:00Z": MAY,
    "2019-05-01T00:00:00 UTC": MAY,
    "2019-05-01T02:00:00+02:00": MAY,
    "2019-05-01T0200+0200": MAY,
    "2019-04-30 18:30:00-05:30": MAY,
    "2019-05-01T00": MAY,
    "2019-05-01T00:00:00.25": MAY + 250_000,
    "2019-05-01T00:00:00,000001Z": MAY + 1,
    "2019-05-01T00:00:00.123456789": MAY + 123_456,
    "1969-12-31T23:59:59.999999Z": -1,
    "1900-02-28": -2_203_977_600_000_000,
    "2019-02-29": None,
    "2019-13-01": None,
    "2019-05-01T24:00": None,
    "2019-05-01T10:60": None,
    "2019-05-01 noon": None,
    "2019-05-01Z": None,
    "20190501": 20190501,
}


def of_text(*texts):
    frame = pl.DataFrame({"user": ["a"] * len(texts), "item": range(len(texts)), "t": texts})
    return Interactions.from_frame(frame, time="t").times.tolist()


@pytest.mark.parametrize("value", [timedelta(1), np.timedelta64(3, "s")])
def test_a_duration_is_no_time(value):
    with pytest.raises(OptionError, match=r"`at` must be a finite number; got .* also be a date"):
        moment("at", value)


@pytest.mark.parametrize("text", TEXTS)
def test_iso_text_is_microseconds(text):
    expected = TEXTS[text]
    if expected is None:
        with pytest.raises(
            DataError, match=r"Column 't' must hold ISO dates or times, as its first"
        ):
            of_text("2019-05-01", text)
        with pytest.raises(OptionError, match="`at` must be a number, a date"):
            moment("at", text)
        return
    assert of_text(text) == [expected]
    if expected != 20190501:
        assert of_text("2019-05-01", text) == [MAY, expected]
        assert moment("at", text) == expected
        back = pd.Timestamp(text.strip().replace(",", ".").upper())
        aware = back if back.tzinfo else back.tz_localize("UTC")
        assert aware.value // 1000 == expected


def test_iso_text_is_read_from_every_door(tmp_path):
    rows = [("ann", "tea", "2019-05-01"), ("bob", "tea", "2019-05-02T12:00:00Z")]
    expected = [MAY, MAY + DAY + DAY // 2]
    assert Interactions.from_pairs(rows).times.tolist() == expected
    (tmp_path / "a.csv").write_text("user,item,time\n" + "".join(f"{','.join(r)}\n" for r in rows))
    assert Interactions.read(tmp_path / "a.csv", time="time").times.tolist() == expected
    table = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    assert prepare(table)[0].times.tolist() == expected
    assert prepare(table.lazy())[0].times.tolist() == expected


@pytest.mark.parametrize(
    "moments",
    [
        [date(2019, 5, 1), date(2019, 5, 2)],
        [datetime(2019, 5, 1), date(2019, 5, 2)],
        [datetime(2019, 5, 1, tzinfo=UTC), datetime(2019, 5, 2, tzinfo=UTC)],
        [datetime(2019, 5, 1, 2, tzinfo=timezone(timedelta(hours=2))), datetime(2019, 5, 2)],
        [pd.Timestamp("2019-05-01"), pd.Timestamp("2019-05-02T00:00:00.000000999")],
        [np.datetime64("2019-05-01"), np.datetime64("2019-05-02T00")],
    ],
)
def test_dates_and_datetimes_are_the_same_microseconds(moments):
    expected = [MAY, MAY + DAY]
    made = Interactions.from_pairs([("a", i, moment) for i, moment in enumerate(moments)])
    assert made.times.tolist() == expected
    frame = pd.DataFrame({"user": ["a", "a"], "item": [0, 1], "t": moments})
    for column in (frame["t"], frame["t"].astype(object)):
        given = frame.assign(t=column)
        assert Interactions.from_frame(given, time="t").times.tolist() == expected


def test_columns_of_polars_with_a_zone_are_instants():
    zoned = pl.Series([datetime(2019, 5, 1, 2)]).dt.replace_time_zone("Europe/Berlin")
    for unit in ("ms", "us", "ns"):
        frame = pl.DataFrame({"user": [1], "item": [1], "t": zoned.dt.cast_time_unit(unit)})
        assert Interactions.from_frame(frame, time="t").times.tolist() == [MAY]
    stamps = np.array(["2019-05-01"], "M8[ns]")
    rows = Interactions.from_rows([0], [0], Ids([1]), Ids([1]), stamps)
    assert rows.times.tolist() == [MAY]
    for bad, must in (
        (np.array(["NaT"], "M8[ns]"), "dates, none of them missing; entry 0 is NaT"),
        (np.array([2**63], np.uint64), "below 2^63; entry 0 is 9223372036854775808"),
    ):
        with pytest.raises(DataError, match=f"Times must be {re.escape(must)}"):
            Interactions.from_rows([0], [0], Ids([1]), Ids([1]), bad)


LONG = 1_700_000_000_000_000_001


def test_one_fraction_among_long_times_does_not_round_them():
    message = r"must hold finite numbers, all of them whole if some are beyond 2\^53.*has '1.5'"
    with pytest.raises(DataError, match=message):
        of_text(str(LONG), "1.5")
    with pytest.raises(DataError, match=message):
        Interactions.from_pairs([("a", 1, LONG), ("a", 2, 1.5)])
    with pytest.raises(DataError, match=f"all whole numbers if some are beyond .* got {LONG}"):
        Interactions.from_rows([0, 0], [0, 1], Ids([1]), Ids([1, 2]), [LONG, 1.5])
    whole = Interactions.from_pairs([("a", 1, LONG), ("a", 2, LONG + 1)])
    assert whole.times.tolist() == [LONG, LONG + 1]
    with pytest.raises(DataError, match=f"all whole numbers if some are beyond .* got {LONG}"):
        whole.union(Interactions.from_pairs([("a", 3, 1.5)]))
    assert of_text("3", "1.5") == [3, 1.5]
    assert whole.union(Interactions.from_pairs([("a", 3, 4)])).times.dtype == np.int64


def test_decimals_keep_their_digits():
    frame = pl.DataFrame({"user": [1, 1], "item": [1, 2], "t": [Decimal(LONG), Decimal(LONG + 1)]})
    assert Interactions.from_frame(frame, time="t").times.tolist() == [LONG, LONG + 1]
    halves = frame.with_columns(t=pl.Series([Decimal("1.5"), Decimal("2.0")]))
    assert Interactions.from_frame(halves, time="t").times.tolist() == [1.5, 2.0]


@pytest.mark.parametrize("text", ["3,5", "1,234", "1.234,5", "-0,5"])
def test_a_decimal_comma_is_named(text, tmp_path):
    (tmp_path / "a.csv").write_text(f"user;item;n\na;b;4\na;c;{text}\n")
    for column in ({"value": "n", "min_value": 1}, {"time": "n"}):
        message = rf"Column 'n' .* line 3 of .* has '{text}'\. Write numbers with a decimal point"
        with pytest.raises(DataError, match=message):
            Interactions.read(tmp_path / "a.csv", separator=";", **column)


def test_text_that_is_no_time_says_what_would_be():
    for text in ("01/05/2019", "May 1, 2019", "x"):
        with pytest.raises(
            DataError, match=rf"has '{text}'\. Write times as numbers, or as 2019-05"
        ):
            of_text(text)
    with pytest.raises(
        DataError, match=r"as its first value does; row 2 .* has '17'\. Write 2019-05"
    ):
        of_text("2019-05-01", "17")


# the time of a split

FIRST, SECOND = datetime(2019, 5, 1), datetime(2019, 5, 1, 12)


@pytest.mark.parametrize(
    "at",
    [
        "2019-05-01T12:00",
        "2019-05-01T14:00:00+02:00",
        "2019-05-01 00:00:00.000001",
        SECOND,
        SECOND.replace(tzinfo=UTC),
        pd.Timestamp(SECOND),
        np.datetime64("2019-05-01T12"),
        MAY + 1,
        np.int64(MAY + 1),
        MAY + 0.5,
        np.float64(MAY + 1),
        Decimal(MAY + 1),
    ],
)
def test_a_split_at_any_moment(at):
    data = Interactions.from_pairs([("a", 1, FIRST), ("a", 2, SECOND)])
    train, test = split.by_time(data, at=at)
    assert (train.items.tolist(), test.items.tolist()) == ([0], [1])


def test_a_split_at_a_date_is_at_its_midnight():
    data = Interactions.from_pairs([("a", 1, FIRST), ("a", 2, FIRST - timedelta(microseconds=1))])
    for at in (date(2019, 5, 1), "2019-05-01", np.datetime64("2019-05-01")):
        assert split.by_time(data, at=at)[1].items.tolist() == [0]


def test_a_split_compares_long_times_exactly():
    data = Interactions.from_pairs([("a", 1, LONG), ("a", 2, LONG + 1)])
    assert split.by_time(data, at=LONG + 1)[1].items.tolist() == [1]


@pytest.mark.parametrize(
    "at",
    [
        "x",
        "",
        "5",
        "2019-05",
        "2019-02-30",
        True,
        pd.NaT,
        np.datetime64("NaT", "s"),
        [1],
        float("nan"),
    ],
)
def test_what_is_no_moment_is_refused(at):
    data = Interactions.from_pairs([("a", 1, FIRST), ("a", 2, SECOND)])
    with pytest.raises(
        OptionError, match=r"`at` must be a .*number.* ISO text, such as 2019-05-01"
    ):
        split.by_time(data, at=at)


def test_a_date_where_times_are_seconds_says_so():
    data = Interactions.from_pairs([("a", 1, 1_556_668_800), ("a", 2, 1_556_668_900)])
    message = rf"at='2019-05-01'` leaves one part .* `at` is {MAY} in microseconds since 1970; if"
    with pytest.raises(DataError, match=message):
        split.by_time(data, at="2019-05-01")
