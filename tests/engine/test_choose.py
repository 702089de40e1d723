"""The second stage's kernels against `nearfar.method.geometry`."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from conftest import plain, random_data
from nearfar.engine import Problem
from nearfar.engine.cpu.choose import (
    EXCLUDED,
    draw_weighted,
    log_row,
    make_weight_rule,
    sum_pieces,
    weigh,
)
from nearfar.engine.spec import make_spec
from nearfar.method.geometry import stage_two_weight
from nearfar.method.sampling import TwoStage

DATA = random_data(2, 3)


def weights(s, dim, **changes):
    spec = make_spec(Problem(DATA, plain(dim=dim, sampler=TwoStage(**changes))))
    scratch = np.empty((3, len(s)), np.float32)
    weigh(np.ascontiguousarray(s)[None], 0, len(s), make_weight_rule(spec), scratch)
    return scratch[0]


EDGE = np.array([1.0, -1.0, 0.0, -0.0, 1e-8, 0.9999999, 1.0000001], np.float32)


@given(
    dim=st.integers(2, 4096),
    s=arrays(np.float32, st.integers(1, 200), elements=st.floats(-1, 1, width=32)),
)
@example(dim=2, s=EDGE)
@example(dim=3, s=EDGE)
@example(dim=128, s=EDGE)
@example(dim=4096, s=EDGE)
def test_weights_are_those_of_the_formula(dim, s):
    found, expected = weights(s, dim), stage_two_weight(s, dim)
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert not found[s < 0].any()
    # the ratio of two gaps is rounded to float32 and then raised to the power (d-3)/2
    slack = 1e-6 * max(1.0, dim / 2)
    assert found == pytest.approx(expected, rel=slack, abs=1e-30)


@given(
    dim=st.integers(2, 4096),
    s=arrays(np.float32, st.integers(1, 200), elements=st.floats(-1, 1, width=32)),
    sharpness=st.floats(0, 8),
    towards=st.sampled_from(["positive", "user"]),
)
@example(dim=2, s=EDGE, sharpness=8.0, towards="user")
@example(dim=2, s=EDGE, sharpness=0.3, towards="positive")
@example(dim=4096, s=EDGE, sharpness=8.0, towards="user")
@example(dim=4096, s=EDGE, sharpness=7.99, towards="user")
def test_weights_of_any_sharpness_are_those_of_the_formula(dim, s, sharpness, towards):
    found = weights(s, dim, sharpness=sharpness, towards=towards)
    expected = stage_two_weight(s, dim, sharpness=sharpness, cut=towards == "positive")
    assert np.isfinite(found).all()
    assert np.isfinite(found.sum(dtype=np.float32))
    assert ((found > 0) == (s >= 0))[expected > 1e-30].all() or towards == "user"
    slack = 1e-6 * max(2.0, sharpness * dim / 2)
    assert found == pytest.approx(expected, rel=slack, abs=1e-30)


def test_a_candidate_that_the_user_has_has_no_weight():
    s = np.array([0.9, EXCLUDED, -0.9, 0.0], np.float32)
    assert weights(s, 20, towards="user", sharpness=0.2)[1] == 0
    for sharpness in (0.0, 0.2, 0.3, 1.0):
        found = weights(s, 20, towards="user", sharpness=sharpness)
        assert found[1] == 0
        assert found[0] == 1
        assert 0 < found[2] == found[3] <= 1


def test_logarithms_are_those_of_numpy():
    x = np.exp2(np.linspace(-22, 0, 200_001)).astype(np.float32)
    found = np.empty_like(x)
    log_row(x, len(x), found)
    expected = np.log(x.astype(np.float64))
    assert (np.abs(found - expected) <= 1e-7 * np.maximum(1.0, np.abs(expected))).all()
    assert found[-1] == 0


@given(
    weight=arrays(np.float32, st.integers(1, 300), elements=st.sampled_from([0.0, 0.5, 1.0])),
    u=st.floats(0, 1, exclude_max=True),
)
def test_a_draw_has_weight_and_its_place_in_the_sum(weight, u):
    pieces = np.empty(len(weight), np.float32)
    sum_pieces(weight, len(weight), pieces)
    found = draw_weighted(weight, len(weight), pieces, u)
    if not weight.any():
        assert found == -1
        return
    # sums of halves are exact, so the place is exactly that of the inverse distribution function
    cumulative = np.cumsum(weight.astype(np.float64))
    assert found == np.searchsorted(cumulative, u * cumulative[-1], side="right")
    assert weight[found] > 0
