"""Paired tests against scipy and sums by hand, Holm against its definition, and what is refused."""

import itertools
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nearfar.errors import DataError, EmptyDataError, MissingColumnError, OptionError
from nearfar.experiment.significance import P_VALUES, all_pairs, holm, paired


def users(seed=0, folds=3, n=40, shift=0.0, metric="map"):
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "fold": np.repeat(np.arange(folds), n),
            "user_id": np.tile(np.arange(100, 100 + n), folds),
            metric: np.clip(rng.random(folds * n) + shift, 0, None),
        }
    )


def by_hand(a, b, metric):
    """Differences by user and fold, joined with a dictionary."""
    other = {(row["fold"], row["user_id"]): row[metric] for row in b.iter_rows(named=True)}
    found = {}
    for row in a.iter_rows(named=True):
        key = row["fold"], row["user_id"]
        if key in other and not any(x is None or math.isnan(x) for x in (row[metric], other[key])):
            found[key] = row[metric] - other[key]
    return found


def t_by_hand(d):
    n, mean = len(d), sum(d) / len(d)
    error = math.sqrt(sum((x - mean) ** 2 for x in d) / (n - 1) / n)
    half = stats.t.ppf(0.975, n - 1) * error
    return mean, mean - half, mean + half, 2 * stats.t.sf(abs(mean) / error, n - 1)


@pytest.mark.parametrize("shift", [0.0, 0.05, -1e-3])
def test_a_comparison_is_what_scipy_says_of_the_joined_values(shift):
    a, b = users(1, shift=shift), users(2).sample(fraction=1.0, shuffle=True, seed=5)
    found = paired(a, b, "map")
    d = by_hand(a, b, "map")
    values = list(d.values())
    assert (found.metric, found.n, found.folds) == ("map", 120, 3)
    mean, low, high, p = t_by_hand(values)
    assert (found.difference, found.low, found.high, found.t_p) == pytest.approx(
        (mean, low, high, p)
    )
    assert found.t_p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert found.wilcoxon_p == pytest.approx(stats.wilcoxon(values).pvalue)
    assert (found.mean_a, found.mean_b) == pytest.approx((a["map"].mean(), b["map"].mean()))
    of_folds = [np.mean([v for (f, _), v in d.items() if f == fold]) for fold in range(3)]
    assert (
        found.fold_difference, found.fold_low, found.fold_high, found.fold_p
    ) == pytest.approx(t_by_hand(of_folds))  # fmt: skip


def test_swapping_turns_the_sign_and_leaves_the_p_values():
    a, b = users(1, shift=0.1), users(2)
    one, other = paired(a, b, "map"), paired(b, a, "map")
    assert one.difference > 0
    assert (one.difference, one.low, one.high) == pytest.approx(
        (-other.difference, -other.high, -other.low)
    )
    for name in P_VALUES:
        assert getattr(one, name) == pytest.approx(getattr(other, name))
    assert (one.mean_a, one.mean_b) == (other.mean_b, other.mean_a)


def test_wilcoxon_by_hand():
    # ranks 1, 2, 3 of 5, 6, 7 hundredths: all signs equal in 2 of 2^3 cases
    a = pl.DataFrame({"fold": [0] * 3, "user_id": ["x", "y", "z"], "ndcg": [0.55, 0.56, 0.57]})
    b = a.with_columns(ndcg=pl.lit(0.5))
    assert paired(a, b, "ndcg").wilcoxon_p == pytest.approx(0.25)


def test_ties_but_for_rounding_are_ties():
    # 0.3 - 0.2 and 0.4 - 0.3 are not the same number
    first = {"fold": [0] * 6, "user_id": list(range(6)), "map": [0.3, 0.4, 0.2, 0.5, 0.9, 0.1]}
    second = [0.2, 0.3, 0.1, 0.6, 0.2, 0.7]
    a = pl.DataFrame(first)
    b = a.with_columns(map=pl.Series(second))
    exact = stats.wilcoxon([1, 1, 1, -1, 7, -6]).pvalue
    assert paired(a, b, "map").wilcoxon_p == pytest.approx(exact)
    assert stats.wilcoxon(a["map"] - b["map"]).pvalue != pytest.approx(exact)


def test_equal_settings_do_not_differ():
    a = users()
    found = paired(a, a, "map")
    assert (found.wilcoxon_p, found.t_p, found.fold_p) == (1.0, 1.0, 1.0)
    assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)


def test_a_constant_difference_is_certain():
    a = users().with_columns(map=pl.lit(0.75))
    found = paired(a, a.with_columns(map=pl.lit(0.5)), "map")
    assert (found.difference, found.low, found.high, found.t_p) == (0.25, 0.25, 0.25, 0.0)
    assert found.fold_p == 0.0
    assert found.wilcoxon_p < 1e-10


def test_a_single_fold_or_value_has_no_interval():
    a, b = users(1, folds=1), users(2, folds=1)
    found = paired(a, b, "map")
    assert math.isnan(found.fold_p)
    assert math.isnan(found.fold_low)
    assert not math.isnan(found.t_p)
    one = paired(a.head(1), b.head(1), "map")
    assert math.isnan(one.t_p)
    assert one.wilcoxon_p == 1.0


def test_users_without_a_value_and_folds_of_one_are_left_out():
    a = users(1).with_columns(
        map=pl.when(pl.col("user_id") == 101).then(float("nan")).otherwise("map")
    )
    b = users(2, folds=2).with_columns(
        map=pl.when(pl.col("user_id") == 102).then(None).otherwise("map")
    )
    found = paired(a, b, "map")
    assert (found.n, found.folds) == (2 * 38, 2)
    values = list(by_hand(a, b, "map").values())
    assert len(values) == 76
    assert found.difference == pytest.approx(np.mean(values))


def test_ids_may_be_anything_that_a_column_can_hold():
    a = users(1).with_columns(pl.col("user_id").cast(pl.String))
    b = users(2).with_columns(pl.col("user_id").cast(pl.String))
    assert paired(a, b, "map") == paired(users(1), users(2), "map")


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda b: b.drop("fold"), MissingColumnError, "`b` must have .*'fold' is not among"),
        (lambda b: b.drop("map"), MissingColumnError, "'map' is not among fold, user_id"),
        (lambda b: pl.concat([b, b.head(1)]), DataError, "user 100 more than once in fold 0"),
        (lambda b: b.tail(-1), DataError, "same users in each fold; got 120 and 119 rows, of"),
        (lambda b: b.with_columns(user_id=pl.col("user_id") + 1), DataError, "117 are in both"),
        (lambda b: b.with_columns(pl.col("user_id").cast(pl.String)), DataError, "one type; got"),
        (lambda b: b.with_columns(fold=pl.col("fold") + 9), EmptyDataError, "no fold in common"),
        (lambda b: b.with_columns(map=pl.lit("x")), DataError, "numbers in 'map' .*String"),
        (lambda b: b.with_columns(map=pl.lit(float("nan"))), EmptyDataError, "No user has a value"),
    ],
)
def test_what_does_not_fit_is_refused(change, kind, message):
    with pytest.raises(kind, match=message):
        paired(users(1), change(users(2)), "map")


def test_ids_that_are_python_objects_are_refused():
    a = users(1, n=1, folds=1).with_columns(user_id=pl.Series([(1, "x")], dtype=pl.Object))
    with pytest.raises(DataError, match="ids of one type"):
        paired(a, a, "map")


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]).tolist() == []
    assert holm([0.5, 0.9]).tolist() == [1.0, 1.0]
    with_nan = holm([0.01, np.nan, 0.04])
    assert with_nan[[0, 2]] == pytest.approx([0.02, 0.04])
    assert np.isnan(with_nan[1])


@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0.001, 0.999))
def test_holm_rejects_what_the_procedure_rejects(p_values, level):
    """Step down from the smallest and stop at the first that is too large."""
    rejected, m = set(), len(p_values)
    for step, i in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        if (m - step) * p_values[i] > level:
            break
        rejected.add(i)
    assert {i for i, p in enumerate(holm(p_values)) if p <= level} == rejected


@pytest.mark.parametrize("wrong", [-0.1, 1.5])
def test_holm_refuses_what_is_no_probability(wrong):
    with pytest.raises(OptionError, match="`p_values` must lie between 0 and 1"):
        holm([0.5, wrong])


def test_all_pairs_are_compared_once_and_corrected_for_each_metric():
    three = {
        name: users(seed, shift=shift).with_columns(ndcg=users(seed + 10)["map"])
        for name, seed, shift in (("z", 1, 0.3), ("a", 2, 0.0), ("m", 3, 0.02))
    }
    found = all_pairs(three, ["map", "ndcg"])
    assert found.select("metric", "a", "b").rows() == [
        (metric, *pair)
        for metric in ("map", "ndcg")
        for pair in itertools.combinations(("z", "a", "m"), 2)
    ]
    for metric in ("map", "ndcg"):
        rows = found.filter(pl.col("metric") == metric)
        for row in rows.iter_rows(named=True):
            one = paired(three[row["a"]], three[row["b"]], metric)
            assert {k: row[k] for k in vars(one)} == vars(one)
        for name in P_VALUES:
            assert rows[f"{name}_holm"].to_list() == holm(rows[name]).tolist()
    assert found["wilcoxon_p_holm"][0] < 0.01 < found["wilcoxon_p_holm"][4]


def test_pairs_that_cannot_be_compared_yet_are_null_and_do_not_count():
    late = users(3).with_columns(fold=pl.col("fold") + 7)
    found = all_pairs({"a": users(1), "b": users(2, shift=0.1), "late": late}, ["map"])
    assert found["n"].to_list() == [120, 0, 0]
    assert found["difference"].null_count() == 2
    assert found["t_p_holm"].to_list() == [found["t_p"][0], None, None]
    single = all_pairs({"a": users(1, folds=1), "b": users(2, folds=1)}, ["map"])
    assert single["fold_p_holm"].to_list() == [None]


def test_a_single_setting_has_no_pairs():
    found = all_pairs({"a": users()}, ["map", "ndcg"])
    assert found.height == 0
    assert found.schema == all_pairs({"a": users(), "b": users(1)}, ["map"]).schema
