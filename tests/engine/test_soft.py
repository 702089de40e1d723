"""The hard and the soft maximum in float32 against `nearfar.method.loss` and numpy, in float64."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nearfar.engine.cpu.soft import count_inside, exp_row, harden, most_of, soften, total_of
from nearfar.method.loss import Triplet


def exps(x, scale=1.0, top=0.0):
    """exp((x - top) * scale) of a row between two others, which stay as they are."""
    rows = np.full((3, len(x)), np.float32(7.0))
    rows[1] = x
    exp_row(rows, 1, len(x), scale, top, np.empty(len(x), np.float32))
    assert (rows[[0, 2]] == 7).all()
    return rows[1]


def of_row(x, temperature, factor=1.0, near=0.0, margin=0.0):
    """Loss and derivatives of x, as an engine finds them in a row that has room for more."""
    x = np.asarray(x, np.float32)
    rows, n = np.full((2, len(x) + 3), np.float32(7.0)), len(x)
    rows[1, :n] = near + (x - margin) / 2  # exactly x / 2 if both are 0
    if temperature > 0:
        power = np.empty(n + 3, np.float32)
        loss = soften(rows, 1, n, near - 0.5 * margin, temperature, factor, power)
    else:
        loss = harden(rows, 1, n, near, margin, factor)
    assert (rows[0] == 7).all()
    assert (rows[1, n:] == 7).all()
    return loss, rows[1, :n]


def test_exp_is_that_of_numpy_to_the_last_bits():
    x = np.linspace(-87, 0, 2_000_001).astype(np.float32)
    expected = np.exp(x.astype(np.float64))
    error = np.abs(exps(x) - expected) / expected
    assert error.max() < 2e-7


def test_exp_takes_off_the_top_and_scales():
    x = np.random.default_rng(0).uniform(-20, 3, 1000).astype(np.float32)
    y = (x - np.float32(3)) * np.float32(2.5)
    assert exps(x, scale=2.5, top=3.0) == pytest.approx(np.exp(y.astype(np.float64)), rel=2e-7)


@pytest.mark.parametrize("n", [1, 7, 8, 33])  # shorter than a vector, one, and with a rest
def test_exp_of_what_is_special(n):
    def alone(x):
        found = exps(np.full(n, x, np.float32))
        assert len(np.unique(found)) == 1
        return found[0]

    assert alone(0.0) == 1
    assert alone(-87.0) > 0
    assert alone(np.nextafter(np.float32(-87), np.float32(-88))) == 0
    for x in (-88.0, -104.0, -1e6, -3e38, -np.inf):
        assert alone(x) == 0, x
    assert np.isnan(alone(np.nan))


def test_a_nan_among_others_stays_where_it_is():
    x = np.zeros(40, np.float32)
    x[[3, 22]] = np.nan
    assert np.flatnonzero(np.isnan(exps(x))).tolist() == [3, 22]


ROWS = arrays(
    np.float32,
    st.integers(0, 70),
    elements=st.floats(-5, 5, width=32, allow_subnormal=False) | st.just(float("-inf")),
)


@given(x=ROWS, temperature=st.just(0.0) | st.floats(0.02, 5), factor=st.floats(0.1, 30))
@example(x=np.empty(0, np.float32), temperature=0.3, factor=2.0)
@example(x=np.empty(0, np.float32), temperature=0.0, factor=2.0)
@example(x=np.full(17, -np.inf, np.float32), temperature=0.3, factor=2.0)
@example(x=np.full(17, -np.inf, np.float32), temperature=0.0, factor=2.0)
@example(x=np.ones(17, np.float32), temperature=0.0, factor=2.0)
@example(x=np.zeros(17, np.float32), temperature=0.0, factor=2.0)
def test_both_maxima_are_those_of_the_objective(x, temperature, factor):
    loss, share = of_row(x, temperature, factor)
    if len(x) == 0:
        assert loss == 0
        return
    rule = Triplet(temperature=temperature)
    expected_loss, expected = rule.soft_maximum(x.astype(np.float64))
    if temperature == 0:
        assert loss == expected_loss
        assert share.tolist() == (np.float32(factor) * expected).tolist()
        return
    assert loss == pytest.approx(expected_loss, rel=1e-6, abs=1e-6 * temperature)
    assert share == pytest.approx(factor * expected, rel=0, abs=2e-6 * factor)
    assert not share[np.isneginf(x)].any()
    assert (share >= 0).all()


@pytest.mark.parametrize("temperature", [0.0, 0.02, 0.3])
def test_margin_and_positive_say_where_zero_is(temperature):
    x = np.random.default_rng(2).uniform(-1, 2, 40)
    expected_loss, expected = of_row(x, temperature)
    loss, share = of_row(x, temperature, near=0.4, margin=1.5)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert share == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("temperature", [0.0, 0.02, 0.3])
@pytest.mark.parametrize("n", [1, 8, 35])
def test_nothing_flows_where_no_negative_is(n, temperature):
    loss, share = of_row(np.full(n, -np.inf), temperature)
    assert loss == 0
    assert not share.any()


@pytest.mark.parametrize("temperature", [0.0, 0.02, 0.3])
@pytest.mark.parametrize("rest", [-np.inf, -1.0, 0.5])
@pytest.mark.parametrize("n", [1, 2, 8, 35])
def test_a_nan_reaches_the_loss_wherever_it_stands(n, rest, temperature):
    for place in range(n):
        x = np.full(n, rest, np.float32)
        x[place] = np.nan
        assert np.isnan(of_row(x, temperature)[0]), place


@given(x=ROWS)
def test_sum_maximum_and_count_of_a_row(x):
    rows = np.full((2, len(x) + 3), np.float32(7.0))
    rows[1, : len(x)] = x
    assert most_of(rows, 1, len(x)) == max(x, default=-np.inf)
    assert count_inside(rows / 2, 1, len(x), 0.0, 0.0) == np.sum(x > 0)
    finite = np.where(np.isfinite(rows), rows, 0)
    total = finite[1, : len(x)].astype(np.float64).sum()
    assert total_of(finite, 1, len(x)) == pytest.approx(total, rel=1e-5, abs=1e-4)
