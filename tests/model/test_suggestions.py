"""A hyper-parameter that does not exist is refused with the one that was probably meant."""

import inspect
import subprocess
import sys
from dataclasses import fields

import pytest

from nearfar import CML, SGD, TwoStage, presets
from nearfar.errors import OptionError
from nearfar.method.options import Options


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"margin": 0.5}, "`triplet=Triplet(margin=0.5)`?"),
        ({"temperature": None}, "`triplet=Triplet(temperature=None)`?"),
        ({"lr": 0.1}, "`optimiser=Adam(learning_rate=0.1)`?"),
        ({"learning_rate": 0.1}, "`optimiser=Adam(learning_rate=0.1)`?"),
        ({"learningrate": 0.1}, "`optimiser=Adam(learning_rate=0.1)`?"),
        ({"beta": 0.4}, "`sampler=Shared(beta=0.4)`?"),
        ({"candidates": 500}, "`sampler=TwoStage(candidates=500)`?"),
        (
            {"weight": 0.1},
            "`spread_out=SpreadOut(weight=0.1)` or `decorrelate=Decorrelate(weight=0.1)` or"
            " `neighbours=CoOccurrence(weight=0.1)`?",
        ),
        ({"eta": 1.0}, "`averaging=Averaging(eta=1.0)`?"),
        ({"optimizer": SGD(0.1)}, "`optimiser=SGD(learning_rate=0.1)`?"),
        ({"optimizer": "sgd"}, "`optimiser=...`?"),
        ({"dims": 64}, "`dim=64`?"),
        ({"n_factors": 64}, "`dim=64`?"),
        ({"negative": 3}, "`negatives=3`?"),
        ({"n_negatives": 3}, "`negatives=3`?"),
        ({"batch_size": 32}, "`batch=32`?"),
        ({"epochs": 3}, "`epochs` is an argument of `fit`: CML().fit(train, epochs=3)."),
        ({"seed": 3}, "`seed` is an argument of `fit`: CML().fit(train, seed=3)."),
    ],
)
def test_what_was_meant_is_said(given, meant):
    with pytest.raises(OptionError) as caught:
        CML(**given)
    (name,) = given
    assert str(caught.value).startswith(f"unknown option {name!r}; the options are dim, geometry,")
    assert str(caught.value).endswith(meant)


def test_what_resembles_nothing_is_refused_without_a_guess():
    with pytest.raises(
        OptionError,
        match=r"unknown option 'xyzzy'; the options are .*prior, neighbours, items, users.$",
    ):
        CML(xyzzy=1)


def test_the_class_of_the_options_is_suggested_first():
    with pytest.raises(OptionError, match=r"`sampler=TwoStage\(beta=0.4\)`"):
        CML(presets.paper_2019(), beta=0.4)
    with pytest.raises(OptionError, match=r"`optimiser=Adagrad\(learning_rate=0.4\)`"):
        CML(presets.cml_2017(), learning_rate=0.4)


def test_the_keywords_are_the_options():
    keywords = [
        name
        for name, one in inspect.signature(CML).parameters.items()
        if one.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    assert keywords == [field.name for field in fields(Options)]


@pytest.mark.parametrize("field", fields(Options), ids=lambda field: field.name)
def test_a_keyword_that_is_not_given_keeps_the_value_of_the_options(field):
    base = Options(3, "ball", TwoStage(9), 4, 16, averaging=None)
    assert CML(base).options == base
    value = getattr(presets.released_2019(batch=32), field.name)
    changed = CML(base, **{field.name: value}).options
    for one in fields(Options):
        kept = value if one is field else getattr(base, one.name)
        assert getattr(changed, one.name) == kept


@pytest.mark.slow
def test_type_checkers_see_the_keywords(tmp_path):
    (tmp_path / "right.py").write_text("import nearfar as nf\nnf.CML(dim=3, averaging=None)\n")
    (tmp_path / "wrong.py").write_text("import nearfar as nf\nnf.CML(dim='3')\nnf.CML(margin=1)\n")
    command = [sys.executable, "-m", "mypy", "--strict", str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True)
    errors = [line for line in found.stdout.splitlines() if " error: " in line]
    assert [line.split(":")[1] for line in errors] == ["2", "3"], found.stdout + found.stderr
