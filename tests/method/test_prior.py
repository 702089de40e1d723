"""The popularity prior: its rule, and the reason for it."""

from dataclasses import replace

import numpy as np
import pytest

from nearfar.errors import OptionError
from nearfar.method.options import Options
from nearfar.method.prior import (
    HARD,
    MOST,
    Prior,
    exponent,
    gamma_by_rule,
    inclusion,
    log_popularity,
)
from nearfar.method.proposal import alias_table, different
from nearfar.method.sampling import Popularity, Shared, TwoStage, Uniform

COUNTS = np.array([1, 3, 0, 40, 7, 7, 200])


def test_an_item_without_training_pairs_weighs_as_one_with_a_single_pair():
    assert log_popularity(COUNTS)[2] == log_popularity(COUNTS)[0] == 0.0
    assert np.allclose(log_popularity(COUNTS)[3:], np.log(COUNTS[3:]), rtol=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0, -0.5])
@pytest.mark.parametrize("kind", [Popularity, lambda beta: TwoStage(5, beta, distinct=False)])
def test_the_exponent_of_independent_draws_is_beta(kind, beta):
    assert exponent(kind(beta), COUNTS, 5) == pytest.approx(beta, abs=1e-12)


def test_the_chance_to_be_among_distinct_draws():
    q, n, times = np.repeat(COUNTS, 10) ** 0.8, 20, 4000
    table, support = alias_table(q), np.flatnonzero(q).astype(np.int32)
    drawn = [different(table, support, np.uint64(key), n) for key in range(times)]
    share = np.bincount(np.concatenate(drawn), minlength=len(q)) / times
    assert inclusion(q, n).sum() == pytest.approx(n)
    assert np.abs(share - inclusion(q, n)).max() < 0.04  # four deviations
    assert np.abs(share - n * q / q.sum()).max() > 0.3


def test_distinct_draws_are_flatter_than_beta():
    slopes = [exponent(Shared(0.8), COUNTS, n) for n in (1, 2, 4, 6)]
    assert 0.8 > slopes[0] > slopes[1] > slopes[2] > slopes[3] == 0.0
    many = np.arange(1, 3000)
    assert exponent(Shared(0.8), many, 2) == pytest.approx(0.8, abs=0.005)
    assert exponent(TwoStage(2, 0.8), many, 5) == exponent(Shared(0.8), many, 2)


@pytest.mark.parametrize("n_items", [3, 13, 59])
def test_equally_popular_or_equally_drawn_items_have_no_slope(n_items):
    assert exponent(Shared(0.8), np.full(n_items, 7), 2) == 0.0
    assert exponent(Popularity(0.8), np.full(n_items, 7), 2) == 0.0
    assert exponent(Shared(0.0), np.arange(1, n_items + 1), 2) == 0.0


def test_gamma_by_rule():
    flat = exponent(Shared(0.5), COUNTS, 2)
    assert gamma_by_rule(Shared(0.5), COUNTS, 0.2, 2) == pytest.approx(0.1 * flat)
    assert gamma_by_rule(Popularity(0.8), COUNTS, 0.0, 5) == pytest.approx(0.8 * HARD)
    assert gamma_by_rule(Uniform(), COUNTS, 0.2, 5) == 0.0
    assert gamma_by_rule(Popularity(3), COUNTS, 1e30, 5) == MOST
    assert gamma_by_rule(TwoStage(5, -0.5), COUNTS, 0.2, 5) == 0.0


def test_adding_the_prior_of_the_rule_gives_back_what_popular_negatives_take():
    """With one negative and no margin the loss is least where 2 s / T = log(p / q)."""
    rng = np.random.default_rng(0)
    p, temperature, beta = rng.dirichlet(np.ones(7)), 0.3, 0.6
    q = COUNTS.clip(1) ** beta / np.sum(COUNTS.clip(1) ** beta)
    score = temperature / 2 * np.log(p / q)
    between = 2 * (score[:, None] - score[None]) / temperature  # of positive j over negative k
    share = p[:, None] * q[None] / (1 + np.exp(between))
    assert np.abs(share.sum(axis=1) - share.sum(axis=0)).max() < 1e-15  # the gradient

    gamma = gamma_by_rule(Popularity(beta), COUNTS, temperature, 1)
    restored = score + gamma * log_popularity(COUNTS)
    assert np.allclose(np.diff(restored), temperature / 2 * np.diff(np.log(p)), atol=1e-7)


def test_a_gamma_is_a_number_of_at_least_zero():
    assert type(Prior(gamma=np.float32(0.5)).gamma) is float
    for bad in (-0.1, "0.1", np.nan, True, 1e300):
        with pytest.raises(OptionError, match="`gamma` must be a finite number"):
            Prior(gamma=bad)
    with pytest.raises(OptionError, match="`one_error` must be True or False"):
        Prior(one_error="yes")


def test_options_saved_before_there_was_a_prior_have_none():
    plain = Options().to_dict()
    del plain["prior"]
    assert Options.from_dict(plain) == replace(Options(), prior=None)
    assert Options.from_dict(Options(prior=Prior(gamma=0.1)).to_dict()).prior == Prior(gamma=0.1)
