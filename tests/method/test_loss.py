"""Losses and gradients: finite differences in float64, cases by hand, the swap test."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nearfar.errors import OptionError
from nearfar.method.geometry import normalise
from nearfar.method.loss import Decorrelate, SpreadOut, Triplet, through_normalisation


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


@pytest.mark.parametrize("temperature", [0.0, 0.4])
@pytest.mark.parametrize("rank_weight", [False, True])
@pytest.mark.parametrize("margin", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_triplet_gradient(rank_weight, margin, scale, temperature):
    rule = Triplet(margin, rank_weight, temperature)
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


def test_soft_maximum_of_one_negative_by_hand():
    # D^2(u, v_j) = 2, D^2(u, v_k) = 4, margin 1: x = -1, inside the soft margin all the same
    u, vj, vk = np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.array([[-1.0, 0.0]])
    term = Triplet(temperature=0.5).term(u, vj, vk, n_items=10)
    assert term.loss == pytest.approx(0.5 * np.log(1 + np.exp(-2)))
    assert not term.violated
    share = np.exp(-2) / (1 + np.exp(-2))
    assert term.user == pytest.approx(2 * share * np.array([-1.0, -1.0]))  # v_k - v_j
    assert term.positive == pytest.approx(2 * share * np.array([-1.0, 1.0]))  # v_j - u
    assert term.negatives == pytest.approx(2 * share * np.array([[2.0, 0.0]]))  # u - v_k
    # no impostor, so the rank is 0 and log(0 + 1) = 0
    ranked = Triplet(temperature=0.5, rank_weight=True).term(u, vj, vk, n_items=10)
    assert ranked.loss == 0
    assert not ranked.user.any()


def test_soft_maximum_of_two_negatives_by_hand():
    # D^2: 2, and 4 and 0 to the negatives: x = 1 + 2 - 4 = -1 and 1 + 2 - 0 = 3
    u, vj = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    vk = np.array([[-1.0, 0.0], [1.0, 0.0]])
    term = Triplet(temperature=2.0).term(u, vj, vk, n_items=10)
    whole = 1 + np.exp(-0.5) + np.exp(1.5)
    assert term.loss == pytest.approx(2 * np.log(whole))
    assert term.violated
    far, near = np.exp(-0.5) / whole, np.exp(1.5) / whole
    assert term.user == pytest.approx([2 * (near - far), -2 * (near + far)])
    assert term.positive == pytest.approx([-2 * (near + far), 2 * (near + far)])
    assert term.negatives == pytest.approx(np.array([[4 * far, 0.0], [0.0, 0.0]]))
    # one of two is an impostor: rank = floor(10 * 1 / 2) = 5
    ranked = Triplet(temperature=2.0, rank_weight=True).term(u, vj, vk, n_items=10)
    assert ranked.loss == pytest.approx(term.loss * np.log(6))
    assert ranked.positive == pytest.approx(term.positive * np.log(6))
    empty = Triplet(temperature=2.0).term(u, vj, np.empty((0, 2)), n_items=10)
    assert empty.loss == 0


@pytest.mark.parametrize("margin", [0.3, 1.0, 2.5])
def test_without_temperature_the_soft_maximum_is_the_hinge(margin):
    u, vj, vk = unit(0, 4), unit(1, 4), unit(2, 5, 4)
    hard = Triplet(margin).term(u, vj, vk, 50)
    assert hard.violated
    for temperature, most in ((1.0, 1.0), (0.1, 0.1), (1e-4, 1e-12)):
        soft = Triplet(margin, temperature=temperature).term(u, vj, vk, 50)
        assert 0 <= soft.loss - hard.loss <= temperature * np.log(6) + 1e-15
        for name in ("user", "positive", "negatives"):
            assert np.abs(getattr(soft, name) - getattr(hard, name)).max() < most, name
    assert soft.loss - hard.loss < 1e-12


X = arrays(np.float64, st.integers(1, 20), elements=st.floats(-10, 10))


@given(x=X, temperature=st.floats(0.01, 10))
def test_soft_maximum_lies_little_above_the_hinge(x, temperature):
    loss, share = Triplet(temperature=temperature).soft_maximum(x)
    hinge = Triplet().soft_maximum(x)[0]
    assert hinge == max(x.max(), 0)
    slack = 1e-12 * (1 + hinge)
    assert hinge - slack <= loss <= hinge + temperature * np.log(1 + len(x)) + slack
    assert (share >= 0).all()
    assert share.sum() <= 1 + 1e-12
    assert (np.diff(share[np.argsort(x)]) >= 0).all()  # the nearer, the more


@given(x=X)
def test_the_hinge_gives_all_to_the_first_of_the_nearest(x):
    share = Triplet().soft_maximum(x)[1]
    assert share.sum() == (x.max() > 0)
    assert x.max() <= 0 or np.flatnonzero(share).tolist() == [int(np.argmax(x))]


@pytest.mark.parametrize(("n_items", "temperature"), [(50, 1.0), (800, 0.5), (500_000, 0.1)])
def test_a_temperature_that_is_left_to_the_data_falls_with_the_items(n_items, temperature):
    left = Triplet(0.0, rank_weight=True, temperature=None)
    assert left.at(n_items) == Triplet(0.0, rank_weight=True, temperature=temperature)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_a_temperature_that_is_given_stays(temperature):
    given = Triplet(0.3, temperature=temperature)
    assert given.at(1000) == given


def test_a_temperature_that_is_not_known_yet_gives_no_loss():
    with pytest.raises(OptionError, match=r"`temperature` is left to the data \(None\)"):
        Triplet(temperature=None).soft_maximum(np.ones(2))


@pytest.mark.parametrize("temperature", [0.1, 0.4, 3.0])
def test_the_soft_gradient_is_what_one_weighted_draw_gives_on_average(temperature):
    """A negative drawn with Pr(k) ~ exp(x_k / T), in a loss that is linear in its x_k."""
    rule, linear = Triplet(0.7, temperature=temperature), Triplet(10.0)  # inside that margin: all
    u, vj, vk = unit(3, 6), unit(4, 6), unit(5, 7, 6)
    term = rule.term(u, vj, vk, 50)
    x = 0.7 + np.sum((u - vj) ** 2) - np.sum((u - vk) ** 2, axis=1)
    chance = np.exp(x / temperature) / np.exp(x / temperature).sum()
    flow = 1 - 1 / (1 + np.exp(x / temperature).sum())
    assert flow == pytest.approx(rule.soft_maximum(x)[1].sum())
    assert 0.1 < flow < 1
    alone = [linear.term(u, vj, v[None], 50) for v in vk]
    assert term.user == pytest.approx(flow * (chance @ [one.user for one in alone]))
    assert term.positive == pytest.approx(flow * alone[0].positive)  # the same for all of them
    pushed = np.array([one.negatives[0] for one in alone])
    assert term.negatives == pytest.approx(flow * chance[:, None] * pushed)


@given(
    seed=st.integers(0, 10_000),
    margin=st.floats(0.1, 3),
    temperature=st.sampled_from([0.0, 0.3, 2.0]),
)
def test_swapping_positive_and_negative_of_a_violated_pair_never_raises_the_loss(
    seed, margin, temperature
):
    # if the negative is nearer than the positive, the right order costs less than the wrong one
    u, a, b = unit(seed, 3, 4)
    assume(abs(u @ a - u @ b) > 1e-6)
    near, far = (a, b) if u @ a > u @ b else (b, a)
    rule = Triplet(margin, temperature=temperature)
    right = rule.term(u, near, far[None], 10).loss
    wrong = rule.term(u, far, near[None], 10).loss
    assert wrong > right
    assert wrong > margin
    assert margin > right or temperature > 0


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


def test_margin_0_is_cross_entropy():
    u, vj, vk = unit(1, 6), unit(2, 6), np.stack([unit(s, 6) for s in range(3, 9)])
    t = 0.3
    loss = Triplet(0.0, temperature=t).term(u, vj, vk, 50).loss
    logits = 2.0 / t * np.concatenate([[vj @ u], vk @ u])
    probability = np.exp(logits[0]) / np.exp(logits).sum()
    assert loss == pytest.approx(-t * np.log(probability), rel=1e-12)


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
        (
            lambda: Triplet(margin=0.0),
            r"positive number; got 0.0. \(0 is allowed only with a temperature.\)",
        ),
        (
            lambda: Triplet(margin=-1.0, temperature=0.5),
            "`margin` must be a finite number at least 0; got -1",
        ),
        (
            lambda: Triplet(temperature=-1.0),
            r"`temperature` must be 0 \(.*\), at least 1e-6, or None \(.*\); got -1.0",
        ),
        (lambda: Triplet(temperature=float("nan")), "`temperature` .* got nan"),
        (lambda: Triplet(temperature=1e-40), "`temperature` .* at least 1e-6, .*; got 1e-40"),
        (lambda: Triplet(temperature=float("inf")), "`temperature` .* got inf"),
        (lambda: SpreadOut(0.0), "spread_out=None"),
        (lambda: Decorrelate(-1.0), "decorrelate=None"),
    ],
)
def test_bad_options_are_refused(make, message):
    with pytest.raises(OptionError, match=message):
        make()
