"""nearfar as a model of RecTools: its datasets, lists and cross-validation."""

import warnings

import numpy as np
import pandas as pd
import pytest

import nearfar as nf
from nearfar.errors import OptionError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of RecTools and its libraries, on import
    pytest.importorskip("rectools", reason="needs RecTools, which needs numpy 1: a venv of its own")
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.metrics import NDCG, Recall
    from rectools.model_selection import LastNSplitter, cross_validate
    from rectools.models import PopularModel, RandomModel, model_from_config

    from nearfar.adapters.rectools_model import CMLModel

pytestmark = pytest.mark.filterwarnings("ignore")

OPTIONS = nf.Options(dim=8, batch=32, negatives=8, optimiser=nf.Adam(0.03))
USERS = list(range(100, 140))


def log():
    """Users like the items of their own parity."""
    rng = np.random.default_rng(0)
    pairs = {(u, 2 * int(j) + u % 2) for u in USERS for j in rng.integers(0, 15, 9)}
    frame = pd.DataFrame(sorted(pairs), columns=[Columns.User, Columns.Item])
    frame[Columns.Weight] = 1.0
    frame[Columns.Datetime] = pd.Timestamp("2026-01-01") + pd.to_timedelta(
        rng.permutation(len(frame)), unit="h"
    )
    return frame


@pytest.fixture(scope="module")
def data():
    return Dataset.construct(log())


@pytest.fixture(scope="module")
def model(data):
    return CMLModel(OPTIONS, epochs=30).fit(data)


def by_user(frame):
    return {u: part[Columns.Item].tolist() for u, part in frame.groupby(Columns.User)}


def test_lists_are_those_of_recommend(data, model):
    found = by_user(model.recommend(USERS, data, k=5, filter_viewed=True))
    for user in USERS:
        row = int(data.user_id_map.convert_to_internal([user])[0])
        expected = model.model.recommend(row, k=5)["item_id"].to_list()
        assert found[user] == data.item_id_map.convert_to_external(expected).tolist()


def test_scores_are_those_of_recommend_off_the_sphere(data):
    options = nf.Options(dim=8, batch=32, negatives=8, geometry="ball")
    made = CMLModel(options, epochs=2).fit(data)
    found = made.recommend(USERS[:1], data, k=5, filter_viewed=True)
    row = int(data.user_id_map.convert_to_internal(USERS[:1])[0])
    expected = made.model.recommend(row, k=5)["score"]
    np.testing.assert_allclose(found[Columns.Score], expected, rtol=1e-6)
    near = made.recommend_to_items([2], data, k=5, add_rank_col=False)
    item = int(data.item_id_map.convert_to_internal([2])[0])
    similar = made.model.similar_items(item, k=5)["score"]
    np.testing.assert_allclose(near[Columns.Score], similar, rtol=1e-6)


def test_a_setting_of_the_dial_is_refused_before_lists_are_made(data):
    with pytest.raises(OptionError, match="`popularity` must be a finite number at least 0"):
        CMLModel(popularity=-1)
    with pytest.raises(OptionError, match="it has no popularity prior"):
        CMLModel(nf.Options(dim=4, prior=None), epochs=1, popularity=0.5).fit(data)


def test_viewed_items_stay_if_asked(data, model):
    viewed = {(u, i) for u, i in log()[[Columns.User, Columns.Item]].itertuples(index=False)}
    lists = model.recommend(USERS, data, k=30, filter_viewed=False)
    assert viewed <= {
        (u, i) for u, i in lists[[Columns.User, Columns.Item]].itertuples(index=False)
    }
    lists = model.recommend(USERS, data, k=30, filter_viewed=True)
    assert not viewed & set(lists[[Columns.User, Columns.Item]].itertuples(index=False, name=None))


def test_only_some_items(data, model):
    lists = model.recommend(USERS, data, k=3, filter_viewed=False, items_to_recommend=[2, 4, 6, 7])
    assert set(lists[Columns.Item]) <= {2, 4, 6, 7}
    near = model.recommend_to_items([2], data, k=3, items_to_recommend=[4, 7])
    assert set(near[Columns.Item]) == {4, 7}


def test_similar_items(data, model):
    near = model.recommend_to_items([2], data, k=4)
    inside = int(data.item_id_map.convert_to_internal([2])[0])
    expected = model.model.similar_items(inside, k=4)["item_id"].to_list()
    assert near[Columns.Item].tolist() == data.item_id_map.convert_to_external(expected).tolist()


def test_it_wins_a_cross_validation(data):
    models = {"nearfar": CMLModel(OPTIONS, epochs=30), "popular": PopularModel(),
              "random": RandomModel(random_state=0)}  # fmt: skip
    found = cross_validate(
        data, LastNSplitter(2, n_splits=2), {"ndcg": NDCG(10), "recall": Recall(10)}, models,
        k=10, filter_viewed=True,
    )  # fmt: skip
    means = pd.DataFrame(found["metrics"]).groupby("model")[["ndcg", "recall"]].mean()
    for name in ("ndcg", "recall"):
        assert means.loc["nearfar", name] > 1.3 * means.loc[["popular", "random"], name].max()


def test_a_configuration_makes_the_same_model():
    config = CMLModel(OPTIONS, epochs=7, popularity=0.5, seed=3).get_config(simple_types=True)
    again = model_from_config(config)
    assert isinstance(again, CMLModel)
    assert again.get_config() == CMLModel(OPTIONS, 7, 0.5, 3).get_config()
    assert again.options == OPTIONS


def test_the_dial_moves_lists(data):
    low, high = (CMLModel(OPTIONS, 10, popularity=x).fit(data) for x in (0.0, 5.0))
    counts = log()[Columns.Item].value_counts()

    def mean(one):
        return counts.reindex(one.recommend(USERS, data, 3, False)[Columns.Item]).mean()

    assert mean(low) < mean(high)


def test_strangers_are_refused(data, model):
    with pytest.raises(ValueError, match="cold"):
        model.recommend([1], data, k=3, filter_viewed=False)
    with pytest.raises(nf.errors.OptionError, match="`options`"):
        CMLModel(options=3)
