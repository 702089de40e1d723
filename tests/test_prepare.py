import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfar.errors import DataError, EmptyDataError, MissingColumnError, OptionError
from nearfar.prepare import Rules, prepare

TABLE = pl.DataFrame(
    {
        "user": ["a", "a", "a", "b", "b", "c", "c", "a"],
        "item": [1, 2, 3, 1, 2, 1, 4, 1],
        "value": [5, 4, 3, 4, 5, 4, 4, 5],
        "time": [9, 1, 1, 1, 1, 1, 1, 2],
    }
)


def rows_of(report):
    return [step.rows for step in report.steps]


def pairs_of(data):
    frame = data.to_frame()
    return set(zip(frame["user_id"], frame["item_id"], strict=True))


def test_steps_are_counted_in_order():
    rules = Rules(min_value=4, min_user_items=2, min_item_users=2)
    data, report = prepare(TABLE, rules)
    assert [step.name for step in report.steps] == [
        "read", "value >= 4", "each pair once", "users with at least 2 items",
        "items with at least 2 users",
    ]  # fmt: skip
    assert rows_of(report) == [8, 7, 6, 6, 5]
    assert pairs_of(data) == {("a", 1), ("a", 2), ("b", 1), ("b", 2), ("c", 1)}
    assert data.times[0] == 2
    assert (report.n_users, report.n_items, report.n_pairs) == (3, 2, 5)
    assert report.density == 5 / 6
    assert report.user_quantiles == (1, 1.5, 2, 2, 2)
    assert report.item_quantiles == (2, 2.25, 2.5, 2.75, 3)
    text = str(report)
    assert "            8 rows  read" in text
    assert "3 users, 2 items, 5 interactions, density 83.3%" in text
    assert "items of a user: 1 / 1.5 / 2 / 2 / 2 (minimum, quartiles, maximum)" in text


def test_every_option_changes_something():
    start = {"min_value": 4, "min_user_items": 2, "min_item_users": 2}
    made = {name: pairs_of(prepare(TABLE, Rules(**{**start, **change}))[0]) for name, change in {
        "start": {},
        "all": {"min_value": None, "min_user_items": 1, "min_item_users": 1},
        "strictly": {"strictly": True, "min_user_items": 1, "min_item_users": 1},
        "users": {"min_user_items": 1, "min_item_users": 1},
        "first": {"first": "items"},
        "core": {"core": "fixed-point"},
    }.items()}  # fmt: skip
    assert made["strictly"] == {("a", 1), ("b", 2)}
    assert made["users"] == made["start"] | {("c", 4)}
    assert made["first"] == made["start"] - {("c", 1)}
    assert made["core"] == made["first"]
    assert made["all"] == made["users"] | {("a", 3)}
    assert made["all"] == pairs_of(prepare(TABLE)[0])


@settings(max_examples=50, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=50),
    least=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    first=st.sampled_from(["users", "items"]),
)
def test_the_fixed_point_is_the_largest_set_in_which_both_thresholds_hold(pairs, least, first):
    expected = set(pairs)
    while True:
        users = [user for user, _ in expected]
        items = [item for _, item in expected]
        smaller = {
            (user, item) for user, item in expected
            if users.count(user) >= least[0] and items.count(item) >= least[1]
        }  # fmt: skip
        if smaller == expected:
            break
        expected = smaller
    table = pl.DataFrame(pairs, schema=["user", "item"], orient="row")
    rules = Rules(min_user_items=least[0], min_item_users=least[1], core="fixed-point", first=first)
    if not expected:
        with pytest.raises(EmptyDataError, match=r"Nothing is left after this step: users with at"):
            prepare(table, rules)
        return
    data, report = prepare(table, rules)
    assert pairs_of(data) == expected
    assert report.n_pairs == len(expected)
    assert data.user_counts.min() >= least[0]
    assert data.item_counts.min() >= least[1]


def test_a_file_is_read_lazily(tmp_path):
    TABLE.write_parquet(tmp_path / "t.parquet")
    eager, lazy = (
        prepare(TABLE, Rules(4)),
        prepare(pl.scan_parquet(tmp_path / "t.parquet"), Rules(4)),
    )
    assert eager == lazy


def test_mixed_ids_will_do():
    mixed = pl.Series([1, "1", (1, 2)], dtype=pl.Object)
    data, _ = prepare(pl.DataFrame({"user": mixed, "item": [1, 1, 2]}), Rules(min_item_users=2))
    assert pairs_of(data) == {(1, 1), ("1", 1)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_user_items": 0}, "`min_user_items` must be an integer of at least 1; got 0"),
        ({"min_item_users": 2.5}, "`min_item_users` must be an integer of at least 1; got 2.5"),
        ({"min_item_users": True}, "got True"),
        ({"min_value": np.nan}, "`min_value` must be a finite number; got nan"),
        ({"strictly": True}, "`strictly` does nothing without `min_value`"),
        ({"core": "twice"}, "`core` must be 'once' or 'fixed-point'; got 'twice'"),
        ({"first": "both"}, "`first` must be 'users' or 'items'; got 'both'"),
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
    with pytest.raises(EmptyDataError, match="after this step: read"):
        prepare(TABLE.head(0))
    bad = [5, 5, 5, 5, 5, None, 5, 5]
    with pytest.raises(DataError, match=r"'value' must hold finite numbers; row 6 .* has None"):
        prepare(TABLE.with_columns(value=pl.Series(bad)), Rules(4))
    for wrong in (None, 0.5, float("nan")):
        users = pl.Series([1.0, wrong, *range(6)], strict=False)
        with pytest.raises(
            DataError, match=r"user id of row 2 \(the first is 1\) is null, NaN or a"
        ):
            prepare(TABLE.with_columns(user=users, value=pl.Series([5, 1] + [5] * 6)), Rules(4))
