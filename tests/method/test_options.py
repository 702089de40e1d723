"""Options: checked, saved, and every one of them changes something."""

import json
from dataclasses import asdict, fields, replace
from functools import cache

import numpy as np
import pytest

from conftest import PLAIN, random_data
from nearfar import CML, presets
from nearfar.errors import OptionError
from nearfar.method.co_occurrence import CoOccurrence
from nearfar.method.hybrid import Hybrid
from nearfar.method.loss import Decorrelate, SpreadOut, Triplet
from nearfar.method.optimiser import SGD, Adagrad, Adam, Averaging
from nearfar.method.options import STRATEGIES, Options
from nearfar.method.prior import Prior
from nearfar.method.sampling import Popularity, Shared, TwoStage, Uniform

DATA = random_data(crowded=True)

CHANGES = {
    "dim": 12,
    "geometry": "ball",
    "sampler": Popularity(),
    "negatives": 3,
    "batch": 32,
    "triplet": Triplet(0.5),
    "spread_out": SpreadOut(5.0),
    "decorrelate": Decorrelate(50.0),
    "optimiser": Adagrad(0.1),
    "averaging": Averaging(),
}
PARTS = {
    Uniform: {"redraws": 1},
    Popularity: {"beta": 0.3, "distinct": True, "redraws": 1},
    TwoStage: {
        "candidates": 12,
        "beta": 0.2,
        "distinct": False,
        "vectors": "initial",
        "released_weight": True,
        "towards": "user",
        "sharpness": 0.2,
    },
    Shared: {"beta": 0.2},
    Triplet: {"margin": 0.4, "rank_weight": True, "temperature": 0.3},
    SpreadOut: {"weight": 1.0},
    Decorrelate: {"weight": 10.0, "squared": True},
    SGD: {"learning_rate": 0.01},
    Adagrad: {"learning_rate": 0.01, "initial": 0.5, "epsilon": 0.5},
    Adam: {"learning_rate": 0.03, "beta1": 0.5, "beta2": 0.95, "epsilon": 1e-2},
    Averaging: {"eta": 9.0},
}
BASES = {
    Uniform: {"sampler": Uniform()},
    Popularity: {"sampler": Popularity()},
    TwoStage: {"sampler": TwoStage(25)},
    Shared: {"sampler": Shared(), "triplet": Triplet(temperature=None)},
    Triplet: {"triplet": Triplet()},
    SpreadOut: {"spread_out": SpreadOut(5.0)},
    Decorrelate: {"decorrelate": Decorrelate(50.0)},
    SGD: {"optimiser": SGD()},
    Adagrad: {"optimiser": Adagrad()},
    Adam: {"optimiser": Adam(0.01)},
    Averaging: {"averaging": Averaging()},
}


@cache  # many are compared with the same one
def trained(**options):
    base = {"dim": 128, "negatives": 2, "batch": 16, "optimiser": Adam(0.02), **options}
    model = CML(PLAIN, **base).fit(DATA, epochs=3, threads=1)
    return model.user_vectors[:, :8]


def test_every_option_is_tried_here():
    # the prior and neighbours change scores and no point: model/test_dial.py,
    # model/test_co_occurring.py; hybrids need features: model/test_hybrid.py
    others = {"prior", "neighbours", "items", "users"}
    assert set(CHANGES) == {field.name for field in fields(Options)} - others
    kinds = {kind for kinds in STRATEGIES.values() for kind in kinds}
    assert set(PARTS) == kinds - {type(None), Prior, CoOccurrence, Hybrid}
    for kind, changes in PARTS.items():
        assert set(changes) == {field.name for field in fields(kind)}


@pytest.mark.parametrize("name", CHANGES)
def test_every_option_changes_the_result(name):
    assert not np.array_equal(trained(), trained(**{name: CHANGES[name]}))


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, changes in PARTS.items() for name in changes]
)
def test_every_option_of_a_part_changes_the_result(kind, name):
    (part, value), *_ = BASES[kind].items()
    before = trained(**BASES[kind])
    after = trained(**BASES[kind] | {part: replace(value, **{name: PARTS[kind][name]})})
    assert not np.array_equal(before, after)


@pytest.mark.parametrize(
    "options",
    [
        Options(),
        presets.paper_2019("two-stage", negatives=1),
        presets.released_2019("popularity"),
        presets.cml_2017(),
        Options(sampler=Shared(-0.5), negatives=500, triplet=Triplet(temperature=0.25)),
        Options(sampler=TwoStage(500, 0.5, towards="user", sharpness=0.2)),
    ],
)
def test_options_survive_json(options):
    assert Options.from_dict(json.loads(json.dumps(options.to_dict()))) == options


def test_options_are_equal_if_all_are():
    assert Options() == Options(negatives=None) != Options(negatives=512)
    assert hash(Options()) == hash(Options(negatives=None))
    assert Options() != "Options()"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 1}, "`dim` must be a whole number from 2 to 4,096; got 1"),
        ({"dim": 4097}, "dim"),
        ({"dim": 12.0}, "`dim` must be a whole number .*; got 12.0"),
        ({"negatives": -1}, "`negatives` must be a whole number from 1 to 100,000"),
        ({"negatives": 0}, "`negatives` must be a whole number from 1 to 100,000"),
        ({"batch": True}, "batch"),
        (
            {"sampler": Uniform(), "batch": 1_000_000, "negatives": 500},
            "buffer size of a step, .* 1,000,000 x 502",
        ),
        ({"geometry": "cube"}, "`geometry` must be one of sphere, ball, free; got 'cube'"),
        ({"sampler": "uniform"}, r"`sampler` must be Uniform\(...\) or Popularity"),
        ({"sampler": Uniform}, "add parentheses"),
        ({"spread_out": 0.1}, "`spread_out` must be SpreadOut.* or None; got 0.1"),
        (
            {"sampler": Shared(), "spread_out": SpreadOut(0.1)},
            r"not available with sampler=Shared\(...\); got SpreadOut\(.*\)\. Use spread_out=None",
        ),
        ({"negative": 3}, "unknown option 'negative'; the options are dim"),
    ],
)
def test_bad_options_are_refused(changes, message):
    with pytest.raises(OptionError, match=message):
        CML(**changes)


def test_saved_options_that_lack_one_are_refused():
    plain = PLAIN.to_dict()
    del plain["averaging"]
    with pytest.raises(OptionError, match=r"missing option\(s\) averaging"):
        Options.from_dict(plain)
    plain = PLAIN.to_dict()
    del plain["triplet"]["temperature"]
    with pytest.raises(OptionError, match="`triplet`: temperature missing"):
        Options.from_dict(plain)


def test_options_saved_before_there_was_a_direction_look_towards_the_positive():
    plain = presets.paper_2019().to_dict()
    assert plain["sampler"].pop("towards") == "positive"
    assert plain["sampler"].pop("sharpness") == 1.0
    assert Options.from_dict(plain) == presets.paper_2019()
    del plain["sampler"]["vectors"]
    with pytest.raises(OptionError, match="`sampler`: vectors missing"):
        Options.from_dict(plain)


def test_unknown_saved_options_are_refused():
    with pytest.raises(OptionError, match="unknown option"):
        Options.from_dict({"dimension": 3})
    with pytest.raises(OptionError, match="`sampler` must be one of Uniform"):
        Options.from_dict(PLAIN.to_dict() | {"sampler": {"kind": "Gaussian"}})
    sampler = asdict(Popularity()) | {"kind": "Popularity", "gamma": 1}
    with pytest.raises(OptionError, match=r"`sampler`.*gamma"):
        Options.from_dict(PLAIN.to_dict() | {"sampler": sampler})
