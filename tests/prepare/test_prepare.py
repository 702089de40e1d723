"""`prepare` against a few lines of plain Python that do what the rules say, one row at a time."""

from typing import get_args

import narwhals.stable.v2 as nw
import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nearfar as nf
from nearfar import Interactions
from nearfar.errors import (
    DataError,
    EmptyDataError,
    MissingColumnError,
    OptionError,
    StoreError,
)
from nearfar.prepare import Rules, _filtered, prepare
from nearfar.prepare.compressed import compressed
from nearfar.prepare.pair_plan import Survivors, merged, numbered, weighed
from nearfar.prepare.polars_plan import PolarsPlan
from nearfar.prepare.rules import Order, Paper
from nearfar.readers.raw import Raw

TABLE = pl.DataFrame(
    {
        "user": ["a", "a", "a", "b", "b", "c", "c", "a"],
        "item": [1, 2, 3, 1, 2, 1, 4, 1],
        "value": [5, 4, 3, 4, 5, 4, 4, 5],
        "time": [9, 1, 1, 1, 1, 1, 1, 2],
    }
)


def pairs_after(report):
    return [step.n_pairs for step in report.steps]


def pairs_of(data):
    frame = data.to_frame()
    return set(zip(frame["user_id"], frame["item_id"], strict=True))


def timed_pairs_of(data):
    return {(user, item): time for user, item, time in data.to_frame().rows()}


def by_hand(rows, rules):
    """Give {(user, item): time} of rows of (user, item, value, time)."""

    def reaches(value):
        if rules.min_value is None:
            return True
        return value > rules.min_value if rules.strictly else value >= rules.min_value

    values, times = {}, {}
    for user, item, value, time in rows:
        values.setdefault((user, item), []).append(value)
        times.setdefault((user, item), []).append((not reaches(value), time))
    if rules.repeats == "sum":
        good = {pair for pair, of in values.items() if reaches(sum(of))}
        time_of = {pair: min(time for _, time in of) for pair, of in times.items()}
    else:
        good = {pair for pair, of in values.items() if any(map(reaches, of))}
        time_of = {pair: min(of)[1] for pair, of in times.items()}
    left = set(values)

    def enough(left, side, least):
        ids = [pair[side] for pair in left]
        return {pair for pair in left if ids.count(pair[side]) >= least}

    leasts = {"users": (0, rules.min_user_items), "items": (1, rules.min_item_users)}
    for step in rules.steps:
        if step == "value":
            left &= good
        elif rules.core == "once":
            left = enough(left, *leasts[step])
        else:
            while (fewer := enough(enough(left, *leasts["users"]), *leasts["items"])) != left:
                left = fewer
    return {pair: time_of[pair] for pair in left}


RULES = st.builds(
    dict,
    min_value=st.sampled_from([None, 2, 3]),
    strictly=st.booleans(),
    repeats=st.sampled_from(["any", "sum"]),
    min_user_items=st.integers(1, 3),
    min_item_users=st.integers(1, 3),
    core=st.sampled_from(["once", "fixed-point"]),
    order=st.sampled_from(get_args(Order)),
)
ROW = st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 4), st.integers(0, 9))


PARTS = [
    pytest.param(2**22, id="one part", marks=pytest.mark.full),
    pytest.param(7, id="few parts"),
    pytest.param(1, id="a part a user", marks=pytest.mark.full),
]


@pytest.fixture(params=PARTS)
def parts(request, monkeypatch):
    """Cut the rows into parts of this size."""
    monkeypatch.setattr("nearfar.prepare.polars_plan._PART", request.param)


@pytest.mark.usefixtures("parts")
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROW, min_size=1, max_size=60), options=RULES)
def test_the_rules_do_what_they_say(rows, options):
    if options["min_value"] is None:
        options |= {"strictly": False, "repeats": "any"}
    if options["order"].split("-")[1] == "value":
        options["core"] = "once"
    rules = Rules(**options)
    expected = by_hand(rows, rules)
    table = pl.DataFrame(rows, schema=["user", "item", "value", "time"], orient="row")
    if not expected:
        with pytest.raises(EmptyDataError, match="Nothing is left after this step"):
            prepare(table, rules)
        return
    data, report = prepare(table, rules)
    assert timed_pairs_of(data) == expected
    assert report.n_pairs == len(expected) == report.steps[-1].n_pairs
    assert report.n_users == len({user for user, _ in expected}) == report.steps[-1].n_users
    assert report.n_items == len({item for _, item in expected}) == report.steps[-1].n_items
    assert data == Interactions.from_pairs([(*pair, time) for pair, time in expected.items()])


def test_steps_are_counted_in_order():
    rules = Rules(min_value=4, min_user_items=2, min_item_users=2)
    data, report = prepare(TABLE, rules)
    assert [step.name for step in report.steps] == [
        "read", "value >= 4", "each pair once", "users with at least 2 items",
        "items with at least 2 users",
    ]  # fmt: skip
    assert pairs_after(report) == [8, 7, 6, 6, 5]
    assert [step.n_users for step in report.steps] == [None, None, 3, 3, 3]
    assert [step.n_items for step in report.steps] == [None, None, 3, 3, 2]
    assert pairs_of(data) == {("a", 1), ("a", 2), ("b", 1), ("b", 2), ("c", 1)}
    assert data.times[0] == 2
    assert (report.n_users, report.n_items, report.n_pairs) == (3, 2, 5)
    assert report.density == 5 / 6
    assert report.user_quantiles == (1, 1.5, 2, 2, 2)
    assert report.item_quantiles == (2, 2.25, 2.5, 2.75, 3)


def test_the_report_as_text():
    _, report = prepare(TABLE, Rules(min_value=4, min_user_items=2, min_item_users=2))
    text = str(report)
    assert "            8                                        read\n" in text
    assert "            7             1                          value >= 4\n" in text
    assert (
        "            5             1           3           2  items with at least 2 users" in text
    )
    assert "density                         83.3%" in text
    assert "items of a user: 1 / 1.5 / 2 / 2 / 2 (minimum, quartiles, maximum)" in text
    beside = report.text(Paper(Rules(), 11_181, 94_661, 620_059))
    assert "users                               3           11,181\n" in beside
    assert "density                         83.3%          0.0586%\n" in beside
    assert "interactions of a user            1.7             55.5\n" in beside


def test_the_ways_to_read_repeated_rows():
    log = pl.DataFrame({"user": ["a"] * 4 + ["b"], "item": [1, 1, 1, 2, 2]})
    assert pairs_of(prepare(log, Rules(min_value=3, repeats="sum"))[0]) == {("a", 1)}
    with pytest.raises(OptionError, match="With `repeats` 'sum' each row is worth 1"):
        prepare(log, Rules(min_value=3))
    plays = log.with_columns(value=pl.Series([1, 1, 1, 2, 3]))
    _, report = prepare(plays, Rules(min_value=3, repeats="sum"))
    assert [step.name for step in report.steps][1:] == ["each pair once", "sum of the values >= 3"]
    assert pairs_after(report) == [5, 3, 2]


def test_rows_that_a_recipe_leaves_out_are_counted_by_their_reason():
    why = [None, "wrong song", None, "wrong song", "no song", None, None, None]
    raw = Raw(TABLE.with_columns(dropped=pl.Series(why)).lazy())
    data, report = prepare(raw)
    assert [(step.name, step.n_pairs) for step in report.steps[:3]] == [
        ("read", 8), ("without: no song", 7), ("without: wrong song", 5),
    ]  # fmt: skip
    assert pairs_of(data) == {("a", 1), ("a", 3), ("c", 1), ("c", 4)}


def test_what_is_known_about_the_items_stays_with_them():
    titles = pl.DataFrame({"item_id": [4, 1, 9], "title": ["four", "one", "nine"]})
    data, _ = prepare(Raw(TABLE.lazy(), items=titles))
    assert data.item_table.rows() == [(1, "one"), (4, "four")]
    assert data.titles([1, 2, 4]) == ["one", None, "four"]


def test_it_does_not_matter_in_which_order_the_rows_come():
    made = [prepare(TABLE.sample(fraction=1, shuffle=True, seed=s), Rules(4))[0] for s in range(9)]
    assert len(set(made)) == 1


def test_a_file_is_read_lazily(tmp_path):
    TABLE.write_parquet(tmp_path / "t.parquet")
    eager, lazy = (
        prepare(TABLE, Rules(4)),
        prepare(pl.scan_parquet(tmp_path / "t.parquet"), Rules(4)),
    )
    assert eager == lazy


@pytest.mark.parametrize("dtype", [pl.Int64, pl.Int8, pl.UInt32, pl.Float64, pl.String,
                                   pl.Categorical])  # fmt: skip
def test_ids_keep_their_type(dtype):
    ids = TABLE["item"].cast(pl.String if dtype == pl.Categorical else dtype)
    table = TABLE.with_columns(item=ids.cast(dtype))
    data, _ = prepare(table)
    assert data == Interactions.from_frame(table, "user", "item", time="time")
    kept = {pl.Float64: pl.Int64, pl.Categorical: pl.String}.get(dtype, dtype)
    assert data.item_ids.dtype == kept


def test_ids_that_are_neither_integers_nor_text_are_refused():
    table = pl.DataFrame({"user": pl.Series([1, "1", (1, 2)], dtype=pl.Object), "item": [1, 1, 2]})
    with pytest.raises(DataError, match=r"user id of row 3 .* is \(1, 2\) of type tuple. Ids must"):
        prepare(table)
    with pytest.raises(DataError, match="user ids are of mixed types"):
        prepare(table.head(2))
    kept = pl.DataFrame({"user": pl.Series([1, 2.0], dtype=pl.Object), "item": ["a", "b"]})
    assert pairs_of(prepare(kept)[0]) == {(1, "a"), (2, "b")}
    with pytest.raises(DataError, match=r"Item ids of type Binary, such as b'1', are not supp"):
        prepare(TABLE.with_columns(item=pl.col("item").cast(pl.String).cast(pl.Binary)))


@pytest.mark.parametrize("grouped", [1, 3])
def test_ids_are_found_part_by_part(monkeypatch, tmp_path, grouped):
    monkeypatch.setattr("nearfar.prepare.polars_plan._GROUPED", grouped)
    engine = PolarsPlan(TABLE.height, tmp_path)
    axis = engine.number(nw.from_native(TABLE.lazy()), "user", cut=True).collect()
    assert axis["user"].to_list() == ["a", "b", "c"]
    assert axis["n"].to_list() == [4, 2, 2]
    assert axis["row"].to_list() == [0, 1, 2]
    assert prepare(TABLE)[0] == Interactions.from_frame(TABLE, "user", "item", time="time")


def placed(table, other, folder):
    """Number the ids of a table, then read another one in its place."""
    engine = PolarsPlan(table.height, folder)
    rows, changed = (nw.from_native(one.drop("value").lazy()) for one in (table, other))
    users = engine.number(rows, "user", cut=True)
    items = engine.number(rows, "item")
    parts = engine.split(numbered(changed, users, items), "key")
    Survivors(engine, [engine.keep(merged(part, add=False)) for part in parts]).check(users)


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("other", [TABLE.head(7), pl.concat([TABLE, TABLE.head(1)]),
                                   TABLE.with_columns(user=pl.lit("a"))])  # fmt: skip
def test_a_table_that_changes_while_it_is_read_is_refused(other, tmp_path):
    placed(TABLE, TABLE, tmp_path)
    with pytest.raises(DataError, match="The table has changed while it was read"):
        placed(TABLE, other, tmp_path)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("times", [None, np.int64, np.float64])
def test_long_lists_are_sorted(times, weighted, tmp_path):
    """Against Python's sort of the rows; once more with the pairs of each part in disorder."""
    rng = np.random.default_rng(0)
    counts = np.array([0, 1, 32, 33, 300, 2])
    n = counts.sum()
    users, items = np.repeat(np.arange(6), counts), rng.integers(0, 50, n)
    columns = {"key": users * 2**32 + items}
    if times:
        columns["time"] = rng.integers(0, 3, n).astype(times)
    if weighted:
        columns["weight"] = rng.integers(0, 3, n).astype(float)
    expected = {}
    for row in zip(*columns.values(), strict=True):
        expected[row[0]] = min(expected.get(row[0], row[1:2]), row[1:2])
    kept = merged(nw.from_native(pl.LazyFrame(columns)), add=weighted)
    for seed in range(2):
        part = kept.collect().sample(fraction=1, seed=seed).lazy()
        found = compressed(Survivors(PolarsPlan(n, tmp_path / f"{seed}"), [part]), (6, 50))
        rows = np.repeat(found.user_rows, np.diff(found.indptr))
        keys = rows * 2**32 + found.item_rows[found.items]
        assert keys.tolist() == sorted(expected)
        assert (found.times is None) == (times is None)
        if times:
            assert found.times.dtype == times
            assert found.times.tolist() == [expected[key][0] for key in sorted(expected)]


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("timed", [False, True])
def test_fractions_are_added_in_the_order_of_time_then_value(timed):
    rng = np.random.default_rng(0)
    n = 3000
    table = pl.DataFrame({"user": rng.integers(0, 9, n), "item": rng.integers(0, 9, n),
                          "value": rng.normal(size=n) * 10.0 ** rng.integers(-9, 9, n),
                          "time": rng.integers(0, 50, n)})  # fmt: skip
    table = table if timed else table.drop("time")
    sums = {}
    for row in sorted(table.rows(), key=lambda row: (*row[:2], *row[:1:-1])):
        sums[row[:2]] = sums.get(row[:2], 0.0) + row[2]
    for least in list(sums.values())[::20]:
        data, _ = prepare(table, Rules(least, repeats="sum"))
        assert pairs_of(data) == {pair for pair, of in sums.items() if of >= least}


class PlainPlan:
    """The least that an engine must do, all in memory."""

    def keep(self, frame):
        return frame.collect().lazy()

    def number(self, rows, name, cut=False):
        ids = rows.group_by(name).agg(n=nw.len()).collect().sort(name)
        return ids.with_row_index("row").with_columns(part=nw.lit(0)).lazy()

    def split(self, rows, by):
        return [rows.drop("part")]


@pytest.mark.parametrize("order", get_args(Order))
@pytest.mark.parametrize("repeats", ["any", "sum"])
def test_the_plan_asks_no_more_of_an_engine_than_its_hooks(order, repeats):
    rules = Rules(3.5, repeats=repeats, order=order, min_user_items=2)
    rows, least = weighed(nw.from_native(TABLE.with_columns(pl.col("value") / 1).lazy()), rules)
    engine = PlainPlan()
    users = engine.number(rows, "user", cut=True)
    items = engine.number(rows, "item")
    parts = engine.split(numbered(rows, users, items), "key")
    left = Survivors(engine, [engine.keep(merged(part, add=repeats == "sum")) for part in parts])
    left.check(users)
    steps = []
    found = compressed(_filtered(left, rules, least, steps), (3, 4))
    data, report = prepare(TABLE, rules)
    assert report.steps[-len(steps) :] == tuple(steps)
    for ours, theirs in zip(found, (data.indptr, data.items, data.times), strict=False):
        assert np.array_equal(ours, theirs)


def test_no_space_for_temporary_files_is_no_fault_of_the_table(tmp_path):
    (tmp_path / "0.arrow").symlink_to("/dev/full")
    engine = PolarsPlan(TABLE.height, tmp_path)
    with pytest.raises(StoreError, match=r"no space left for temporary files in .* up to 30 bytes"):
        engine.keep(nw.from_native(TABLE.lazy()))


def test_temporary_files_are_where_they_are_wanted_and_go(monkeypatch, tmp_path):
    kept = []
    keep = PolarsPlan.keep

    def seen(self, frame):
        kept.append(sorted(self._scratch.parent.iterdir()))
        return keep(self, frame)

    monkeypatch.setattr(PolarsPlan, "keep", seen)
    prepare(TABLE, scratch=tmp_path)
    assert all(len(folders) == 1 for folders in kept)
    assert kept
    assert list(tmp_path.iterdir()) == []


def test_the_package_can_be_called():
    assert nf.prepare(TABLE, nf.Rules(4)) == prepare(TABLE, Rules(4))
    assert nf.prepare.prepare is prepare
    assert nf.prepare.Rules is nf.Rules is Rules


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_user_items": 0}, "`min_user_items` must be a whole number of at least 1; got 0"),
        ({"min_item_users": 2.5}, "`min_item_users` must be a whole number of at least 1; got 2.5"),
        ({"min_item_users": True}, "got True"),
        ({"min_value": np.nan}, "`min_value` must be a finite number; got nan"),
        ({"strictly": True}, "`strictly` does nothing without `min_value`"),
        ({"repeats": "sum"}, "`repeats` does nothing without `min_value`"),
        ({"core": "twice"}, "`core` must be one of once, fixed-point; got 'twice'"),
        ({"min_value": 1, "repeats": "all"}, "`repeats` must be one of any, sum; got 'all'"),
        (
            {"order": "users-items"},
            "`order` must be one of value-users-items, .*; got 'users-items'",
        ),
        ({"order": "users-value-items", "core": "fixed-point"}, "so the value comes before or"),
    ],
)
def test_rules_are_checked(options, message):
    with pytest.raises(OptionError, match=message):
        Rules(**options)


def test_tables_that_will_not_do():
    with pytest.raises(
        OptionError, match=r"`min_value` is 3, but .* no column 'value'; it has user, "
    ):
        prepare(TABLE.drop("value"), Rules(3))
    with pytest.raises(
        MissingColumnError, match="no column 'user' for `user`; the columns are item"
    ):
        prepare(TABLE.drop("user"))
    with pytest.raises(EmptyDataError, match=r"after this step: value > 5\. Loosen the rules"):
        prepare(TABLE, Rules(5, strictly=True))
    with pytest.raises(EmptyDataError, match="after this step: users with at least 9 items"):
        prepare(TABLE, Rules(min_user_items=9))
    with pytest.raises(EmptyDataError, match="names of columns, but no rows"):
        prepare(TABLE.head(0))
    bad = [5, 5, 5, 5, 5, None, 5, 5]
    with pytest.raises(DataError, match=r"'value' must hold finite numbers; row 6 .* has None"):
        prepare(TABLE.with_columns(value=pl.Series(bad)), Rules(4))
    assert prepare(TABLE.with_columns(value=pl.Series(bad)))[1].n_pairs == 7  # it is not needed
    for wrong in (None, 0.5, float("nan")):
        users = pl.Series([1.0, wrong, *range(6)], strict=False)
        with pytest.raises(
            DataError, match=r"A user id must not be .*; row 2 .* has (None|0.5|nan)"
        ):
            prepare(TABLE.with_columns(user=users, value=pl.Series([5, 1] + [5] * 6)), Rules(4))
    with pytest.raises(DataError, match=r"'time' must hold finite numbers; row 6 "):
        prepare(TABLE.with_columns(time=pl.Series(bad)))
    with pytest.raises(DataError, match="User ids of type List"):
        prepare(TABLE.with_columns(user=pl.lit([1])))
    there = Raw(TABLE.with_columns(value=pl.Series(bad)).lazy(), where=lambda n: f"line {n} of 'x'")
    with pytest.raises(DataError, match="line 5 of 'x' has None"):
        prepare(there, Rules(1))
