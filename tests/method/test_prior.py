"""The popularity prior: its rule, and the reason for it."""

import numpy as np
import pytest

from conftest import SAMPLERS
from nearfar.errors import OptionError
from nearfar.method.options import Options
from nearfar.method.prior import HARD, Prior, exponent, gamma_by_rule, log_popularity
from nearfar.method.sampling import Popularity, Shared, TwoStage, Uniform

COUNTS = np.array([1, 3, 0, 40, 7, 7, 200])


def test_an_item_without_training_pairs_weighs_as_one_with_a_single_pair():
    assert log_popularity(COUNTS)[2] == log_popularity(COUNTS)[0] == 0.0
    assert np.allclose(log_popularity(COUNTS)[3:], np.log(COUNTS[3:]), rtol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_exponent_is_beta(name):
    sampler = SAMPLERS[name]
    assert exponent(sampler, COUNTS) == pytest.approx(getattr(sampler, "beta", 0.0), abs=1e-12)


def test_gamma_by_rule():
    assert gamma_by_rule(Shared(0.5), COUNTS, 0.2) == pytest.approx(0.05)
    assert gamma_by_rule(Popularity(0.8), COUNTS, 0.0) == pytest.approx(0.8 * HARD)
    assert gamma_by_rule(Uniform(), COUNTS, 0.2) == 0.0
    assert gamma_by_rule(TwoStage(5, -0.5), COUNTS, 0.2) == 0.0


def test_adding_the_prior_of_the_rule_gives_back_what_popular_negatives_take():
    """With one negative and no margin the loss is least where 2 s / T = log(p / q)."""
    rng = np.random.default_rng(0)
    p, temperature, beta = rng.dirichlet(np.ones(7)), 0.3, 0.6
    q = COUNTS.clip(1) ** beta / np.sum(COUNTS.clip(1) ** beta)
    score = temperature / 2 * np.log(p / q)
    between = 2 * (score[:, None] - score[None]) / temperature  # of positive j over negative k
    share = p[:, None] * q[None] / (1 + np.exp(between))
    assert np.abs(share.sum(axis=1) - share.sum(axis=0)).max() < 1e-15  # the gradient

    gamma = gamma_by_rule(Popularity(beta), COUNTS, temperature)
    restored = score + gamma * log_popularity(COUNTS)
    assert np.allclose(np.diff(restored), temperature / 2 * np.diff(np.log(p)), atol=1e-7)


def test_a_gamma_is_a_number_of_at_least_zero():
    assert type(Prior(gamma=np.float32(0.5)).gamma) is float
    for bad in (-0.1, "0.1", np.nan, True):
        with pytest.raises(OptionError, match="`gamma` must be a finite number"):
            Prior(gamma=bad)
    with pytest.raises(OptionError, match="`one_error` must be True or False"):
        Prior(one_error="yes")


def test_options_saved_before_there_was_a_prior_have_none():
    plain = Options().to_dict()
    del plain["prior"]
    assert Options.from_dict(plain) == Options()
    assert Options.from_dict(Options(prior=Prior(gamma=0.1)).to_dict()).prior == Prior(gamma=0.1)
