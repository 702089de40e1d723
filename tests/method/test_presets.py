"""The presets are the published settings, line by line."""

import numpy as np
import pytest

from conftest import random_data
from nearfar import CML, baselines, evaluate, presets, split
from nearfar.errors import OptionError
from nearfar.method.loss import Decorrelate, SpreadOut, Triplet
from nearfar.method.optimiser import Adagrad, Adam
from nearfar.method.options import Options
from nearfar.method.prior import Prior
from nearfar.method.sampling import Popularity, TwoStage, Uniform


@pytest.mark.parametrize(("negatives", "strength"), [(1, 0.01), (2, 0.01), (5, 0.001)])
@pytest.mark.parametrize(
    ("name", "sampler"),
    [
        ("uniform", Uniform()),
        ("popularity", Popularity(0.8)),
        ("two-stage", TwoStage(candidates=2000, beta=0.8, distinct=True, vectors="live")),
    ],
)
def test_paper_2019(name, sampler, negatives, strength):
    assert presets.paper_2019(name, negatives=negatives, batch=1024, beta=0.8) == Options(
        dim=128,
        geometry="sphere",
        sampler=sampler,
        negatives=negatives,
        batch=1024,
        triplet=Triplet(margin=1.0, rank_weight=False),
        spread_out=SpreadOut(strength),
        decorrelate=None,
        optimiser=Adam(1e-4),
        averaging=None,
        prior=None,
    )


def test_released_2019():
    for name in ("uniform", "popularity", "two-stage"):
        options = presets.released_2019(name)
        assert options.spread_out is None
        assert options.geometry == ("sphere" if name == "two-stage" else "free")
    popularity = presets.released_2019("popularity").sampler
    assert (popularity.distinct, popularity.redraws) == (True, 10)
    two_stage = presets.released_2019().sampler
    assert two_stage == TwoStage(2000, 1.0, distinct=True, vectors="initial", released_weight=True)


def test_cml_2017():
    options = presets.cml_2017()
    assert options.geometry == "ball"
    assert options.triplet.rank_weight
    assert options.decorrelate == Decorrelate(0.1)
    assert options.optimiser == Adagrad(0.1, initial=0.1)
    assert (options.dim, options.negatives, options.triplet.margin) == (100, 20, 1.9)


def test_presets_refuse_what_the_paper_does_not_say():
    with pytest.raises(OptionError, match="`negatives` must be 1, 2 or 5"):
        presets.paper_2019(negatives=3)
    with pytest.raises(
        OptionError, match="`sampler` must be one of uniform, popularity, two-stage"
    ):
        presets.paper_2019("hardest")


@pytest.mark.parametrize("name", ["uniform", "popularity", "two-stage"])
@pytest.mark.parametrize("preset", ["paper_2019", "released_2019"])
def test_presets_train(preset, name):
    data = random_data(20, 60)
    options = presets.PRESETS[preset](name, negatives=1, batch=16)
    model = CML(options).fit(data, epochs=2)
    assert model.history["loss"].is_finite().all()


@pytest.mark.full  # long
def test_cml_2017_trains_inside_the_ball():
    model = CML(presets.cml_2017(batch=64)).fit(random_data(20, 60), epochs=3)
    assert (model.item_vectors**2).sum(axis=1).max() <= 1 + 1e-5


def test_long_tail_changes_the_setting_of_the_dial_alone():
    assert presets.long_tail(0.25) == Options(prior=Prior(0.25))
    assert 0.0 < presets.long_tail().prior.popularity < Options().prior.popularity == 1.0


@pytest.mark.parametrize("preset", ["paper_2019", "released_2019", "cml_2017"])
def test_a_published_method_has_no_prior(preset):
    assert presets.PRESETS[preset]().prior is None


def test_long_tail_recommends_less_popular_items_and_still_what_users_like(ml_100k):
    train, test = split.ratio(ml_100k, 0.25, seed=0)
    models = [CML(o, dim=32).fit(train, epochs=6) for o in (Options(), presets.long_tail(0.5))]
    usual, tail = (evaluate(model, train, test, k=50).metrics for model in models)
    assert np.array_equal(models[0].item_vectors, models[1].item_vectors)
    assert tail["mmr"] < 0.95 * usual["mmr"]
    popular = baselines.MostPopular(train)
    assert tail["ndcg"] > evaluate(popular, train, test, k=50).metrics["ndcg"]
