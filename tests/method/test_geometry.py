"""The sphere: distances and scores, the density of a product, the stage-2 weight."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import integrate, stats

from nearfar.method import geometry
from nearfar.runtime import counter

vectors = arrays(np.float64, 5, elements=st.floats(-3, 3).map(lambda x: round(x, 3)))


@given(u=vectors, v=vectors)
def test_score_is_one_minus_half_the_squared_distance(u, v):
    expected = u @ v - (u @ u - 1) / 2 - (v @ v - 1) / 2
    assert geometry.score(u, v) == pytest.approx(expected, abs=1e-9)
    assert geometry.squared_distance(u, v) == pytest.approx(2 - 2 * geometry.score(u, v), abs=1e-9)


@given(u=vectors, v=vectors, w=vectors)
def test_nearer_means_a_larger_score(u, v, w):
    if np.linalg.norm(u - v) + 1e-9 < np.linalg.norm(u - w):
        assert geometry.score(u, v) > geometry.score(u, w)


def test_normalise_gives_length_one_and_keeps_zero_and_type():
    rows = np.array([[3, 4], [0, 0], [1e-10, 0]], np.float32)
    unit = geometry.normalise(rows)
    assert unit.dtype == np.float32
    assert np.allclose(unit, [[0.6, 0.8], [0, 0], [1, 0]])


@pytest.mark.parametrize("dim", [2, 3, 4, 10, 128])
def test_density_integrates_to_one_with_second_moment_one_over_d(dim):
    def moment(power):  # s = sin(a): no singularity at the ends
        return integrate.quad(
            lambda a: np.sin(a) ** power * geometry.density(np.sin(a), dim) * np.cos(a),
            -np.pi / 2 + 1e-9,
            np.pi / 2 - 1e-9,
        )[0]

    assert moment(0) == pytest.approx(1, abs=1e-6)
    assert moment(2) == pytest.approx(1 / dim, abs=1e-6)


@pytest.mark.parametrize("dim", [3, 16])
def test_density_is_that_of_random_unit_vectors(dim):
    key = counter.stream(0, counter.Purpose.INITIAL)
    unit = geometry.normalise(counter.normal(key, np.arange(8000 * dim)).reshape(-1, dim))
    s = np.sum(unit[::2] * unit[1::2], axis=1)
    edges = np.linspace(-1, 1, 9)
    share = [integrate.quad(geometry.density, a, b, args=(dim,))[0] for a, b in pairwise(edges)]
    seen = np.histogram(s, edges)[0]
    keep = np.array(share) * len(s) > 5
    expected = np.array(share)[keep] / np.array(share)[keep].sum() * seen[keep].sum()
    assert stats.chisquare(seen[keep], expected).pvalue > 1e-3


@given(
    dim=st.integers(2, 4096),
    s=arrays(np.float32, st.integers(1, 20), elements=st.floats(-1, 1, width=32)),
)
def test_stage_two_weight_never_overflows(dim, s):
    weight = geometry.stage_two_weight(s, dim)
    assert np.isfinite(weight).all()
    assert (weight >= 0).all()
    assert (weight[s < 0] == 0).all()
    if (s >= 0).any():
        assert weight.max() > 0
    if dim > 3:
        assert weight.max() == (1.0 if (s >= 0).any() else 0.0)


@pytest.mark.parametrize("dim", [2, 3, 4, 5, 33, 128])
def test_stage_two_weight_is_one_over_density(dim):
    s = np.array([0.0, 0.1, 0.35, 0.6, 0.85, -0.2])
    weight = geometry.stage_two_weight(s, dim)
    exact = 1 / geometry.density(s[:5], dim)
    assert weight[:5] / weight[:5].sum() == pytest.approx(exact / exact.sum(), rel=1e-9)
    assert weight[5] == 0


def test_stage_two_weight_by_hand():
    # d = 5: exponent 1; 1 - s^2 = 3/4 and 1/4, so the weights are 1/3 and 1
    assert geometry.stage_two_weight([0.5, np.sqrt(0.75)], 5) == pytest.approx(
        [float(Fraction(1, 3)), 1.0]
    )


@pytest.mark.parametrize("sharpness", [0.0, 0.1, 0.2, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("dim", [2, 3, 4, 33, 128])
def test_stage_two_weight_of_any_sharpness_is_a_power_of_the_density(dim, sharpness):
    s = np.array([-0.9, -0.2, 0.0, 0.1, 0.35, 0.6, 0.85])
    exact = geometry.density(np.maximum(s, 0.0), dim) ** -sharpness
    milder = geometry.stage_two_weight(s, dim, sharpness=sharpness, cut=False)
    assert milder / milder.sum() == pytest.approx(exact / exact.sum(), rel=1e-9)
    exact[:2] = 0
    cut = geometry.stage_two_weight(s, dim, sharpness=sharpness)
    assert cut / cut.sum() == pytest.approx(exact / exact.sum(), rel=1e-9)


def test_without_the_cut_every_allowed_candidate_has_weight():
    s, allowed = [-1.0, -0.5, 0.0], [True, False, True]
    assert geometry.stage_two_weight(s, 9, allowed, sharpness=0.2, cut=False).tolist() == [1, 0, 1]
    assert geometry.stage_two_weight(s, 9, allowed, sharpness=0.2).tolist() == [0, 0, 1]


@pytest.mark.parametrize("cut", [True, False])
def test_a_nan_weighs_as_much_as_0(cut):
    s, zero = [0.3, np.nan, 0.6], [0.3, 0.0, 0.6]
    for dim in (2, 3, 128):
        weight = geometry.stage_two_weight(s, dim, sharpness=0.2, cut=cut)
        assert np.array_equal(weight, geometry.stage_two_weight(zero, dim, sharpness=0.2, cut=cut))


@given(
    dim=st.integers(2, 4096),
    sharpness=st.floats(0, geometry.MOST_SHARPNESS),
    s=arrays(np.float32, st.integers(1, 20), elements=st.floats(-1, 1, width=32)),
)
def test_no_sharpness_overflows(dim, sharpness, s):
    weight = geometry.stage_two_weight(s, dim, sharpness=sharpness, cut=False)
    assert np.isfinite(weight).all()
    assert (weight >= 0).all()
    assert 0 < weight.max() <= (2.0**88 if dim == 2 else 1.0)


def test_excluded_candidates_do_not_set_the_scale():
    weight = geometry.stage_two_weight([1.0, 0.5, 0.1], 128, allowed=[False, True, True])
    assert weight[0] == 0
    assert weight[1] == 1


@pytest.mark.parametrize("dim", [2, 3, 20, 80, 128, 4096])
def test_released_overflow_is_where_float64_overflows(dim):
    threshold = geometry.released_overflow_gap(dim)
    power = -0.5 * (dim - 3)
    with np.errstate(over="ignore", divide="ignore"):
        for gap in (1e-8, 1e-5, 1e-3, 0.1, 0.5, 0.9):
            assert (gap < threshold) == np.isinf(np.float64(gap) ** power)
