"""Options by the names of scikit-learn."""

import pytest
from sklearn.base import clone
from sklearn.model_selection import ParameterGrid

import nearfar as nf
from conftest import checkerboard
from nearfar.errors import DataError, OptionError


def test_names_lead_back_to_the_same_options():
    options = nf.Options(dim=8, sampler=nf.TwoStage(beta=0.5), prior=None)
    model = nf.CML(options)
    assert nf.CML().set_params(**model.get_params(deep=False)).options == options
    deep = model.get_params()
    assert deep["sampler__candidates"] == options.sampler.candidates
    assert "prior__gamma" not in deep
    assert nf.CML().set_params(**deep).options == options


def test_clones_are_untrained_and_equal():
    model = nf.CML(dim=4, batch=8, optimiser=nf.Adam(0.03)).fit(checkerboard(), epochs=1)
    again = clone(model)
    assert again is not model
    assert again.options == model.options
    with pytest.raises(nf.errors.NotFittedError):
        again.item_vectors  # noqa: B018


def test_a_grid_of_parameters_makes_models():
    grid = ParameterGrid({"dim": [4, 8], "sampler__beta": [0.2, 0.6]})
    made = [nf.CML().set_params(**point).options for point in grid]
    assert [(one.dim, one.sampler.beta) for one in made] == [(4, 0.2), (4, 0.6), (8, 0.2), (8, 0.6)]


def test_a_part_and_its_field_may_come_in_any_order():
    given = {"sampler__beta": 0.3, "sampler": nf.Popularity(0.9)}
    assert nf.CML().set_params(**given).options.sampler == nf.Popularity(0.3)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"dimension": 3}, "unknown parameter 'dimension'; there are dim,"),
        ({"sampler__gamma": 3}, "unknown parameter 'sampler__gamma'; there are sampler__beta"),
        ({"nothing__beta": 3}, "unknown parameter 'nothing'"),
        ({"spread_out__weight": 3}, "`spread_out` is None, so it has no field 'weight'"),
        ({"dim__size": 3}, "`dim` is 128, so it has no field 'size'"),
        ({"sampler__beta": "high"}, "beta"),
    ],
)
def test_bad_names_and_values_are_refused(given, said):
    model = nf.CML()
    with pytest.raises(OptionError, match=said):
        model.set_params(**given)
    assert model.options == nf.Options()


def test_a_trained_model_is_not_changed():
    model = nf.CML(dim=4, batch=8).fit(checkerboard(), epochs=1)
    with pytest.raises(DataError, match="trained model"):
        model.set_params(dim=8)
    assert model.set_params() is model
    assert model.options.dim == 4
