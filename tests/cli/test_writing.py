"""Options written as the flags of `nearfar fit` that make them."""

from dataclasses import replace

import pytest

import nearfar as nf
from nearfar.cli.binding import build
from nearfar.cli.inputs import OPTION_FLAGS
from nearfar.cli.writing import option_words, words_of
from nearfar.errors import OptionError
from nearfar.method.options import STRATEGIES
from nearfar.method.presets import PRESETS

OPTIONS = {
    "defaults": nf.Options(),
    "shared": nf.Options(sampler=nf.Shared(0.5), triplet=nf.Triplet(0.1, temperature=0.31)),
    "prior": nf.Options(prior=nf.Prior(0.4), averaging=nf.Averaging(2.0)),
    "off": nf.Options(prior=None, averaging=None),
    "on": nf.Options(neighbours=nf.CoOccurrence(50), decorrelate=nf.Decorrelate(0.2)),
    "stages": nf.Options(sampler=nf.TwoStage(90, 0.4, towards="user", sharpness=0.3), negatives=3),
    "sgd": nf.Options(optimiser=nf.SGD(0.2), geometry="ball", batch=99),
    **{name: make() for name, make in PRESETS.items()},
}


def read(words):
    """The options that flags make, as the command line would."""
    given, kinds = {}, {one.name: one for one in OPTION_FLAGS}
    words = iter(words)
    for word in words:
        name = word.removeprefix("--").removeprefix("no-")
        flag = kinds[name]
        if flag.kind is bool:
            given[flag.key] = not word.startswith("--no-")
        else:
            value = next(words)
            given[flag.key] = flag.kind(value) if flag.kind in (int, float) else value
    return build(nf.Options(), OPTION_FLAGS, given, STRATEGIES)


@pytest.mark.parametrize("name", OPTIONS)
def test_the_flags_make_the_options(name):
    made = read(option_words(OPTIONS[name]))
    assert made == OPTIONS[name]


def test_defaults_need_no_flags():
    assert option_words(nf.Options()) == []


def test_a_hybrid_has_its_three_strengths():
    options = nf.Options(items=nf.Hybrid(nf.Linear(0.2), id_dropout=0.5, id_decay=0.1))
    expected = ["--id-dropout", "0.5", "--id-decay", "0.1", "--encoder-decay", "0.2"]
    assert option_words(options) == expected
    assert option_words(replace(options, items=None, users=options.items)) == expected


def test_options_without_flags_are_refused():
    with pytest.raises(OptionError, match="no flags of `nearfar fit` make the options"):
        option_words(nf.Options(triplet=nf.Triplet(0.2, temperature=None), prior=nf.Prior(0.0)))


def test_flags_without_a_value_are_left_out():
    assert words_of({"k": 5, "fast": False, "patience": None}) == ["--k", "5", "--no-fast"]
