"""Losses and gradients: finite differences in float64, cases by hand, the swap test."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nearfar.errors import OptionError
from nearfar.geometry import normalise
from nearfar.objective import Decorrelate, SpreadOut, Triplet, through_normalisation


def unit(seed, *shape):
    return normalise(np.random.default_rng(seed).normal(size=shape))


def slope(loss, x, step=1e-6):
    """Central differences of `loss` at the array `x`."""
    gradient = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        ahead, behind = x.copy(), x.copy()
        ahead[at] += step
        behind[at] -= step
        gradient[at] = (loss(ahead) - loss(behind)) / (2 * step)
    return gradient


def test_triplet_by_hand():
    # D^2(u, v_j) = 2 (orthogonal), D^2(u, v_1) = 4 (opposite), D^2(u, v_2) = 0 (equal)
    u, vj = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    vk = np.array([[-1.0, 0.0], [1.0, 0.0]])
    term = Triplet(margin=1.0).term(u, vj, vk, n_items=10)
    assert term.loss == 2 - 0 + 1
    assert term.violated
    # impostors: only v_2 (2 - 0 + 1 > 0; 2 - 4 + 1 < 0); rank = floor(10 * 1 / 2) = 5
    ranked = Triplet(margin=1.0, rank_weight=True).term(u, vj, vk, n_items=10)
    assert ranked.loss == pytest.approx(3 * np.log(6))
    assert np.allclose(ranked.user, term.user * np.log(6))


def test_triplet_is_quiet_when_every_negative_is_far():
    u, vj = np.array([1.0, 0.0]), np.array([1.0, 0.0])
    term = Triplet(margin=1.0).term(u, vj, np.array([[-1.0, 0.0]]), n_items=10)
    assert term.loss == 0
    assert not term.violated
    assert not term.user.any()
    empty = Triplet().term(u, vj, np.empty((0, 2)), n_items=10)
    assert empty.loss == 0


def test_nearest_negative_wins_and_the_first_of_equals():
    u, vj = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    vk = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    term = Triplet().term(u, vj, vk, n_items=10)
    assert [row.any() for row in term.negatives] == [False, False, False]  # u - v_k = 0 there
    moved = Triplet().term(u, vj, vk * 0.9, n_items=10)
    assert [row.any() for row in moved.negatives] == [False, True, False]


@pytest.mark.parametrize("rank_weight", [False, True])
@pytest.mark.parametrize("margin", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_triplet_gradient(rank_weight, margin, scale):
    rule = Triplet(margin, rank_weight)
    u, vj, vk = scale * unit(0, 4), scale * unit(1, 4), scale * unit(2, 3, 4)
    term = rule.term(u, vj, vk, 50)
    assert term.violated

    assert term.user == pytest.approx(slope(lambda x: rule.term(x, vj, vk, 50).loss, u), abs=1e-6)
    assert term.positive == pytest.approx(
        slope(lambda x: rule.term(u, x, vk, 50).loss, vj), abs=1e-6
    )
    assert term.negatives == pytest.approx(
        slope(lambda x: rule.term(u, vj, x, 50).loss, vk), abs=1e-6
    )


@given(seed=st.integers(0, 10_000), margin=st.floats(0.1, 3))
def test_swapping_positive_and_negative_of_a_violated_pair_never_raises_the_loss(seed, margin):
    # if the negative is nearer than the positive, the right order costs less than the wrong one
    u, a, b = unit(seed, 3, 4)
    assume(abs(u @ a - u @ b) > 1e-6)
    near, far = (a, b) if u @ a > u @ b else (b, a)
    right = Triplet(margin).term(u, near, far[None], 10).loss
    wrong = Triplet(margin).term(u, far, near[None], 10).loss
    assert wrong > right
    assert wrong > margin > right


def test_spread_out_by_hand():
    # s = 0.5, -0.1: mean 0.2, mean of squares 0.13; 1/d = 0.1 -> 2 * (0.04 + 0.03)
    loss, derivative = SpreadOut(2.0).coefficients(np.array([0.5, -0.1]), dim=10)
    assert loss == pytest.approx(0.14)
    # dL/ds_q = 2/Q (2 mean + 2 s_q)
    assert derivative == pytest.approx([1 * (0.4 + 1.0), 1 * (0.4 - 0.2)])
    quiet, slopes = SpreadOut(2.0).coefficients(np.array([0.1, -0.1]), dim=10)
    assert quiet == 0
    assert slopes == pytest.approx([0, 0])
    assert SpreadOut().coefficients(np.empty(0), 3)[0] == 0


@pytest.mark.parametrize("spread", [0.05, 0.9])  # second moment below and above 1/d
def test_spread_out_gradient(spread):
    s = spread * np.random.default_rng(0).uniform(-0.5, 1, 20)
    rule = SpreadOut(0.7)
    assert (np.mean(s**2) > 1 / 12) == (spread > 0.5)
    found = rule.coefficients(s, 12)[1]
    assert found == pytest.approx(slope(lambda x: rule.coefficients(x, 12)[0], s), abs=1e-7)


@pytest.mark.parametrize("squared", [False, True])
def test_decorrelate_gradient(squared):
    rule, x = Decorrelate(3.0, squared), unit(3, 12, 4)
    assert rule.term(x)[1] == pytest.approx(slope(lambda y: rule.term(y)[0], x), abs=1e-7)


def test_decorrelate_by_hand():
    # points (+-1, +-1), all equal signs: C = [[1, 1], [1, 1]], ||C||_F = 2, ||diag C||^2 = 2, n = 2
    x = np.array([[1.0, 1.0], [-1.0, -1.0]])
    assert Decorrelate(1.0).term(x)[0] == pytest.approx((2 - 2) / 2)
    assert Decorrelate(1.0, squared=True).term(x)[0] == pytest.approx((4 - 2) / 2)
    # uncorrelated columns cost nothing when squared
    y = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert Decorrelate(1.0, squared=True).term(y)[0] == pytest.approx(0)
    assert Decorrelate(1.0).term(np.ones((3, 2)))[0] == 0


def test_gradient_through_normalisation():
    row, target = 2.5 * unit(4, 5), unit(5, 5)
    found = through_normalisation(target, row)  # of the linear loss target . x
    assert found == pytest.approx(slope(lambda r: float(target @ normalise(r)), row), abs=1e-7)
    assert found @ row == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Triplet(margin=-1.0), r"`margin` must be a positive number; got -1.0"),
        (lambda: Triplet(margin=float("nan")), "margin"),
        (lambda: SpreadOut(0.0), "spread_out=None"),
        (lambda: Decorrelate(-1.0), "decorrelate=None"),
    ],
)
def test_bad_options_are_refused(make, message):
    with pytest.raises(OptionError, match=message):
        make()
