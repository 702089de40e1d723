"""The spaces: where they start, what they vary, and what is refused."""

from dataclasses import replace

import pytest

import nearfar as nf
from conftest import checkerboard
from nearfar.engine import Problem
from nearfar.errors import OptionError
from nearfar.tuning.spaces import SPACES, Among, Between, space_of

DATA = checkerboard(40)
SIDES = {"hybrid": ("items",)}


class Ends:
    """Suggests one end of each dimension, as a trial of Optuna would."""

    def __init__(self, at):
        self.at = at

    def suggest_float(self, _, low, high, log):
        return (low, high)[self.at]

    suggest_int = suggest_float

    def suggest_categorical(self, _, choices):
        return choices[-self.at]


@pytest.mark.parametrize("name", SPACES)
def test_a_space_starts_at_its_base(name):
    space = space_of(name, SIDES.get(name, ()))
    assert space.options(space.defaults, DATA) == space.base
    for one in space.dimensions:
        bounds = one.values if isinstance(one, Among) else (one.low, one.high)
        assert min(bounds) <= one.default <= max(bounds)
        assert one.why


def test_the_default_space_starts_from_the_defaults():
    assert space_of("shared").base == nf.Options()


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("name", SPACES)
def test_both_ends_of_every_dimension_are_options_that_differ(name, at):
    space = space_of(name, SIDES.get(name, ()), dial=True)
    ends = space.suggest(Ends(at))
    assert set(ends) == {one.path for one in space.dimensions}
    for path, value in ends.items():
        changed = space.options({**space.defaults, path: value}, DATA)
        same = value == space.defaults[path]
        assert (changed == space.base) == same, path


def test_relative_dimensions_are_factors_of_what_the_data_recommend():
    space = space_of("shared")
    problem = Problem(DATA, replace(nf.Options(), sampler=nf.Shared(0.5)))
    values = space.defaults | {"sampler.beta": 0.5, "triplet.temperature": 1.5, "negatives": 0.5}
    found = space.options(values, DATA)
    assert found.triplet.temperature == pytest.approx(1.5 * problem.triplet.temperature, rel=1e-2)
    assert found.negatives == problem.n_candidates // 2
    most = space.options(space.defaults | {"negatives": 2}, DATA).negatives
    assert most == min(2 * problem.n_candidates, 40)


def test_values_have_three_digits():
    space = space_of("shared")
    found = space.options(space.defaults | {"optimiser.learning_rate": 0.0123456}, DATA)
    assert found.optimiser.learning_rate == 0.0123


def test_a_hybrid_has_its_strengths_on_the_sides_with_features():
    space = space_of("hybrid", ("items", "users"))
    values = space.defaults | {"hybrid.encoder.decay": 0.2, "hybrid.id_dropout": 0.5}
    found = space.options(values, DATA)
    assert found.items == found.users == nf.Hybrid(nf.Linear(0.2), id_dropout=0.5)
    assert space_of("hybrid", ("users",)).options(values, DATA).items is None


@pytest.mark.parametrize(
    ("name", "sides", "message"),
    [
        ("triplets", (), "`space` must be one of shared, uniform, popularity, two-stage, hybrid"),
        (None, (), "`space` must be one of"),
        ("hybrid", (), "none are given; pass item_features="),
        ("uniform", ("items",), "`space` 'uniform' has no use for features"),
    ],
)
def test_a_space_that_cannot_be_is_refused(name, sides, message):
    with pytest.raises(OptionError, match=message):
        space_of(name, sides)


def test_dimensions_say_what_they_are():
    assert Between("a", 0.1, 2, 1, "", log=True).shown == "0.1 to 2, logarithmic"
    assert Among("a", (0.5, 1), 1, "", relative=True).shown == "0.5, 1 x recommended"
    assert [one.path for one in space_of("shared", dial=True).dimensions][-1] == "prior.popularity"
