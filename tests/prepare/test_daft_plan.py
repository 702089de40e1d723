"""Daft: the same interactions, report and lists as on one machine. Needs nearfar[daft]."""

from importlib.util import find_spec

import numpy as np
import polars as pl
import pytest

import nearfar as nf
from nearfar.errors import DataError, MissingColumnError, OptionError, SourceError
from nearfar.prepare import Rules, prepare
from nearfar.prepare.daft_plan import DaftEngine
from prepare.test_spark_plan import RULES, log

pytestmark = [
    pytest.mark.skipif(
        find_spec("daft") is None or find_spec("narwhals_daft") is None,
        reason="Daft (nearfar[daft]) is not installed",
    ),
]


def daft_frame(table):
    import daft

    return daft.from_arrow(table.to_arrow())


def same(table, rules=None, **options):
    """Check that Daft and polars prepare the same; return the report."""
    expected, report = prepare(table, rules)
    found, theirs = prepare(daft_frame(table), rules, progress=False, **options)
    assert found.fingerprint == expected.fingerprint
    assert found.user_ids.equals(expected.user_ids)
    assert found.item_ids.equals(expected.item_ids)
    assert np.array_equal(found.indptr, expected.indptr)
    assert np.array_equal(found.items, expected.items)
    assert (found.times is None) == (expected.times is None)
    assert expected.times is None or np.array_equal(found.times, expected.times)
    assert theirs == report
    return report


@pytest.mark.parametrize("kind", ["text", "numbers"])
@pytest.mark.parametrize("rules", RULES)
def test_the_result_is_that_of_one_machine(rules, kind):
    report = same(log(kind), RULES[rules])
    assert report.steps[-1].n_pairs > 0


def test_many_parts_give_the_same(monkeypatch):
    monkeypatch.setattr("nearfar.prepare.remote_plan._PART", 6_000)
    same(log(), Rules(min_value=9, repeats="sum", min_user_items=2))


@pytest.mark.slow
def test_a_million_rows():
    import time

    table = log("text", 1_000_000)
    for rules in ("threshold", "sums, to the fixed point"):
        begun = time.monotonic()
        same(table, RULES[rules])
        print(f"{rules}: both took {time.monotonic() - begun:.1f} s")


def test_times_of_all_types_are_the_same_moments():
    days = pl.datetime_range(pl.datetime(1969, 12, 30), pl.datetime(1970, 1, 4), "1d", eager=True)
    base = pl.DataFrame({"user": [1, 1, 2, 2, 3, 3], "item": [1, 2, 1, 3, 2, 3]})
    local = days.dt.replace_time_zone("America/New_York")
    for times in (days, days.cast(pl.Date), local, days.cast(pl.Datetime("ms"))):
        same(base.with_columns(time=times))
    same(base)


def test_bad_rows_are_named():
    base = {"user": [1, 2], "item": [2, 3]}
    for change, rules, error, said in (
        ({"user": [1, None]}, None, DataError, "'user' must not be missing; 1 of 2 rows are, such"),
        ({"value": [1.0, float("nan")]}, Rules(min_value=1), DataError,
         r"'value' .* NaN or infinite; 1 of 2 rows are, such as nan"),
        ({"value": [None, float("inf")]}, Rules(min_value=1), DataError, r"2 of 2 rows are"),
        ({"item": [2.5, 3.0]}, None, DataError, "'item' is of the type Float64"),
        ({"time": ["x", "y"]}, None, DataError, "'time' must hold numbers, dates or times; its"),
        ({}, Rules(min_value=1), OptionError, "no column 'value'"),
    ):  # fmt: skip
        with pytest.raises(error, match=said):
            prepare(daft_frame(pl.DataFrame({**base, **change})), rules)
    with pytest.raises(MissingColumnError, match="no column 'item'"):
        prepare(daft_frame(pl.DataFrame({"user": [1], "thing": [2]})))


def test_temporary_files_are_removed(tmp_path):
    same(log(n=2_000), Rules(min_value=4), scratch=tmp_path)
    assert list(tmp_path.iterdir()) == []
    engine = DaftEngine()
    with engine.scratch(str(tmp_path)) as place:
        engine.keep(daft_frame(log(n=100)), f"{place}/0")
        assert list(tmp_path.iterdir()) != []
    assert list(tmp_path.iterdir()) == []


def test_scratch_is_a_folder_that_all_reach(monkeypatch, tmp_path):
    with pytest.raises(OptionError, match=r"path of a folder with Daft; got 's3://bucket'"):
        prepare(daft_frame(log(n=100)), scratch="s3://bucket")

    class Ray:
        name = "ray"

    monkeypatch.setattr("daft.get_or_create_runner", Ray)
    with pytest.raises(OptionError, match=r"Daft can write to, .* got None, and Daft runs on ray"):
        prepare(daft_frame(log(n=100)))


def test_on_the_command_line(run, tmp_path):
    table = log(n=5_000).rename({"user": "who", "item": "item_id"})
    table.write_parquet(tmp_path / "log.parquet")
    table.write_csv(tmp_path / "log.csv")
    words = ("--user", "who", "--value", "value", "--min-value", 4, "--min-user-items", 2)
    code, other, err = run("prepare", tmp_path / "log.parquet", "-o", tmp_path / "b", *words)
    assert code == 0, err
    expected = nf.Interactions.load(tmp_path / "b")
    for form in ("parquet", "csv"):
        raw = tmp_path / f"log.{form}"
        code, said, err = run("prepare", raw, "-o", tmp_path / form, "--engine", "daft", *words)
        assert code == 0, err
        assert said.replace(f"/{form}", "/b") == other
        assert nf.Interactions.load(tmp_path / form).fingerprint == expected.fingerprint
    raw = tmp_path / "log.parquet"
    code, _, err = run("prepare", f"{raw}x", "-o", tmp_path / "c", "--engine", "daft")
    assert code == 1
    assert "Daft cannot read" in err
    code, _, err = run("prepare", raw, "-o", tmp_path / "c", "--engine", "daft", "--separator", ";")
    assert code == 2
    assert "--engine polars" in err
    code, _, err = run("prepare", raw, "-o", tmp_path / "c", "--engine", "daft", "--user", "nobody")
    assert code == 1
    assert "nobody" in err


def test_an_address_that_daft_cannot_read():
    from nearfar.prepare.remote_source import remote_log

    with pytest.raises(SourceError, match=r"Daft cannot read '/nowhere/x\.jsonl' as json"):
        remote_log("daft", "/nowhere/x.jsonl", {})
