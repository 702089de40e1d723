"""Metrics against sums done by hand and against trec_eval."""

import math

import numpy as np
import pytest
import pytrec_eval

import nearfar as nf
from conftest import PLAIN
from nearfar.evaluation import metrics

# Three users, k = 4.            ranks 1..4           relevant
HITS = np.array([
    [True, False, True, False],  # hits at 1 and 3     R = 3
    [False, True, True, True],   # hits at 2, 3, 4     R = 6 > k
    [False, False, False, False],  # nothing           R = 2
    [False, False, False, False],  # no relevant item  R = 0
])  # fmt: skip
RELEVANT = np.array([3, 6, 2, 0])


def d(rank):
    return 1 / math.log2(rank + 1)


BY_HAND = {
    # (1/1 + 2/3) / min(3, 4);  (1/2 + 2/3 + 3/4) / min(6, 4)
    metrics.average_precision: [(1 + 2 / 3) / 3, (1 / 2 + 2 / 3 + 3 / 4) / 4, 0],
    # ideal: 3 and 4 hits in the first ranks
    metrics.ndcg: [
        (d(1) + d(3)) / (d(1) + d(2) + d(3)),
        (d(2) + d(3) + d(4)) / (d(1) + d(2) + d(3) + d(4)),
        0,
    ],
    metrics.recall: [2 / 3, 3 / 6, 0],
    metrics.precision: [2 / 4, 3 / 4, 0],
    metrics.reciprocal_rank: [1 / 1, 1 / 2, 0],
    metrics.hit_rate: [1, 1, 0],
}


@pytest.mark.parametrize("metric", BY_HAND, ids=lambda metric: metric.__name__)
def test_accuracy_by_hand(metric):
    values = metric(HITS, RELEVANT)
    assert values.dtype == np.float64
    np.testing.assert_allclose(values, [*BY_HAND[metric], np.nan], rtol=1e-14)


@pytest.mark.parametrize("metric", [metrics.average_precision, metrics.ndcg, metrics.recall])
@pytest.mark.parametrize("n_relevant", [1, 3, 4])
def test_a_perfect_list_has_one(metric, n_relevant):
    hits = np.arange(4)[None] < n_relevant
    assert metric(hits, np.array([n_relevant])) == pytest.approx([1])


@pytest.mark.parametrize("metric", [metrics.average_precision, metrics.ndcg])
def test_a_full_list_of_hits_has_one_when_more_are_relevant_than_fit(metric):
    assert metric(np.ones((1, 4), bool), np.array([9])) == pytest.approx([1])


@pytest.mark.parametrize("metric", [metrics.average_precision, metrics.ndcg])
def test_an_earlier_hit_is_better(metric):
    values = metric(np.eye(6, dtype=bool), np.full(6, 2))
    assert (np.diff(values) < 0).all()


@pytest.fixture(scope="module")
def rankings():
    """Random lists of 20 of 60 items for 200 users with 1 to 45 relevant ones."""
    rng = np.random.default_rng(5)
    lists = np.array([rng.permutation(60)[:20] for _ in range(200)])
    relevant = [rng.permutation(60)[: rng.integers(1, 46)] for _ in range(200)]
    hits = np.array([np.isin(a, b) for a, b in zip(lists, relevant, strict=True)])
    return lists, relevant, hits, np.array([len(row) for row in relevant])


@pytest.fixture(scope="module")
def trec(rankings):
    lists, relevant, _, _ = rankings
    wanted = {str(u): {str(i): 1 for i in row} for u, row in enumerate(relevant)}
    run = {str(u): {str(i): -float(r) for r, i in enumerate(row)} for u, row in enumerate(lists)}
    names = {"map_cut.20", "ndcg_cut.20", "recall.20", "P.20", "recip_rank", "success.10"}
    found = pytrec_eval.RelevanceEvaluator(wanted, names).evaluate(run)
    return {name: np.array([found[str(u)][name] for u in range(200)]) for name in found["0"]}


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        (metrics.ndcg, "ndcg_cut_20"),
        (metrics.recall, "recall_20"),
        (metrics.precision, "P_20"),
        (metrics.reciprocal_rank, "recip_rank"),
    ],
)
def test_accuracy_is_that_of_trec_eval(rankings, trec, metric, name):
    _, _, hits, n_relevant = rankings
    np.testing.assert_allclose(metric(hits, n_relevant), trec[name], rtol=1e-12)


def test_hit_rate_is_success_of_trec_eval(rankings, trec):
    _, _, hits, n_relevant = rankings
    values = metrics.hit_rate(hits[:, :10], n_relevant)
    np.testing.assert_array_equal(values, trec["success_10"])
    assert 0 < values.mean() < 1


def test_average_precision_is_that_of_trec_eval_but_for_the_divisor(rankings, trec):
    _, _, hits, n_relevant = rankings
    fits = n_relevant <= 20  # trec_eval divides by R, we by min(R, k)
    assert 20 < fits.sum() < 180
    values = metrics.average_precision(hits, n_relevant)
    np.testing.assert_allclose(values[fits], trec["map_cut_20"][fits], rtol=1e-12)
    np.testing.assert_allclose(
        values[~fits], trec["map_cut_20"][~fits] * n_relevant[~fits] / 20, rtol=1e-12
    )


COUNTS = np.array([10, 1, 4, 100])


def test_median_popularity_by_hand():
    items = np.array([
        [0, 1, 2, 3],  # 1 4 10 100: (4 + 10) / 2
        [3, 1, 0, -1],  # 1 10 100: 10
        [2, 3, -1, -1],  # 4 100: 52
        [1, -1, -1, -1],
        [-1, -1, -1, -1],
    ])  # fmt: skip
    found = metrics.median_popularity(items, COUNTS)
    np.testing.assert_array_equal(found, [7, 10, 52, 1, np.nan])


@pytest.mark.parametrize("k", [1, 2, 7, 50])
def test_median_popularity_is_the_median_of_each_list(k):
    rng = np.random.default_rng(k)
    counts = rng.integers(0, 1000, 80)
    items = np.array([rng.permutation(80)[:k] for _ in range(30)])
    found = metrics.median_popularity(items, counts)
    np.testing.assert_array_equal(found, np.median(counts[items], axis=1))


def test_mean_popularity_by_hand():
    items = np.array([[0, 1, 2], [3, 1, -1], [-1, -1, -1]])
    found = metrics.mean_popularity(items, COUNTS)
    np.testing.assert_array_equal(found, [15 / 3, 101 / 2, np.nan])


def test_figures_of_all_lists_by_hand():
    exposed = metrics.exposure(np.array([[0, 2], [0, -1], [2, 0]]), 4)
    assert exposed.tolist() == [3, 0, 2, 0]
    assert exposed.dtype == np.int64
    assert metrics.coverage(exposed) == 0.5
    # distinct items 0 and 2: counts 10 and 4
    assert metrics.median_popularity_distinct(exposed, COUNTS) == 7
    # sorted 0 0 2 3, weights 2i - 5 = -3 -1 1 3: (2 + 9) / (4 * 5)
    assert metrics.gini(exposed) == pytest.approx(11 / 20)


def test_gini_is_the_mean_difference_over_twice_the_mean():
    x = np.random.default_rng(0).integers(0, 50, 40)
    expected = np.abs(x[:, None] - x).mean() / (2 * x.mean())
    assert metrics.gini(x) == pytest.approx(expected)
    assert metrics.gini(np.full(5, 3)) == 0


def test_nothing_recommended_is_nan():
    nothing = metrics.exposure(np.full((2, 3), -1), 4)
    assert metrics.coverage(nothing) == 0
    assert math.isnan(metrics.gini(nothing))
    assert math.isnan(metrics.median_popularity_distinct(nothing, COUNTS))
    assert math.isnan(metrics.coverage(np.zeros(0, np.int64)))


def test_a_new_metric_is_known_everywhere_by_its_entry(monkeypatch, tmp_path, as_json, ok, board):
    last = metrics.Metric("last_hit", "last hit", "hits", lambda hits, _: hits[:, -1] * 1.0)
    width = metrics.Metric(
        "width", "width", "exposure", lambda exposed, _: float((exposed > 0).sum()), is_count=True
    )
    for metric in (last, width):
        monkeypatch.setitem(metrics.REGISTRY, metric.name, metric)
    train, test = nf.split.ratio(board, 0.3, seed=0)
    model = nf.CML(PLAIN, dim=3, batch=8).fit(train, epochs=2, validation=0.2, metric="width", k=3)
    assert {"validation_last_hit", "validation_width"} <= set(model.history.columns)
    found = nf.evaluate(model, train, test, k=3)
    assert found["last_hit"] == pytest.approx(found.per_user["last_hit"].mean())
    assert found["width"] == round(20 * found["coverage"])
    assert found.standard_error("last_hit") > 0
    printed = [line.split()[0] for line in str(found).splitlines()[1:]]
    assert printed == list(metrics.names())
    assert {"last_hit", "width"} <= set(printed)
    assert set(found.to_dict()["metrics"]) == set(printed)
    model.keep_evaluation(found)
    model.save(tmp_path / "model")
    (card,) = (file.read_text() for file in (tmp_path / "model").glob("card-*.md"))
    (row,) = (line for line in card.splitlines() if line.startswith("| last_hit |"))
    assert row.endswith(f" {found['last_hit']:.4f} |")
    test.save(tmp_path / "test")
    told = as_json("evaluate", tmp_path / "model", tmp_path / "test", "--k", 3)
    assert "'last_hit'" in str(told)
    assert "last_hit" in ok("evaluate", tmp_path / "model", tmp_path / "test", "--k", 3)
