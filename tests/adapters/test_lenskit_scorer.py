"""nearfar as a scorer in LensKit's pipelines."""

import warnings

import numpy as np
import pandas as pd
import pytest

import nearfar as nf
from nearfar.errors import NotFittedError, OptionError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of LensKit and its libraries, on import
    lenskit = pytest.importorskip("lenskit", reason='needs LensKit: pip install "nearfar[lenskit]"')
    from lenskit import batch, operations
    from lenskit.basic import PopScorer
    from lenskit.data import ItemList, ItemListCollection, RecQuery, from_interactions_df
    from lenskit.metrics import NDCG, RunAnalysis
    from lenskit.pipeline import topn_pipeline
    from lenskit.training import TrainingOptions

    from nearfar.adapters.lenskit_scorer import CMLConfig, CMLScorer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

OPTIONS = nf.Options(dim=8, batch=32, negatives=8, optimiser=nf.Adam(0.03))


def log(users=40, items=30, names=False):
    """Users like the items of their own parity."""
    rng = np.random.default_rng(0)
    pairs = {(u, 2 * int(j) + u % 2) for u in range(users) for j in rng.integers(0, items // 2, 9)}
    frame = pd.DataFrame(sorted(pairs), columns=["user_id", "item_id"])
    if names:
        frame = "n" + frame.astype(str)
    return frame


@pytest.fixture(scope="module")
def data():
    return from_interactions_df(log())


@pytest.fixture(scope="module")
def pipeline(data):
    made = topn_pipeline(CMLScorer(options=OPTIONS, epochs=30), n=5)
    made.train(data)
    return made


def scorer_of(pipeline):
    return pipeline.component("scorer")


def test_lists_are_those_of_recommend(pipeline):
    users = list(range(40))
    lists = batch.recommend(pipeline, users, n=5)
    model = scorer_of(pipeline).model
    for user in users:
        expected = model.recommend(user, k=5)
        found = lists.lookup(user_id=user)
        assert found.ids().tolist() == expected["item_id"].to_list()
        np.testing.assert_allclose(found.scores(), expected["score"], atol=1e-6)


def test_lists_are_better_than_random_and_popular_ones(data, pipeline):
    train = log()
    held_out = train.groupby("user_id").sample(2, random_state=1)
    rest = train.drop(held_out.index)
    parts = {u: ItemList(part["item_id"].to_numpy()) for u, part in held_out.groupby("user_id")}
    test = ItemListCollection.from_dict(parts, key="user_id")

    def ndcg(component):
        made = topn_pipeline(component, n=10)
        made.train(from_interactions_df(rest))
        analysis = RunAnalysis()
        analysis.add_metric(NDCG())
        lists = batch.recommend(made, list(parts), n=10)
        return analysis.measure(lists, test).list_summary().loc["NDCG", "mean"]

    assert ndcg(CMLScorer(options=OPTIONS, epochs=40)) > 1.5 * ndcg(PopScorer())


def test_ids_may_be_text():
    made = topn_pipeline(CMLScorer(options=OPTIONS, epochs=2), n=3)
    made.train(from_interactions_df(log(names=True)))
    found = operations.recommend(made, "n3", n=3)
    assert found.ids().tolist() == scorer_of(made).model.recommend("n3", k=3)["item_id"].to_list()


def test_a_new_user_is_folded_in(pipeline):
    model, history = scorer_of(pipeline).model, ItemList([1, 3, 5])
    query = RecQuery(user_id=999, history_items=history)
    found = operations.recommend(pipeline, query, n=5)
    expected = model.recommend(liked=[1, 3, 5], k=5)
    assert found.ids().tolist() == expected["item_id"].to_list()


def test_nothing_known_is_nan(pipeline):
    scorer = scorer_of(pipeline)
    items = ItemList([0, 2, 12345])
    assert np.isnan(scorer(RecQuery(user_id=999), items).scores()).all()
    history = ItemList([12345])
    assert np.isnan(scorer(RecQuery(user_id=999, history_items=history), items).scores()).all()
    known = scorer(RecQuery(user_id=0), items).scores()
    assert np.isfinite(known[:2]).all()
    assert np.isnan(known[2])
    assert len(scorer(RecQuery(user_id=0), ItemList([]))) == 0


def test_the_dial_is_the_models(data):
    low = CMLScorer(options=OPTIONS, epochs=3, popularity=0.0)
    high = CMLScorer(options=OPTIONS, epochs=3, popularity=1.0)
    items = ItemList(list(range(30)))
    for one in (low, high):
        one.train(data, TrainingOptions(rng=1))
    scores = [one(RecQuery(user_id=0), items).scores() for one in (low, high)]
    np.testing.assert_allclose(scores[1] - scores[0], high.model.item_weight(1.0), atol=1e-6)


def test_scores_are_those_of_recommend_off_the_sphere(data):
    options = nf.Options(dim=8, batch=32, negatives=8, geometry="ball")
    scorer = CMLScorer(options=options, epochs=2)
    scorer.train(data)
    expected = scorer.model.recommend(3, k=30, exclude_seen=False)
    found = scorer(3, ItemList(item_ids=expected["item_id"].to_list()))
    np.testing.assert_allclose(found.scores(), expected["score"], rtol=1e-6)


def test_a_setting_of_the_dial_is_refused_before_lists_are_made(data):
    with pytest.raises(ValueError, match="`popularity` must be a finite number at least 0"):
        CMLScorer(popularity=-1)
    scorer = CMLScorer(options=nf.Options(dim=4, prior=None), epochs=1, popularity=0.5)
    with pytest.raises(OptionError, match="it has no popularity prior"):
        scorer.train(data)


def test_a_scorer_that_is_not_trained_says_so():
    with pytest.raises(NotFittedError, match=r"not been trained; call train\(data\) first"):
        CMLScorer()(RecQuery(user_id=3), ItemList(item_ids=[1]))


def test_a_configuration_makes_the_same_component(pipeline):
    config = scorer_of(pipeline).config
    again = CMLConfig.model_validate_json(config.model_dump_json())
    assert again == config
    assert again.options == OPTIONS


def test_bad_configurations_are_refused():
    with pytest.raises(ValueError, match="epoch_count"):
        CMLConfig(epoch_count=3)
    with pytest.raises(ValueError, match=r"`options` must be nearfar\.Options or a dict; got 3"):
        CMLConfig(options=3)


def test_a_trained_model_is_kept_if_asked(data):
    scorer = CMLScorer(options=OPTIONS, epochs=1)
    scorer.train(data, TrainingOptions(rng=1))
    first = scorer.model
    scorer.train(data, TrainingOptions(retrain=False))
    assert scorer.model is first
    scorer.train(data, TrainingOptions(rng=1))
    assert scorer.model is not first
    np.testing.assert_array_equal(scorer.model.item_vectors, first.item_vectors)
