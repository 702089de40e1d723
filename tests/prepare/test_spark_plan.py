"""Spark: the same interactions, report and lists as on one machine. Needs PySpark and Java 17."""

import shutil
from importlib.util import find_spec

import numpy as np
import polars as pl
import pytest

import nearfar as nf
from nearfar.errors import DataError, MissingColumnError, OptionError, SourceError
from nearfar.prepare import Rules, prepare
from nearfar.prepare.spark_plan import SparkEngine, spark_scratch

there = find_spec("pyspark") is not None and shutil.which("java") is not None
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not there, reason="PySpark (nearfar[spark]) or Java 17 is not installed"),
    # Py4J, by which PySpark talks to Java, leaves its sockets to the collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
RULES = {
    "threshold": Rules(min_value=4, min_user_items=3, min_item_users=3),
    "sums, to the fixed point": Rules(
        min_value=6, repeats="sum", core="fixed-point", min_user_items=2, min_item_users=2
    ),
    "items first": Rules(
        min_value=4, order="items-users-value", min_user_items=2, min_item_users=4
    ),
    "all": Rules(),
}


@pytest.fixture(scope="module")
def session():
    from pyspark.sql import SparkSession

    made = SparkSession.builder.master("local[2]").appName("nearfar")
    for name, value in {
        "ui.enabled": "false", "ui.showConsoleProgress": "false", "driver.memory": "1g",
        "driver.host": "127.0.0.1", "driver.bindAddress": "127.0.0.1",
        "sql.shuffle.partitions": "3", "sql.session.timeZone": "America/New_York",
    }.items():  # fmt: skip
        made = made.config(f"spark.{name}", value)
    running = made.getOrCreate()
    running.sparkContext.setLogLevel("OFF")
    yield running
    running.stop()


def log(kind="text", n=20_000, seed=0):
    rng = np.random.default_rng(seed)
    users = (rng.random(n) ** 2 * n / 10).astype(int)
    return pl.DataFrame(
        {
            "user": [f"\u00fc{one}" for one in users] if kind == "text" else users,
            "item": (rng.random(n) ** 3 * n / 20).astype(int),
            "value": rng.integers(1, 6, n).astype(float) / 2 + 2,
            "time": rng.integers(0, 10**9, n),
        }
    )


@pytest.fixture(scope="module", params=["text", "numbers"])
def both(session, tmp_path_factory, request):
    """A log as a polars frame, and as one of Spark."""
    table = log(request.param)
    file = tmp_path_factory.mktemp("log") / "log.parquet"
    table.write_parquet(file)
    return table, session.read.parquet(f"file://{file}")


@pytest.mark.parametrize("rules", RULES)
def test_the_result_is_that_of_one_machine(both, rules):
    table, frame = both
    expected, report = prepare(table, RULES[rules])
    found, theirs = prepare(frame, RULES[rules], progress=False)
    assert found.fingerprint == expected.fingerprint
    assert found.user_ids.equals(expected.user_ids)
    assert found.item_ids.equals(expected.item_ids)
    assert np.array_equal(found.times, expected.times)
    assert theirs == report


def test_many_parts_give_the_same(both, monkeypatch):
    table, frame = both
    rules = Rules(min_value=9, repeats="sum", min_user_items=2)
    expected, report = prepare(table, rules)
    monkeypatch.setattr("nearfar.prepare.remote_plan._PART", 6_000)
    found, theirs = prepare(frame, rules, progress=False)
    assert (found.fingerprint, theirs) == (expected.fingerprint, report)


def test_times_of_all_types_are_the_same_moments(session):
    days = pl.datetime_range(pl.datetime(2020, 1, 1), pl.datetime(2020, 1, 6), "1d", eager=True)
    base = pl.DataFrame({"user": [1, 1, 2, 2, 3, 3], "item": [1, 2, 1, 3, 2, 3]})
    for times, kind in (
        (days, "timestamp_ntz"),
        (days.cast(pl.Date), "date"),
        (days.dt.replace_time_zone("UTC"), "timestamp"),
    ):
        table = base.with_columns(time=times)
        frame = session.createDataFrame(table.rows(), f"user int, item int, time {kind}")
        expected, _ = prepare(table)
        found, _ = prepare(frame, progress=False)
        assert found.fingerprint == expected.fingerprint


def test_bad_rows_are_named(session):
    rated = "user int, item int, value double"
    frame = session.createDataFrame([(1, 2, 1.0), (None, 2, 1.0)], rated)
    with pytest.raises(DataError, match="'user' must not be missing; 1 of 2 rows"):
        prepare(frame)
    frame = session.createDataFrame([(1, 2, float("nan"))], rated)
    with pytest.raises(
        DataError, match=r"'value' .* NaN or infinite; 1 of 1 rows are, such as nan"
    ):
        prepare(frame, Rules(min_value=1))
    with pytest.raises(DataError, match="'item' is of the type Float64"):
        prepare(session.createDataFrame([(1, 2.5)], "user int, item double"))
    with pytest.raises(DataError, match="'time' must hold numbers, dates or times; its"):
        prepare(session.createDataFrame([(1, 2, "x")], "user int, item int, time string"))
    with pytest.raises(MissingColumnError, match="no column 'item'"):
        prepare(session.createDataFrame([(1, 2)], "user int, thing int"))
    with pytest.raises(OptionError, match="no column 'value'"):
        prepare(session.createDataFrame([(1, 2)], "user int, item int"), Rules(min_value=1))


def test_temporary_files_are_removed(session, both, tmp_path):
    _, frame = both
    prepare(frame, Rules(min_value=4), scratch=f"file://{tmp_path}", progress=False)
    assert list(tmp_path.iterdir()) == []
    with spark_scratch(session, f"file://{tmp_path}") as place:
        SparkEngine(session).keep(frame, f"{place}/0")
        assert list(tmp_path.iterdir()) != []
    assert list(tmp_path.iterdir()) == []


class Remote:
    """A session whose executors are on other machines."""

    conf = {"spark.master": "yarn"}  # noqa: RUF012


def test_a_cluster_needs_a_folder_that_it_reaches():
    with (
        pytest.raises(OptionError, match="`scratch` must be the address of a folder"),
        spark_scratch(Remote(), None),
    ):
        pass


def test_on_the_command_line(session, run, tmp_path):
    table = log().rename({"user": "who", "item": "item_id"})
    table.write_parquet(tmp_path / "log.parquet")
    raw = f"file://{tmp_path}/log.parquet"
    words = ("--user", "who", "--value", "value", "--min-value", 4, "--min-user-items", 2)
    code, said, err = run("prepare", raw, "-o", tmp_path / "a", "--engine", "spark", *words)
    assert code == 0, err
    code, other, err = run("prepare", tmp_path / "log.parquet", "-o", tmp_path / "b", *words)
    assert code == 0, err
    assert said.replace("/a", "/b") == other
    one, two = (nf.Interactions.load(tmp_path / name) for name in "ab")
    assert one.fingerprint == two.fingerprint
    code, _, err = run("prepare", raw, "-o", tmp_path / "c", "--engine", "spark")
    assert code == 1
    assert "pass its name as `--user`" in " ".join(err.split())
    code, _, err = run("prepare", f"{raw}x", "-o", tmp_path / "c", "--engine", "spark")
    assert code == 1
    assert "Spark cannot read" in err
    code, _, err = run(
        "prepare", raw, "-o", tmp_path / "c", "--engine", "spark", "--separator", ";"
    )
    assert code == 2
    assert "--engine polars" in err


# ------------------------------------------------------------------------------- recommending


@pytest.mark.parametrize("kind", ["text", "numbers"])
def test_lists_are_those_of_recommend_all(session, kind, tmp_path):
    data = nf.Interactions.from_frame(log(kind, 4_000), user="user", item="item")
    model = nf.CML(dim=8).fit(data, epochs=1)
    model.save(tmp_path / "m")
    users = session.createDataFrame([(one,) for one in data.user_ids], ["user_id"]).repartition(3)
    found = pl.from_arrow(nf.spark.recommend(users, tmp_path / "m", k=5).toArrow())
    expected = model.recommend_all(k=5)
    found = found.cast(dict(expected.schema)).sort("user_id", "rank")
    assert found.equals(expected.sort("user_id", "rank"))
    less = nf.spark.recommend(users, tmp_path / "m", k=5, popularity=0.0, exclude_seen=False)
    other = model.recommend_all(k=5, popularity=0.0, exclude_seen=False)
    found = pl.from_arrow(less.toArrow()).cast(dict(other.schema)).sort("user_id", "rank")
    assert found.equals(other.sort("user_id", "rank"))


def test_users_that_are_not_known(session, tmp_path):
    data = nf.Interactions.from_frame(log("numbers", 2_000), user="user", item="item")
    nf.CML(dim=8).fit(data, epochs=1).save(tmp_path / "m")
    users = session.createDataFrame([(0,), (10**6,)], ["user_id"])
    found = nf.spark.recommend(users, tmp_path / "m", k=2, unknown="skip").toArrow()
    assert set(found["user_id"].to_pylist()) == {0}
    with pytest.raises(Exception, match="1000000"):
        nf.spark.recommend(users, tmp_path / "m", k=2).toArrow()
    with pytest.raises(DataError, match="type string, and those of the model are integers"):
        nf.spark.recommend(session.createDataFrame([("a",)], ["user_id"]), tmp_path / "m")
    with pytest.raises(DataError, match="in its only one; it has a, b"):
        nf.spark.recommend(session.createDataFrame([(1, 2)], ["a", "b"]), tmp_path / "m")
    with pytest.raises(OptionError, match="`users` must be a DataFrame of PySpark"):
        nf.spark.recommend([1], tmp_path / "m")


def test_an_address_that_spark_cannot_read(session):
    from nearfar.prepare.remote_source import remote_log

    with pytest.raises(SourceError, match=r"cannot read 'file:///nowhere\.orc' as orc"):
        remote_log("spark", "file:///nowhere.orc", {})
